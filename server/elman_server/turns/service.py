"""Turns: text in, characters out, on a session's state.

A turn walks a straight line: parsed by the transport, planned (`planning`), run (`runner`, the engine), delivered
(`output`), committed (`running_turn`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import (
    DrainingError,
    FingerprintMismatchError,
    InvalidFieldError,
    ServerError,
    SessionBusyError,
    SessionFullError,
    StoreUnavailableError,
    TurnCancelledError,
    TurnNotFoundError,
)
from elman_server.domain.events import Event, Finished, FinishReason
from elman_server.domain.requests import MAX_WINDOW, Target
from elman_server.engine.job import Job
from elman_server.engine.prefill import read_from
from elman_server.process.observe.call import this_call
from elman_server.process.observe.counters import COUNTERS
from elman_server.process.observe.tracing import TRACING
from elman_server.sessions.records import Parameters
from elman_server.sessions.repository import COMMIT_TRIES, Loaded, etag_of
from elman_server.sessions.service import SEED_BITS, check_position
from elman_server.sessions.transitions import Durability
from elman_server.turns.cut import cut_turn
from elman_server.turns.output import TextDetails, chunks
from elman_server.turns.planning import (
    TELLS_LABELS,
    Plan,
    checked,
    job_of,
    parameters_of,
    started,
    symbols_at,
    text_ids,
)
from elman_server.turns.resume import COMPLETE, Redelivery, find, may_have
from elman_server.turns.runner import Run, TurnRunner, watched
from elman_server.turns.running_turn import RunningTurn, TurnStatus
from elman_server.turns.scoring import score

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence

    from elman_server.domain.events import CharacterDetail
    from elman_server.domain.requests import AppendRequest, GenerateRequest, ResumeRequest, ScoreRequest
    from elman_server.engine import AnyEngine, JobStream
    from elman_server.engine.job import Output
    from elman_server.models.registry import ModelInfo, Models
    from elman_server.sessions.leases import Lease
    from elman_server.sessions.records import Head
    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import SessionInfo
    from elman_server.turns.resume import EarlierTurn

MAX_STREAMS: Final = 20_000
MAX_SESSION_CHARS: Final = 10_000_000
MIN_CHARS_A_TURN: Final = 10  # on an average: its parameters are stored, too
STARTED_SECONDS: Final = 0.25  # Started waits for the first text this long, to go out in one message;
LAST_TEXT_SECONDS: Final = 0.05  # and the last text for the commit, to go out with Finished


class Turns:
    """Runs every turn of a server. What happens in a turn is yielded in tuples of events: each is one message.

    Args:
        engines: by the digest of their model.
        max_streams: the most turns that run at once.
        max_session_chars: the most characters of one session; it may have a tenth as many turns.
    """

    def __init__(
        self,
        sessions: Sessions,
        models: Models,
        engines: Mapping[str, AnyEngine],
        durability: Durability = Durability(),
        *,
        max_streams: int = MAX_STREAMS,
        max_session_chars: int = MAX_SESSION_CHARS,
    ) -> None:
        self._sessions = sessions
        self._models = models
        self._engines = engines
        self._durability = durability
        self._max_session_chars = max_session_chars
        self._runner = TurnRunner(sessions, durability, max_streams)

    async def generate(
        self, request: GenerateRequest, begun: Callable[[Lease], None] | None = None
    ) -> AsyncGenerator[tuple[Event, ...], None]:
        """Run one turn that samples characters; of a request that came before, deliver its turn and continue it.

        Args:
            request: what to do.
            begun: is given the lease, by which the turn can be ended.

        What was yielded counts as delivered. A turn that does not reach its end commits its prompt and what was
        delivered; if that is nothing, or the request asks for rollback, it is as if it had never been asked.
        """
        session_id = request.target.session
        this_call().begin_turn(session_id)
        if session_id is None and request.request_id:
            raise InvalidFieldError("request_id", "works on a session alone; leave it out, or name a session")
        async with self._runner.lease(session_id, request.request_id) as run:
            if begun is not None:
                begun(run.lease)
            # Another server may have changed the session since: nothing is refused because of it; the store is asked.
            for latest in (self._latest(session_id, request.request_id), None):
                try:
                    async with aclosing(await self._events(run, request, latest)) as events:
                        async for happened in events:
                            yield happened
                except ServerError as error:
                    is_planned = run.turn is None or run.turn.status is TurnStatus.PLANNED
                    if latest is None or not is_planned or isinstance(error, StoreUnavailableError):
                        raise
                    run.turn = None
                else:
                    return

    async def resume(self, request: ResumeRequest) -> AsyncGenerator[tuple[Event, ...], None]:
        """Deliver a turn again from a position on, and continue to the end that it would have had.

        A stream that still runs it ends with LeaseLostError.

        Raises:
            TurnNotFoundError: it kept nothing, or a rewind has cut it.
            PositionOutOfRangeError: the turn never came to that position.
        """

        def check(earlier: EarlierTurn) -> None:
            if earlier.parameters.sampling is None:
                raise InvalidFieldError("request_id", "is one of an Append; send that again instead")
            earlier.known(request.position)

        this_call().begin_turn(request.session)
        async with self._runner.lease(request.session, request.request_id) as run:
            _, earlier = await self._find(run, request.request_id, check)
            if earlier is None:
                raise TurnNotFoundError(f"sessions/{request.session}")
            events = self._again(run, earlier, earlier.known(request.position), request.time_left)
            async with aclosing(events):
                async for happened in events:
                    yield happened

    async def append(self, request: AppendRequest) -> tuple[SessionInfo, Iterable[CharacterDetail]]:
        """Feed a text to a session; return the session after it and what was asked of each character.

        A request that came before is not fed again.
        """
        this_call().begin_turn(request.session)
        async with self._runner.lease(request.session, request.request_id) as run:
            loaded, earlier = await find(self._sessions, request.session, request.request_id)
            head = loaded.head
            if earlier is not None:
                earlier.check(request.digest())
            if earlier and earlier.is_complete:
                model = self._sessions.model_of(earlier.head)
                ids = text_ids("text", request.text, model, request.unknown)
                details = await self._redelivery(run, earlier).details(earlier.start, ids, request.detail)
                return self._sessions.info(request.session, earlier.head), details
            model = self._sessions.model_of(head)
            ids = text_ids("text", request.text, model, request.unknown)
            detail = checked(request.detail, ids, model)
            if detail and model.labels:
                raise InvalidFieldError("detail", f"is not available: {model.resource} {TELLS_LABELS}")
            run.turn = turn = self._turn(model, request.session, loaded)
            turn.plan(ids)
            self._check_room(head, turn)
            symbols = symbols_at(head.position, model)
            parameters = Parameters(model.fingerprint, request.request_id, request.digest(), symbols=symbols)
            await self._runner.begin(run, parameters, "" if earlier else request.etag)
            job = Job(head.state, head.position, ids, detail=detail)
            with self._engines[model.digest].open(job) as stream, watched(stream, run.lease, None):
                reading = await read_from(stream)
            if isinstance(reading, FinishReason):
                raise DrainingError if reading is FinishReason.SERVER_DRAINING else TurnCancelledError
            turn.progress.remember(0, reading.state)
            after = await self._runner.settle(run, FinishReason.MAX_CHARS)
            assert after is not None
            _count(turn, FinishReason.MAX_CHARS)
            details = TextDetails(job, reading, model) if job.detail else ()
            return self._sessions.info(request.session, after), details

    async def score(self, request: ScoreRequest) -> Iterable[CharacterDetail]:
        """Return how likely each character of a text is after a state, which stays as it is; or its labels."""
        head = (await self._sessions.load(request.target.session))[0] if request.target.session else None
        model = self._model(request.target, head)
        state, position = (head.state, head.position) if head else (model.initial, 0)
        return await score(self._engines[model.digest], model, state, position, request)

    async def cancel(self, session_id: str, position: int | None = None, request_id: bytes = b"") -> SessionInfo:
        """End the turn that runs on a session, if any; return the idle session.

        Args:
            session_id: which.
            position: up to where the turn is kept, also if it has just finished; None: all that was delivered.
            request_id: of the turn; another turn continues. Empty: whichever runs, or is the last.

        Raises:
            PositionOutOfRangeError: the turn was not delivered up to that position, or another one followed it.
        """
        info = await self._runner.cancel(session_id, request_id)
        if position is None or position == info.position:
            return info
        return await cut_turn(self._sessions, self._engines, session_id, position, request_id)

    async def drain(self, grace: float) -> None:
        """Refuse new turns; let those that run finish for `grace` seconds, then end and commit them."""
        await self._runner.drain(grace)

    # One turn

    def _latest(self, session_id: str | None, request_id: bytes) -> Loaded | None:
        """Return a session as this server has committed it; None: it is unknown, or may have had the request."""
        loaded = self._sessions.latest(session_id) if session_id is not None else None
        return None if loaded is None or may_have(loaded.head, request_id) else loaded

    async def _events(
        self, run: Run, request: GenerateRequest, latest: Loaded | None
    ) -> AsyncGenerator[tuple[Event, ...], None]:
        """Return the events of a turn: of `latest`, or of the session as the store has it."""
        loaded, earlier = latest, None
        if loaded is None:
            loaded, earlier = await self._find(run, request.request_id, lambda turn: turn.check(request.digest()))
        if earlier is not None:
            return self._again(run, earlier, earlier.prompt_end, request.time_left)
        return self._run(run, await self._plan(run, request, loaded), request.time_left)

    async def _plan(self, run: Run, request: GenerateRequest, loaded: Loaded | None) -> Plan:
        """Check a request against its model; plan what the engine does."""
        head = loaded.head if loaded else None
        model = self._model(request.target, head)
        run.turn = turn = self._turn(model, request.target.session, loaded)
        seed = head.seed if head else secrets.randbits(SEED_BITS)
        parameters = parameters_of(request, model, turn, seed)
        if head is not None:
            self._check_room(head, turn)
        job = await self._job(run, model, parameters, head.num_segments if head else 0)
        event = started(turn.start, turn.prompt_end, model, parameters)
        return Plan(model, job, parameters, (event,), request.etag)

    async def _job(self, run: Run, model: ModelInfo, parameters: Parameters, num_segments: int) -> Job:
        """Return the engine's part of a turn; the session has `num_segments` before it."""
        turn, sampling = run.turn, parameters.sampling
        recent: Sequence[int] = ()
        assert turn is not None
        assert sampling is not None
        if run.lease.session_id is not None and sampling.effective().repetition_penalty != 1:
            recent = await self._sessions.tail(run.lease.session_id, num_segments, MAX_WINDOW)
        return job_of(parameters, turn, model, recent)

    async def _run(self, run: Run, plan: Plan, time_left: float | None) -> AsyncGenerator[tuple[Event, ...], None]:
        """Run a turn in the engine to its end."""
        turn, parameters, vocabulary = run.turn, plan.parameters, plan.model.vocabulary
        assert turn is not None
        before = await self._sessions.unfinished(run.lease.session_id, turn.start, turn.prompt_end, vocabulary)
        decoder = vocabulary.decoder(before)
        decoder.decode(plan.sampled)
        engine = self._engines[plan.model.digest]
        with TRACING.part("stream"), engine.open(plan.job) as stream, watched(stream, run.lease, time_left):
            if not turn.has_begun:
                await self._runner.begin(run, parameters, plan.etag)
            run.keep = not parameters.rollback
            opening: tuple[Event, ...] = plan.started
            with TRACING.part("engine first output"):
                output = await _first(stream, is_awaited=bool(opening))
            while output is None or output.finished is None:
                pieces = () if output is None else chunks(output, turn, decoder, plan)
                for chunk in pieces:
                    yield (*opening, chunk)
                    opening = ()
                if opening:
                    yield opening
                    opening = ()
                if output is not None and plan.is_windowed:
                    stream.allow(len(output.ids))
                del output, pieces  # its ids take more memory than the rest of the turn, and the next may come late
                output = await stream.next()
            end = turn.position + len(output.ids)
            for chunk in chunks(output, turn, decoder, plan):
                if turn.position < end:
                    yield (*opening, chunk)
                    opening = ()
                else:
                    opening = (*opening, chunk)  # goes out with the end of the turn
        if plan.known and output.finished in COMPLETE:
            check_position("position", plan.known, turn.prompt_end, turn.position)
        stop = parameters.stop_strings[output.stop] if output.stop >= 0 else ""
        async for happened in self._ended(run, output.finished, stop, opening):
            yield happened

    async def _ended(
        self, run: Run, reason: FinishReason, stop_string: str, last: tuple[Event, ...] = ()
    ) -> AsyncGenerator[tuple[Event, ...], None]:
        """Commit a turn, or let it be as if it had never been; yield its last events, `last` before Finished."""
        turn = run.turn
        assert turn is not None
        num_sampled = turn.num_sampled
        if reason not in COMPLETE and not (run.keep and turn.has_news):
            turn.undo()
        position = turn.position
        _count(turn, reason)
        if last and not turn.can_settle_at_once:
            await asyncio.wait({self._runner.settling(run, reason, stop_string)}, timeout=LAST_TEXT_SECONDS)
            if turn.status is not TurnStatus.OVER:  # the store is slow: the text need not wait for it
                yield last
                last = ()
        head = await self._runner.settle(run, reason, stop_string)
        finished = Finished(
            reason=reason,
            prompt_chars=turn.prompt_end - turn.start if position > turn.start else 0,
            generated_chars=num_sampled,
            position=position,
            state_digest=turn.state_digest,
            etag=etag_of(head) if head else "",
            stop_string=stop_string,
        )
        yield (*last, finished)

    def _check_room(self, head: Head, turn: RunningTurn) -> None:
        """Refuse a turn on a session that has as much as one may have."""
        most = self._max_session_chars
        if turn.prompt_end > most or head.turn_count * MIN_CHARS_A_TURN > most:
            raise SessionFullError(
                f"the session has {head.position} characters in {head.turn_count} turns; one has at most {most} in "
                f"{most // MIN_CHARS_A_TURN}; create another one"
            )

    # A turn that was asked for before

    async def _find(
        self, run: Run, request_id: bytes, check: Callable[[EarlierTurn], object]
    ) -> tuple[Loaded | None, EarlierTurn | None]:
        """Find a turn that came before, and take its place if it can continue: before anything of it is delivered.

        Another server may still have it, and write until its place is taken; then the turn is looked for again.
        `check` refuses the turn that was found. If none was, the session is idle.
        """
        session_id = run.lease.session_id
        if session_id is None:
            return None, None
        for _ in range(COMMIT_TRIES):
            loaded, earlier = await find(self._sessions, session_id, request_id)
            if earlier is None:
                return loaded, None
            check(earlier)
            COUNTERS.resumes["continued" if earlier.can_continue else "complete"] += 1
            if not earlier.can_continue:
                return loaded, earlier
            self._check_fingerprint(session_id, earlier)
            run.turn = turn = self._turn(self._sessions.model_of(earlier.head), session_id, loaded)
            turn.continue_from(earlier.start, earlier.prompt_end, earlier.opened)
            with contextlib.suppress(SessionBusyError):
                await self._runner.begin(run, earlier.parameters, is_continuation=earlier.opened is None, is_taken=True)
                run.keep = not earlier.parameters.rollback
                return loaded, earlier
        raise SessionBusyError(f"sessions/{session_id}")

    def _check_fingerprint(self, session_id: str, earlier: EarlierTurn) -> None:
        """Refuse to continue a turn of other arithmetic: its caller may know more of the text than is durable."""
        parameters, model = earlier.parameters, self._sessions.model_of(earlier.head)
        if parameters.fingerprint == model.fingerprint:
            return
        stops = [model.vocabulary.encode(stop, "stopping.stop_strings") for stop in parameters.stop_strings]
        if earlier.end_reached(stops) is None:  # else only its end is missing
            raise FingerprintMismatchError(f"sessions/{session_id}", parameters.fingerprint, model.fingerprint)

    async def _again(
        self, run: Run, earlier: EarlierTurn, known: int, time_left: float | None
    ) -> AsyncGenerator[tuple[Event, ...], None]:
        """Deliver what is durable of a turn from a position on, and continue it if its place was taken."""
        model = self._sessions.model_of(earlier.head)
        async with aclosing(self._redelivery(run, earlier).events(known)) as events:
            async for event in events:
                yield (event,)
        if not earlier.can_continue:
            yield (earlier.finished(),)
            return
        parameters = earlier.parameters
        job = await self._job(run, model, parameters, (earlier.opened or earlier.head).num_segments)
        if end := earlier.end_reached(job.stops):
            reason, stop = end
            async for happened in self._ended(run, reason, parameters.stop_strings[stop] if stop >= 0 else ""):
                yield happened
            return
        plan = Plan(model, job, parameters, (), known=known, sampled=tuple(earlier.sampled))
        async with aclosing(self._run(run, plan, time_left)) as sampled:
            async for now in sampled:
                yield now

    def _redelivery(self, run: Run, earlier: EarlierTurn) -> Redelivery:
        assert run.lease.session_id is not None
        return Redelivery(self._sessions, self._engines[earlier.head.model_digest], run.lease.session_id, earlier)

    # What it stands on

    def _turn(self, model: ModelInfo, session_id: str | None, loaded: Loaded | None) -> RunningTurn:
        this_call().model = model.name
        return RunningTurn(
            self._engines[model.digest],
            self._sessions,
            session_id,
            loaded=loaded,
            state=loaded.head.state if loaded else model.initial,
            durability=self._durability,
        )

    def _model(self, target: Target, head: Head | None) -> ModelInfo:
        if head is not None:
            return self._sessions.model_of(head)
        assert target.model is not None
        return self._models.get(target.model, target.version)


def _count(turn: RunningTurn, reason: FinishReason) -> None:
    """Count a turn that has ended."""
    call, num_read = this_call(), turn.prompt_end - turn.start if turn.position > turn.start else 0
    call.num_read += num_read
    COUNTERS.models[call.model].num_read += num_read
    COUNTERS.turn_ended(call, reason.value)


async def _first(stream: JobStream, *, is_awaited: bool) -> Output | None:
    """Return a job's first output; None if it is long in coming and the beginning of the turn is to go out before."""
    if not is_awaited:
        return await stream.next()
    hurry = asyncio.get_running_loop().call_later(STARTED_SECONDS, stream.hurry)
    try:
        return await stream.next_or_none()
    finally:
        hurry.cancel()
