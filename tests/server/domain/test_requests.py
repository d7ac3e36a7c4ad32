"""Requests: what is out of range is refused by name; what is not set has its default."""

import math
from typing import Any

import pytest

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.requests import (
    AppendRequest,
    Creation,
    Detail,
    GenerateRequest,
    Limits,
    SamplingRequest,
    StoppingRequest,
    Target,
    check_text,
    check_top_n,
)
from elman_server.domain.sampling import Sampling
from elman_server.domain.vocabulary import Unknown, Vocabulary
from tests.models import CHARACTERS

VOCABULARY = Vocabulary(tuple(CHARACTERS))
BYTES = Vocabulary(None)
A, B = CHARACTERS.index("a"), CHARACTERS.index("b")
LIMITS = Limits(max_prompt_chars=10, max_chars=100, max_stop_strings=2, max_stop_string_chars=5)


def refused_field(request: SamplingRequest) -> str:
    """Return the field that is refused."""
    with pytest.raises(InvalidFieldError) as refused:
        request.resolve(VOCABULARY, 1)
    return refused.value.field


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [math.nan, math.inf, -math.inf, -1, -5e-324]),
        ("top_p", [0, -0.1, 1.1, math.nan, math.inf, -0.0]),
        ("min_p", [-0.1, 1.1, math.nan, math.inf]),
        ("top_k", [-1, 0, 10**9]),
        ("repetition_penalty", [0, -1, math.nan, math.inf, 1e300, 100.1, 0.009]),
        ("repetition_window", [0, -1, 1025]),
    ],
)
def test_numbers_out_of_range_are_refused(name, values):
    """NaN, infinities and what is too small or too large are named with their field."""
    for value in values:
        assert refused_field(SamplingRequest(**{name: value})) == f"sampling.{name}"


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [0, 5e-324, 1e-300, 1, 1e300]),
        ("top_p", [5e-324, 0.5, 1]),
        ("min_p", [0, 0.5, 1]),
        ("top_k", [1, 10**6]),
        ("repetition_penalty", [0.01, 1, 100]),
        ("repetition_window", [1, 1024]),
    ],
)
def test_numbers_within_the_range_are_taken_as_they_are(name, values):
    """Both ends of a range belong to it, and nothing is rounded or clipped."""
    for value in values:
        resolved = SamplingRequest(**{name: value}).resolve(VOCABULARY, 1)
        assert getattr(resolved, name) == value
        assert getattr(SamplingRequest(**{name: value}).effective(), name) == value


def test_a_refusal_says_what_is_allowed():
    """The sentence names value and range."""
    with pytest.raises(InvalidFieldError, match=r"sampling.top_p: is 1.1; allowed is above 0 to 1"):
        SamplingRequest(top_p=1.1).resolve(VOCABULARY, 1)
    with pytest.raises(InvalidFieldError, match=r"sampling.temperature: is -1; allowed is from 0, finite"):
        SamplingRequest(temperature=-1).resolve(VOCABULARY, 1)


def test_what_is_not_set_has_its_default():
    """An empty request samples from the plain distribution (T = 1) with the session's seed, and reports both."""
    resolved = SamplingRequest().resolve(VOCABULARY, 42)
    assert resolved == Sampling(seed=42)
    assert SamplingRequest().effective() == SamplingRequest(
        repetition_penalty=1.0, repetition_window=64, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0
    )


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_a_seed_of_the_request_wins(seed):
    """Any seed of 64 bits is used, 0 too."""
    assert SamplingRequest(seed=seed).resolve(VOCABULARY, 42).seed == seed


def test_biases_and_bans_become_one_list():
    """A biased character has its nats, a banned one minus infinity, also where both are asked for."""
    request = SamplingRequest(logit_bias=(("b", 2.5), ("a", -100.0)), banned_characters="ac")
    assert request.resolve(VOCABULARY, 1).bias == ((A, -math.inf), (B, 2.5), (CHARACTERS.index("c"), -math.inf))


