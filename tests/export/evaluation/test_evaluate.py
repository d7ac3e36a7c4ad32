"""The artefact's loss against the equations, and the command around it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result

from elman_export.__main__ import main
from elman_export.artefacts.artefact import Artefact, read_artefact
from elman_export.commands import evaluate as evaluate_command
from elman_export.errors import ArtefactError
from elman_export.evaluation.evaluate import MAX_ROWS, Evaluation, check_predicts, evaluate, num_steps
from elman_export.evaluation.kneser_ney import kneser_ney_losses
from elman_export.evaluation.split import Split, read_split
from elman_export.exporting.reference import reference_step
from tests.models import CHARACTERS, nan_model, random_weights, tagging_model, tiny_model

if TYPE_CHECKING:
    from elman_export.artefacts.runtime import Array

CHARS = tuple(CHARACTERS)
RECORD = {"protocol": "streaming", "nats_per_character": 9.0, "standard_error": 0.1, "num_characters": 899}
PROTOCOLS = [
    "streaming", "streaming-first-half", "streaming-second-half",
    "windows-256", "windows-256-first-half", "windows-256-second-half",
    "kneser-ney-5",
]  # fmt: skip
UTF8 = "na\u00efve \u20ac 5, caf\u00e9 \U0001f600.\n"


def make_text(path: Path, alphabet: str = CHARACTERS, length: int = 9000) -> Path:
    """Random characters; nothing to be learnt, but a text."""
    path.write_text("".join(np.random.default_rng(0).choice(list(alphabet), length)), newline="")
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text of the 65 characters."""
    return make_text(tmp_path / "text")


def run(*arguments: object) -> Result:
    """What the command line does with the arguments."""
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def expected(cell: str, split: Split, vocabulary_size: int, window: int) -> np.ndarray:
    """One step after the other by the equations in float64, the state new after every `window` symbols."""
    step = reference_step(cell, random_weights(cell, vocabulary_size=vocabulary_size))
    losses = []
    for i in range(len(split.evaluated) - 1):
        if i % window == 0:
            state: list[Array] = [np.zeros((1, 16)) for _ in range(2 if cell == "lstm" else 1)]
        logits, state = step(split.evaluated[i : i + 1], state)
        scores = [float(score) for score in logits[0]]
        losses.append(math.log(sum(map(math.exp, scores))) - scores[split.evaluated[i + 1]])
    return np.array(losses)


# The figures


@pytest.mark.parametrize("prefill", [True, False])
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_both_protocols_are_what_the_equations_give(cell: str, prefill: bool, tmp_path: Path, text: Path):  # noqa: FBT001 - parametrised
    """Symbol for symbol, with the prefill graph and without; halves and n-grams are of the same symbols."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx", cell, prefill=prefill))
    split = read_split(text, artefact.metadata.vocabulary)
    found = evaluate(artefact, split)
    assert list(found.losses) == ["streaming", "windows-256"]
    assert found.losses["streaming"] == pytest.approx(expected(cell, split, 65, len(split.evaluated)), abs=1e-4)
    assert found.losses["windows-256"] == pytest.approx(expected(cell, split, 65, 256), abs=1e-4)
    assert found.counting == pytest.approx(kneser_ney_losses(split.training, split.evaluated, 65))
    first, second = found.halves(found.losses["streaming"])
    whole = found.loss(found.losses["streaming"])
    assert (first.num_characters, second.num_characters, whole.num_characters) == (449, 450, 899)
    assert (first.nats * 449 + second.nats * 450) / 899 == pytest.approx(whole.nats)


def test_prefill_and_stepping_give_the_same_bits(tmp_path: Path, text: Path):
    """How a text is read is no part of the figure."""
    fast, slow = (read_artefact(tiny_model(tmp_path / f"{prefill}.onnx", prefill=prefill)) for prefill in (True, False))
    split = read_split(text, fast.metadata.vocabulary)
    for quick, patient in zip(
        evaluate(fast, split).losses.values(), evaluate(slow, split).losses.values(), strict=True
    ):
        assert quick.tobytes() == patient.tobytes()


def test_bytes_are_told_by_the_byte_and_by_the_character(tmp_path: Path):
    """The sum of the nats is one, the number of bytes and that of characters are two."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx", vocabulary=None))
    split = read_split(make_text(tmp_path / "text", UTF8), None)
    found = evaluate(artefact, split)
    losses = found.losses["streaming"]
    assert losses == pytest.approx(expected("gru", split, 256, len(split.evaluated)), abs=1e-4)
    num_characters = len(bytes(split.evaluated[1:].tolist()).decode(errors="ignore"))
    assert found.loss(losses).num_characters == num_characters < len(losses)
    assert found.loss(losses).nats == pytest.approx(losses.sum() / num_characters)


