"""The watch of a store: what health and the log are given to know of it."""

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from elman_server.domain.errors import CorruptRecordError, StoreUnavailableError
from elman_server.sessions.stores import watch as module
from elman_server.sessions.stores.watch import watch

AWAY = StoreUnavailableError("the session store cannot be reached", 1.0)


class Script:
    """A store that answers as it is set, and then no more."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)
        self.end = asyncio.Event()

    async def page(self, _: str, __: int) -> list[Any]:
        """Give the next answer."""
        if not self._answers:
            self.end.set()
            await asyncio.Event().wait()
        answer = self._answers.pop(0)
        if answer is not None:
            raise answer
        return []

    async def num_sessions(self) -> int:
        """Count none."""
        return 0


async def watched(patience: float, *answers: Exception | None) -> tuple[list[bool], list[str]]:
    """Return what was reported of a store, and which errors were logged."""
    store, reports = Script(*answers), list[bool]()
    with capture_logs() as events:
        task = asyncio.create_task(watch(cast("Any", store), patience, reports.append))
        await store.end.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return reports, [event["event"] for event in events if event["log_level"] == "error"]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 0)


async def test_every_change_is_reported_once():
    """A store that goes and comes back is two changes, and one error in the log, however long it is away."""
    assert await watched(0, None, None, AWAY, AWAY, AWAY, None, None) == ([True, False, True], ["store_unreachable"])


async def test_a_store_that_is_away_at_the_start_is_reported_at_once():
    """Patience is for a store that was there before."""
    assert await watched(3600, AWAY, AWAY, None) == ([False, True], ["store_unreachable"])


async def test_a_short_absence_is_not_reported():
    """Within the patience health stays as it is."""
    assert await watched(3600, None, AWAY, AWAY, None) == ([True], [])


async def test_a_damaged_record_is_an_answer():
    """Data loss of one session is not the end of its store."""
    assert await watched(0, CorruptRecordError("a record is damaged")) == ([True], [])


async def test_an_unforeseen_error_is_an_absence():
    """Whatever else the store raises, the watch continues, and health does not report what is unknown."""
    assert await watched(0, None, ZeroDivisionError("unforeseen"), None) == ([True, False, True], ["store_unreachable"])
