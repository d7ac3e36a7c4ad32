"""Whether the store can be reached, for health and the log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from elman_server.domain.errors import CorruptRecordError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from elman_server.sessions.stores.base import Store

PROBE_SECONDS: Final = 2.0

log = structlog.get_logger(__name__)


async def watch(store: Store, patience_seconds: float, report: Callable[[bool], None]) -> None:
    """Ask a store for a little again and again; report whether it answers, whenever that changes.

    Args:
        store: it may be out of reach from the beginning.
        patience_seconds: a store that was there before may be away that long.
        report: is called with the answer, for the first time when that is known.
    """
    clock = asyncio.get_running_loop().time
    is_there: bool | None = None
    seen = -patience_seconds  # when it last answered
    while True:
        error = await _probe(store)
        if error is None:
            seen = clock()
        if error is None and is_there is not True:
            is_there = True
            log.info("store_reached")
            report(True)
        elif error is not None and is_there is not False and (is_there is None or clock() - seen >= patience_seconds):
            is_there = False
            log.error("store_unreachable", error=str(error))
            report(False)
        await asyncio.sleep(PROBE_SECONDS)


async def _probe(store: Store) -> StoreUnavailableError | None:
    try:
        await store.page("", 1)
    except StoreUnavailableError as error:
        return error
    except CorruptRecordError:
        pass  # it answers
    return None
