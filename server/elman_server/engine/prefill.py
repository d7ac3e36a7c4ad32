"""Prefill: jobs that only read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from elman_server.domain.errors import EngineRestartedError

if TYPE_CHECKING:
    from elman_server.domain.events import FinishReason
    from elman_server.domain.state import SessionState
    from elman_server.engine import AnyEngine, JobStream
    from elman_server.engine.job import Job

log = structlog.get_logger(__name__)

TRIES: Final = 3
WAIT_SECONDS: Final = 60.0  # the longest that a session stays busy while its engine is down


class Reading(NamedTuple):
    """What a job that only reads returns: the state after it, and details and labels as in `Output`."""

    state: SessionState
    details: list[bytes]
    labels: list[bytes]


async def read(engine: AnyEngine, job: Job, *, ignore_limit: bool = False) -> Reading:
    """Run a job that only reads; with `ignore_limit` even if too many wait."""
    with engine.open(job, ignore_limit=ignore_limit) as stream:
        reading = await read_from(stream)
    assert isinstance(reading, Reading)  # nobody interrupts it
    return reading


async def read_from(stream: JobStream) -> Reading | FinishReason:
    """Return what a job that only reads returns, or why it was interrupted."""
    details: list[bytes] = []
    labels: list[bytes] = []
    while True:
        output = await stream.next()
        details += output.details
        labels += output.labels
        if output.state is not None:
            return Reading(output.state, details, labels)
        if output.finished is not None:
            return output.finished


async def read_patiently(engine: AnyEngine, job: Job) -> SessionState:
    """Run a job that only reads, again on a new engine if the first one dies; return the state after it."""
    for attempt in range(TRIES):
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await engine.wait_until_serving()
            return (await read(engine, job, ignore_limit=True)).state
        except (EngineRestartedError, TimeoutError):
            log.warning("turn_not_settled_yet", attempt=attempt)
    raise EngineRestartedError
