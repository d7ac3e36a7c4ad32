"""Errors in the dialect's shape: one table from the client's errors to HTTP."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from elman_client import ElmanError

_STATUSES: Final = {
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "OUT_OF_RANGE": HTTPStatus.BAD_REQUEST,
    "UNAUTHENTICATED": HTTPStatus.UNAUTHORIZED,
    "PERMISSION_DENIED": HTTPStatus.FORBIDDEN,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ALREADY_EXISTS": HTTPStatus.CONFLICT,
    "ABORTED": HTTPStatus.CONFLICT,
    "FAILED_PRECONDITION": HTTPStatus.CONFLICT,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "CANCELLED": HTTPStatus.SERVICE_UNAVAILABLE,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "DEADLINE_EXCEEDED": HTTPStatus.GATEWAY_TIMEOUT,
    "UNIMPLEMENTED": HTTPStatus.NOT_IMPLEMENTED,
}
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
# What the dialect has and a recurrent network of characters cannot do.
_REFUSED: Final = {
    "audio": "this server only writes text",
    "best_of": "send n, and choose yourself",
    "frequency_penalty": "use repetition_penalty, which the server applies itself",
    "function_call": "these models call no functions",
    "functions": "these models call no functions",
    "presence_penalty": "use repetition_penalty, which the server applies itself",
    "response_format": "these models only write plain text",
    "suffix": "a recurrent network reads in one direction and cannot fill a gap",
    "tool_choice": "these models call no tools",
    "tools": "these models call no tools",
}
_LOG: Final = logging.getLogger("elman_web")


class Failure(BaseModel):
    """What went wrong.

    `message` is one sentence. `type` is the dialect's class of errors. `param` is the field that is wrong, if one is.
    `code` is the server's own name for the case, such as SESSION_BUSY.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is an error."""

    error: Failure


def failure(error: ElmanError) -> tuple[int, Failure]:
    """Return the HTTP status of an error of the client, and what to say."""
    status = _STATUSES.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    field = error.field_violations[0].field if error.field_violations else None
    return status, Failure(
        message=error.message, type=_type(status), param=field or None, code=error.reason or error.code
    )


def answer(
    status: int, message: str, *, code: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return an error that arose here."""
    said = Failure(message=message, type=_type(status), param=param, code=code)
    return JSONResponse({"error": said.model_dump()}, status, headers)


async def on_client_error(_request: Request, error: Exception) -> JSONResponse:
    """Answer with what the server said."""
    assert isinstance(error, ElmanError)
    status, said = failure(error)
    headers = {"x-request-id": error.request_id} if error.request_id else {}
    if error.retry_after is not None or status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(max(1, round(error.retry_after or 1)))
    return JSONResponse({"error": said.model_dump()}, status, headers)


async def on_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    """Answer with the first field that is wrong."""
    assert isinstance(error, RequestValidationError)
    # Where several types are allowed, the one that was meant says most.
    found = error.errors()
    first = next((each for each in found if not each["type"].endswith("_type")), found[0])
    where = ".".join(_names(first["loc"], error.body))
    return answer(400, _sentence(where, first), code="INVALID_REQUEST", param=where or None)


async def on_http_error(_request: Request, error: Exception) -> JSONResponse:
    """Answer for addresses and methods that do not exist."""
    assert isinstance(error, HTTPException)
    return answer(error.status_code, str(error.detail), code="INVALID_REQUEST", headers=error.headers)


async def on_unexpected(request: Request, error: Exception) -> JSONResponse:
    """Answer with one fixed sentence; the cause goes to the log."""
    _LOG.error("unexpected error in %s %s", request.method, request.url.path, exc_info=error)
    return answer(500, "the web process failed; its log has the cause", code="INTERNAL")


def _names(location: Sequence[Any], body: Any) -> list[str]:
    """Return where a value is, without the branches of unions, which pydantic counts as places."""
    if location[:1] != ("body",):
        return [str(name) for name in location[1:]]
    names, value = [], body
    for step in location[1:]:
        try:
            value = value[step]
        except (LookupError, TypeError):
            if step != location[-1] or not isinstance(value, Mapping):
                continue
        names.append(str(step))
    return names


def _sentence(where: str, error: Mapping[str, Any]) -> str:
    kind, said = error["type"], str(error["msg"])
    if kind == "extra_forbidden":
        return f"{where} is not honoured: {_REFUSED.get(where, 'this server does not know the field; leave it out')}"
    if kind == "missing":
        return f"{where} is missing"
    if kind == "json_invalid":
        return f"the body is not JSON: {error.get('ctx', {}).get('error', said)}"
    said = said.removeprefix("Value error, ").removeprefix("Input ")
    return f"{where} {said}" if where else f"the body {said}"


def _type(status: int) -> str:
    return _TYPES.get(status, "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error")
