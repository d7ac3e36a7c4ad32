"""Labels, probes and initial states, through engines and turns: against NumPy, and the same bits in any company."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from elman_export.artefacts.artefact import read_artefact
from elman_export.artefacts.runtime import Runtime
from elman_export.artefacts.vocabulary import encode_text
from elman_export.evaluation.states import state_after
from elman_export.exporting.reference import reference_step
from elman_format import Probe
from elman_server.domain.errors import InvalidFieldError, NotFiniteError
from elman_server.domain.events import CharacterDetail
from elman_server.domain.requests import AppendRequest, Detail, SamplingRequest, ScoreRequest, Target
from elman_server.sessions.session import Expiration, SessionInfo
from tests.models import CHARACTERS, nan_model, random_weights, tagging_model, tiny_model
from tests.server.house import House

LABELS = ("plain", "mark", "quoted")
TEXT = "What is the city but the people?\n" * 5  # more than two chunks
PERSONA = "O Romeo, Romeo!\n" * 5
GREEDY = SamplingRequest(temperature=0)
WEIGHTS = random_weights("lstm", 2, 16)
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(size=(3, 64)).astype(np.float32)
BIAS = RANDOM.normal(size=3).astype(np.float32)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def probed(path: Path) -> Path:
    """Store a probe of random weights and a persona in a model."""
    artefact = read_artefact(path)
    size = sum(int(np.prod(shape)) for shape in artefact.state_shapes)
    ids = encode_text(tuple(CHARACTERS), PERSONA, "It")
    metadata = replace(
        artefact.metadata,
        probes={"mood": Probe(("bad", "so-so", "good"), WEIGHT[:, :size].tobytes(), BIAS.tobytes(), {"accuracy": 0.5})},
        initial_states={"juliet": state_after(Runtime(artefact), ids)},
    )
    artefact.with_metadata(metadata).save(path)
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory) -> AsyncIterator[House]:
    """A probed LSTM with and without a prefill graph, a tagging model, and one whose state leaves the numbers."""
    folder = tmp_path_factory.mktemp("models")
    paths = [
        probed(tiny_model(folder / "lstm.onnx", "lstm", 2, name="lstm")),
        probed(tiny_model(folder / "stepped.onnx", "lstm", 2, name="stepped", prefill=False)),
        tagging_model(folder / "tags.onnx", LABELS),
        tagging_model(folder / "steps.onnx", LABELS, "steps", prefill=False),
        nan_model(folder / "nan.onnx"),
    ]
    async with House(paths) as house:
        yield house


async def score(house: House, target: Target, text: str = TEXT, read_out: str = "") -> tuple[CharacterDetail, ...]:
    """Return the details of a text: log-probabilities, or labels."""
    return tuple(await house.turns.score(ScoreRequest(target, text, read_out=read_out)))


async def start(house: House, model: str, initial_state: str) -> SessionInfo:
    """Create a session that starts from a named state."""
    return await house.sessions.create(
        model=model,
        version=None,
        session_id="",
        seed=1,
        expiration=Expiration(),
        labels={},
        initial_state=initial_state,
    )


def expected_walk(weights: dict[str, Any], cell: str, num_states: int, text: str) -> tuple[Any, Any]:
    """Return logits [T, ...] and flat states [T, S] after each character, from NumPy's equations."""
    step = reference_step(cell, weights)
    state: list[Any] = [np.zeros((1, 16)) for _ in range(num_states)]
    logits, flats = [], []
    for character in text:
        told, state = step(np.array([CHARACTERS.index(character)]), state)
        logits.append(told[0])
        flats.append(np.concatenate(state, axis=1)[0])
    return np.array(logits), np.array(flats)


def softmax(logits: Any) -> Any:
    """Return rows of probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def probabilities(details: tuple[CharacterDetail, ...]) -> Any:
    """Return the read-out as probabilities [T, L]."""
    return np.exp([[nats for _, nats in detail.labels] for detail in details])


@pytest.mark.parametrize("model", ["lstm", "stepped"])
async def test_a_probe_reads_the_state_after_each_character(house, model):
    """R10: the read-out is softmax(W h + b) of the state that NumPy's equations give, the last character included."""
    details = await score(house, Target(model=model), read_out="mood")
    _, states = expected_walk(WEIGHTS, "lstm", 4, TEXT)
    assert [name for name, _ in details[0].labels] == ["bad", "so-so", "good"]
    assert "".join(detail.text for detail in details) == TEXT
    assert np.allclose(probabilities(details), softmax(states @ WEIGHT.T.astype(float) + BIAS), atol=1e-5)


@pytest.mark.parametrize("model", ["lstm", "stepped"])
async def test_a_read_out_leaves_the_probabilities_alone(house, model):
    """The characters' own log-probabilities are returned beside it, with the same bits as without it."""
    told = await score(house, Target(model=model), read_out="mood")
    plain = await score(house, Target(model=model))
    assert tuple(replace(detail, labels=()) for detail in told) == plain


@pytest.mark.parametrize("model", ["tags", "steps"])
async def test_a_tagging_model_tells_its_labels(house, model):
    """R9: a distribution over labels at every character, as the equations have it, and none over characters."""
    details = await score(house, Target(model=model))
    weights = random_weights("gru", 2, seed=5)
    for part in ("output.weight", "output.bias"):
        weights[part] = random_weights("gru", 2, seed=6)[part][:3]
    # The embedding is one-hot over the vocabulary, which is wider than the labels.
    weights["embedding.weight"] = np.eye(len(CHARACTERS), dtype=np.float32)
    logits, _ = expected_walk(weights, "gru", 2, TEXT)
    assert [name for name, _ in details[-1].labels] == list(LABELS)
    assert [detail.log_probability for detail in details] == [None] * len(TEXT)
    assert np.allclose(probabilities(details), softmax(logits), atol=1e-5)