def test_many_windows_are_read_in_several_batches(tmp_path: Path):
    """More windows than rows give the windows' losses in the text's order."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx", "elman"))
    split = read_split(make_text(tmp_path / "text", length=256 * (MAX_ROWS + 2)), CHARS, is_whole=True)
    told: list[int] = []
    found = evaluate(artefact, split, told.append)
    assert found.losses["windows-256"] == pytest.approx(expected("elman", split, 65, 256), abs=1e-4)
    assert sum(told) == num_steps(split)


def test_the_first_state_is_the_artefacts_own(tmp_path: Path, text: Path):
    """Where the artefact says what a session starts from, each window starts from it."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx"))
    row = np.linspace(-1, 1, 16, dtype=np.float32)
    primed = artefact.with_metadata(replace(artefact.metadata, initial_states={"default": (row.tobytes(),)}))
    split = read_split(text, CHARS)
    plain, found = evaluate(artefact, split), evaluate(primed, split)
    logits, _ = reference_step("gru", random_weights("gru"))(split.evaluated[256:257], [row[None].astype(float)])
    loss = np.log(np.exp(logits[0]).sum()) - logits[0, split.evaluated[257]]
    assert found.losses["windows-256"][256] == pytest.approx(loss, abs=1e-5)
    assert plain.losses["windows-256"][256] != pytest.approx(loss, abs=1e-5)


def test_the_gain_over_counting_is_taken_in_pairs(text: Path):
    """Where a network is better by the same everywhere, the difference has no error, however the losses vary."""
    split = read_split(text, CHARS)
    counting = np.random.default_rng(0).normal(size=len(split.evaluated) - 1)
    gain = Evaluation(split, {"streaming": counting - 0.1}, counting).gain()
    assert gain is not None
    assert gain.nats == pytest.approx(0.1)
    assert gain.standard_error == pytest.approx(0, abs=1e-12)


def test_a_model_that_turns_nan_is_refused(tmp_path: Path):
    """With the place where it happened, and no record."""
    path = tmp_path / "text"
    path.write_text("ab" * 3000 + "!!!" + "ab" * 10)
    model = nan_model(tmp_path / "nan.onnx")
    before = model.read_bytes()
    result = run(model, path)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: The logits are not finite after 583 symbols (streaming)")
    assert model.read_bytes() == before


def test_a_tagging_model_is_refused(tmp_path: Path):
    """Labels are no prediction of the next symbol."""
    tagging = read_artefact(tagging_model(tmp_path / "a.onnx", ("a", "b", "c")))
    with pytest.raises(ArtefactError, match="tags gives 3 labels, not the next of its 65 symbols"):
        check_predicts(tagging)


# The command


def test_the_record_is_in_the_artefact(tmp_path: Path, text: Path):
    """All figures, and nothing else has changed but the digest, which the command tells."""
    model = tiny_model(tmp_path / "a.onnx")
    before = read_artefact(model)
    result = run(model, text)
    assert (result.exit_code, result.stderr) == (0, "")
    after = read_artefact(model)
    records = after.metadata.evaluation
    assert [record["protocol"] for record in records] == PROTOCOLS
    assert [record["num_characters"] for record in records] == [899, 449, 450, 899, 449, 450, 899]
    found = evaluate(before, read_split(text, CHARS))
    assert list(records) == found.records()
    streaming, _, second = records[:3]
    assert second["nats_per_character"] == pytest.approx(found.losses["streaming"][449:].mean(), abs=1e-6)
    assert f"{streaming['nats_per_character']:.4f}" in result.stdout
    assert f"its digest is now {after.digest}, was {before.digest}" in result.stdout
    assert (after.step.graph, after.prefill) == (before.step.graph, before.prefill)
    assert replace(after.metadata, evaluation=()) == before.metadata
    assert sorted(tmp_path.iterdir()) == sorted([model, text])


