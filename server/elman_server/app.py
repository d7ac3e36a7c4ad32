"""The application: builds the object graph, serves, drains."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from elman_server.domain.errors import StoreUnavailableError
from elman_server.engine import Fleet
from elman_server.grpc.access.door import open_door
from elman_server.grpc.access.guarded_history import GuardedHistory
from elman_server.grpc.access.guarded_inspection import GuardedInspection
from elman_server.grpc.access.guarded_sessions import GuardedSessions
from elman_server.grpc.access.guarded_turns import GuardedTurns
from elman_server.grpc.server import GrpcServer
from elman_server.history.inspection import Inspection
from elman_server.history.key import old_snapshot_key, snapshot_key
from elman_server.history.service import History
from elman_server.models.registry import Models
from elman_server.process.observe.collector import State, registry
from elman_server.process.observe.counters import COUNTERS
from elman_server.process.observe.endpoint import Endpoint
from elman_server.process.observe.tracing import TRACING
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

    from elman_server.process.settings import Settings

log = structlog.get_logger(__name__)

# A stop takes the drain delay and the grace, and then at most this long in all, of which
STOP_SECONDS: Final = 5.0
SETTLE_SECONDS: Final = 2.0  # is for turns that have to be ended and committed,
CALLS_SECONDS: Final = 1.0  # and this for calls that are not turns.
UNLOAD_SECONDS: Final = 60.0  # between two looks whether a retired model is still wanted


async def serve(settings: Settings) -> None:
    """Serve until the first SIGTERM or SIGINT, then drain.

    Raises:
        ServerError: it cannot start.
    """
    app = App(settings)
    with StopSignals(settings.drain_delay_seconds + settings.grace_seconds + STOP_SECONDS, app.reload) as stop:
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
        self._fleet = Fleet(settings, self._models, self._engines_changed)
        self._tasks: list[asyncio.Task[None]] = []
        idle, absolute = settings.lifetimes
        self._store = open_store(settings)
        self._door = door = open_door(settings)
        self._sessions = sessions = (GuardedSessions if door else Sessions)(
            self._store, self._models, Lifetimes(idle, absolute), lease_seconds=settings.lease_seconds
        )
        durability = Durability(
            lease_seconds=settings.lease_seconds,
            commit_chars=settings.commit_chars,
            commit_seconds=settings.commit_seconds,
            patience_seconds=settings.store_patience_seconds,
        )
        engines = self._fleet.engines
        self._turns = (GuardedTurns if door else Turns)(
            sessions,
            self._models,
            engines,
            durability,
            max_streams=settings.max_streams,
            max_session_chars=settings.max_session_chars,
        )
        history = (GuardedHistory if door else History)(
            sessions, self._models, engines, snapshot_key(settings), old_snapshot_key(settings)
        )
        inspection = None
        if settings.serves_inspection:
            inspection = (GuardedInspection if door else Inspection)(sessions, self._models, engines)
        self.server = GrpcServer(
            settings, sessions, self._turns, self._models, history, inspection=inspection, door=door
        )
        self._endpoint: Endpoint | None = None

    async def start(self) -> None:
        """Listen, load every model, then serve."""
        if self._settings.lacks:
            log.warning("insecure", listen=self._settings.listen, without=self._settings.lacks)
        if self._settings.open_telemetry:
            TRACING.start()
        if self._settings.metrics_listen is not None:
            shown = registry(self._state)
            self._endpoint = Endpoint(self._settings.metrics_listen, shown, lambda: self.server.is_ready)
            self._endpoint.start()
        await self.server.start()
        report = self.server.set_store
        self._tasks.append(
            background(watch(self._store, self._settings.store_patience_seconds, report), "watch the store")
        )
        if self._door is not None:
            self._tasks.append(background(self._door.watch(), "watch the file of principals"))
        await self._fleet.start()
        self._tasks.append(background(self._unload(), "unload models"))
        await self.server.set_serving(True)

    def reload(self) -> None:
        """Look at the artefacts again, in the background."""
        background(self._reload(), "reload models")

    async def _reload(self) -> None:
        await self._fleet.reload()
        await self._unload_once()

    async def _unload(self) -> None:
        while True:
            await asyncio.sleep(UNLOAD_SECONDS)
            await self._unload_once()

    async def _unload_once(self) -> None:
        if self._fleet.has_retired:
            with contextlib.suppress(StoreUnavailableError):  # a later look will do
                await self._fleet.unload(await self._sessions.pinned())

    async def drain(self) -> None:
        """Turn health, let load balancers see it, then let the turns finish."""
        log.info("drain_begins", streams=COUNTERS.num_streams, grace_seconds=self._settings.grace_seconds)
        await self.server.set_serving(False)
        await asyncio.sleep(self._settings.drain_delay_seconds)
        try:
            async with asyncio.timeout(self._settings.grace_seconds + SETTLE_SECONDS):
                await self._turns.drain(self._settings.grace_seconds)
        except TimeoutError:
            log.error("turns_not_settled")  # noqa: TRY400  expected: no traceback
        log.info("drain_ends", streams=COUNTERS.num_streams)

    async def stop(self) -> None:
        """Close the port, end the engines and close the store."""
        await self.server.stop(CALLS_SECONDS)
        for task in self._tasks:
            task.cancel()
        await self._fleet.stop()
        await self._store.close()
        if self._endpoint is not None:
            await self._endpoint.stop()
        if TRACING.is_on:
            await asyncio.to_thread(TRACING.stop)

    def _state(self) -> State:
        """Return what metrics show of this moment."""
        settings, models = self._settings, tuple(self._models.list()) if self.server.is_ready else ()
        pools = {(model.name, model.version): pool for model, pool in self._fleet}
        return State(
            models=models,
            engines={name: pool.num_serving for name, pool in pools.items()},
            jobs={name: pool.num_streams for name, pool in pools.items()},
            max_jobs=dict.fromkeys(pools, self._fleet.max_jobs),
            num_streams=COUNTERS.num_streams,
            max_streams=settings.max_streams,
            num_sessions=COUNTERS.num_sessions,
            store=settings.store.partition(":")[0],
            is_ready=self.server.is_ready,
            quotas=self._door.usage() if self._door else None,
        )

    def _engines_changed(self) -> None:
        self.server.set_engines(self._fleet.is_well)


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
