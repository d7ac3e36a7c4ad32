"""The lesson's rows R1 to R8 and R11, each through the product. docs/lesson.md tells where a person sees them."""

import hashlib
import math
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from elman_client import Cell, Client
from elman_export.artefacts.artefact import Artefact, read_artefact
from elman_export.artefacts.runtime import Array, Runtime
from elman_export.exporting.from_checkpoint import checkpoint_steps, export_checkpoint
from elman_export.exporting.reference import Step
from elman_export.training.checkpoint import CheckpointConfig
from elman_export.training.model import CharModel, ModelConfig
from elman_server.domain.sampling import Sampling
from elman_server.engine.core.sampler import Sampler
from tests.lesson.models import HELLO, HELLO_CHARACTERS, LOGITS, float32
from tests.models import CHARACTERS
from tests.server_process import resident_bytes

if TYPE_CHECKING:
    from elman_export.exporting.reference import Step

LESSON: Final = Path(__file__).parents[2] / "docs" / "lesson.md"
_MIB: Final = 2**20


def softmax(z: Any, temperature: float = 1) -> NDArray[np.float64]:
    """e^(z/T) over their sum."""
    powers = np.exp(np.asarray(z, np.float64) / temperature)
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def probabilities(client: Client, model: str, text: str) -> list[dict[str, float]]:
    """Return what a served model expects after each character of a text but its last."""
    details = client.score(text, model=model, top_n=len(client.get_model(model).vocabulary)).details
    return [{other.text: math.exp(other.log_probability) for other in detail.top} for detail in details[1:]]


# R1: the step


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_r1_three_ways_of_the_step_agree(cell: Any, batch: int):
    """NumPy from the equations, PyTorch and ONNX stay within 1e-6 over 1,000 steps, each on its own states."""
    torch.set_num_threads(1)  # two threads wait for each other longer than such small sums take
    config = ModelConfig(cell, tuple(CHARACTERS), num_layers=1, hidden_size=8, embedding_size=0)
    model = CharModel(config)
    _settle(model)
    artefact = export_checkpoint(model, CheckpointConfig(config), "r1", "1")
    runtime = Runtime(artefact)
    ways: dict[str, Step] = {"ONNX": runtime.step, **checkpoint_steps(model)}
    states = {name: runtime.initial_state(batch) for name in ways}
    chars = np.random.default_rng(batch).integers(0, len(CHARACTERS), (1000, batch))
    largest = 0.0
    for char in chars:
        outputs: dict[str, list[Array]] = {}
        for name, step in ways.items():
            logits, states[name] = step(char, states[name])
            outputs[name] = [logits, *states[name]]
        largest = max([largest, *(_distance(outputs["ONNX"], outputs[name]) for name in ways)])

    assert largest < 1e-6
    assert sorted(ways) == ["NumPy, float64", "ONNX", "PyTorch"]


def _settle(model: CharModel) -> None:
    """Give a network weights under which a difference between two states fades, as after training."""
    random = np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.data[:] = parameter.data.new_tensor(random.uniform(-0.3, 0.3, parameter.shape))


def _distance(ones: list[Array], others: list[Array]) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(ones, others, strict=True))


def test_r1_the_state_begins_at_zero_and_stays_within_one(lesson_models: Path):
    """H before the first character is 0, and tanh keeps every unit in [-1, 1]."""
    runtime = Runtime(read_artefact(lesson_models / "hello.onnx"))
    state = runtime.initial_state(1)
    assert [part.tolist() for part in state] == [[[0.0, 0.0, 0.0]]]
    for char in np.random.default_rng(0).integers(0, 4, (200, 1)):
        _, state = runtime.step(char, state)
        assert np.abs(state[0]).max() <= 1


# R2: the output layer


def test_r2_an_elman_network_of_the_lessons_size_is_served(server_process):
    """65 characters and 128 units: a state of 512 bytes, and the matrices' parameters."""
    with Client(server_process.address) as client:
        _check_r2(client, "elman")


def test_r2_the_bundled_network_is_the_lessons(bundled: Client):
    """`elman-128` has the lesson's shapes, and an evaluation that says how well it reads."""
    _check_r2(bundled, "elman-128")
    assert bundled.get_model("elman-128").evaluations


def _check_r2(client: Client, name: str) -> None:
    model = client.get_model(name)
    layer = 65 * 128 + 128 * 128 + 128  # W_xh, W_hh, b_h
    output = 65 * 128 + 65  # W_hy, b_y
    assert (model.cell, model.num_layers, model.hidden_size) == (Cell.ELMAN, 1, 128)
    assert len(model.vocabulary) == 65
    assert model.state_bytes == 128 * 4
    # PyTorch's cells, and so our checkpoints, write b_h as the sum of two.
    assert model.num_parameters == layer + output + 128
    assert len(probabilities(client, name, "ab")[0]) == 65


