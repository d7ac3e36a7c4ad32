import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from elman_export.__main__ import main
from elman_export.artefacts.artefact import read_artefact
from elman_export.cards import speed
from elman_export.cards.entries import RANGES, Entry
from elman_export.cards.page import render
from elman_export.cards.speed import Speed, measure_speed
from elman_export.errors import ArtefactError
from elman_export.evaluation.evaluate import Evaluation, evaluate, with_records
from elman_export.evaluation.split import read_split
from tests.models import CHARACTERS, nan_model, tiny_model

SPEED = Speed(123456.0, 1234.0, None)
CURVE = [[1.0, 2.5, 2.0], [2.0, 2.0, 1.75]]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text of the 65 characters."""
    path = tmp_path / "text"
    path.write_text("".join(np.random.default_rng(0).choice(list(CHARACTERS), 9000)), newline="")
    return path


@pytest.fixture
def folder(tmp_path: Path, text: Path) -> Path:
    """A small trained and evaluated network, and a larger one of which nothing is known."""
    folder = tmp_path / "models"
    folder.mkdir()
    artefact = read_artefact(tiny_model(folder / "b.onnx", "elman", name="small"))
    split = read_split(text, artefact.metadata.vocabulary)
    training = {"seconds": 90.0, "cpu_seconds": 60.0, "curve": CURVE}
    recipe = {"corpus_sha256": split.sha256, "epochs": 2.0, "seed": 5, "training": training}
    known = artefact.with_metadata(replace(artefact.metadata, recipe=recipe))
    with_records(known, evaluate(known, split)).save(folder / "b.onnx")
    tiny_model(folder / "a.onnx", "lstm", name="large")
    return folder


def run(*arguments: object) -> Result:
    """What the command line does with the arguments."""
    return CliRunner().invoke(main, ["card", *map(str, arguments)])


def cells(page: str, label: str) -> list[str]:
    """The last line of the page's tables that begins so."""
    line = [line for line in page.splitlines() if line.startswith(f"| {label} |")][-1]
    return [cell.strip() for cell in line.split("|")[2:-1]]


@pytest.fixture
def quick(monkeypatch):
    """Speeds that are measured in no time."""
    monkeypatch.setattr(speed, "SECONDS", 0.001)


@pytest.mark.usefixtures("quick")
def test_the_card_says_what_the_artefacts_say(folder: Path, text: Path, tmp_path: Path):
    """One column a model, the smaller first; what is not known is a hyphen."""
    output = tmp_path / "card.md"
    result = run(folder, "-o", output, "--text", text)
    assert (result.exit_code, result.stderr) == (0, "")
    page = output.read_text()
    small, large = (read_artefact(folder / name) for name in ("b.onnx", "a.onnx"))
    assert "|  | `small` | `large` |" in page.splitlines()
    assert cells(page, "network") == ["Elman 1x16", "LSTM 1x16"]
    assert cells(page, "weights") == ["float32", "float32"]
    assert cells(page, "file, bytes") == [f"{len(artefact.data):,}" for artefact in (small, large)]
    assert cells(page, "state of a session, bytes") == ["64", "128"]
    record = small.metadata.evaluation[0]
    loss = f"{record['nats_per_character']:.4f} ± {record['standard_error']:.4f}"
    assert cells(page, "loss, streaming") == [loss, "-"]
    assert cells(page, "training time") == ["1.5 min", "-"]
    assert cells(page, "time of processors") == ["1.0 min", "-"]
    assert (cells(page, "epochs"), cells(page, "seed")) == (["2", "-"], ["5", "-"])
    assert cells(page, "`small`") == [f"`{small.digest}`"]


@pytest.mark.usefixtures("quick")
def test_all_but_the_speeds_repeats(folder: Path, text: Path, tmp_path: Path):
    """The page line for line, the picture byte for byte."""
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert run(folder, "-o", tmp_path / name / "card.md", "--text", text).exit_code == 0
        lines = (tmp_path / name / "card.md").read_text().splitlines()
        pages.append([line for line in lines if not line.startswith("| speed")])
    assert pages[0] == pages[1]
    assert (tmp_path / "one/card.svg").read_bytes() == (tmp_path / "two/card.svg").read_bytes()
    assert "](card.svg)" in "\n".join(pages[0])


