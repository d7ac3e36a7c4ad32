"""A server without its transport: real engines, real turns, in this process's loop."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from elman_server.domain.events import CharacterDetail, Chunk, Event, Finished, Started
from elman_server.domain.requests import GenerateRequest, SamplingRequest, StoppingRequest, Target
from elman_server.engine import Configure, Engine
from elman_server.history.service import History
from elman_server.models.registry import Models
from elman_server.sessions.lifetimes import Lifetimes
from elman_server.sessions.service import Sessions
from elman_server.sessions.session import Expiration, SessionInfo
from elman_server.sessions.stores import MemoryStore, Store
from elman_server.turns.service import Turns

PLAIN = SamplingRequest(temperature=0.9, top_k=30, top_p=0.97, seed=11)


@dataclass
class Text:
    """What one turn gave."""

    started: Started | None = None
    chunks: list[Chunk] = field(default_factory=list)
    finished: Finished | None = None

    @property
    def text(self) -> str:
        """The chunks, joined."""
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def details(self) -> list[CharacterDetail]:
        """The details of all chunks, joined."""
        return [detail for chunk in self.chunks for detail in chunk.details]

    @property
    def end(self) -> Finished:
        """The last event."""
        assert self.finished is not None
        return self.finished


class House:
    """Engines for some artefacts, and sessions on them."""

    def __init__(
        self, paths: list[Path], *, num_threads: int = 1, max_batch: int = 128, store: Store | None = None
    ) -> None:
        self._paths, self._num_threads, self._max_batch = paths, num_threads, max_batch
        self.engines: dict[str, Engine] = {}
        self.models = Models()
        self.store = store or MemoryStore(10_000, 2**30)
        self.sessions = Sessions(self.store, self.models, Lifetimes(3600, 86400))
        self.turns = Turns(self.sessions, self.models, self.engines)
        self.history = History(self.sessions, self.models, self.engines, b"k" * 32)

    async def __aenter__(self) -> Self:
        infos = []
        for path in self._paths:
            engine = Engine(Configure(str(path), self._max_batch, self._num_threads, 0.002), 10_000)
            info = await engine.start()
            self.engines[info.digest] = engine
            infos.append(info)
        self.models.load(infos)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in self.engines.values():
            await engine.stop()

    async def session(self, model: str, **kwargs: int | None) -> SessionInfo:
        """Create a session of a model."""
        return await self.sessions.create(
            model=model,
            version=None,
            session_id="",
            seed=kwargs.get("seed"),
            expiration=Expiration(),
            labels={},
        )

    async def generate(
        self,
        target: Target,
        prompt: str = "",
        max_chars: int = 100,
        sampling: SamplingRequest = PLAIN,
        *,
        stop_after: int | None = None,
        **kwargs: object,
    ) -> Text:
        """Run a turn to its end, or close it after a number of chunks."""
        stopping = kwargs.pop("stopping", StoppingRequest(max_chars=max_chars))
        request = GenerateRequest(target, prompt, sampling, stopping, **kwargs)  # type: ignore[arg-type]
        return await collected(self.turns.generate(request), stop_after)

    async def at_rest(self, name: str) -> SessionInfo:
        """Return a session once no turn runs on it."""
        return await self.turns.cancel(name)


async def collected(turn: AsyncGenerator[tuple[Event, ...], None], stop_after: int | None = None) -> Text:
    """Read a turn to its end, or close it after the message that has the chunk of that number."""
    text = Text()
    async with contextlib.aclosing(turn) as messages:
        async for events in messages:
            for event in events:
                if isinstance(event, Started):
                    text.started = event
                elif isinstance(event, Finished):
                    text.finished = event
                else:
                    text.chunks.append(event)
            if len(text.chunks) == stop_after:
                break
    return text


@contextlib.asynccontextmanager
async def house_of(*paths: Path, num_threads: int = 1) -> AsyncIterator[House]:
    """Open a house for a test."""
    async with House(list(paths), num_threads=num_threads) as house:
        yield house