def test_allowed_characters_ban_all_others():
    """What is not among the allowed characters cannot be sampled."""
    bias = SamplingRequest(allowed_characters="aab").resolve(VOCABULARY, 1).bias
    assert {index for index, _ in bias} == set(range(65)) - {A, B}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (SamplingRequest(logit_bias=(("a", 0.0), ("ü", 1.0))), "sampling.logit_bias[1].character"),
        (SamplingRequest(logit_bias=(("ab", 1.0),)), "sampling.logit_bias[0].character"),
        (SamplingRequest(logit_bias=(("", 1.0),)), "sampling.logit_bias[0].character"),
        (SamplingRequest(logit_bias=(("a", 1.0), ("a", 2.0))), "sampling.logit_bias[1].character"),
        (SamplingRequest(logit_bias=(("a", 101.0),)), "sampling.logit_bias[0].bias"),
        (SamplingRequest(logit_bias=(("a", math.nan),)), "sampling.logit_bias[0].bias"),
        (SamplingRequest(logit_bias=(("a", -math.inf),)), "sampling.logit_bias[0].bias"),
        (SamplingRequest(logit_bias=(("a", 1.0),) * 1025), "sampling.logit_bias"),
        (SamplingRequest(banned_characters="aü"), "sampling.banned_characters"),
        (SamplingRequest(banned_characters="a" * 4097), "sampling.banned_characters"),
        (SamplingRequest(allowed_characters="a" * 4097), "sampling.allowed_characters"),
        (SamplingRequest(banned_characters=CHARACTERS), "sampling.banned_characters"),
        (SamplingRequest(allowed_characters="\ud800"), "sampling.allowed_characters"),
        (SamplingRequest(allowed_characters="a", banned_characters="b"), "sampling.banned_characters"),
    ],
)
def test_characters_that_cannot_be_honoured_are_refused(request_, field):
    """Unknown, doubled, and everything banned: each is named with its place."""
    assert refused_field(request_) == field


def test_characters_of_a_byte_level_model_are_bytes():
    """U+0000 to U+00FF name the 256 bytes."""
    assert SamplingRequest(banned_characters="\0ÿ").resolve(BYTES, 1).bias == ((0, -math.inf), (255, -math.inf))
    for request in (SamplingRequest(allowed_characters="a€"), SamplingRequest(logit_bias=(("€", 1.0),))):
        with pytest.raises(InvalidFieldError, match=r"'\\u20ac' is '\\xe2\\x82\\xac'"):
            request.resolve(BYTES, 1)


@pytest.mark.parametrize(("max_chars", "expected"), [(None, 100), (1, 1), (100, 100)])
def test_max_chars_within_its_bounds(max_chars, expected):
    """Unset is the model's cap."""
    assert StoppingRequest(max_chars).resolve(VOCABULARY, LIMITS) == (expected, [])


@pytest.mark.parametrize("max_chars", [0, -1, 101, 2**63])
def test_max_chars_out_of_bounds_is_refused(max_chars):
    """A turn samples at least one character, and no more than the cap."""
    with pytest.raises(InvalidFieldError, match=r"stopping.max_chars: is -?\d+; allowed is from 1 to 100"):
        StoppingRequest(max_chars).resolve(VOCABULARY, LIMITS)


def test_stop_strings_become_ids():
    """Characters, or the bytes of their UTF-8."""
    assert StoppingRequest(1, ("ab", "b")).resolve(VOCABULARY, LIMITS) == (1, [[A, B], [B]])
    assert StoppingRequest(1, ("ä",)).resolve(BYTES, LIMITS) == (1, [[0xC3, 0xA4]])


@pytest.mark.parametrize(
    ("stops", "field"),
    [
        (("a", ""), "stopping.stop_strings[1]"),
        (("a" * 6,), "stopping.stop_strings[0]"),
        (("a" * 10_000,), "stopping.stop_strings[0]"),
        (("a", "ü"), "stopping.stop_strings[1]"),
        (("a", "b", "c"), "stopping.stop_strings"),
    ],
)
def test_stop_strings_that_cannot_be_honoured_are_refused(stops, field):
    """Empty, too long, too many, or never to be sampled: named with its index."""
    with pytest.raises(InvalidFieldError) as refused:
        StoppingRequest(1, stops).resolve(VOCABULARY, LIMITS)
    assert refused.value.field == field
    assert len(str(refused.value)) < 200


TARGET = Target(session="abcd")


