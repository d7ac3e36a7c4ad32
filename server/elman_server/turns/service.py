"""Turns: text in, characters out, on a session's state."""

from __future__ import annotations

import contextlib
import secrets
from contextlib import aclosing
from typing import TYPE_CHECKING

from elman_server.domain.errors import InvalidFieldError, SessionBusyError, TurnNotFoundError
from elman_server.domain.events import CharacterDetail, Chunk, Finished, FinishReason, Started
from elman_server.domain.requests import MAX_WINDOW, Target
from elman_server.engine.job import Job
from elman_server.engine.prefill import read
from elman_server.sessions.records import Parameters
from elman_server.sessions.repository import COMMIT_TRIES
from elman_server.sessions.service import SEED_BITS, check_position
from elman_server.sessions.transitions import Durability
from elman_server.turns.output import chunks, read_details
from elman_server.turns.planning import TELLS_LABELS, Plan, checked, job_of, parameters_of, started, text_ids
from elman_server.turns.resume import COMPLETE, Redelivery, find
from elman_server.turns.runner import Run, Writers, watched
from elman_server.turns.running_turn import RunningTurn
from elman_server.turns.scoring import score

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from elman_server.domain.requests import AppendRequest, GenerateRequest, ResumeRequest, ScoreRequest
    from elman_server.engine import AnyEngine
    from elman_server.models.registry import ModelInfo, Models
    from elman_server.sessions.leases import Lease
    from elman_server.sessions.records import Head
    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import SessionInfo
    from elman_server.turns.resume import EarlierTurn

    Event = Started | Chunk | Finished