@pytest.mark.parametrize(("model", "read_out"), [("lstm", "mood"), ("stepped", "mood"), ("tags", ""), ("steps", "")])
async def test_labels_are_the_same_in_pieces_and_among_neighbours(house, model, read_out):
    """Bit for bit: the whole text, the text in pieces after a session's state, and the text among a crowd."""
    whole = [detail.labels for detail in await score(house, Target(model=model), read_out=read_out)]
    session = Target(session=(await house.session(model)).name)
    pieces = []
    crowd = [
        asyncio.create_task(score(house, Target(model=model), TEXT[index:], read_out if index % 2 else ""))
        for index in range(20)
    ]
    for piece in (TEXT[:1], TEXT[1:2], TEXT[2:90], TEXT[90:]):
        pieces += [detail.labels for detail in await score(house, session, piece, read_out)]
        await house.turns.append(AppendRequest(str(session.session), piece))
    assert pieces == whole
    assert [detail.labels for detail in (await asyncio.gather(*crowd))[0]] == ([()] * len(TEXT) if read_out else whole)


async def test_a_read_out_changes_nothing(house):
    """A scored session is what it was, and reading on leads where it leads without scores."""
    one, other = await house.session("lstm", seed=1), await house.session("lstm", seed=1)
    await score(house, Target(session=one.name), read_out="mood")
    told = [(await house.turns.append(AppendRequest(s.name, TEXT)))[0].state_digest for s in (one, other)]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("model", "read_out", "sentence"),
    [
        ("lstm", "temper", "read_out: is 'temper'; models/lstm/versions/1 has mood"),
        ("tags", "mood", "read_out: is 'mood'; models/tags/versions/1 has none"),
    ],
)
async def test_an_unknown_read_out_names_the_known_ones(house, model, read_out, sentence):
    """What is not there is refused with what is."""
    with pytest.raises(InvalidFieldError) as refused:
        await score(house, Target(model=model), read_out=read_out)
    assert str(refused.value) == sentence


async def test_a_tagging_model_draws_nothing(house):
    """Generate, candidates and details are refused with what to do instead; a session reads on."""
    session = await house.session("tags")
    for call in (
        house.generate(Target(model="tags"), "a"),
        house.generate(Target(session=session.name), "a"),
        house.turns.append(AppendRequest(session.name, "a", detail=Detail(top_n=1))),
        house.turns.score(ScoreRequest(Target(model="tags"), "a", top_n=1)),
    ):
        with pytest.raises(
            InvalidFieldError, match="models/tags/versions/1 returns labels instead of characters; call"
        ):
            await call
    info, details = await house.turns.append(AppendRequest(session.name, "ab"))
    assert (info.position, details) == (2, ())


async def test_an_answer_with_too_many_labels_is_refused(house):
    """Labels count against what one answer may hold."""
    with pytest.raises(InvalidFieldError, match="candidates in one answer"):
        await score(house, Target(model="lstm"), "a" * 50_001, "mood")


async def test_a_state_that_leaves_the_numbers_is_an_error(house):
    """A job that reads out ends as any other when a row turns NaN."""
    with pytest.raises(NotFiniteError):
        await score(house, Target(model="nan"), "a!!!b")


# Initial states


async def test_a_session_starts_from_a_persona(house):
    """The state after persona and text is the state after both texts, bit for bit, and so is all that follows."""
    persona = await start(house, "lstm", "juliet")
    fresh = await start(house, "lstm", "default")
    assert (persona.position, persona.initial_state, fresh.initial_state) == (0, "juliet", "default")
    ends = [
        (await house.turns.append(AppendRequest(persona.name, TEXT)))[0],
        (await house.turns.append(AppendRequest(fresh.name, PERSONA + TEXT)))[0],
    ]
    assert ends[0].state_digest == ends[1].state_digest
    assert [end.position for end in ends] == [len(TEXT), len(PERSONA + TEXT)]
    scores = [await score(house, Target(session=end.name), "To be", "mood") for end in ends]
    assert scores[0] == scores[1]
    texts = [(await house.generate(Target(session=end.name), "", 50, GREEDY)).text for end in ends]
    assert texts[0] == texts[1]


async def test_the_draws_of_a_persona_count_from_its_own_beginning(house):
    """Position 0 is where the session starts: the same seed and start give the same text, without a prompt none."""
    texts = []
    for _ in range(2):
        session = await start(house, "stepped", "juliet")
        texts.append((await house.generate(Target(session=session.name), "But", 50)).text)
    assert texts[0] == texts[1]
    session = await start(house, "stepped", "juliet")
    with pytest.raises(InvalidFieldError, match="is empty and nothing was read before"):
        await house.generate(Target(session=session.name), "", 50)


async def test_an_unknown_initial_state_names_the_known_ones(house):
    """What is not there is refused with what is."""
    with pytest.raises(InvalidFieldError) as refused:
        await start(house, "lstm", "romeo")
    assert str(refused.value) == "initial_state: is 'romeo'; models/lstm/versions/1 has default, juliet"


async def test_the_catalogue_tells_all_of_them(house):
    """Labels, read-outs and initial states stand in the model's description."""
    lstm, tags = house.models.get("lstm"), house.models.get("tags")
    assert [(known.name, known.labels, known.accuracy) for known in lstm.read_outs] == [
        ("mood", ("bad", "so-so", "good"), 0.5)
    ]
    assert (list(lstm.initial_states), lstm.labels) == (["juliet"], ())
    assert (tags.labels, tags.read_outs, tags.initial_states) == (LABELS, (), {})
