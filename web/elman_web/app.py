"""Builds the process: the page, the door, and what stands before both."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from elman_client import ElmanError, PermissionDeniedError, UnauthenticatedError
from elman_web.clients import Clients
from elman_web.dialect import chat, completions, models
from elman_web.http import errors
from elman_web.http.guard import Guard
from elman_web.rest import inspection, sessions, texts
from elman_web.settings import Settings

_PAGE: Final = Path(__file__).parent / "page"
_HEALTH_SECONDS: Final = 2.0
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"model": errors.ErrorAnswer, "description": "The request is wrong, or cannot be carried out now."},
    "5XX": {"model": errors.ErrorAnswer, "description": "The server is busy, lost, or failed."},
}


def build(settings: Settings) -> ASGIApp:
    """Return the application; raises InvalidArgumentError or OSError where no client can be made of the settings."""
    clients = Clients(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await clients.aclose()

    app = FastAPI(
        title="Elman's HTTP door",
        version=version("elman"),
        description="Recurrent text models in OpenAI's dialect, and their sessions. Tokens are characters.",
        lifespan=lifespan,
        docs_url=None,  # both load scripts from another host
        redoc_url=None,
        exception_handlers={
            ElmanError: errors.on_client_error,
            RequestValidationError: errors.on_invalid_request,
            HTTPException: errors.on_http_error,
            Exception: errors.on_unexpected,
        },
    )
    app.state.settings, app.state.clients = settings, clients
    for part in (completions, chat, models, sessions, texts, inspection):
        app.include_router(part.router, prefix="/v1", responses=_ERRORS)
    app.add_api_route("/healthz", _health, methods=["GET"], include_in_schema=False)
    app.mount("/", StaticFiles(directory=_PAGE, html=True))
    guarded: ASGIApp = Guard(app, settings)
    if settings.cors_origins:
        guarded = CORSMiddleware(
            guarded, settings.cors_origins, allow_methods=["*"], allow_headers=["*"], expose_headers=["x-elman-session"]
        )
    return guarded


async def _health(request: Request) -> JSONResponse:
    """Answer 200 if the server behind is ready."""
    async with request.app.state.clients.of("") as client:
        try:
            is_serving = await client.is_serving(timeout=_HEALTH_SECONDS)
        except (UnauthenticatedError, PermissionDeniedError):  # it answers
            is_serving = True
    status = HTTPStatus.OK if is_serving else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({"server": "serving" if is_serving else "not serving"}, status)
