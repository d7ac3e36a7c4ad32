"""The fleet: the engines of all models, and which models these are; a folder of artefacts, looked at again when asked.

A new version loads while the old one serves. A removed file retires its model: sessions that are pinned
to it continue, new ones get another version, and its engines stop when no session is pinned to it any more.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import structlog

from elman_server.domain.errors import ArtefactError
from elman_server.domain.requests import Limits
from elman_server.engine.pool import EnginePool
from elman_server.engine.protocol import Configure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from elman_server.models.registry import ModelInfo, Models
    from elman_server.process.settings import Settings

log = structlog.get_logger(__name__)

_Stamp = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class _Served:
    """A model that is served.

    Attributes:
        path, stamp: of the file that it was loaded from, and what the file was then.
    """

    model: ModelInfo
    pool: EnginePool
    path: Path
    stamp: _Stamp


class Fleet:
    """Starts, reloads and stops the engines of all models.

    Args:
        settings: say where the artefacts are, and how they run.
        models: shows what is served.
        changed: is called when the status of an engine has changed.

    Attributes:
        engines: by the digest of the model.
    """

    def __init__(self, settings: Settings, models: Models, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._models = models
        self._changed = changed
        self.engines: dict[str, EnginePool] = {}
        self._served: list[_Served] = []
        self._starting: set[EnginePool] = set()
        self._lock = asyncio.Lock()  # one reload at a time

    @property
    def is_well(self) -> bool:
        """Whether every model that new sessions get has an engine that serves, or soon will."""
        return all(served.pool.is_well for served in self._served if not self._models.is_retired(served.model))

    @property
    def has_retired(self) -> bool:
        """Whether a model is kept for its sessions alone."""
        return any(self._models.is_retired(served.model) for served in self._served)

    def __iter__(self) -> Iterator[tuple[ModelInfo, EnginePool]]:
        """Iterate over what is served, retired models too."""
        return iter([(served.model, served.pool) for served in self._served])

    async def start(self) -> None:
        """Load every model.

        Raises:
            ArtefactError: one cannot be served.
        """
        async with self._lock:
            # Wait for all of them, even if one fails: the first error is the one that is reported.
            starting = [self._load(path) for path in artefacts(self._settings.models)]
            started = await asyncio.gather(*starting, return_exceptions=True)
            if errors := [outcome for outcome in started if isinstance(outcome, BaseException)]:
                raise errors[0]
            for served in started:
                assert isinstance(served, _Served)
                self._add(served)
            self._models.load([served.model for served in self._served])
            self._changed()

    async def reload(self) -> None:
        """Look at the artefacts again: load new ones, retire removed ones; what cannot be served is an error line."""
        async with self._lock:
            try:
                paths = artefacts(self._settings.models)
            except ArtefactError as error:
                log.error("models_not_reloaded", error=str(error))  # noqa: TRY400  expected: no traceback
                return
            refused: set[Path] = set()
            for path in paths:
                try:
                    await self._look_at(path)
                except (ArtefactError, OSError) as error:
                    refused.add(path)
                    log.error("model_refused", path=str(path), error=str(error))  # noqa: TRY400  expected: no traceback
            kept = {served.model.digest for served in self._served if served.path in refused or self._is_there(served)}
            self._models.retire_others(kept)
            self._changed()
            log.info("models_reloaded", serving=[model.resource for model in self._models.list()], refused=len(refused))

    async def unload(self, pinned: Collection[str]) -> None:
        """Stop the engines of retired models that no session is pinned to; `pinned` are digests."""
        async with self._lock:
            for served in list(self._served):
                model = served.model
                if self._models.is_retired(model) and model.digest not in pinned and not served.pool.num_streams:
                    self._served.remove(served)
                    del self.engines[model.digest]
                    self._models.remove(model)
                    await served.pool.stop()
                    log.info("model_unloaded", model=model.name, version=model.version, digest=model.digest[:12])

    async def stop(self) -> None:
        """End all processes."""
        await asyncio.gather(*(pool.stop() for pool in [*self._starting, *self.engines.values()]))

    async def _look_at(self, path: Path) -> None:
        """Load a file, unless it is what was loaded from it."""
        if any(served.path == path and served.stamp == _stamp(path) for served in self._served):
            return
        served = await self._load(path)
        known = self.engines.get(served.model.digest)
        if known is not None:  # it was moved, or only touched
            await self._drop(served.pool)
            self._served = [
                dataclasses.replace(old, path=path, stamp=served.stamp) if old.pool is known else old
                for old in self._served
            ]
            self._models.add(served.model)
            return
        try:
            self._add(served)
        except ArtefactError:
            await self._drop(served.pool)
            raise
        self._models.add(served.model)

    async def _load(self, path: Path) -> _Served:
        """Start the engines of a file."""
        settings, stamp = self._settings, _stamp(path)
        configure = Configure(
            path=str(path),
            capacity=settings.max_batch,
            num_threads=settings.engine_threads,
            flush_seconds=settings.flush_interval_ms / 1000,
            num_engines=settings.engines,
        )
        pool = EnginePool(configure, self.max_jobs // settings.engines, self._changed, settings.max_unread_chars)
        self._starting.add(pool)
        try:
            model = await pool.start()
        except ArtefactError:  # after which no process is left; a stop in this moment leaves some to `stop`
            self._starting.discard(pool)
            raise
        limits = Limits(settings.max_prompt_chars, settings.max_chars)
        return _Served(dataclasses.replace(model, limits=limits), pool, path, stamp)

    @property
    def max_jobs(self) -> int:
        """The most jobs of one model, running or waiting."""
        settings = self._settings
        return settings.engines * (settings.max_batch + -(-settings.max_waiting // settings.engines))

    def _add(self, served: _Served) -> None:
        """Serve a model; raises ArtefactError if another file of that name and version is served."""
        model = served.model
        for other in self._served:
            same = (other.model.name, other.model.version) == (model.name, model.version)
            if same and other.path != served.path and self._is_there(other):
                raise ArtefactError(
                    f"{served.path}: version {model.version} of a model named {model.name} is already served, from "
                    f"{other.path}; give it another --name or --version"
                )
        self._starting.discard(served.pool)
        self._served.append(served)
        self.engines[model.digest] = served.pool
        log.info("model_loaded", model=model.name, version=model.version, digest=model.digest[:12])

    async def _drop(self, pool: EnginePool) -> None:
        self._starting.discard(pool)
        await pool.stop()

    @staticmethod
    def _is_there(served: _Served) -> bool:
        """Whether a model's file is still what was loaded."""
        try:
            return _stamp(served.path) == served.stamp
        except OSError:
            return False


def artefacts(where: Path) -> list[Path]:
    """Return the files to serve: one that is named, or all of a directory.

    Raises:
        ArtefactError: there is none, or one is no file.
    """
    paths = sorted(where.glob("*.onnx")) if where.is_dir() else [where]
    if not paths:
        raise ArtefactError(f"{where} holds no *.onnx file; write one with `elman-export trace`")
    for path in paths:
        if not path.is_file():
            what = "is no regular file" if path.exists() else "does not exist"
            raise ArtefactError(f"{path} {what}; --models names an *.onnx file or a directory of some")
    return paths


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
