"""The programs of examples/, run as their docstrings say, and what they make served by the real server."""

import runpy
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch

from elman_client import Cell, Client
from elman_export.__main__ import main as exporter
from examples import min_gru, numpy_rnn, torch_lstm_train, utf8_bytes
from tests.oracle import Draws, Oracle, Point
from tests.server_process import ServerProcess

ROOT: Final = Path(__file__).parent.parent
EXAMPLES: Final = ROOT / "examples"
TEXT: Final = (ROOT / "LICENSE").read_text()
CHARACTERS: Final = sorted(set(TEXT))
PATIENCE: Final = 100
EXACT: Final = 1e-4  # nats that float32 in another order may differ by, over a text


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the programs run; `models` is what the server serves."""
    folder: Path = tmp_path_factory.mktemp("examples")
    (folder / "models").mkdir()
    (folder / "text.txt").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def target(folder) -> Iterator[str]:
    """The address of a server of all that the examples make, step by step as their first lines tell."""
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])  # `trace --module` adds the current folder
        torch_lstm_train.main("text.txt", "lstm.pt", "20")
        patch.setattr(sys, "argv", ["", "text.txt", "lstm.pt", "models/lstm.onnx"])
        runpy.run_path(str(EXAMPLES / "torch_lstm_export.py"))
        min_gru.main("text.txt", "runs/min_gru.safetensors", "20")
        export("trace --module examples.min_gru:build --vocab runs/min_gru.txt -o models/min-gru.onnx")
        numpy_rnn.main("text.txt", "models/numpy-rnn.onnx", "300")
        utf8_bytes.write("runs/utf8.txt")
        export(f"train runs/utf8.txt --bytes --recipe {EXAMPLES}/utf8_bytes.toml -o runs/utf8")
        export("trace runs/utf8 -o models/utf8.onnx")
    with ServerProcess(folder / "models") as server:
        yield server.address


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch have one thread: two wait for each other longer than such small sums take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def export(command: str) -> None:
    """Run a command of `python -m elman_export`."""
    exporter(shlex.split(command), standalone_mode=False)


@pytest.fixture
def client(target) -> Iterator[Client]:
    """A client of it."""
    with Client(target, timeout=PATIENCE) as client:
        yield client


pytestmark = pytest.mark.timeout(900)  # the first test waits for three trainings


def scores(client: Client, model: str, text: str) -> torch.Tensor:
    """Return what the server says of each character of a text but the first, in nats."""
    details = client.score(text, model=model).details
    return torch.tensor([detail.log_probability for detail in details[1:]])


def picked(logits: torch.Tensor, text: str) -> torch.Tensor:
    """Return the log-probability of each character of a text but the first, from logits [T, V]."""
    ids = torch.tensor([CHARACTERS.index(character) for character in text])
    return torch.log_softmax(logits[:-1], dim=-1).gather(1, ids[1:, None])[:, 0]


# A state_dict of PyTorch's own layers


def test_the_tutorials_network_is_served_as_pytorch_computes_it(folder: Path, client: Client):
    """The state_dict became an LSTM that scores a text of 1,000 characters as the module does."""
    model = torch_lstm_train.CharLSTM(len(CHARACTERS)).eval()
    model.load_state_dict(torch.load(folder / "lstm.pt", weights_only=True))
    text = TEXT[:1000]
    with torch.inference_mode():
        expected = picked(model(torch.tensor([[CHARACTERS.index(character) for character in text]]))[0], text)

    served = client.get_model("lstm")
    assert (served.cell, served.num_layers, served.hidden_size) == (Cell.LSTM, 2, 128)
    assert (scores(client, "lstm", text) - expected).abs().max() < EXACT


def test_the_export_is_under_20_lines():
    """What bringing a checkpoint takes."""
    assert len((EXAMPLES / "torch_lstm_export.py").read_text().splitlines()) < 20


# Five arrays of NumPy


def test_the_lessons_arrays_are_served_as_numpy_computes_them(client: Client):
    """The five arrays became an Elman network that scores a text as the lesson's equations do."""
    own = numpy_rnn.train(TEXT, CHARACTERS, 300)  # the same again: there is no chance in it
    h, text, steps = np.zeros(numpy_rnn.HIDDEN_SIZE), TEXT[:300], []
    for character in text:
        h = np.tanh(own["w_xh"][:, CHARACTERS.index(character)] + own["w_hh"] @ h + own["b_h"])
        steps.append(own["w_hy"] @ h + own["b_y"])

    served = client.get_model("numpy-rnn")
    assert (served.cell, served.num_layers, served.hidden_size) == (Cell.ELMAN, 1, numpy_rnn.HIDDEN_SIZE)
    assert (scores(client, "numpy-rnn", text) - picked(torch.tensor(np.array(steps)), text)).abs().max() < EXACT


def test_the_networks_gradients_are_those_of_its_loss():
    """Back-propagation by hand agrees with differences of the loss, weight by weight."""
    own, ids, h = numpy_rnn.initial(5), np.array([0, 3, 1, 4, 2]), np.zeros(numpy_rnn.HIDDEN_SIZE)
    _, found, _ = numpy_rnn.gradients(own, ids, h)
    for name, array in own.items():
        at = np.unravel_index(np.abs(found[name]).argmax(), array.shape)
        losses = []
        for change in (1e-5, -1e-5):
            moved = {other: part.copy() for other, part in own.items()}
            moved[name][at] += change
            losses.append(numpy_rnn.gradients(moved, ids, h)[0] * (len(ids) - 1))
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(found[name][at], rel=1e-4), name


# A cell that nobody knows


