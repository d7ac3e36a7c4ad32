"""Sessions that are made together: all of them or none, even if the caller leaves in the middle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from elman_server.domain.errors import NotThereError, ServerError
from elman_server.process.tasks import background

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import SessionInfo

log = structlog.get_logger(__name__)


async def all_or_none(
    sessions: Sessions, count: int, make: Callable[[int], Awaitable[SessionInfo]]
) -> list[SessionInfo]:
    """Make sessions one after another; if one cannot be made, or the call is cancelled, delete those that were made.

    Args:
        sessions: where they are made.
        count: how many.
        make: makes the one of that number.
    """
    begun: list[asyncio.Future[SessionInfo]] = []
    try:
        for number in range(count):
            begun.append(asyncio.ensure_future(make(number)))
            await asyncio.shield(begun[-1])  # what has begun runs to a known end
    except asyncio.CancelledError:
        background(_undo(sessions, begun), "delete the sessions of a cancelled call")
        raise
    except ServerError:
        await asyncio.shield(background(_undo(sessions, begun), "delete the sessions of a failed call"))
        raise
    return [made.result() for made in begun]


async def _undo(sessions: Sessions, begun: list[asyncio.Future[SessionInfo]]) -> None:
    for outcome in await asyncio.gather(*begun, return_exceptions=True):
        if isinstance(outcome, BaseException):
            continue
        try:
            await sessions.delete(outcome.name, etag="")
        except NotThereError:
            pass
        except ServerError as error:
            log.warning("session_not_deleted", session=outcome.name, error=str(error))