# R3, R4, R5: from logits to characters


def test_r3_softmax_gives_the_first_two_thirds(lesson: Client):
    """Logits 2.0, 1.0, 0.1 are probabilities 0.659, 0.242, 0.099."""
    (served,) = probabilities(lesson, "constant", "ab")

    assert {character: round(p, 3) for character, p in served.items()} == {"a": 0.659, "b": 0.242, "c": 0.099}


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(0.5, [0.864, 0.117, 0.019]), (1, [0.659, 0.242, 0.099]), (2, [0.502, 0.304, 0.194])],
)
def test_r4_temperature_sharpens_and_softens(temperature: float, expected: list[float]):
    """The sampler, asked at 100,000 points spread evenly over [0, 1), gives the lesson's shares."""
    size = 100_000
    sampler = Sampler(size, len(LOGITS))
    for row in range(size):
        sampler.load(row, Sampling(seed=0, temperature=temperature))
    logits = np.tile(np.array(LOGITS, np.float32), (size, 1))
    drawn = sampler.sample(logits, (np.arange(size) + 0.5) / size)

    assert (np.bincount(drawn) / size).round(3).tolist() == expected


def test_r4_served_characters_follow_the_tempered_distribution(lesson: Client):
    """Of 100,000 served characters each, at T = 0.2, 1 and 2, chi-square finds nothing (p > 0.001)."""
    texts: dict[float, str] = {}

    def draw(temperature: float) -> None:
        turn = lesson.generate("a", model="constant", temperature=temperature, max_chars=100_000, seed=1)
        texts[temperature] = "".join(turn)

    threads = [threading.Thread(target=draw, args=(temperature,)) for temperature in (0.2, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for temperature, text in texts.items():
        expected = 100_000 * softmax(LOGITS, temperature)
        counts = np.array([text.count(character) for character in "abc"])
        assert counts.sum() == 100_000
        assert ((counts - expected) ** 2 / expected).sum() < 13.816, temperature  # 2 degrees of freedom
    assert len(texts) == 3


def test_r4_temperature_zero_is_argmax(lesson: Client):
    """T = 0 takes the likeliest every time."""
    assert "".join(lesson.generate("a", model="constant", temperature=0, max_chars=100)) == "a" * 100


def test_r5_sampling_gives_variety_and_a_seed_takes_it_away(lesson: Client):
    """Ten seeds give ten texts; the same seed gives the same."""

    def text(seed: int) -> str:
        return "".join(lesson.generate("a", model="constant", seed=seed, max_chars=50))

    assert len({text(seed) for seed in range(10)}) == 10
    assert text(3) == text(3)


# R6: reading one character after the other


def test_r6_hello_is_read_one_character_at_a_time(lesson: Client, lesson_models: Path):
    """Each h encodes all before it: state, logits and probabilities by the equations, and as they are served."""
    w = {name: array.astype(np.float64) for name, array in float32(HELLO).items()}
    runtime = Runtime(read_artefact(lesson_models / "hello.onnx"))
    session = lesson.create_session("hello")
    served = probabilities(lesson, "hello", "hello")
    h, state, lines = np.zeros(3), runtime.initial_state(2), []
    for index, character in enumerate("hello"):
        symbol = HELLO_CHARACTERS.index(character)
        # h_t = tanh(W_xh x_t + W_hh h_(t-1)); y_t = W_hy h_t; x_t is one-hot, and both biases are 0.
        h_next = np.tanh(w["layers.0.weight_ih"][:, symbol] + w["layers.0.weight_hh"] @ h)
        y = w["output.weight"] @ h_next
        p = softmax(y)
        lines.append(_line(character, h_next, y, p))
        info = session.append(character).session
        # The last character stays pending: the step that reads it is taken with what comes next.
        assert info.state_digest == hashlib.sha256(struct.pack("<q", symbol) + state[0][0].tobytes()).hexdigest()
        logits, state = runtime.step(np.array([symbol, symbol]), state)
        assert np.abs(state[0][0] - h_next).max() < 1e-6
        assert np.abs(logits[0] - y).max() < 1e-6
        if index < len(served):
            assert [served[index][c] for c in HELLO_CHARACTERS] == pytest.approx(p.tolist(), abs=1e-6)
        h = h_next

    assert "\n".join(lines) in LESSON.read_text(), "docs/lesson.md is to hold:\n" + "\n".join(lines)


def _line(character: str, *columns: NDArray[np.float64]) -> str:
    cells = (" ".join(f"{value:.3f}" for value in column) for column in columns)
    return f"| {character} | {' | '.join(cells)} |"


# R7: what trained networks expect


def test_r7_the_bundled_network_knows_what_follows(bundled: Client):
    """After "hel" come l and p and not z or q; a name that it has read is finished.

    The lesson's own "Shakespear" would be no fair question: the corpus does not hold the name.
    """
    after_hel = probabilities(bundled, "shakespeare", "\nhel?")[-1]
    names = {"Gentlema": "n", "Coriolanu": "s", "Petruchi": "o", "QUEEN MARGARE": "T"}
    finished = {name: next(iter(probabilities(bundled, "shakespeare", f"\n{name}?")[-1])) for name in names}

    assert after_hel["l"] + after_hel["p"] > 0.2
    assert min(after_hel["l"], after_hel["p"]) > 20 * max(after_hel["z"], after_hel["q"])
    assert finished == names


# R8: by hand


def test_r8_one_dimension_in_two_dimensions_of_state(lesson_models: Path):
    """X = 1 from h = 0 gives h = (0.6, 0.8); then x = 0.5 gives h = (0.4191, 0.8002)."""
    runtime = Runtime(read_artefact(lesson_models / "numbers.onnx"))

    _, first = runtime.step(np.array([0]), runtime.initial_state(1))  # "a": x = 1
    _, second = runtime.step(np.array([2]), first)  # "c": x = 0.5

    # W_xh x = (ln 2, ln 3); tanh(ln 2) = (2 - 1/2) / (2 + 1/2) = 0.6; tanh(ln 3) = (3 - 1/3) / (3 + 1/3) = 0.8
    assert first[0][0] == pytest.approx([0.6, 0.8], abs=1e-6)
    # W_xh x = (0.3466, 0.5493); W_hh h = (0.5 0.6 - 0.25 0.8, 0.25 0.6 + 0.5 0.8) = (0.1, 0.55)
    assert second[0][0] == pytest.approx([math.tanh(0.346574 + 0.1), math.tanh(0.549306 + 0.55)], abs=1e-6)
    assert second[0][0] == pytest.approx([0.4191, 0.8002], abs=1e-4)


def test_r8_two_dimensions_of_state_to_three_classes(lesson: Client, lesson_models: Path):
    """H = (0.6, 0.8) gives logits (1.05, -0.1, -0.2): class 0 wins with 1.05, at 62 %."""
    runtime = Runtime(read_artefact(lesson_models / "numbers.onnx"))
    logits, _ = runtime.step(np.array([0]), runtime.initial_state(1))
    (served,) = probabilities(lesson, "numbers", "aa")

    # 0.75 0.6 + 0.75 0.8 = 1.05; 0.5 0.6 - 0.5 0.8 = -0.1; -1 0.6 + 0.5 0.8 = -0.2
    assert logits[0] == pytest.approx([1.05, -0.1, -0.2], abs=1e-6)
    # e^1.05 = 2.8577, e^-0.1 = 0.9048, e^-0.2 = 0.8187; together 4.5812
    assert list(served) == ["a", "b", "c"]
    assert list(served.values()) == pytest.approx([0.6238, 0.1975, 0.1787], abs=5e-5)


# R11: the same matrices at every step


def test_r11_a_session_is_as_large_after_100_000_characters_as_after_100(lesson_server, lesson: Client):
    """Neither the parameters nor the state nor the engines' memory grow with the length of what was read."""
    model = lesson.get_model("hello")
    session = lesson.create_session("hello", seed=1)
    size = len("h" + "".join(session.generate("h", max_chars=100)))
    before = [resident_bytes(engine) for engine in lesson_server.engines()]
    size += sum(map(len, session.generate(max_chars=100_000)))
    after = [resident_bytes(engine) for engine in lesson_server.engines()]

    assert session.refresh().position == size == 100_101
    assert lesson.get_model("hello") == model
    assert (model.state_bytes, model.num_parameters) == (3 * 4, 4 * 3 + 3 * 3 + 2 * 3 + 3 * 4 + 4)
    assert all(late - early < 8 * _MIB for early, late in zip(before, after, strict=True))


def test_r11_the_file_holds_each_matrix_once(lesson_models: Path):
    """The prefill graph that reads many characters at once has no weights of its own."""
    artefact: Artefact = read_artefact(lesson_models / "hello.onnx")
    shapes = {tensor.name: list(tensor.dims) for tensor in artefact.step.graph.initializer}

    assert sorted(map(tuple, shapes.values())) == [(3, 3), (3, 4), (4,), (4, 3)]
    assert artefact.prefill is not None
