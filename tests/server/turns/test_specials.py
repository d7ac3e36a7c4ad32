"""Named specials of a vocabulary, such as `<pad>`: no text is read as one, and none is ever sampled."""

import math
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.requests import AppendRequest, Detail, SamplingRequest, ScoreRequest, Target
from tests.models import tiny_model
from tests.server.house import House

SYMBOLS = ("<pad>", *"abc", "[UNK]", *"<pd>")  # the model by itself would write specials alone
CHARACTERS = set("abc<pd>")
MODEL = Target(model="tiny")
EVERY = Detail(log_probability=True, top_n=20)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory) -> AsyncIterator[House]:
    """One model, whose likeliest symbols are its specials."""
    path = tiny_model(tmp_path_factory.mktemp("models") / "tiny.onnx", vocabulary=SYMBOLS)
    async with House([path]) as house:
        yield house


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingRequest(seed=1),
        SamplingRequest(temperature=0),
        SamplingRequest(temperature=1e300, seed=2),
        SamplingRequest(top_k=1000, top_p=0.999, min_p=0.0, seed=3),
        SamplingRequest(banned_characters="a", repetition_penalty=1.5, logit_bias=(("b", 100.0),), seed=4),
        SamplingRequest(allowed_characters="ab", seed=5),
    ],
)
async def test_specials_are_never_sampled(house, sampling):
    """Whatever the filters, the bias and the temperature."""
    text = (await house.generate(MODEL, "abc", 300, sampling)).text
    assert set(text) <= CHARACTERS
    assert len(text) == 300


async def test_the_name_of_a_special_is_text(house):
    """`<pad>` in a prompt is five characters, of which the model lacks none."""
    session = await house.session("tiny")
    await house.turns.append(AppendRequest(session.name, "<pad>"))
    assert (await house.at_rest(session.name)).position == 5


async def test_probabilities_are_those_of_the_characters(house):
    """In a score, an append and a generation: they sum to one, and no special is among the likeliest."""
    session = await house.session("tiny")
    scored = await house.turns.score(ScoreRequest(Target(session=session.name), "abcab", top_n=len(CHARACTERS)))
    _, read = await house.turns.append(AppendRequest(session.name, "abcab", detail=Detail(True, len(CHARACTERS))))
    generated = await house.generate(MODEL, "abc", 5, detail=EVERY)
    for detail in [*list(scored)[1:], *list(read)[1:], *generated.details]:
        assert {character for character, _ in detail.top} == CHARACTERS
        assert math.fsum(math.exp(nats) for _, nats in detail.top) == pytest.approx(1)
        assert detail.log_probability == dict(detail.top)[detail.text]


async def test_a_special_is_no_character_of_a_request(house):
    """It cannot be scored, allowed or biased, and to ban all characters is refused though specials are left."""
    with pytest.raises(InvalidFieldError, match="bans the whole vocabulary"):
        await house.generate(MODEL, "a", 1, SamplingRequest(banned_characters="".join(CHARACTERS)))
    with pytest.raises(InvalidFieldError, match="of 5 characters"):
        await house.generate(MODEL, "a", 1, SamplingRequest(logit_bias=(("[UNK]", 1.0),)))
    with pytest.raises(InvalidFieldError, match="top_n"):
        await house.turns.score(ScoreRequest(MODEL, "abc", top_n=len(SYMBOLS)))
