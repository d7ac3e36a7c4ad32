"""The application: builds the object graph, serves, drains."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Final

import structlog

from elman_server.domain.errors import ArtefactError
from elman_server.domain.requests import Limits
from elman_server.engine import Configure, EnginePool
from elman_server.grpc.access.door import open_door
from elman_server.grpc.access.guarded_sessions import GuardedSessions
from elman_server.grpc.access.guarded_turns import GuardedTurns
from elman_server.grpc.server import GrpcServer
from elman_server.history.key import snapshot_key
from elman_server.history.service import History
from elman_server.models.registry import Models
from elman_server.process.signals import StopSignals
from elman_server.process.tasks import background
from elman_server.sessions.lifetimes import Lifetimes
from elman_server.sessions.service import Sessions
from elman_server.sessions.stores import open_store
from elman_server.sessions.stores.watch import watch
from elman_server.sessions.transitions import Durability
from elman_server.turns.service import Turns

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from elman_server.engine import AnyEngine
    from elman_server.models.registry import ModelInfo
    from elman_server.process.settings import Settings

log = structlog.get_logger(__name__)

# A stop takes the drain delay and the grace, and then at most this long in all, of which
STOP_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 2.0  # is for turns that have to be ended and committed,
CALLS_SECONDS: Final = 1.0  # and this for calls that are not turns.


async def serve(settings: Settings) -> None:
    """Serve until the first SIGTERM or SIGINT, then drain.

    Raises:
        ServerError: it cannot start.
    """
    app = App(settings)
    with StopSignals(settings.drain_delay_seconds + settings.grace_seconds + STOP_SECONDS) as stop:
        try:
            if await _unless_stopped(app.start(), stop):
                await stop.wait()
                await app.drain()
        finally:
            await app.stop()


class App:
    """One server: its parts and their life."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models = Models()
        self._engines: dict[str, AnyEngine] = {}
        self._pools: list[EnginePool] = []
        idle, absolute = settings.lifetimes
        self._store = open_store(settings)
        self._store_watch: asyncio.Task[None] | None = None
        self._door_watch: asyncio.Task[None] | None = None
        self._door = door = open_door(settings)
        sessions = (GuardedSessions if door else Sessions)(
            self._store, self._models, Lifetimes(idle, absolute), lease_seconds=settings.lease_seconds
        )
        durability = Durability(
            lease_seconds=settings.lease_seconds,
            commit_chars=settings.commit_chars,
            commit_seconds=settings.commit_seconds,
            patience_seconds=settings.store_patience_seconds,
        )
        self._turns = (GuardedTurns if door else Turns)(
            sessions,
            self._models,
            self._engines,
            durability,
            max_streams=settings.max_streams,
            max_session_chars=settings.max_session_chars,
        )
        history = History(sessions, self._models, self._engines, snapshot_key(settings))
        self.server = GrpcServer(settings, sessions, self._turns, self._models, history, door=door)

    async def start(self) -> None:
        """Listen, load every model, then serve."""
        if self._settings.lacks:
            log.warning("insecure", listen=self._settings.listen, without=self._settings.lacks)
        await self.server.start()
        self._store_watch = background(
            watch(self._store, self._settings.store_patience_seconds, self.server.set_store), "watch the store"
        )
        if self._door is not None:
            self._door_watch = background(self._door.watch(), "watch the file of principals")
        # Wait for all of them, even if one fails: the first error is the one that is reported.
        starting = [self._start_engine(path) for path in _artefacts(self._settings.models)]
        started = await asyncio.gather(*starting, return_exceptions=True)
        if errors := [outcome for outcome in started if isinstance(outcome, BaseException)]:
            raise errors[0]
        self._models.load([model for model in started if not isinstance(model, BaseException)])
        self._engines_changed()
        await self.server.set_serving(True)

    async def drain(self) -> None:
        """Turn health, let load balancers see it, then let the turns finish."""
        await self.server.set_serving(False)
        await asyncio.sleep(self._settings.drain_delay_seconds)
        try:
            async with asyncio.timeout(self._settings.grace_seconds + SETTLE_SECONDS):
                await self._turns.drain(self._settings.grace_seconds)
        except TimeoutError:
            log.error("turns_not_settled")  # noqa: TRY400  expected: no traceback

    async def stop(self) -> None:
        """Close the port, end the engines and close the store."""
        await self.server.stop(CALLS_SECONDS)
        for watching in filter(None, (self._store_watch, self._door_watch)):
            watching.cancel()
        await asyncio.gather(*(pool.stop() for pool in self._pools))
        await self._store.close()

    async def _start_engine(self, path: Path) -> ModelInfo:
        settings = self._settings
        configure = Configure(
            path=str(path),
            capacity=settings.max_batch,
            num_threads=settings.engine_threads,
            flush_seconds=settings.flush_interval_ms / 1000,
            num_engines=settings.engines,
        )
        max_streams = settings.max_batch + -(-settings.max_waiting // settings.engines)
        pool = EnginePool(configure, max_streams, self._engines_changed, settings.max_unread_chars)
        self._pools.append(pool)
        model = await pool.start()
        if model.name in self._engines:
            raise ArtefactError(f"{path}: a model named {model.name} is already served; give it another --name")
        self._engines[model.name] = pool
        log.info("model_loaded", model=model.name, version=model.version, digest=model.digest[:12])
        return dataclasses.replace(model, limits=Limits(settings.max_prompt_chars, settings.max_chars))

    def _engines_changed(self) -> None:
        self.server.set_engines(all(pool.is_well for pool in self._pools))


def _artefacts(where: Path) -> list[Path]:
    """Return the files to serve: one that is named, or all of a directory."""
    paths = sorted(where.glob("*.onnx")) if where.is_dir() else [where]
    if not paths:
        raise ArtefactError(f"{where} holds no *.onnx file; write one with `elman-export trace`")
    for path in paths:
        if not path.is_file():
            what = "is no regular file" if path.exists() else "does not exist"
            raise ArtefactError(f"{path} {what}; --models names an *.onnx file or a directory of some")
    return paths


async def _unless_stopped(starting: Coroutine[None, None, None], stop: asyncio.Event) -> bool:
    """Start, unless a stop comes first; return whether it is done."""
    start, stopped = asyncio.create_task(starting), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([start, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    if start.done():
        start.result()
        return True
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    return False
