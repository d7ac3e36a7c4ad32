import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from elman_client import AsyncClient
from elman_export.__main__ import main
from elman_export.artefacts.artefact import Artefact, read_artefact
from elman_export.exporting.cells import StepGraphs
from elman_format import Metadata
from tests.models import CHARACTERS, nan_model, quantized_model, random_weights, tiny_model
from tests.server_process import ServerProcess

SENTENCE = "The quick brown fox jumps over the lazy dog, and the dog sleeps on.\n"
BAR = 0.002  # nats per character


def run(*arguments: object) -> Result:
    """What the command line does with the arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Random characters that every tiny model knows."""
    path = tmp_path / "text.txt"
    path.write_bytes("".join(np.random.default_rng(0).choice(list(CHARACTERS), 10_000)).encode())
    return path


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_an_artefact_becomes_int8(cell: str, text: Path, tmp_path: Path):
    """It says how and from what it was made, is a good deal smaller, and inspect reads it."""
    source = read_artefact(tiny_model(tmp_path / "a.onnx", cell, 2, 128))
    result = run("quantize", tmp_path / "a.onnx", "--calibrate", text, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    artefact = read_artefact(tmp_path / "a-int8.onnx")
    metadata = artefact.metadata
    assert (report["output"], report["digest"]) == (str(tmp_path / "a-int8.onnx"), artefact.digest)
    assert (metadata.name, metadata.version, metadata.is_quantized) == ("tiny-int8", "1-int8", True)
    record = metadata.recipe["quantisation"]
    assert record["source_digest"] == source.digest
    assert (record["scheme"], record["clip"], record["num_symbols"]) == ("int8-portable", 1.0, 9000)
    assert all(0 < scale <= 1 / 127 for scale in record["scales"])
    assert len(artefact.data) < 0.5 * len(source.data)
    evaluation, first, second = metadata.evaluation
    assert (first["num_characters"], second["num_characters"]) == (499, 500)
    assert evaluation["nats_per_character"] == pytest.approx(report["int8_nats_per_character"], abs=1e-6)
    assert (evaluation["protocol"], evaluation["num_characters"]) == ("streaming", 999)
    assert json.loads(run("inspect", tmp_path / "a-int8.onnx", "--json").stdout)["operators"]["QGemm"] > 0


def test_the_same_again_is_the_same_file(text: Path, tmp_path: Path):
    """Calibration has no chance in it."""
    tiny_model(tmp_path / "a.onnx")
    for name in ("b", "c"):
        assert run("quantize", tmp_path / "a.onnx", "--calibrate", text, "-o", tmp_path / f"{name}.onnx").exit_code == 0
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()


def test_options_are_honoured(text: Path, tmp_path: Path):
    """Name, version, clip, and another text for the loss."""
    unseen = tmp_path / "unseen.txt"
    unseen.write_text(SENTENCE * 20)
    options = ["--clip", "0.5", "--evaluate", unseen, "--name", "small", "--model-version", "2"]
    result = run("quantize", tiny_model(tmp_path / "a.onnx"), "--calibrate", text, *options, "-o", tmp_path / "b.onnx")
    assert result.exit_code == 0, result.output
    metadata = read_artefact(tmp_path / "b.onnx").metadata
    run("quantize", tmp_path / "a.onnx", "--calibrate", text, "--evaluate", unseen)
    whole = read_artefact(tmp_path / "a-int8.onnx").metadata.recipe["quantisation"]["scales"]
    assert (metadata.name, metadata.version) == ("small", "2")
    assert metadata.recipe["quantisation"]["scales"] == pytest.approx([scale / 2 for scale in whole])
    assert (metadata.evaluation[0]["protocol"], metadata.evaluation[0]["num_characters"]) == (
        "streaming-whole",
        len(SENTENCE) * 20 - 1,
    )
    assert "a difference of" in result.stdout


def test_a_trained_model_loses_next_to_nothing(tmp_path: Path):
    """A network that has learnt its text predicts it within 0.002 nats as well in int8."""
    text = tmp_path / "text.txt"
    text.write_text(SENTENCE * 200)
    checkpoint = tmp_path / "run"
    settings = ["--cell", "gru", "--hidden-size", "32", "--num-layers", "2", "--embedding-size", "16", "--epochs", "60"]
    assert run("train", text, "-o", checkpoint, *settings).exit_code == 0
    assert run("trace", checkpoint, "-o", tmp_path / "a.onnx").exit_code == 0
    result = run("quantize", tmp_path / "a.onnx", "--calibrate", text, "--json")
    report = json.loads(result.stdout)
    assert report["float32_nats_per_character"] < 2
    assert abs(report["difference_nats"]) < BAR


async def test_the_server_gives_the_same_text_alone_and_among_neighbours(text: Path, tmp_path: Path):
    """Through the whole service, an int8 model keeps what is promised of every model."""
    models = tmp_path / "models"
    models.mkdir()
    source = tiny_model(tmp_path / "a.onnx", "lstm", 2, 64)
    assert run("quantize", source, "--calibrate", text, "-o", models / "tiny.onnx", "--name", "tiny").exit_code == 0

    async def draw(client: AsyncClient, seed: int) -> str:
        session = await client.create_session(model="tiny", seed=seed)
        return "".join([part async for part in session.generate("ROMEO:", temperature=0.9, max_chars=200)])

    with ServerProcess(models) as server:
        async with AsyncClient(server.address, timeout=60) as client:
            alone = await draw(client, 7)
            among = await asyncio.gather(*(draw(client, seed) for seed in range(16)))
    assert among[7] == alone
    assert len(set(among)) == 16


# Errors


def refused(model: Path, text: Path, *options: object) -> str:
    """The one line that the command ends with; nothing is written."""
    before = sorted(model.parent.iterdir())
    result = run("quantize", model, "--calibrate", text, *options)
    assert (result.exit_code, result.stdout, sorted(model.parent.iterdir())) == (1, "", before)
    (line,) = result.stderr.splitlines()
    return line


def foreign(path: Path) -> Path:
    """A GRU whose weights have names of their own."""
    graphs = StepGraphs("gru", random_weights("gru"))
    step, prefill = graphs.step(), graphs.prefill()
    for tensor in step.graph.initializer:
        if tensor.name.endswith(".table"):
            for node in (*step.graph.node, *prefill.graph.node):
                node.input[:] = ["x" + name if name == tensor.name else name for name in node.input]
            tensor.name = "x" + tensor.name
    Artefact.build(step, Metadata("a", tuple(CHARACTERS), "1", "gru", 1, 16), prefill).save(path)
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (quantized_model, "Error: int8 is int8 already: give the float32 artefact that it was made from."),
        (nan_model, "Error: The cell of nan is 'other', a traced module: only elman, gru, lstm can be quantized."),
        (lambda path: tiny_model(path, prefill=False), "Error: tiny lacks a prefill graph: trace its checkpoint again"),
        (foreign, "Error: a was not traced from a checkpoint by this exporter: trace it again."),
    ],
)
def test_what_cannot_be_quantized_is_one_sentence(make, sentence: str, text: Path, tmp_path: Path):
    """It says why, and what to do instead."""
    path = tmp_path / "a.onnx"
    make(path)
    assert refused(path, text).startswith(sentence)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (SENTENCE.encode(), "symbols, evaluation needs 513: take a longer text"),
        ((SENTENCE * 100 + "\u20ac#").encode(), "characters that the model lacks"),
        (("#" + SENTENCE * 100).encode(), "characters that the model lacks"),
        (b"\xff" * 10_000, "is not UTF-8"),
    ],
)
def test_a_text_that_does_not_do_is_one_sentence(content: bytes, sentence: str, tmp_path: Path):
    """Whether it calibrates or is to be predicted."""
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    good.write_text(SENTENCE * 100)
    bad.write_bytes(content)
    path = tiny_model(tmp_path / "a.onnx")
    for options in ((bad,), (good, "--evaluate", bad), (bad, "--evaluate", good)):
        line = refused(path, *options)
        assert str(bad) in line
        assert sentence in line
    assert "Cannot read the text" in refused(path, tmp_path / "none.txt")


