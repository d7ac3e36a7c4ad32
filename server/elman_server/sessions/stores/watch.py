"""Whether the store can be reached, for health and the log."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

import structlog

from elman_server.domain.errors import CorruptRecordError, StoreUnavailableError
from elman_server.process.observe.counters import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from elman_server.sessions.stores.base import Store

PROBE_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


async def watch(store: Store, patience_seconds: float, report: Callable[[bool], None]) -> None:
    """Read a little from a store again and again; report whether that works, whenever it changes.

    Args:
        store: may be out of reach from the beginning.
        patience_seconds: how long a store that was reached before may be out of reach.
        report: is called with the answer, for the first time as soon as it is known.
    """
    clock = asyncio.get_running_loop().time
    is_reached: bool | None = None
    last_reached = -math.inf
    while True:
        error = await _probe(store)
        if error is None:
            last_reached = clock()
            if not is_reached:
                log.info("store_reached")
                report(True)
                is_reached = True
        elif is_reached is not False and clock() - last_reached >= patience_seconds:
            is_expected = isinstance(error, StoreUnavailableError)
            log.error("store_unreachable", error=_causes(error), exc_info=None if is_expected else error)
            report(False)
            is_reached = False
        await asyncio.sleep(PROBE_SECONDS)


async def _probe(store: Store) -> Exception | None:
    """Return why a store cannot be read."""
    try:
        await store.page("", 1)
        COUNTERS.num_sessions = await store.num_sessions()
    except CorruptRecordError:
        return None  # it answers
    except Exception as error:  # noqa: BLE001  a watch that dies would leave health as it was
        return error
    return None


def _causes(error: BaseException) -> str:
    return f"{error}: {error.__cause__}" if error.__cause__ else str(error)