@pytest.mark.usefixtures("quick")
def test_without_curves_and_text_there_is_no_picture(tmp_path: Path):
    """A folder of models that nobody trained or measured still has a card."""
    folder = tmp_path / "models"
    folder.mkdir()
    nan_model(folder / "nan.onnx")
    assert run(folder, "-o", tmp_path / "card.md").exit_code == 0
    page = (tmp_path / "card.md").read_text()
    assert ("card.svg" in page, (tmp_path / "card.svg").exists()) == (False, False)
    assert cells(page, "network") == ["other"]
    assert cells(page, "speed, prefill of 1 row") == ["-"]
    assert "gates" not in page


def test_the_cost_of_a_new_state_is_windows_less_streaming(text: Path, tmp_path: Path):
    """At the same symbols, so that a difference of the text is no difference of the figure."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx"))
    split = read_split(text, artefact.metadata.vocabulary)
    streaming = np.random.default_rng(0).normal(size=3 * 256 + 100)
    extra = np.array([2.0 if i % 256 < 3 else 0.5 if i % 256 == 255 else 0.0 for i in range(len(streaming))])
    evaluation = Evaluation(split, {"streaming": streaming, "windows-256": streaming + extra}, None)
    costs = Entry.of(artefact, SPEED, evaluation).reset_costs()
    assert RANGES == ((1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, 127), (128, 255))
    assert [cost.nats for cost in costs] == pytest.approx([2.0, 2.0, *[0.0] * 6])
    assert [cost.standard_error for cost in costs] == pytest.approx([0.0] * 8)
    assert [cost.num_characters for cost in costs] == [3 * (last - first + 1) for first, last in RANGES]
    page = render([Entry.of(artefact, SPEED, evaluation)], None)
    assert "are missed up to 3 characters later by `tiny`" in page


def test_a_record_that_is_not_true_is_found(text: Path, tmp_path: Path):
    """The card does not print what the artefact does not do."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx"))
    evaluation = evaluate(artefact, read_split(text, artefact.metadata.vocabulary))
    records = evaluation.records()
    records[3]["nats_per_character"] = 1.0
    lying = artefact.with_metadata(replace(artefact.metadata, evaluation=records))
    Entry.of(with_records(artefact, evaluation), SPEED, evaluation)
    with pytest.raises(ArtefactError, match=r"tiny has the record 1\.0000 \(windows-256\) but its loss is"):
        Entry.of(lying, SPEED, evaluation)


def test_the_record_of_the_own_text_comes_first(tmp_path: Path):
    """Another text's record does not stand in for it."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx"))
    figures = {"protocol": "streaming", "nats_per_character": 1.0, "standard_error": 0.1, "num_characters": 9}
    records = [{"corpus_sha256": name, **figures} for name in ("x", "own")]
    metadata = replace(artefact.metadata, recipe={"corpus_sha256": "own"}, evaluation=records)
    record = Entry.of(artefact.with_metadata(metadata), SPEED, None).record("streaming")
    assert record is not None
    assert record["corpus_sha256"] == "own"


@pytest.mark.parametrize("prefill", [True, False])
def test_speeds_are_numbers(tmp_path: Path, prefill: bool, quick: None):  # noqa: ARG001, FBT001 - parametrised
    """Of the step always, of the prefill graph where there is one."""
    found = measure_speed(read_artefact(tiny_model(tmp_path / "a.onnx", prefill=prefill)))
    assert 0 < found.step < math.inf
    assert 0 < found.wide_step < math.inf
    assert (found.prefill is not None) == prefill


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "-o", "card.md"], "There is no artefact (*.onnx) in nowhere"),
        (["models", "-o", "models"], "models is a folder: name a file to write"),
    ],
)
def test_errors_are_one_line(arguments: list[str], sentence: str, folder: Path, monkeypatch):
    """With what to do; exit code 1."""
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(speed, "SECONDS", 0.001)
    result = run(*arguments)
    assert (result.exit_code, sentence in result.stderr, len(result.stderr.splitlines())) == (1, True, 1)
