"""The application: builds the object graph, serves, drains."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from typing import TYPE_CHECKING

import structlog

from elman_server.domain.errors import ArtefactError, SettingsError
from elman_server.domain.requests import Limits
from elman_server.engine import Configure, EnginePool
from elman_server.grpc.server import GrpcServer
from elman_server.history.service import History
from elman_server.models.registry import Models
from elman_server.process.signals import StopSignals
from elman_server.sessions.lifetimes import Lifetimes
from elman_server.sessions.service import Sessions
from elman_server.sessions.stores import open_store
from elman_server.sessions.transitions import Durability
from elman_server.turns.service import Turns

if TYPE_CHECKING:
    from pathlib import Path

    from elman_server.engine import AnyEngine
    from elman_server.models.registry import ModelInfo
    from elman_server.process.settings import Settings

log = structlog.get_logger(__name__)

MIN_KEY_BYTES = 32
STOP_SECONDS = 1.0  # for calls that are not turns, once all turns are settled


async def serve(settings: Settings) -> None:
    """Serve until the first SIGTERM or SIGINT, then drain.

    Raises:
        ServerError: it cannot start.
    """
    app = App(settings)
    with StopSignals() as stop:
        try:
            await app.start()
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
        lifetimes = Lifetimes(idle=settings.session_ttl, absolute=settings.session_max_age)
        self._store = open_store(settings)
        sessions = Sessions(self._store, self._models, lifetimes)
        durability = Durability(
            lease_seconds=settings.lease_seconds,
            commit_chars=settings.commit_chars,
            commit_seconds=settings.commit_seconds,
            patience_seconds=settings.store_patience_seconds,
        )
        self._turns = Turns(sessions, self._models, self._engines, durability)
        history = History(sessions, self._models, self._engines, _snapshot_key(settings))
        self.server = GrpcServer(settings, sessions, self._turns, self._models, history)

    async def start(self) -> None:
        """Listen, load every model, then serve."""
        await self.server.start()
        paths = sorted(self._settings.models.glob("*.onnx"))
        if not paths:
            raise ArtefactError(f"{self._settings.models} holds no *.onnx file; write one with `elman-export trace`")
        # All are waited for, whichever fails: `stop` can only end an engine that has come up.
        started = await asyncio.gather(*(self._start_engine(path) for path in paths), return_exceptions=True)
        if errors := [outcome for outcome in started if isinstance(outcome, BaseException)]:
            raise errors[0]
        self._models.load([model for model in started if not isinstance(model, BaseException)])
        await self.server.set_serving(True)

    async def drain(self) -> None:
        """Turn health, let load balancers see it, then let the turns finish."""
        await self.server.set_serving(False)
        await asyncio.sleep(self._settings.drain_delay_seconds)
        await self._turns.drain(self._settings.grace_seconds)

    async def stop(self) -> None:
        """Close the port, end the engines and close the store."""
        await self.server.stop(STOP_SECONDS)
        await asyncio.gather(*(engine.stop() for engine in self._engines.values()))
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
        engine = EnginePool(configure, settings.max_batch + -(-settings.max_waiting // settings.engines))
        model = await engine.start()
        if model.name in self._engines:
            await engine.stop()
            raise ArtefactError(f"{path}: a model named {model.name} is already served; give it another --name")
        self._engines[model.name] = engine
        log.info("model_loaded", model=model.name, version=model.version, digest=model.digest[:12])
        return dataclasses.replace(model, limits=Limits(settings.max_prompt_chars, settings.max_chars))


def _snapshot_key(settings: Settings) -> bytes:
    """Return the key that signs snapshots; one of the moment if none is set."""
    if settings.snapshot_key is None:
        return secrets.token_bytes(MIN_KEY_BYTES)
    try:
        key = settings.snapshot_key.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"cannot read {settings.snapshot_key}: {error.strerror}; --snapshot-key needs it"
        ) from error
    if len(key) < MIN_KEY_BYTES:
        raise SettingsError(
            f"{settings.snapshot_key} holds {len(key)} bytes; a --snapshot-key needs at least {MIN_KEY_BYTES}, as from "
            f"`head -c 32 /dev/urandom`"
        )
    return key
