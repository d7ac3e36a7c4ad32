"""Requests that no good client sends, over the wire, to a real server."""

import math
import socket
from collections.abc import Iterator

import grpc
import pytest

from elman.v1 import generation_pb2 as messages
from elman.v1 import sampling_pb2
from elman.v1 import session_pb2 as sessions
from elman_client import Client
from tests.e2e.wire import (
    GENERATE,
    PATIENCE,
    Refusal,
    Wire,
    one_shot,
    reference,
    refused,
    text_of,
    wire_to,
)
from tests.server_process import ServerProcess

_MIB = 2**20
_BAD_NAMES = {
    "empty": "",
    "a way up": "sessions/../../etc/passwd",
    "long": "sessions/" + "a" * 10_000,
    "a model's": "models/gru",
    "of another service": "//library.example.com/sessions/abcd",
    "of another service's resource": "projects/p/sessions/abcd",
    "NUL": "sessions/abc\0d",
}


@pytest.fixture(autouse=True)
def _still_serves(server_process: ServerProcess, references: dict[str, str]) -> Iterator[None]:
    """Whatever a test sends, afterwards somebody else gets the text that he always gets."""
    yield
    with Client(server_process.address) as somebody:
        assert {model: reference(somebody, model=model) for model in references} == references


def invalid(*fields: str) -> Refusal:
    """Return how a request with bad fields is refused."""
    return Refusal("INVALID_ARGUMENT", "INVALID_FIELD", fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", value) for value in (math.nan, math.inf, -math.inf, -1)),
        *(("top_p", value) for value in (0, -0.1, 1.1, math.nan)),
        *(("min_p", value) for value in (-0.1, 1.1, math.nan)),
        *(("top_k", value) for value in (-1, 0, 10**9)),
        *(("repetition_penalty", value) for value in (0, -1, math.nan, math.inf)),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(wire: Wire, name: str, value: float):
    """A sampling parameter that is out of its range is INVALID_ARGUMENT with the field's path."""
    request = one_shot(sampling=sampling_pb2.Sampling(**{name: value}))  # type: ignore[arg-type]

    assert refused(wire.generate, request) == invalid(f"sampling.{name}")


def test_the_smallest_temperature_takes_the_likeliest(wire: Wire):
    """Temperature 1e-300 is in range and draws what temperature 0 takes."""
    texts = [text_of(wire.generate(one_shot(sampling=sampling_pb2.Sampling(temperature=t)))) for t in (0, 1e-300)]

    assert texts[0] == texts[1]
    assert len(texts[0]) == 20


def test_the_largest_temperature_draws_anything(wire: Wire):
    """Temperature 1e300 is in range and makes all characters equal."""
    sampling = sampling_pb2.Sampling(temperature=1e300, seed=1)
    request = one_shot(sampling=sampling, stopping=messages.Stopping(max_chars=2000))

    assert len(set(text_of(wire.generate(request)))) == 65


def test_an_empty_prompt_needs_a_past(wire: Wire):
    """A new session has nothing to go on from without a prompt; one that has read something has."""
    request = messages.GenerateRequest(session=wire.session(), stopping=messages.Stopping(max_chars=3))

    assert refused(wire.generate, request) == invalid("prompt")
    wire.generation.Append(messages.AppendRequest(session=request.session, text="O"), timeout=PATIENCE)
    assert len(text_of(wire.generate(request))) == 3


def test_a_prompt_over_the_message_limit_is_refused(wire: Wire):
    """10 MB do not pass the default 8 MiB for a message: gRPC itself refuses them."""
    assert refused(wire.generate, one_shot("a" * 10_000_000)) == Refusal("RESOURCE_EXHAUSTED")


def test_a_prompt_over_the_character_limit_is_refused(odd_server: ServerProcess):
    """A text that passes the limit of messages is over the limit for prompts, for every method that takes a text."""
    text = "a" * 400_000
    with wire_to(odd_server.address) as wire:
        append = messages.AppendRequest(session=wire.session(), text=text)
        score = messages.ScoreRequest(model="models/gru", text=text)

        assert refused(wire.generate, one_shot(text)) == invalid("prompt")
        assert refused(wire.generation.Append, append) == invalid("text")
        assert refused(wire.generation.Score, score) == invalid("text")
        assert len(text_of(wire.generate(one_shot()))) == 20


@pytest.mark.parametrize("character", ["\0", "\N{SNAKE}", "\N{LATIN SMALL LETTER E WITH ACUTE}", "\u202e"])
def test_an_unknown_character_is_refused_or_skipped(wire: Wire, character: str):
    """A character that the model has not is refused; SKIP reads the rest; a byte-level model has them all."""
    expected = Refusal("INVALID_ARGUMENT", "CHARACTER_NOT_IN_VOCABULARY", ("prompt",))
    skip = messages.UnknownCharacters(skip=True)

    assert refused(wire.generate, one_shot(f"To be{character}")) == expected
    skipped = wire.generate(one_shot(f"To be{character}", unknown_characters=skip))
    assert skipped[-1].finished.usage.prompt_chars == 5
    read = wire.generate(one_shot(f"To be{character}", "bytes"))
    assert read[-1].finished.usage.prompt_chars == 5 + len(character.encode())


@pytest.mark.parametrize(
    "prompt", [b"\xed\xa0\x80", b"\xff\xfe", b"abc\xc3"], ids=["a lone surrogate", "no UTF-8", "cut UTF-8"]
)
def test_bytes_that_are_no_text_are_refused(wire: Wire, prompt: bytes):
    """A prompt that is not UTF-8 is INVALID_ARGUMENT, not a crash."""
    data = one_shot("").SerializeToString() + b"\x1a" + bytes([len(prompt)]) + prompt

    assert refused(wire.raw, GENERATE, data) == invalid("request")


def test_a_message_that_is_none_is_refused(wire: Wire):
    """Bytes that are no message are INVALID_ARGUMENT for every kind of method."""
    assert refused(wire.raw, GENERATE, b"\xff" * 1000) == invalid("request")
    assert refused(wire.raw, "/elman.v1.SessionService/CreateSession", b"\x0a\xff") == invalid("request")


@pytest.mark.parametrize("stop", ["", "a" * 10_000], ids=["empty", "10,000 long"])
def test_a_stop_string_out_of_range_is_refused(wire: Wire, stop: str):
    """A stop string has to have 1 to 256 characters."""
    stopping = messages.Stopping(max_chars=5, stop_strings=["x", stop])

    assert refused(wire.generate, one_shot(stopping=stopping)) == invalid("stopping.stop_strings[1]")


def test_a_stop_string_may_overlap_itself(wire: Wire):
    """A stop string that begins as it ends is found at once and never shown in part."""
    sampling = sampling_pb2.Sampling(allowed_characters="ab", temperature=1e300, seed=3)

    def run(*, include_stop: bool) -> list[messages.GenerateResponse]:
        stopping = messages.Stopping(max_chars=5000, stop_strings=["abaab"], include_stop=include_stop)
        return wire.generate(one_shot(sampling=sampling, stopping=stopping, chunk_chars=1))

    whole, cut = run(include_stop=True), run(include_stop=False)

    assert text_of(whole).find("abaab") == len(text_of(whole)) - 5
    assert text_of(cut) == text_of(whole)[:-5]
    assert cut[-1].finished.stop_string == "abaab"


@pytest.mark.parametrize("value", [0, -1])
def test_max_chars_out_of_range_is_refused(wire: Wire, value: int):
    """At least one character has to be asked for."""
    stopping = messages.Stopping(max_chars=value)

    assert refused(wire.generate, one_shot(stopping=stopping)) == invalid("stopping.max_chars")


@pytest.mark.parametrize("value", [2**63, 2**64 - 1, 2**63 - 1])
def test_a_huge_max_chars_is_refused(wire: Wire, value: int):
    """2^63 as a raw varint does not turn into something that is served."""
    varint = b"".join(bytes([value >> shift & 0x7F | (0x80 if value >> shift + 7 else 0)]) for shift in range(0, 70, 7))
    stopping = b"\x08" + varint.rstrip(b"\0")
    data = one_shot().SerializeToString() + b"\x2a" + bytes([len(stopping)]) + stopping

    assert refused(wire.raw, GENERATE, data) == invalid("stopping.max_chars")


@pytest.mark.parametrize("name", _BAD_NAMES.values(), ids=_BAD_NAMES)
def test_a_name_of_another_form_is_refused(wire: Wire, name: str):
    """A session's name is read strictly by every method, and the field that held it is told."""
    service, generation = wire.sessions, wire.generation
    update = sessions.UpdateSessionRequest(session=sessions.Session(name=name))

    assert refused(service.GetSession, sessions.GetSessionRequest(name=name)) == invalid("name")
    assert refused(service.DeleteSession, sessions.DeleteSessionRequest(name=name)) == invalid("name")
    assert refused(service.GetTranscript, sessions.GetTranscriptRequest(name=name)) == invalid("name")
    assert refused(service.UpdateSession, update) == invalid("session.name")
    assert refused(generation.Cancel, messages.CancelRequest(session=name)) == invalid("session")
    assert refused(generation.Append, messages.AppendRequest(session=name, text="a")) == invalid("session")
    assert refused(generation.Score, messages.ScoreRequest(session=name, text="a")) == invalid("session")
    assert refused(wire.generate, messages.GenerateRequest(session=name, prompt="a")) == invalid("session")


@pytest.mark.parametrize("name", ["../up", "a" * 10_000, "Upper", "abc"])
def test_a_chosen_session_id_of_another_form_is_refused(wire: Wire, name: str):
    """A session id is 4 to 63 of a-z, 0-9 and -."""
    assert refused(lambda: wire.session(session_id=name)) == invalid("session_id")


def test_a_forged_page_token_is_refused(wire: Wire):
    """Only tokens that the server made for the same list are taken."""
    for number in range(3):
        wire.session(session_id=f"page-{number}")
    first = wire.sessions.ListSessions(sessions.ListSessionsRequest(page_size=1), timeout=PATIENCE)
    token = first.next_page_token

    def listing(token: str, terms: str = "") -> None:
        request = sessions.ListSessionsRequest(page_size=1, page_token=token, filter=terms)
        wire.sessions.ListSessions(request, timeout=PATIENCE)

    listing(token)
    for forged in ("x", "../..", "A" * 10_000, "AAAAAAAAAAAAAAAA", token[:-4] + "AAAA", token + "AAAA", "\N{SNAKE}"):
        assert refused(listing, forged) == invalid("page_token"), forged
    assert refused(listing, token, 'model = "models/gru"') == invalid("page_token")


def test_an_unknown_method_is_unimplemented(wire: Wire):
    """Neither an unknown method nor an unknown service reaches anything."""
    for method in ("/elman.v1.GenerationService/Dream", "/elman.v9.GenerationService/Generate", "/x"):
        assert refused(wire.raw, method, b"") == Refusal("UNIMPLEMENTED")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0" * 100_000,
        bytes(range(256)) * 400,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of a TLS handshake
    ],
    ids=["zeros", "all bytes", "HTTP/1.1", "HTTP/2 and then not", "TLS"],
)
def test_garbage_on_the_port_ends_its_connection_alone(server_process: ServerProcess, wire: Wire, garbage: bytes):
    """What is not HTTP/2 ends its own connection and no other."""
    neighbour = wire.generation.Generate(one_shot(), timeout=PATIENCE)
    host, _, port = server_process.address.rpartition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        try:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError as error:  # the server may hang up before it has read all, but has to
            if isinstance(error, TimeoutError):
                raise

    assert len(text_of(list(neighbour))) == 20


def test_a_row_of_nan_ends_its_stream_alone(wire: Wire):
    """A model that leaves the real numbers is INTERNAL for its own caller; neighbours in the batch go on."""
    only = sampling_pb2.Sampling(allowed_characters="!")
    others = sampling_pb2.Sampling(banned_characters="!", seed=1)
    stopping = messages.Stopping(max_chars=2000)
    neighbour = wire.generation.Generate(one_shot("a", "nan", sampling=others, stopping=stopping), timeout=PATIENCE)

    assert refused(wire.generate, one_shot("!", "nan", sampling=only)) == Refusal("INTERNAL", "NOT_FINITE")
    assert len(text_of(list(neighbour))) == 2000


def test_a_call_without_an_answer_in_time_is_the_callers_deadline(wire: Wire):
    """A deadline that is over before the call begins is DEADLINE_EXCEEDED and costs nothing."""
    with pytest.raises(grpc.RpcError) as caught:
        list(wire.generation.Generate(one_shot(), timeout=0))

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
