"""Sessions that are made together: all of them or none, even if the caller leaves in the middle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from elman_server.domain.errors import NotThereError, ServerError
from elman_server.process.tasks import background

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import SessionInfo

log = structlog.get_logger(__name__)


async def all_or_none(
    sessions: Sessions, count: int, make: Callable[[int], Awaitable[SessionInfo]], *, is_repeatable: bool
) -> list[SessionInfo]:
    """Make sessions one after another; if one cannot be made, delete those that were made.

    Args:
        sessions: where they are made.
        count: how many.
        make: makes the one of that number.
        is_repeatable: whether the same call returns the same sessions again. If it is cancelled, all are then made
            nevertheless; else none, because no caller has their names.
    """
    is_wanted = True

    async def work() -> list[SessionInfo] | ServerError:
        made: list[SessionInfo] = []
        try:
            for number in range(count):
                if not is_wanted:
                    break
                made.append(await make(number))
        except ServerError as error:
            await _delete(sessions, made)
            return error
        if not is_wanted:
            await _delete(sessions, made)
        return made

    # In a task of its own: what has begun in the store runs to a known end.
    working = background(work(), "make sessions")
    try:
        outcome = await asyncio.shield(working)
    except asyncio.CancelledError:
        is_wanted = is_repeatable
        raise
    if isinstance(outcome, ServerError):
        raise outcome
    return outcome


async def _delete(sessions: Sessions, made: Iterable[SessionInfo]) -> None:
    for info in made:
        try:
            await sessions.delete(info.name, etag="")
        except NotThereError:
            pass
        except ServerError as error:
            log.warning("session_not_deleted", session=info.name, error=str(error))
