"""Turns: text in, characters out, on a session's memory."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

from elman_server.answers import chunks, read_details
from elman_server.errors import DrainingError, InvalidFieldError
from elman_server.generation import (
    CharacterDetail,
    Chunk,
    Detail,
    Finished,
    FinishReason,
    Job,
    Output,
    Started,
)
from elman_server.requests import MAX_TOP_N, Target, check_text, check_top_n
from elman_server.sessions import SEED_BITS
from elman_server.turn import Turn, read

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping

    from elman_server.engine import Engine, JobStream
    from elman_server.lease import Lease
    from elman_server.models import ModelInfo, Models
    from elman_server.requests import AppendRequest, GenerateRequest, ScoreRequest
    from elman_server.sampling import Sampling
    from elman_server.session import SessionInfo
    from elman_server.sessions import Sessions
    from elman_server.state import Memory
    from elman_server.vocabulary import Unknown

MAX_DETAILS: Final = 200_000  # candidates in one answer: about 4 MB
CANCEL_SECONDS: Final = 1.0  # after which a turn whose reader takes nothing is ended with its call
_COMPLETE: Final = frozenset({FinishReason.MAX_CHARS, FinishReason.STOP_STRING})  # the ends that were asked for
_TELLS_LABELS: Final = "tells labels instead of characters; call Score"
DEADLINE_MARGIN_SECONDS: Final = 0.1  # to commit and to say so before the call is cut off


@dataclasses.dataclass(slots=True)
class _Open:
    """A turn that has begun: what it runs on."""

    turn: Turn
    model: ModelInfo
    engine: Engine
    lease: Lease
    keep: bool = False  # whether to commit what was handed over, should the turn be cut off


class Turns:
    """Runs every turn of a server.

    Args:
        engines: by model name.
    """

    def __init__(self, sessions: Sessions, models: Models, engines: Mapping[str, Engine]) -> None:
        self._sessions = sessions
        self._models = models
        self._engines = engines
        self._leases: set[Lease] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_draining = False

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Started | Chunk | Finished, None]:
        """Run one turn that draws characters.

        What was yielded counts as handed over. A turn that does not reach its end commits its prompt and what was
        handed over; if that is nothing, or the request asks for rollback, it is as if it had never been asked.
        """
        async with self._begin(request.target, request.etag) as begun:
            job, started = await self._plan(request, begun)
            progress, vocabulary = begun.turn.progress, begun.model.vocabulary
            decoder = vocabulary.decoder()
            with begun.engine.open(job) as stream, _watched(stream, begun.lease, request.time_left):
                yield started
                begun.keep = not request.rollback
                async for output in _until_finished(stream):
                    for chunk in chunks(output, begun.turn, decoder, vocabulary, request.chunk_chars):
                        yield chunk
                    if output.ids:
                        stream.allow(len(output.ids))
            num_handed = len(progress.handed)
            if output.finished not in _COMPLETE and not (begun.keep and num_handed):
                begun.turn.undo()
            memory, info = await self._settle(begun)
            yield Finished(
                reason=output.finished or FinishReason.CANCELLED,
                prompt_chars=len(progress.prompt),
                generated_chars=num_handed,
                position=begun.turn.position,
                state_digest=memory.digest(),
                etag=info.etag if info else "",
                stop_string=request.stopping.stop_strings[output.stop] if output.stop >= 0 else "",
            )

    async def append(self, request: AppendRequest) -> tuple[SessionInfo, tuple[CharacterDetail, ...]]:
        """Feed a text to a session; return the session after it and what was asked of each character."""
        async with self._begin(Target(session=request.session), request.etag) as begun:
            turn = begun.turn
            ids = _text_ids("text", request.text, begun.model, request.unknown)
            if request.detail and begun.model.labels:
                raise InvalidFieldError("detail", f"is not to be had: {begun.model.resource} {_TELLS_LABELS}")
            job = Job(turn.progress.start, turn.position, ids, detail=_checked(request.detail, ids, begun.model))
            reading = await read(begun.engine, job)
            turn.progress.prompt = ids
            turn.progress.remember(0, reading.memory)
            _, info = await self._settle(begun)
            assert info is not None
            return info, read_details(job, reading, begun.model)

    async def score(self, request: ScoreRequest) -> tuple[CharacterDetail, ...]:
        """Return how likely each character of a text is after a memory, which stays as it is; or its labels."""
        model, memory, position, _ = await self._source(request.target)
        ids = _text_ids("text", request.text, model, request.unknown)
        labels = model.labels_of(request.read_out)
        if model.labels and request.top_n:
            raise InvalidFieldError("top_n", f"is not to be had: {model.resource} {_TELLS_LABELS}")
        detail = _checked(Detail(not model.labels, request.top_n), ids, model, num_labels=len(labels))
        job = Job(memory, position, ids, detail=detail, read_out=request.read_out if labels else None)
        return read_details(job, await read(self._engines[model.name], job), model)

    async def cancel(self, session_id: str) -> SessionInfo:
        """End the turn that runs on a session, if any; return the session at rest."""
        if lease := self._sessions.running(session_id):
            await _end(lease, FinishReason.CANCELLED)
        return await self._sessions.get(session_id)

    async def drain(self, grace: float) -> None:
        """Refuse new turns; let those that run finish for `grace` seconds, then end and commit them."""
        self._is_draining = True
        leases = list(self._leases)
        await _wait_for(leases, grace)
        await asyncio.gather(*(_end(lease, FinishReason.SERVER_DRAINING) for lease in leases))

    # One turn

    @asynccontextmanager
    async def _begin(self, target: Target, etag: str) -> AsyncIterator[_Open]:
        """Become the session's writer; in the end commit what is left to commit, and let go."""
        if self._is_draining:
            raise DrainingError
        lease = self._sessions.lease(target.session)
        self._leases.add(lease)
        lease.task = asyncio.current_task()
        begun = None
        try:
            model, memory, position, seed = await self._source(target, etag)
            engine = self._engines[model.name]
            turn = Turn(engine, self._sessions, target.session, memory=memory, position=position, seed=seed)
            begun = _Open(turn, model, engine, lease)
            yield begun
        finally:
            # The caller may be gone: what is left to do is done without it.
            if begun is not None and begun.turn.is_unsettled(keep=begun.keep):
                task = asyncio.create_task(self._give_up(begun))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._release(lease)

    async def _settle(self, begun: _Open) -> tuple[Memory, SessionInfo | None]:
        """Commit, whether or not the caller waits for it."""
        begun.turn.settling = asyncio.create_task(begun.turn.settle())
        settled = await asyncio.shield(begun.turn.settling)
        self._release(begun.lease)  # before the caller hears of it and sends the next turn
        return settled

    async def _give_up(self, begun: _Open) -> None:
        try:
            await begun.turn.give_up()
        finally:
            self._release(begun.lease)

    def _release(self, lease: Lease) -> None:
        self._leases.discard(lease)
        self._sessions.release(lease)

    async def _source(self, target: Target, etag: str = "") -> tuple[ModelInfo, Memory, int, int]:
        """Return the model, the memory, the position and the seed that a request starts from."""
        if target.session is None:
            assert target.model is not None
            model = self._models.get(target.model)
            return model, model.initial, 0, secrets.randbits(SEED_BITS)
        head, _ = await self._sessions.load(target.session, etag)
        return self._sessions.model_of(head), head.memory, head.position, head.seed

    async def _plan(self, request: GenerateRequest, begun: _Open) -> tuple[Job, Started]:
        """Check a request against its model; return the engine's job and the first event."""
        turn, model = begun.turn, begun.model
        position = turn.position
        if model.labels:
            raise InvalidFieldError("target", f"draws no text: {model.resource} {_TELLS_LABELS}")
        check_text("prompt", request.prompt, model.limits, empty=True)
        prompt = model.vocabulary.encode(request.prompt, "prompt", request.unknown)
        if not prompt and not position:
            raise InvalidFieldError("prompt", "is empty and nothing was read before; send at least one character")
        check_top_n("detail.top_n", request.detail.top_n, MAX_TOP_N)
        sampling = request.sampling.resolve(model.vocabulary, turn.seed)
        max_chars, stops = request.stopping.resolve(model.vocabulary, model.limits)
        turn.progress.prompt, turn.seed = prompt, sampling.seed
        job = Job(
            memory=turn.progress.start,
            position=position,
            prompt=prompt,
            max_chars=max_chars,
            sampling=sampling,
            recent=await self._recent(request.target, sampling),
            stops=stops,
            include_stop=request.stopping.include_stop,
            detail=request.detail,
        )
        return job, Started(
            sampling=request.sampling.effective(sampling),
            max_chars=max_chars,
            start_position=position,
            prompt_chars=len(prompt),
            model_digest=model.digest,
        )

    async def _recent(self, target: Target, sampling: Sampling) -> list[int]:
        """Return the end of the transcript, if the repetition penalty looks at it."""
        if target.session is None or sampling.repetition_penalty == 1:
            return []
        recent: list[int] = []
        segments = await self._sessions.segments(target.session)
        for segment in reversed(segments):
            recent = segment.ids[-sampling.repetition_window :] + recent
            if len(recent) >= sampling.repetition_window:
                break
        return recent[-sampling.repetition_window :]