def test_min_gru_is_served_as_pytorch_computes_it(folder: Path, client: Client, monkeypatch):
    """The traced cell scores a text of 300 characters as the module does."""
    monkeypatch.setenv("MIN_GRU", str(folder / "runs" / "min_gru.safetensors"))
    network, state = min_gru.build()
    text, steps = TEXT[:300], []
    with torch.inference_mode():
        for character in text:
            logits, *after = network(torch.tensor([CHARACTERS.index(character)]), *state)
            steps.append(logits)
            state = tuple(after)

    served = client.get_model("min-gru")
    assert (served.cell, served.state_bytes) == (Cell.OTHER, min_gru.NUM_LAYERS * min_gru.SIZE * 4)
    assert (scores(client, "min-gru", text) - picked(torch.cat(steps), text)).abs().max() < EXACT


def test_min_gru_writes_the_same_alone_and_among_neighbours(client: Client):
    """Fifteen other texts at the same time change neither the text nor the state."""

    def write(seed: int) -> tuple[str, str]:
        session = client.create_session("min-gru", seed=seed)
        text = "".join(session.generate(TEXT[:70], max_chars=200))
        return text, session.refresh().state_digest

    alone = write(0)
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(write, range(16)))
    assert together[0] == alone
    assert len({text for text, _ in together}) == 16


def test_min_gru_goes_on_identically_however_its_text_came(client: Client):
    """Fed whole or in pieces, drawn in one turn or in many: the same text, the same state."""
    whole, pieces = client.create_session("min-gru", seed=3), client.create_session("min-gru", seed=3)
    expected = "".join(whole.generate(TEXT[:200], max_chars=90))
    for at in range(0, 200, 33):
        pieces.append(TEXT[at : min(200, at + 33)])
    actual = "".join("".join(pieces.generate(max_chars=30)) for _ in range(3))
    assert actual == expected
    assert pieces.refresh().state_digest == whole.refresh().state_digest
    assert pieces.transcript().text == whole.transcript().text == TEXT[:200] + expected


def test_min_gru_forks_and_both_branches_go_on_as_it_would_alone(folder: Path, client: Client):
    """A fork at a position within a turn, and its parent, draw what the bare cell draws, stepped outside the server."""
    oracle = Oracle(folder / "models" / "min-gru.onnx")
    parent = client.create_session("min-gru", seed=5)
    text = "".join(parent.generate(TEXT[:70], temperature=0.8, max_chars=120))
    (fork,) = parent.fork(130)
    end = walked(oracle.beginning.read(TEXT[:70]), Draws(5, temperature=0.8), text)
    assert parent.refresh().state_digest == end.digest()
    assert fork.refresh().state_digest == end.at(130).digest()

    branches = [(fork, end.at(130), 8), (parent, end, 9)]
    for session, point, seed in branches:
        more = "".join(session.generate(TEXT[70:90], seed=seed, top_k=5, max_chars=100))
        after = walked(point.read(TEXT[70:90]), Draws(seed, top_k=5), more)
        assert session.refresh().state_digest == after.digest()
        assert session.transcript().text == after.text()
        assert [turn.is_equal for turn in session.replay()] == [True] * session.info.turn_count


def walked(point: Point, draws: Draws, text: str) -> Point:
    """Return the point after a text, which has to be what is drawn there."""
    points = list(islice(point.sample(draws), len(text)))
    assert "".join(point.oracle.characters[point.char] for point in points) == text
    return points[-1]


# Bytes


def test_bytes_are_streamed_as_whole_characters(client: Client):
    """One character a message, of one to four bytes each, and never half of one."""
    session = client.create_session("utf8", seed=1)
    chunks = list(session.generate("\n", temperature=0.5, max_chars=2000, chunk_chars=1))
    assert {len(chunk) for chunk in chunks} == {1}
    assert {len(chunk.encode()) for chunk in chunks} == {1, 2, 3, 4}
    assert "\ufffd" not in chunks
    lines = "".join(chunks).split("\n")[:-1]
    assert sum(line in utf8_bytes.SENTENCES for line in lines) > len(lines) / 2


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_turns_that_end_within_a_character_lose_nothing(client: Client, size: int):
    """Many short turns say what one long turn says, and so does the transcript in pieces."""
    whole, pieces = client.create_session("utf8", seed=1), client.create_session("utf8", seed=1)
    expected = "".join(whole.generate("🌊", temperature=0.5, max_chars=70, chunk_chars=1))
    pieces.append("🌊")
    turns = ["".join(pieces.generate(temperature=0.5, max_chars=size, chunk_chars=1)) for _ in range(0, 70, size)]
    assert "".join(turns) == expected
    assert pieces.refresh().position == whole.refresh().position == 74
    parts = [pieces.transcript(at, min(at + size, 74)).text for at in range(0, 74, size)]
    assert "".join(parts) == whole.transcript().text == "🌊" + expected


def test_what_is_no_utf8_is_replaced_in_every_message(client: Client):
    """A model that is made to draw bytes that are none still streams text that the transcript has."""
    session = client.create_session("utf8", seed=1)
    chunks = list(
        session.generate("\n", temperature=2, allowed_characters="\xe3\x81\x82a", max_chars=300, chunk_chars=1)
    )
    assert "\ufffd" in chunks
    assert session.transcript().text == "\n" + "".join(chunks)


def test_the_streaming_program_works(target: str, capsys):
    """The example shows whole sentences, drawn by turns of 7 bytes."""
    utf8_bytes.stream(target)
    shown = capsys.readouterr().out
    assert "\ufffd" not in shown
    assert any(line in utf8_bytes.SENTENCES for line in shown.splitlines())
