"""Builds responses: the domain's types into messages of `elman.v1`."""

from __future__ import annotations

import asyncio
import math
import uuid
from array import array
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from elman.v1 import generation_pb2 as generation_messages
from elman.v1 import model_pb2 as model_messages
from elman.v1 import sampling_pb2 as sampling_messages
from elman.v1 import session_pb2 as session_messages
from elman_server.domain.events import CharacterDetail, Chunk, Event, Finished, FinishReason, Started
from elman_server.domain.owner import id_of
from elman_server.domain.state import DEFAULT
from elman_server.sessions.session import SessionStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from elman_server.domain.events import EffectiveDistribution
    from elman_server.domain.requests import SamplingRequest
    from elman_server.history.replay import Replayed
    from elman_server.models.registry import Evaluation, ModelInfo
    from elman_server.sessions.session import CommittedTurn, SessionInfo, Transcript

_Response = TypeVar(
    "_Response",
    generation_messages.GenerateResponse,
    generation_messages.ResumeResponse,
    generation_messages.ChatResponse,
)

_MAX_UNKNOWN: Final = 100
_PIECE: Final = 64  # details that are converted together
_NUMBERS: Final = (
    "repetition_penalty", "repetition_window", "temperature", "top_k", "top_p", "min_p", "seed"
)  # fmt: skip

_FINISH_REASONS: Final = {
    FinishReason.MAX_CHARS: generation_messages.FINISH_REASON_MAX_CHARS,
    FinishReason.STOP_STRING: generation_messages.FINISH_REASON_STOP_STRING,
    FinishReason.CANCELLED: generation_messages.FINISH_REASON_CANCELLED,
    FinishReason.DEADLINE: generation_messages.FINISH_REASON_DEADLINE,
    FinishReason.SERVER_DRAINING: generation_messages.FINISH_REASON_SERVER_DRAINING,
}
_STATES: Final = {
    SessionStatus.ACTIVE: session_messages.Session.STATE_ACTIVE,
    SessionStatus.GENERATING: session_messages.Session.STATE_GENERATING,
    SessionStatus.EXPIRED: session_messages.Session.STATE_EXPIRED,
    SessionStatus.UNREADABLE: session_messages.Session.STATE_UNREADABLE,
}
_CELLS: Final = {
    "elman": model_messages.CELL_ELMAN,
    "gru": model_messages.CELL_GRU,
    "lstm": model_messages.CELL_LSTM,
    "other": model_messages.CELL_OTHER,
}


def from_session(info: SessionInfo) -> session_messages.Session:
    """Return a session's message."""
    return session_messages.Session(
        name=f"sessions/{id_of(info.name)}",
        model=info.model,
        model_digest=info.model_digest,
        state=_STATES[info.status],
        create_time=_from_moment(info.create_time),
        update_time=_from_moment(info.update_time),
        expire_time=_from_moment(info.expire_time),
        etag=info.etag,
        position=info.position,
        turn_count=info.turn_count,
        state_digest=info.state_digest,
        seed=info.seed,
        labels=info.labels,
        forked_from=_from_origin(info.forked_from),
        initial_state=info.initial_state,
        fingerprint=info.fingerprint,
    )


def from_transcript(transcript: Transcript) -> session_messages.GetTranscriptResponse:
    """Return a part of a transcript with its turns."""
    return session_messages.GetTranscriptResponse(
        text=transcript.text,
        start=transcript.start,
        end=transcript.end,
        turns=[_from_turn(turn) for turn in transcript.turns],
    )


def from_replayed(replayed: Replayed) -> session_messages.ReplaySessionResponse:
    """Return the result of running one turn again."""
    return session_messages.ReplaySessionResponse(
        turn=_from_turn(replayed.turn),
        difference_at=replayed.difference_at,
        is_state_equal=replayed.is_state_equal,
        is_fingerprint_equal=replayed.is_fingerprint_equal,
        end_position=replayed.end_position,
    )


def from_generated(events: Iterable[Event]) -> generation_messages.GenerateResponse:
    """Return one message of a Generate stream."""
    return _from_events(events, generation_messages.GenerateResponse())


def from_resumed(events: Iterable[Event]) -> generation_messages.ResumeResponse:
    """Return one message of a Resume stream."""
    return _from_events(events, generation_messages.ResumeResponse())


def from_chat(events: Iterable[Event]) -> generation_messages.ChatResponse:
    """Return one message of a Chat stream."""
    return _from_events(events, generation_messages.ChatResponse())


def _from_events(events: Iterable[Event], response: _Response) -> _Response:
    for event in events:
        match event:
            case Chunk():  # set in place: nearly all are
                chunk = response.chunk
                chunk.text, chunk.position = event.text, event.position
                chunk.committed_position = event.committed_position
                if event.details:
                    chunk.details.extend(from_details(event.details))
            case Started():
                _fill_started(response.started, event)
            case Finished():
                _fill_finished(response.finished, event)
    return response


def from_details(details: Iterable[CharacterDetail]) -> list[generation_messages.CharacterDetail]:
    """Return how likely characters were."""
    return [
        generation_messages.CharacterDetail(
            text=detail.text,
            log_probability=detail.log_probability,
            top=_from_top(detail.top),
            labels=[
                generation_messages.LabelProbability(label=label, log_probability=nats) for label, nats in detail.labels
            ],
            effective=None if detail.effective is None else _from_effective(detail.effective),
        )
        for detail in details
    ]


def _from_effective(found: EffectiveDistribution) -> generation_messages.EffectiveDistribution:
    return generation_messages.EffectiveDistribution(
        log_probability=found.log_probability,
        top=_from_top(found.top),
        kept_count=found.num_kept,
        uniform=found.uniform,
        below=found.below,
    )


