"""Several engine processes of one model: for machines with more cores than one engine uses.

A job carries its whole state, and a text does not depend on its neighbours: any engine can run any job.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from elman_server.domain.errors import ArtefactError, EngineRestartedError
from elman_server.engine.client import MAX_UNREAD, Engine, EngineStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from elman_server.engine.client import JobStream
    from elman_server.engine.job import Job
    from elman_server.engine.protocol import Configure
    from elman_server.models.registry import ModelInfo


class EnginePool:
    """Spreads the jobs of one model over its engines: the next goes to the one with the fewest.

    Args:
        configure: what each of them loads and how; it says how many there are.
        max_streams: the most jobs of one engine, running or waiting.
        changed: is called when the status of an engine has changed.
        max_unread: see Engine.
    """

    def __init__(
        self,
        configure: Configure,
        max_streams: int,
        changed: Callable[[], None] = lambda: None,
        max_unread: int = MAX_UNREAD,
    ) -> None:
        self._engines = [Engine(configure, max_streams, changed, max_unread) for _ in range(configure.num_engines)]

    @property
    def is_well(self) -> bool:
        """Whether jobs can be opened, or soon can be."""
        return any(engine.status is not EngineStatus.FAILED for engine in self._engines)

    @property
    def num_serving(self) -> int:
        """How many processes serve."""
        return sum(engine.status is EngineStatus.SERVING for engine in self._engines)

    @property
    def num_streams(self) -> int:
        """How many jobs run or wait."""
        return sum(engine.num_streams for engine in self._engines)

    async def start(self) -> ModelInfo:
        """Start all processes; return what they loaded.

        Raises:
            ArtefactError: the model cannot be honoured, or the file changed between two starts.
        """
        # Wait for all of them, even if one fails: its neighbours are then stopped in a known state.
        started = await asyncio.gather(*(engine.start() for engine in self._engines), return_exceptions=True)
        models = [model for model in started if not isinstance(model, BaseException)]
        errors = [error for error in started if isinstance(error, BaseException)]
        if not errors and len({(model.digest, model.fingerprint) for model in models}) > 1:
            errors.append(
                ArtefactError(
                    f"{models[0].name}: its engines loaded different files, or compute differently; start again"
                )
            )
        if errors:
            await self.stop()
            raise errors[0]
        return models[0]

    def open(self, job: Job, *, ignore_limit: bool = False) -> JobStream:
        """Begin a job on the engine that has the fewest; see Engine."""
        serving = [engine for engine in self._engines if engine.status is EngineStatus.SERVING]
        if not serving:
            raise EngineRestartedError
        return min(serving, key=lambda engine: engine.num_streams).open(job, ignore_limit=ignore_limit)

    async def wait_until_serving(self) -> None:
        """Return when jobs can be opened."""
        waits = [asyncio.ensure_future(engine.wait_until_serving()) for engine in self._engines]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self) -> None:
        """End all processes."""
        await asyncio.gather(*(engine.stop() for engine in self._engines))