@pytest.mark.parametrize(
    ("request_", "digest"),
    [
        (GenerateRequest(TARGET), "1aa04c32dbd3bdfd88cc6ba0c2567239"),
        (GenerateRequest(TARGET, "ab"), "b7ec10e005d69de62140de4ea9b1f8a2"),
        (GenerateRequest(TARGET, "ab", SamplingRequest(temperature=0.0)), "21decfd5a72fc4db09b7de5c1f737f97"),
        (GenerateRequest(TARGET, "ab", SamplingRequest(seed=0)), "db157cb4ca5a8047583d30e64d6480ae"),
        (
            GenerateRequest(TARGET, "ab", stopping=StoppingRequest(5, ("x", "y"), include_stop=True)),
            "92d98eff88c130b2ae1f725c695ede68",
        ),
        (
            GenerateRequest(TARGET, "ab", etag="1f", rollback=True, detail=Detail(log_probability=True, top_n=3)),
            "9152f36459a60b4ccbb67037b4376513",
        ),
        (
            GenerateRequest(TARGET, "ab", unknown=Unknown(replace_with="?"), request_id=bytes(16)),
            "14207e7c9f7fe5d702e3518581121fb9",
        ),
        (
            GenerateRequest(
                TARGET,
                "ab",
                SamplingRequest(
                    logit_bias=(("a", 1.5),),
                    allowed_characters="ab",
                    repetition_penalty=1.5,
                    repetition_window=10,
                    temperature=0.5,
                    top_k=3,
                    top_p=0.5,
                    min_p=0.25,
                    seed=2**64 - 1,
                ),
            ),
            "bedca5be5938706158f3443d1ed9483b",
        ),
        (AppendRequest("abcd", "ab"), "cab88ba20e2a058d0690438d7aa6a96b"),
        (
            AppendRequest("abcd", "ab", "1f", Detail(top_n=2), Unknown(skip=True), bytes(16)),
            "3e3a12fa622cc390e834859e95b737d6",
        ),
    ],
)
def test_the_digests_of_turns_stay(request_: Any, digest: str):
    """Servers of two versions know the same turn again: no field that the contract gains may change a digest."""
    assert request_.digest().hex() == digest


def test_a_digest_has_only_what_makes_another_turn():
    """Where it runs, how its text is cut and how much time is left make none; what is 0 is not what is unset."""
    request = GenerateRequest(TARGET, "ab")
    for same in (
        GenerateRequest(Target(session="efgh"), "ab"),
        GenerateRequest(TARGET, "ab", chunk_chars=1),
        GenerateRequest(TARGET, "ab", time_left=2.5),
        GenerateRequest(TARGET, "ab", SamplingRequest(), StoppingRequest(), detail=Detail(), unknown=Unknown()),
    ):
        assert same.digest() == request.digest()
    others: list[GenerateRequest | AppendRequest] = [
        request,
        GenerateRequest(TARGET, "ab", SamplingRequest(seed=0)),
        GenerateRequest(TARGET, "ab", SamplingRequest(temperature=0.0)),
        GenerateRequest(TARGET, "ab", SamplingRequest(top_k=0)),
        GenerateRequest(TARGET, "ab", stopping=StoppingRequest(0)),
        GenerateRequest(TARGET, "ab", rollback=True),
        AppendRequest("abcd", "ab"),
    ]
    assert len({other.digest() for other in others}) == len(others)


def test_a_creation_with_a_request_id_has_always_the_same_names():
    """Two requests share none, and neither do the sessions of one; without an id every name is a new one."""
    one, other = Creation(bytes(16), b"1"), Creation(bytes(15) + b"\x01", b"1")
    names = [creation.part(index).key() for creation in (one, other) for index in range(3)]
    assert names[0] == "b6c54489-38a0-5f50-a60a-fd8d76219cae"
    assert names[:3] == [one.part(index).key() for index in range(3)]
    assert len(set(names)) == 6
    assert Creation().key() != Creation().key()


def test_texts_have_a_longest_and_perhaps_a_shortest():
    """A prompt may be empty, a text to feed may not; both end at the limit."""
    check_text("prompt", "", LIMITS, empty=True)
    check_text("text", "x" * 10, LIMITS, empty=False)
    with pytest.raises(InvalidFieldError, match="text: is empty; send at least one character"):
        check_text("text", "", LIMITS, empty=False)
    with pytest.raises(InvalidFieldError, match="prompt: has 10000000 characters; at most 10 are allowed"):
        check_text("prompt", "x" * 10**7, LIMITS, empty=True)


@pytest.mark.parametrize("value", [-1, 21])
def test_top_n_has_a_range(value):
    """Neither negative nor above the largest."""
    check_top_n("detail.top_n", 0, 20)
    check_top_n("detail.top_n", 20, 20)
    with pytest.raises(InvalidFieldError, match=r"detail\.top_n"):
        check_top_n("detail.top_n", value, 20)