def test_the_same_text_again_replaces_the_record(tmp_path: Path, text: Path):
    """What the trainer wrote, too; records of other texts stay, and the same figures give the same file."""
    model = tiny_model(tmp_path / "a.onnx")
    artefact = read_artefact(model)
    sha256 = read_split(text, CHARS).sha256
    others = [{**RECORD, "corpus_sha256": "0" * 64}, {**RECORD, "corpus_sha256": sha256}]
    artefact.with_metadata(replace(artefact.metadata, evaluation=others)).save(model)
    assert run(model, text).exit_code == 0
    records = read_artefact(model).metadata.evaluation
    kinds = [(record["corpus_sha256"][:3], record["protocol"]) for record in records]
    assert kinds == [("000", "streaming"), *((sha256[:3], protocol) for protocol in PROTOCOLS)]
    assert records[1]["nats_per_character"] != RECORD["nats_per_character"]
    again = model.read_bytes()
    assert "already has this record" in run(model, text).stdout
    assert model.read_bytes() == again


def test_a_dry_run_only_prints(tmp_path: Path, text: Path):
    """JSON says all; the file is as it was."""
    model = tiny_model(tmp_path / "a.onnx")
    before = model.read_bytes()
    result = run(model, text, "--dry-run", "--json")
    said = json.loads(result.stdout)
    assert (result.exit_code, model.read_bytes()) == (0, before)
    assert said["digest"] == read_artefact(model).digest
    assert list(said["losses"]) == ["streaming", "windows-256", "kneser-ney-5"]
    streaming = said["losses"]["streaming"]
    assert streaming["bits_per_character"] == pytest.approx(streaming["nats_per_character"] / math.log(2))
    assert [half["num_characters"] for half in streaming["halves"]] == [449, 450]
    losses = [said["losses"][name]["nats_per_character"] for name in ("kneser-ney-5", "streaming")]
    assert said["gain_over_kneser_ney"]["nats"] == pytest.approx(losses[0] - losses[1])


def test_a_whole_text_is_recorded_as_such(tmp_path: Path, text: Path):
    """Beside the record of its last part, not instead of it."""
    model = tiny_model(tmp_path / "a.onnx")
    assert run(model, text).exit_code == run(model, text, "--whole").exit_code == 0
    records = read_artefact(model).metadata.evaluation
    assert [record["protocol"] for record in records] == PROTOCOLS + [f"{name}-whole" for name in PROTOCOLS[:-1]]
    assert [record["num_characters"] for record in records if record["protocol"].startswith("streaming")] == [
        899, 449, 450,
        8999, 4499, 4500,
    ]  # fmt: skip


def test_the_training_text_is_not_held_out(tmp_path: Path, text: Path):
    """Its whole is not recorded, but may be looked at."""
    model = tiny_model(tmp_path / "a.onnx")
    artefact = read_artefact(model)
    recipe = {"corpus_sha256": read_split(text, CHARS).sha256}
    artefact.with_metadata(replace(artefact.metadata, recipe=recipe)).save(model)
    result = run(model, text, "--whole")
    assert (result.exit_code, "omit --whole, or add --dry-run" in result.stderr) == (1, True)
    assert run(model, text, "--whole", "--dry-run").exit_code == 0


def test_a_file_that_was_replaced_meanwhile_is_left_alone(tmp_path: Path, text: Path, monkeypatch):
    """The record of one model does not end up in another, nor does the old model come back."""
    model = tiny_model(tmp_path / "a.onnx")
    measure = evaluate_command._evaluate

    def replaced(artefact: Artefact, split: Split) -> Evaluation:
        tiny_model(model, seed=1)
        return measure(artefact, split)

    monkeypatch.setattr(evaluate_command, "_evaluate", replaced)
    result = run(model, text)
    assert (result.exit_code, "changed meanwhile" in result.stderr) == (1, True)
    assert model.read_bytes() == tiny_model(tmp_path / "b.onnx", seed=1).read_bytes()


def test_bytes_have_a_column_of_their_own(tmp_path: Path):
    """Nats per byte beside nats per character."""
    result = run(tiny_model(tmp_path / "a.onnx", vocabulary=None), make_text(tmp_path / "text", UTF8), "--dry-run")
    assert (result.exit_code, "nats/byte" in result.stdout) == (0, True)


def test_errors_are_one_line(tmp_path: Path, text: Path):
    """A damaged model, a foreign text and a short one: exit code 1, no traceback."""
    model = tiny_model(tmp_path / "a.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(model.read_bytes()[:-1])
    short = tmp_path / "short"
    short.write_text("To be")
    for arguments in ([cut, text], [model, short], [model, make_text(tmp_path / "foreign", UTF8)], [text, text]):
        result = run(*arguments)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert result.stderr.startswith("Error: ")