@contextmanager
def _watched(stream: JobStream, lease: Lease, time_left: float | None) -> Iterator[None]:
    """Let Cancel, drain, deletion and the deadline end a job."""
    lease.watch(stream.interrupt)
    if time_left is None:
        yield
        return
    delay = max(0.0, time_left - min(DEADLINE_MARGIN_SECONDS, time_left / 2))
    timer = asyncio.get_running_loop().call_later(delay, stream.interrupt, FinishReason.DEADLINE)
    try:
        yield
    finally:
        timer.cancel()


async def _end(lease: Lease, reason: FinishReason) -> None:
    """End a turn and wait until it is settled; a reader that takes nothing does not hold it up for long."""
    lease.interrupt(reason)
    await _wait_for([lease], CANCEL_SECONDS)
    if not lease.done.is_set() and lease.task is not None:
        lease.task.cancel()
    await lease.done.wait()


async def _wait_for(leases: Iterable[Lease], seconds: float) -> None:
    waits = [asyncio.ensure_future(lease.done.wait()) for lease in leases]
    if waits:
        _, late = await asyncio.wait(waits, timeout=seconds)
        for wait in late:
            wait.cancel()


async def _until_finished(stream: JobStream) -> AsyncIterator[Output]:
    while True:
        output = await stream.next()
        yield output
        if output.finished is not None:
            return


def _text_ids(name: str, text: str, model: ModelInfo, unknown: Unknown) -> list[int]:
    check_text(name, text, model.limits, empty=False)
    ids = model.vocabulary.encode(text, name, unknown)
    if not ids:
        raise InvalidFieldError(name, "holds no character of the vocabulary; send at least one")
    return ids


def _checked(detail: Detail, ids: list[int], model: ModelInfo, *, num_labels: int = 0) -> Detail:
    check_top_n("top_n", detail.top_n, len(model.vocabulary))
    if (detail or num_labels) and len(ids) * (1 + detail.top_n + num_labels) > MAX_DETAILS:
        raise InvalidFieldError("text", f"asks for more than {MAX_DETAILS} candidates in one answer; send it in pieces")
    return detail
