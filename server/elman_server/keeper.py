"""The keeper: makes a long turn durable now and then, and renews its lease."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from elman_server.errors import LeaseLostError, NotThereError, ServerError
from elman_server.generation import FinishReason

if TYPE_CHECKING:
    from elman_server.commits import Durability
    from elman_server.lease import Lease
    from elman_server.turn import Turn

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 0.2


async def keep(turn: Turn, lease: Lease, durability: Durability) -> None:
    """Commit a turn's progress until it is over; end it if it is no longer its server's, or the store stays away."""
    clock = asyncio.get_running_loop().time
    is_well = clock()
    while await _is_due(turn, durability.commit_seconds):
        try:
            if await turn.save():
                lease.interrupt(FinishReason.CANCELLED)
            is_well = clock()
        except (LeaseLostError, NotThereError) as error:
            lease.interrupt(error)
            return
        except ServerError as error:
            log.warning("turn_not_durable_yet", session=lease.session_id, durable=turn.durable, error=str(error))
            if clock() - is_well >= durability.patience_seconds:
                lease.interrupt(error)
                return
            await asyncio.sleep(RETRY_SECONDS)


async def _is_due(turn: Turn, seconds: float) -> bool:
    """Wait until the turn has much to commit, or for so long; return False if it is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await turn.needs_commit.wait()
    turn.needs_commit.clear()
    return not turn.is_over
