import dataclasses
import enum

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from elman.v1 import generation_pb2, model_pb2, sampling_pb2, session_pb2
from elman_server.domain.events import Finished, FinishReason
from elman_server.domain.vocabulary import Vocabulary
from elman_server.grpc.messages.build import (
    from_chat,
    from_encoded,
    from_generated,
    from_model,
    from_replayed,
    from_resumed,
    from_score,
    from_session,
    from_transcript,
)
from elman_server.history.replay import Replayed
from elman_server.sessions.session import SessionStatus
from tests.server.grpc.fakes import CHUNK, DETAIL, FINISHED, MODEL, SESSION, STARTED, TRANSCRIPT, TURN

DETAIL_MESSAGE = generation_pb2.CharacterDetail(
    text="a",
    log_probability=-0.5,
    top=[
        generation_pb2.CharacterProbability(text="a", log_probability=-0.5),
        generation_pb2.CharacterProbability(text="b", log_probability=-1.5),
    ],
    labels=[
        generation_pb2.LabelProbability(label="bad", log_probability=-2.0),
        generation_pb2.LabelProbability(label="good", log_probability=-0.25),
    ],
)


def test_sessions_are_written_whole():
    """Every field of a session reaches the caller."""
    assert from_session(SESSION) == session_pb2.Session(
        name="sessions/some-session",
        model="models/tiny/versions/1",
        model_digest="ab" * 32,
        state=session_pb2.Session.STATE_ACTIVE,
        create_time=Timestamp(seconds=1_700_000_000, nanos=250_000_000),
        update_time=Timestamp(seconds=1_700_000_001, nanos=500_000_000),
        expire_time=Timestamp(seconds=1_700_003_601, nanos=500_000_000),
        etag="1f",
        position=7,
        turn_count=2,
        state_digest="cd" * 32,
        seed=2**64 - 1,
        labels={"team": "blue"},
        forked_from=session_pb2.ForkedFrom(name="sessions/other-session", position=3),
        initial_state="juliet",
    )


TURN_MESSAGE = session_pb2.Turn(
    start=2,
    prompt_end=4,
    end=7,
    seed=9,
    request_id="00000000-0000-0000-0000-0000000000af",
    sampling=sampling_pb2.Sampling(
        repetition_penalty=1, repetition_window=64, temperature=0.5, top_p=1, min_p=0, seed=9
    ),
    fingerprint="some-machine",
)


def test_a_replayed_turn_is_written_whole():
    """The caller learns what was equal and what was not; no difference is distinct from a difference at 0."""
    for difference in (None, 0):
        assert from_replayed(Replayed(TURN, difference, True, False, 9)) == session_pb2.ReplaySessionResponse(
            turn=TURN_MESSAGE, difference_at=difference, is_state_equal=True, end_position=9
        )


def test_events_of_all_streams_are_the_same():
    """Generate, Resume and Chat report the same."""
    for event in (STARTED, CHUNK, FINISHED):
        expected = from_generated([event]).SerializeToString()
        assert from_resumed([event]).SerializeToString() == from_chat([event]).SerializeToString() == expected


def test_transcripts_are_written_whole():
    """Text, range and turns reach the caller."""
    assert from_transcript(TRANSCRIPT) == session_pb2.GetTranscriptResponse(
        text="abab", start=3, end=7, turns=[TURN_MESSAGE]
    )


def test_started_has_every_parameter_set():
    """The first event has the effective parameters, zeros included."""
    started = from_generated([STARTED]).started

    assert (started.max_chars, started.start_position, started.prompt_chars) == (50, 7, 2)
    assert started.model_digest == "ab" * 32
    assert started.sampling == sampling_pb2.Sampling(
        logit_bias=[sampling_pb2.LogitBias(character="a", bias=1.5)],
        repetition_penalty=1,
        repetition_window=64,
        temperature=0,
        top_k=0,
        top_p=1,
        min_p=0,
        seed=7,
    )


def test_chunks_carry_details():
    """A chunk has its text, position and details; a first character has no log-probability."""
    assert from_generated([CHUNK]).chunk == generation_pb2.Chunk(
        text="a",
        position=10,
        details=[DETAIL_MESSAGE, generation_pb2.CharacterDetail(text="b")],
        committed_position=8,
    )


def test_finished_is_written_whole():
    """The last event says why, how much and where."""
    assert from_generated([FINISHED]).finished == generation_pb2.Finished(
        finish_reason=generation_pb2.FINISH_REASON_STOP_STRING,
        usage=generation_pb2.Usage(prompt_chars=2, generated_chars=1),
        position=10,
        etag="20",
        state_digest="cd" * 32,
        stop_string="ab",
    )


async def test_scores_are_summed_over_what_has_one():
    """The sum leaves out a first character; an answer that is made in pieces is one message."""
    details = [dataclasses.replace(DETAIL, log_probability=None), *[DETAIL] * 200]
    response = generation_pb2.ScoreResponse.FromString(await from_score(details))

    assert (response.log_probability, response.scored_count, len(response.details)) == (-100.0, 200, 201)
    assert response.details[1] == DETAIL_MESSAGE


def test_models_are_written_whole():
    """Every field of a model reaches the caller."""
    assert from_model(MODEL) == model_pb2.Model(
        name="models/tiny",
        version="1",
        cell=model_pb2.CELL_GRU,
        layer_count=1,
        hidden_size=2,
        vocabulary=[97, 98, 223],
        state_bytes=8,
        digest="ab" * 32,
        parameter_count=42,
        evaluations=[
            model_pb2.Evaluation(
                corpus_sha256="ef" * 32,
                protocol="streaming",
                nats_per_character=1.5,
                standard_error=0.01,
                character_count=1000,
            )
        ],
        limits=model_pb2.Limits(max_prompt_chars=1000, max_chars=50, max_stop_strings=16, max_stop_string_chars=256),
        fingerprint="some-machine",
        labels=["yes", "no"],
        read_outs=[model_pb2.ReadOut(name="mood", labels=["bad", "good"], accuracy=0.75, held_out_count=8)],
        initial_states=["default", "juliet"],
    )


def test_byte_level_models_have_no_vocabulary():
    """A model of bytes says so instead of listing 256 of them."""
    message = from_model(dataclasses.replace(MODEL, vocabulary=Vocabulary(None)))

    assert (list(message.vocabulary), message.byte_level) == ([], True)


def test_unknown_characters_are_told_up_to_a_hundred():
    """A text of nothing known does not come back whole."""
    message = from_encoded([1], [("é", index) for index in range(1000)])

    assert len(message.unknown_characters) == 100
    assert message.unknown_characters[99] == model_pb2.UnknownCharacter(character="é", index=99)


@pytest.mark.parametrize("value", [*FinishReason, *SessionStatus], ids=str)
def test_every_value_has_a_number(value: enum.Enum):
    """No finish reason and no status of the domain lacks its number in the contract."""
    if isinstance(value, FinishReason):
        event: Finished = dataclasses.replace(FINISHED, reason=value)
        assert generation_pb2.FinishReason.Name(from_generated([event]).finished.finish_reason).endswith(value.name)
    elif isinstance(value, SessionStatus):
        state = from_session(dataclasses.replace(SESSION, status=value)).state
        assert session_pb2.Session.State.Name(state) == f"STATE_{value.name}"