def _from_top(top: Iterable[tuple[str, float]]) -> list[generation_messages.CharacterProbability]:
    return [generation_messages.CharacterProbability(text=text, log_probability=nats) for text, nats in top]


async def from_append(info: SessionInfo, details: Iterable[CharacterDetail]) -> bytes:
    """Return the encoded answer of Append; see `from_score`."""
    answer = bytearray(generation_messages.AppendResponse(session=from_session(info)).SerializeToString())
    for piece in _pieces(details):
        answer += generation_messages.AppendResponse(details=from_details(piece)).SerializeToString()
        await asyncio.sleep(0)
    return bytes(answer)


async def from_score(details: Iterable[CharacterDetail]) -> bytes:
    """Return the encoded answer of Score: the scores of a text and their sum.

    It is made in pieces, and other tasks run between: messages that follow one another are one message.
    """
    answer, scored = bytearray(), array("d")
    for piece in _pieces(details):
        answer += generation_messages.ScoreResponse(details=from_details(piece)).SerializeToString()
        scored.extend(detail.log_probability for detail in piece if detail.log_probability is not None)
        await asyncio.sleep(0)
    answer += generation_messages.ScoreResponse(
        log_probability=math.fsum(scored), scored_count=len(scored)
    ).SerializeToString()
    return bytes(answer)


def _pieces(details: Iterable[CharacterDetail]) -> Iterator[tuple[CharacterDetail, ...]]:
    each = iter(details)
    while piece := tuple(islice(each, _PIECE)):
        yield piece


def from_model(info: ModelInfo) -> model_messages.Model:
    """Return a model's message."""
    characters = info.vocabulary.characters
    return model_messages.Model(
        name=f"models/{info.name}",
        version=info.version,
        cell=_CELLS[info.cell],
        layer_count=info.num_layers,
        hidden_size=info.hidden_size,
        vocabulary=[ord(symbol) for symbol in characters or () if symbol not in info.vocabulary.specials],
        byte_level=characters is None,
        state_bytes=info.initial.num_bytes,
        digest=info.digest,
        parameter_count=info.num_parameters,
        evaluations=[_from_evaluation(evaluation) for evaluation in info.evaluations],
        limits=model_messages.Limits(
            max_prompt_chars=info.limits.max_prompt_chars,
            max_chars=info.limits.max_chars,
            max_stop_strings=info.limits.max_stop_strings,
            max_stop_string_chars=info.limits.max_stop_string_chars,
        ),
        fingerprint=info.fingerprint,
        labels=info.labels,
        read_outs=[
            model_messages.ReadOut(
                name=read_out.name,
                labels=read_out.labels,
                accuracy=read_out.accuracy,
                held_out_count=read_out.num_held_out,
            )
            for read_out in info.read_outs
        ],
        initial_states=[DEFAULT, *info.initial_states],
        specials=[model_messages.Special(name=name, id=id_) for name, id_ in info.vocabulary.specials.items()],
    )


def from_encoded(ids: Iterable[int], unknown: Sequence[tuple[str, int]]) -> model_messages.EncodeTextResponse:
    """Return the ids of a text and the first of its unknown characters."""
    return model_messages.EncodeTextResponse(
        ids=ids,
        unknown_characters=[
            model_messages.UnknownCharacter(character=character, index=index)
            for character, index in unknown[:_MAX_UNKNOWN]
        ],
    )


def _from_evaluation(evaluation: Evaluation) -> model_messages.Evaluation:
    return model_messages.Evaluation(
        corpus_sha256=evaluation.corpus_sha256,
        protocol=evaluation.protocol,
        nats_per_character=evaluation.nats_per_character,
        standard_error=evaluation.standard_error,
        character_count=evaluation.num_characters,
    )


def _fill_started(message: generation_messages.Started, event: Started) -> None:
    _fill_sampling(message.sampling, event.sampling)
    message.max_chars = event.max_chars
    message.start_position = event.start_position
    message.prompt_chars = event.prompt_chars
    message.model_digest = event.model_digest


def _fill_sampling(message: sampling_messages.Sampling, sampling: SamplingRequest) -> None:
    for character, bias in sampling.logit_bias:
        message.logit_bias.add(character=character, bias=bias)
    message.allowed_characters = sampling.allowed_characters
    message.banned_characters = sampling.banned_characters
    for name in _NUMBERS:
        if (value := getattr(sampling, name)) is not None:
            setattr(message, name, value)


def _from_turn(turn: CommittedTurn) -> session_messages.Turn:
    parameters = turn.parameters
    message = session_messages.Turn(
        start=turn.start,
        prompt_end=turn.prompt_end,
        end=turn.end,
        seed=turn.seed,
        request_id=str(uuid.UUID(bytes=parameters.request_id)) if parameters.request_id else "",
        fingerprint=parameters.fingerprint,
    )
    if parameters.sampling is not None:
        _fill_sampling(message.sampling, parameters.sampling.effective())
    return message


def _from_origin(origin: tuple[str, int] | None) -> session_messages.ForkedFrom | None:
    if origin is None:
        return None
    return session_messages.ForkedFrom(name=f"sessions/{origin[0]}", position=origin[1])


def _fill_finished(message: generation_messages.Finished, event: Finished) -> None:
    message.finish_reason = _FINISH_REASONS[event.reason]
    message.usage.prompt_chars = event.prompt_chars
    message.usage.generated_chars = event.generated_chars
    message.position = event.position
    message.etag = event.etag
    message.state_digest = event.state_digest
    message.stop_string = event.stop_string


def _from_moment(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromMicroseconds(round(seconds * 1e6))
    return moment