def test_a_model_that_is_not_finite_is_refused(text: Path, tmp_path: Path):
    """Nothing can be calibrated on NaN."""
    weights = random_weights("gru")
    weights["layers.0.bias_hh"][40] = np.nan
    graphs = StepGraphs("gru", weights)
    metadata = Metadata("a", tuple(CHARACTERS), "1", "gru", 1, 16)
    path = tmp_path / "a.onnx"
    Artefact.build(graphs.step(), metadata, graphs.prefill()).save(path)
    assert "The states of a are not finite on this text: train it again." in refused(path, text)


def test_another_network_does_not_verify(text: Path, tmp_path: Path):
    """What int8 rounds is a few hundredths; another network is far beyond."""
    from tests.export.commands.test_main import make_checkpoint  # noqa: PLC0415 — seconds of torch

    checkpoint, other = make_checkpoint(tmp_path / "run"), make_checkpoint(tmp_path / "other", seed=1)
    run("trace", checkpoint, "-o", tmp_path / "a.onnx")
    assert run("quantize", tmp_path / "a.onnx", "--calibrate", text).exit_code == 0
    assert run("verify", tmp_path / "a-int8.onnx", checkpoint).exit_code == 0
    assert run("verify", tmp_path / "a-int8.onnx", other).exit_code == 1


@pytest.mark.parametrize("clip", ["0", "1.1", "-0.5"])
def test_a_clip_that_makes_no_sense_is_a_mistake_in_the_command(clip: str, text: Path, tmp_path: Path):
    """It exits with 2."""
    assert run("quantize", tiny_model(tmp_path / "a.onnx"), "--calibrate", text, "--clip", clip).exit_code == 2


def test_a_layer_that_is_always_zero_is_held(text: Path, tmp_path: Path):
    """Any scale will do for it."""
    weights = {name: np.zeros_like(array) for name, array in random_weights("gru").items()}
    graphs = StepGraphs("gru", weights)
    path = tmp_path / "a.onnx"
    source = Artefact.build(graphs.step(), Metadata("a", tuple(CHARACTERS), "1", "gru", 1, 16), graphs.prefill())
    source.save(path)
    assert run("quantize", path, "--calibrate", text).exit_code == 0
