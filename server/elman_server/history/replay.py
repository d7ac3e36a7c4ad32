"""Replay: runs a session's turns again, to show that the same text and the same state come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from elman_server.engine.job import Job
from elman_server.engine.prefill import read
from elman_server.sessions.session import turns_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from elman_server.domain.state import SessionState
    from elman_server.engine import AnyEngine
    from elman_server.models.registry import ModelInfo
    from elman_server.sessions.service import Sessions
    from elman_server.sessions.session import CommittedTurn

MAX_WINDOW: Final = 1024  # of the repetition penalty


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came out of one turn that was run again.

    Attributes:
        difference_at: the first position of another character; None: the text is equal.
        is_state_equal: whether the state after it is equal, or unknown.
        is_fingerprint_equal: whether the turn was run with the same arithmetic.
        end_position: of the session.
    """

    turn: CommittedTurn
    difference_at: int | None
    is_state_equal: bool
    is_fingerprint_equal: bool
    end_position: int


async def replay(
    sessions: Sessions, engines: Mapping[str, AnyEngine], session_id: str
) -> AsyncGenerator[Replayed, None]:
    """Run every turn of a session again from the beginning; end at the first difference."""
    head, segments = await sessions.read(session_id)
    model = sessions.model_of(head)
    ids = [character for segment in segments for character in segment.ids]
    state = model.start(head.initial_state)
    for turn in turns_of(segments):
        state, difference = await _rerun(engines[model.digest], model, turn, state, ids)
        if turn.end == head.position:
            expected = head.state.digest()
        else:
            expected = turn.outcome.state_digest.hex() if turn.outcome else state.digest()
        is_state_equal = state.digest() == expected
        fingerprint = turn.parameters.fingerprint
        yield Replayed(turn, difference, is_state_equal, fingerprint == model.fingerprint, head.position)
        if difference is not None or not is_state_equal:
            return


async def _rerun(
    engine: AnyEngine, model: ModelInfo, turn: CommittedTurn, state: SessionState, ids: list[int]
) -> tuple[SessionState, int | None]:
    """Run one turn again; return the state after it and where it differs from the transcript, if it does."""
    prompt = ids[turn.start : turn.prompt_end]
    sampled = ids[turn.prompt_end : turn.end]
    sampling = turn.parameters.sampling
    if not sampled or sampling is None:
        return (await read(engine, Job(state, turn.start, prompt))).state if prompt else state, None
    job = Job(
        state=state,
        position=turn.start,
        prompt=prompt,
        max_chars=len(sampled),
        sampling=sampling.resolve(model.vocabulary, 0),
        recent=ids[max(0, turn.start - MAX_WINDOW) : turn.start],
    )
    again: list[int] = []
    with engine.open(job) as stream:
        while True:
            output = await stream.next()
            state = output.state or state
            for at, character in enumerate(output.ids, len(again)):
                if character != sampled[at]:
                    return state, turn.prompt_end + at
            again += output.ids
            if output.finished is not None:
                return state, None
            stream.allow(len(output.ids))