class Turns:
    """Runs every turn of a server.

    Args:
        engines: by model name.
    """

    def __init__(
        self,
        sessions: Sessions,
        models: Models,
        engines: Mapping[str, AnyEngine],
        durability: Durability = Durability(),
    ) -> None:
        self._sessions = sessions
        self._models = models
        self._engines = engines
        self._durability = durability
        self._writers = Writers(sessions, durability)

    async def generate(
        self, request: GenerateRequest, begun: Callable[[Lease], None] | None = None
    ) -> AsyncGenerator[Event, None]:
        """Run one turn that draws characters; of a request that came before, tell its turn and go on with it.

        Args:
            request: what to do.
            begun: is given the lease, by which the turn can be ended.

        What was yielded counts as delivered. A turn that does not reach its end commits its prompt and what was
        delivered; if that is nothing, or the request asks for rollback, it is as if it had never been asked.
        """
        session_id = request.target.session
        if session_id is None and request.request_id:
            raise InvalidFieldError("request_id", "is known again on a session alone; leave it out, or name one")
        async with self._writers.lease(session_id, request.request_id) as run:
            if begun is not None:
                begun(run.lease)
            head, past = await self._taken(run, request.request_id, lambda past: past.check(request.digest()))
            if past is not None:
                events = self._again(run, past, past.prompt_end, request.time_left)
            else:
                events = self._run(run, await self._plan(run, request, head), request.time_left)
            async with aclosing(events):
                async for event in events:
                    yield event

    async def resume(self, request: ResumeRequest) -> AsyncGenerator[Event, None]:
        """Tell a turn again from a position on, and go on to the end that it would have had.

        A stream that still runs it ends with LeaseLostError.

        Raises:
            TurnNotFoundError: it kept nothing, or a rewind has cut it.
            PositionOutOfRangeError: the turn never came to that position.
        """

        def check(past: EarlierTurn) -> None:
            if past.parameters.sampling is None:
                raise InvalidFieldError("request_id", "is one of an Append; send that again instead")
            past.known(request.position)

        async with self._writers.lease(request.session, request.request_id) as run:
            _, past = await self._taken(run, request.request_id, check)
            if past is None:
                raise TurnNotFoundError(f"sessions/{request.session}")
            events = self._again(run, past, past.known(request.position), request.time_left)
            async with aclosing(events):
                async for event in events:
                    yield event

    async def append(self, request: AppendRequest) -> tuple[SessionInfo, tuple[CharacterDetail, ...]]:
        """Feed a text to a session; return the session after it and what was asked of each character.

        A request that came before is not fed again.
        """
        async with self._writers.lease(request.session, request.request_id) as run:
            head, past = await find(self._sessions, request.session, request.request_id)
            if past is not None:
                past.check(request.digest())
            if past and past.is_complete:
                model = self._sessions.model_of(past.head)
                ids = text_ids("text", request.text, model, request.unknown)
                details = await self._retelling(run, past).details(past.start, ids, request.detail)
                return self._sessions.info(request.session, past.head), details
            model = self._sessions.model_of(head)
            ids = text_ids("text", request.text, model, request.unknown)
            detail = checked(request.detail, ids, model)
            if detail and model.labels:
                raise InvalidFieldError("detail", f"is not to be had: {model.resource} {TELLS_LABELS}")
            run.turn = turn = self._turn(model, request.session, head)
            turn.plan(ids)
            parameters = Parameters(model.fingerprint, request.request_id, request.digest())
            await self._writers.open(run, parameters, "" if past else request.etag)
            job = Job(head.state, head.position, ids, detail=detail)
            reading = await read(self._engines[model.name], job)
            turn.progress.remember(0, reading.state)
            _, info = await self._writers.settle(run, FinishReason.MAX_CHARS)
            assert info is not None
            return info, read_details(job, reading, model)

    async def score(self, request: ScoreRequest) -> tuple[CharacterDetail, ...]:
        """Return how likely each character of a text is after a state, which stays as it is; or its labels."""
        head = (await self._sessions.load(request.target.session))[0] if request.target.session else None
        model = self._model(request.target, head)
        state, position = (head.state, head.position) if head else (model.initial, 0)
        return await score(self._engines[model.name], model, state, position, request)

    async def cancel(self, session_id: str) -> SessionInfo:
        """End the turn that runs on a session, if any; return the session at rest."""
        return await self._writers.cancel(session_id)

    async def drain(self, grace: float) -> None:
        """Refuse new turns; let those that run finish for `grace` seconds, then end and commit them."""
        await self._writers.drain(grace)

    # One turn

    async def _plan(self, run: Run, request: GenerateRequest, head: Head | None) -> Plan:
        """Check a request against its model; say what the engine shall do."""
        model = self._model(request.target, head)
        run.turn = turn = self._turn(model, request.target.session, head)
        seed = head.seed if head else secrets.randbits(SEED_BITS)
        parameters = parameters_of(request, model, turn, seed)
        job = await self._job(run, model, parameters, head.num_segments if head else 0)
        event = started(turn.start, turn.prompt_end, model, parameters)
        return Plan(model, job, parameters, (event,), request.etag)

    async def _job(self, run: Run, model: ModelInfo, parameters: Parameters, num_segments: int) -> Job:
        """Return what the engine has to do of a turn; the session has so many segments before that."""
        turn, sampling = run.turn, parameters.sampling
        recent: Sequence[int] = ()
        assert turn is not None
        assert sampling is not None
        if run.lease.session_id is not None and sampling.effective().repetition_penalty != 1:
            recent = await self._sessions.tail(run.lease.session_id, num_segments, MAX_WINDOW)
        return job_of(parameters, turn, model, recent)

    async def _run(self, run: Run, plan: Plan, time_left: float | None) -> AsyncGenerator[Event, None]:
        """Run a turn in the engine to its end."""
        turn, parameters, vocabulary = run.turn, plan.parameters, plan.model.vocabulary
        assert turn is not None
        before = await self._sessions.unfinished(run.lease.session_id, turn.start, turn.prompt_end, vocabulary)
        decoder = vocabulary.decoder(before)
        decoder.decode(plan.sampled)
        with self._engines[plan.model.name].open(plan.job) as stream, watched(stream, run.lease, time_left):
            if not turn.is_open:
                await self._writers.open(run, parameters, plan.etag)
            for event in plan.started:
                yield event
            run.keep = not parameters.rollback
            while True:
                output = await stream.next()
                for chunk in chunks(
                    output, turn, decoder, vocabulary, chunk_chars=parameters.chunk_chars, known=plan.known
                ):
                    yield chunk
                if output.finished is not None:
                    break
                stream.allow(len(output.ids))
                del output  # its ids weigh more than the rest of the turn, and the next may be long in coming
        if plan.known and output.finished in COMPLETE:
            check_position("position", plan.known, turn.prompt_end, turn.position)
        stop = parameters.stop_strings[output.stop] if output.stop >= 0 else ""
        yield await self._finished(run, output.finished, stop)

    async def _finished(self, run: Run, reason: FinishReason, stop_string: str = "") -> Finished:
        """Commit a turn, or let it be as if it had never been; return the last event."""
        turn = run.turn
        assert turn is not None
        num_sampled = turn.num_sampled
        if reason not in COMPLETE and not (run.keep and turn.has_news):
            turn.undo()
        position = turn.position
        state_digest, info = await self._writers.settle(run, reason, stop_string)
        return Finished(
            reason=reason,
            prompt_chars=turn.prompt_end - turn.start if position > turn.start else 0,
            generated_chars=num_sampled,
            position=position,
            state_digest=state_digest,
            etag=info.etag if info else "",
            stop_string=stop_string,
        )

    # A turn that was

    async def _taken(
        self, run: Run, request_id: bytes, check: Callable[[EarlierTurn], object]
    ) -> tuple[Head | None, EarlierTurn | None]:
        """Find a turn that came before, and take its place if it can go on: before anything of it is told.

        Another server may still have it, and write until its place is taken; then the turn is looked for again.
        `check` refuses the turn that was found. If none was, the session is at rest.
        """
        session_id = run.lease.session_id
        if session_id is None:
            return None, None
        for _ in range(COMMIT_TRIES):
            head, past = await find(self._sessions, session_id, request_id)
            if past is None:
                return head, None
            check(past)
            if not past.goes_on:
                return head, past
            run.turn = turn = self._turn(self._sessions.model_of(past.head), session_id, past.head)
            turn.go_on(past.start, past.prompt_end, past.opened)
            with contextlib.suppress(SessionBusyError):
                await self._writers.open(run, past.parameters, goes_on=past.opened is None)
                run.keep = not past.parameters.rollback
                return head, past
        raise SessionBusyError(f"sessions/{session_id}")

    async def _again(
        self, run: Run, past: EarlierTurn, known: int, time_left: float | None
    ) -> AsyncGenerator[Event, None]:
        """Tell what is durable of a turn from a position on, and go on with it if its place was taken."""
        model = self._sessions.model_of(past.head)
        async with aclosing(self._retelling(run, past).events(known)) as told:
            async for event in told:
                yield event
        if not past.goes_on:
            yield past.finished()
            return
        parameters = past.parameters
        job = await self._job(run, model, parameters, (past.opened or past.head).num_segments)
        if end := past.end_reached(job.stops):
            reason, stop = end
            yield await self._finished(run, reason, parameters.stop_strings[stop] if stop >= 0 else "")
            return
        plan = Plan(model, job, parameters, (), known=known, sampled=tuple(past.sampled))
        async with aclosing(self._run(run, plan, time_left)) as sampled:
            async for now in sampled:
                yield now

    def _retelling(self, run: Run, past: EarlierTurn) -> Redelivery:
        assert run.lease.session_id is not None
        return Redelivery(self._sessions, self._engines[past.head.model], run.lease.session_id, past)

    # What it stands on

    def _turn(self, model: ModelInfo, session_id: str | None, head: Head | None) -> RunningTurn:
        state = head.state if head else model.initial
        return RunningTurn(
            self._engines[model.name],
            self._sessions,
            session_id,
            head=head,
            state=state,
            durability=self._durability,
        )

    def _model(self, target: Target, head: Head | None) -> ModelInfo:
        if head is not None:
            return self._sessions.model_of(head)
        assert target.model is not None
        return self._models.get(target.model)
