"""A small domain that answers from state, so that the transport is tested alone."""
# ruff: noqa: D102  the methods are documented by what they stand for

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, TypeAlias

from elman_server.domain.events import CharacterDetail, Chunk, Finished, FinishReason, Started
from elman_server.domain.requests import (
    AppendRequest,
    Creation,
    GenerateRequest,
    Limits,
    ResumeRequest,
    SamplingRequest,
    ScoreRequest,
)
from elman_server.domain.state import SessionState
from elman_server.domain.vocabulary import Vocabulary
from elman_server.history.replay import Replayed
from elman_server.models.registry import Evaluation, ModelInfo, ReadOut
from elman_server.sessions.leases import Lease
from elman_server.sessions.records import Parameters
from elman_server.sessions.session import (
    CommittedTurn,
    Expiration,
    Filter,
    LabelChange,
    Page,
    SessionInfo,
    SessionStatus,
    Transcript,
)

Event: TypeAlias = Started | Chunk | Finished

SESSION = SessionInfo(
    name="some-session",
    model="models/tiny/versions/1",
    model_digest="ab" * 32,
    status=SessionStatus.ACTIVE,
    create_time=1_700_000_000.25,
    update_time=1_700_000_001.5,
    expire_time=1_700_003_601.5,
    etag="1f",
    position=7,
    turn_count=2,
    state_digest="cd" * 32,
    seed=2**64 - 1,
    labels={"team": "blue"},
    forked_from=("other-session", 3),
    initial_state="juliet",
)
MODEL = ModelInfo(
    name="tiny",
    version="1",
    cell="gru",
    num_layers=1,
    hidden_size=2,
    num_parameters=42,
    vocabulary=Vocabulary(("a", "b", "ß")),
    digest="ab" * 32,
    fingerprint="some-machine",
    initial=SessionState(tensors=(bytes(8),)),
    evaluations=(Evaluation("ef" * 32, "streaming", 1.5, 0.01, 1000),),
    limits=Limits(max_prompt_chars=1000, max_chars=50),
    initial_states={"juliet": SessionState(tensors=(bytes(8),))},
    labels=("yes", "no"),
    read_outs=(ReadOut("mood", ("bad", "good"), 0.75, 8),),
)
STARTED = Started(
    sampling=SamplingRequest(
        logit_bias=(("a", 1.5),),
        repetition_penalty=1.0,
        repetition_window=64,
        temperature=0.0,
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        seed=7,
    ),
    max_chars=50,
    start_position=7,
    prompt_chars=2,
    model_digest="ab" * 32,
)
DETAIL = CharacterDetail("a", -0.5, (("a", -0.5), ("b", -1.5)), (("bad", -2.0), ("good", -0.25)))
CHUNK = Chunk("a", 10, (DETAIL, CharacterDetail("b", None)), 8)
FINISHED = Finished(
    reason=FinishReason.STOP_STRING,
    prompt_chars=2,
    generated_chars=1,
    position=10,
    state_digest="cd" * 32,
    etag="20",
    stop_string="ab",
)
TURN = CommittedTurn(
    start=2,
    prompt_end=4,
    end=7,
    parameters=Parameters(
        "some-machine", request_id=bytes(15) + b"\xaf", sampling=SamplingRequest(temperature=0.5, seed=9)
    ),
)
TRANSCRIPT = Transcript(text="abab", start=3, end=7, turns=(TURN,))
REPLAYED = Replayed(TURN, None, is_state_equal=True, is_fingerprint_equal=True, end_position=7)


class FakeSessions:
    """Answers SESSION to everything, or raises `error`; `calls` are the arguments."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.error: Exception | None = None

    def _answer(self, *call: Any) -> SessionInfo:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        return SESSION

    async def create(
        self,
        *,
        model: str,
        version: str | None,
        session_id: str,
        seed: int | None,
        expiration: Expiration,
        labels: Mapping[str, str],
        initial_state: str,
        creation: Creation,
    ) -> SessionInfo:
        return self._answer(model, version, session_id, seed, expiration, labels, initial_state, creation.request_id)

    async def get(self, session_id: str) -> SessionInfo:
        return self._answer(session_id)

    async def list(self, *, page_size: int, page_token: str, filter: Filter) -> Page:  # noqa: A002  the API's word
        return Page((self._answer(page_size, page_token, filter),), "more")

    async def update(
        self, session_id: str, *, etag: str, labels: LabelChange | None, expiration: Expiration | None
    ) -> SessionInfo:
        return self._answer(session_id, etag, labels, expiration)

    async def delete(self, session_id: str, *, etag: str) -> None:
        self._answer(session_id, etag)

    async def delete_all(self, filter: Filter) -> int:  # noqa: A002  the API's word
        self._answer(filter)
        return 3

    async def transcript(self, session_id: str, start: int, end: int | None) -> Transcript:
        self._answer(session_id, start, end)
        return TRANSCRIPT


class FakeHistory:
    """Answers SESSION to everything; `calls` are the arguments."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def fork(self, session_id: str, *, position: int | None, count: int, creation: Creation) -> list[SessionInfo]:
        self.calls.append((session_id, position, count, creation.request_id))
        return [SESSION, SESSION]

    async def rewind(self, session_id: str, *, position: int, etag: str) -> SessionInfo:
        self.calls.append((session_id, position, etag))
        return SESSION

    async def export(self, session_id: str) -> bytes:
        self.calls.append(session_id)
        return b"s" * 65537

    async def restore(self, snapshot: bytes, session_id: str, creation: Creation) -> SessionInfo:
        self.calls.append((snapshot, session_id, creation.request_id))
        return SESSION

    async def replay(self, session_id: str) -> AsyncGenerator[Replayed, None]:
        self.calls.append(session_id)
        yield REPLAYED


class FakeTurns:
    """Streams `events`, then waits forever if `is_endless`, or raises `error`.

    Attributes:
        closed: set whenever a stream's generator has ended, however it did.
    """

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.events: list[Event] = [STARTED, CHUNK, FINISHED]
        self.error: Exception | None = None
        self.is_endless = False
        self.is_flooding = False
        self.num_open = 0
        self.closed = asyncio.Event()

    async def resume(self, request: ResumeRequest) -> AsyncGenerator[tuple[Event, ...], None]:
        async for event in self.generate(request):
            yield event

    async def generate(
        self, request: GenerateRequest | ResumeRequest, begun: Callable[[Lease], None] | None = None
    ) -> AsyncGenerator[tuple[Event, ...], None]:
        self.calls.append(request)
        if begun is not None:
            begun(Lease(None))
        self.num_open += 1
        try:
            for event in self.events:
                yield (event,)
            if self.error is not None:
                raise self.error
            while self.is_flooding:
                yield (Chunk("a" * 10_000, 10),)
            if self.is_endless:
                await asyncio.Event().wait()
        finally:
            self.num_open -= 1
            self.closed.set()

    async def append(self, request: AppendRequest) -> tuple[SessionInfo, tuple[CharacterDetail, ...]]:
        self.calls.append(request)
        return SESSION, (DETAIL,)

    async def score(self, request: ScoreRequest) -> tuple[CharacterDetail, ...]:
        self.calls.append(request)
        return CharacterDetail("a", None), DETAIL, DETAIL

    async def cancel(self, session_id: str, position: int | None, request_id: bytes) -> SessionInfo:
        self.calls.append((session_id, position, request_id))
        return SESSION
