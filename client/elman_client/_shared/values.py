"""Protobuf messages into the client's own values: all conversions of answers but those of `inspected`."""

from collections.abc import Iterable
from datetime import UTC
from enum import StrEnum
from typing import Any, TypeVar

from elman.v1 import generation_pb2, model_pb2, session_pb2
from elman_client import _types as types

_Member = TypeVar("_Member", bound=StrEnum)


def model(message: model_pb2.Model) -> types.Model:
    """Convert a model."""
    return types.Model(
        name=message.name,
        version=message.version,
        cell=member(types.Cell, model_pb2.Cell, "CELL_", message.cell),
        num_layers=message.layer_count,
        hidden_size=message.hidden_size,
        vocabulary="".join(map(chr, message.vocabulary)),
        byte_level=message.byte_level,
        state_bytes=message.state_bytes,
        digest=message.digest,
        num_parameters=message.parameter_count,
        evaluations=tuple(map(_evaluation, message.evaluations)),
        limits=types.Limits(
            max_prompt_chars=message.limits.max_prompt_chars,
            max_chars=message.limits.max_chars,
            max_stop_strings=message.limits.max_stop_strings,
            max_stop_string_chars=message.limits.max_stop_string_chars,
        ),
        fingerprint=message.fingerprint,
        labels=tuple(message.labels),
        read_outs=tuple(
            types.ReadOut(r.name, tuple(r.labels), r.accuracy, r.held_out_count) for r in message.read_outs
        ),
        initial_states=tuple(message.initial_states),
        specials=tuple((special.name, special.id) for special in message.specials),
    )


def encoding(message: model_pb2.EncodeTextResponse) -> types.Encoding:
    """Convert a text's ids."""
    unknown = (types.UnknownCharacter(u.character, u.index) for u in message.unknown_characters)
    return types.Encoding(ids=tuple(message.ids), unknown_characters=tuple(unknown))


def session_info(message: session_pb2.Session) -> types.SessionInfo:
    """Convert a session."""
    return types.SessionInfo(
        name=message.name,
        model=message.model,
        model_digest=message.model_digest,
        state=member(types.SessionState, session_pb2.Session.State, "STATE_", message.state),
        create_time=message.create_time.ToDatetime(UTC),
        update_time=message.update_time.ToDatetime(UTC),
        expire_time=message.expire_time.ToDatetime(UTC),
        etag=message.etag,
        position=message.position,
        turn_count=message.turn_count,
        state_digest=message.state_digest,
        seed=message.seed,
        labels=dict(message.labels),
        forked_from=_origin(message),
        initial_state=message.initial_state,
        fingerprint=message.fingerprint,
    )


def transcript(message: session_pb2.GetTranscriptResponse) -> types.Transcript:
    """Convert a transcript."""
    return types.Transcript(message.text, message.start, message.end, tuple(map(_turn, message.turns)))


def replayed(message: session_pb2.ReplaySessionResponse) -> types.ReplayedTurn:
    """Convert what rerunning a turn gave."""
    return types.ReplayedTurn(
        turn=_turn(message.turn),
        difference_at=message.difference_at if message.HasField("difference_at") else None,
        is_state_equal=message.is_state_equal,
        is_fingerprint_equal=message.is_fingerprint_equal,
        end_position=message.end_position,
    )


def events(
    message: generation_pb2.GenerateResponse | generation_pb2.ResumeResponse | generation_pb2.ChatResponse,
) -> tuple[types.Event, ...]:
    """Convert the events of a turn that one message has, in their order; none if this client knows none of them."""
    found: list[types.Event] = []
    if message.HasField("started"):
        found.append(_started(message.started))
    if message.HasField("chunk"):
        found.append(_chunk(message.chunk))
    if message.HasField("finished"):
        found.append(_finished(message.finished))
    return tuple(found)


def appended(message: generation_pb2.AppendResponse) -> types.Appended:
    """Convert the answer of Append."""
    return types.Appended(session_info(message.session), _details(message.details))


def score(message: generation_pb2.ScoreResponse) -> types.Score:
    """Convert the answer of Score."""
    return types.Score(_details(message.details), message.log_probability, message.scored_count)


def _turn(message: session_pb2.Turn) -> types.TranscriptTurn:
    return types.TranscriptTurn(
        start=message.start,
        prompt_end=message.prompt_end,
        end=message.end,
        seed=message.seed,
        request_id=message.request_id,
        sampling=_sampling(message.sampling) if message.HasField("sampling") else None,
        fingerprint=message.fingerprint,
    )


def _origin(message: session_pb2.Session) -> types.ForkedFrom | None:
    if not message.HasField("forked_from"):
        return None
    return types.ForkedFrom(message.forked_from.name, message.forked_from.position)


def _evaluation(message: model_pb2.Evaluation) -> types.Evaluation:
    return types.Evaluation(
        corpus_sha256=message.corpus_sha256,
        protocol=message.protocol,
        nats_per_character=message.nats_per_character,
        standard_error=message.standard_error,
        num_characters=message.character_count,
    )


def _started(message: generation_pb2.Started) -> types.Started:
    return types.Started(
        sampling=_sampling(message.sampling),
        max_chars=message.max_chars,
        start_position=message.start_position,
        prompt_chars=message.prompt_chars,
        model_digest=message.model_digest,
    )


def _chunk(message: generation_pb2.Chunk) -> types.Chunk:
    return types.Chunk(message.text, message.position, _details(message.details), message.committed_position)


def _sampling(message: Any) -> types.Sampling:
    optional = ("repetition_penalty", "repetition_window", "temperature", "top_k", "top_p", "min_p")
    given = {f: getattr(message, f) if message.HasField(f) else None for f in optional}
    return types.Sampling(
        logit_bias={b.character: b.bias for b in message.logit_bias},
        allowed_characters=message.allowed_characters,
        banned_characters=message.banned_characters,
        seed=message.seed,
        **given,
    )


def _finished(message: generation_pb2.Finished) -> types.Finished:
    return types.Finished(
        finish_reason=member(
            types.FinishReason,
            generation_pb2.FinishReason,
            "FINISH_REASON_",
            message.finish_reason,
        ),
        usage=types.Usage(message.usage.prompt_chars, message.usage.generated_chars),
        position=message.position,
        etag=message.etag,
        state_digest=message.state_digest,
        stop_string=message.stop_string,
    )


def _details(
    messages: Iterable[generation_pb2.CharacterDetail],
) -> tuple[types.CharacterDetail, ...]:
    return tuple(
        types.CharacterDetail(
            text=m.text,
            log_probability=m.log_probability if m.HasField("log_probability") else None,
            top=tuple(types.CharacterProbability(p.text, p.log_probability) for p in m.top),
            labels=tuple(types.LabelProbability(p.label, p.log_probability) for p in m.labels),
            effective=_effective(m.effective) if m.HasField("effective") else None,
        )
        for m in messages
    )


def _effective(message: generation_pb2.EffectiveDistribution) -> types.EffectiveDistribution:
    return types.EffectiveDistribution(
        log_probability=message.log_probability,
        top=tuple(types.CharacterProbability(p.text, p.log_probability) for p in message.top),
        num_kept=message.kept_count,
        uniform=message.uniform,
        below=message.below,
    )


def member(kind: type[_Member], wrapper: Any, prefix: str, number: int) -> _Member:
    """Return the member of that name; UNSPECIFIED for a number from a newer server."""
    try:
        return kind(wrapper.Name(number).removeprefix(prefix))
    except ValueError:
        return kind("UNSPECIFIED")
