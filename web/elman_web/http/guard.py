"""What a request must be before anything reads it: from an allowed host and site, not too large, not one too many."""

import asyncio
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elman_web.http.errors import answer
from elman_web.settings import Settings

_BODY_SECONDS: Final = 30.0
_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """The outermost layer.

    A page of another site cannot call the door, neither by itself (its Origin is not allowed) nor under a name that
    its owner points to this machine (its Host is not allowed).
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._num_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if refusal := self._refusal(scope):
            await refusal(scope, receive, send_headers)
        elif not str(scope["path"]).startswith("/v1/"):
            await self._app(scope, receive, send_headers)
        else:
            await self._run(scope, receive, send_headers)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._num_running >= self._settings.max_streams:
            message = f"{self._settings.max_streams} requests are running; try again in a moment"
            await answer(503, message, code="OVERLOADED", headers={"retry-after": "1"})(scope, receive, send)
            return
        self._num_running += 1
        try:
            body = await self._body(scope, receive)
            if isinstance(body, Response):
                await body(scope, receive, send)
            else:
                await self._app(scope, _replay(body, receive), send)
        finally:
            self._num_running -= 1

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts, host = self._settings.hosts, _hostname(headers.get("host", ""))
        if hosts and host not in hosts:
            message = f"host {host!r} is not allowed; start elman-web with --allowed-host to allow it"
            return answer(HTTPStatus.MISDIRECTED_REQUEST, message, code="HOST_NOT_ALLOWED")
        origin = headers.get("origin")
        if origin is None or origin in self._settings.cors_origins:
            return None
        # A proxy may speak TLS in front of us: the scheme is not compared.
        if origin.partition("://")[2].lower() == headers.get("host", "").lower():
            return None
        message = f"pages of {origin!r} may not call this door; --cors-origin allows a site"
        return answer(HTTPStatus.FORBIDDEN, message, code="ORIGIN_NOT_ALLOWED")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Response | None:
        """Return the body, an answer for one that is too large or slow, or None if the caller left."""
        limit = self._settings.max_body_bytes
        too_large = answer(413, f"the body is larger than {limit} bytes", code="BODY_TOO_LARGE")
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > limit:
            return too_large
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while (message := await receive())["type"] == "http.request":
                    body += message.get("body", b"")
                    if len(body) > limit:
                        return too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            return answer(408, f"the body did not arrive within {_BODY_SECONDS:.0f} s", code="BODY_TOO_SLOW")
        return None


def _replay(body: bytes | None, receive: Receive) -> Receive:
    """Return a receive that begins with a body that was read already."""
    waiting = [body] if body is not None else []

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        if body is None:
            return {"type": "http.disconnect"}
        return await receive()

    return replay


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return host
