"""Probes and labels: fitted, stored, read back, and refused."""

import json
import math
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest

from elman_export.__main__ import main
from elman_export.artefacts.artefact import Artefact, read_artefact
from elman_export.artefacts.runtime import Runtime
from elman_export.artefacts.vocabulary import encode_text, read_labels
from elman_export.errors import ArtefactError, CorpusError
from elman_export.evaluation.probing import fit_probe, predict, read_labelled
from elman_export.evaluation.states import state_after, states_at
from elman_export.exporting.cells import StepGraphs
from elman_export.exporting.reference import reference_step
from elman_format import FormatError, Metadata, Probe, check_labels
from tests.models import CHARACTERS, nan_model, random_weights, tiny_model

WEIGHTS = random_weights("lstm", 2)
PROBE = Probe(
    ("no", "yes"),
    np.linspace(-1, 1, 32, dtype=np.float32).tobytes(),
    np.array([0.5, -0.5], np.float32).tobytes(),
    {"accuracy": 0.5},
)


def run(*arguments: str | Path) -> click.testing.Result:
    """Run the command line in this process."""
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


def write(path: Path, *entries: object) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def vowels(num_texts: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts whose label is whether their last character is a vowel."""
    random = np.random.default_rng(seed)
    texts = ["".join(random.choice(list("abcdefghiou"), 8)) for _ in range(num_texts)]
    return [{"text": text, "label": "vowel" if text[-1] in "aeiou" else "other"} for text in texts]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of random weights, fresh for each test."""
    return tiny_model(tmp_path / "tiny.onnx")


# What is stored


def test_a_probe_and_labels_are_read_back() -> None:
    """Every bit of the weights, the labels and the record come back; the digest is another one."""
    metadata = Metadata("a", tuple(CHARACTERS), cell="gru", num_layers=1, hidden_size=16)
    graphs = StepGraphs("gru", random_weights("gru"))
    plain = Artefact.build(graphs.step(), metadata, graphs.prefill())
    probed = plain.with_metadata(Metadata("a", tuple(CHARACTERS), probes={"mood": PROBE}))
    read = probed.metadata.probes["mood"]
    assert read == PROBE
    assert (probed.prefill, probed.digest == plain.digest) == (plain.prefill, False)
    assert plain.with_metadata(metadata).data == plain.data


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("ab", "a list of at least two"),
        (["a"], "a list of at least two"),
        (["a", ""], "hold ''"),
        (["a", 1], "hold 1"),
        (["a", "b\n"], "printable"),
        (["a", "\ud800"], "printable"),
        (["a", "b" * 64], "1 to 63"),
        (["a", "b", "a"], "'a' twice"),
    ],
)
def test_other_labels_are_refused(labels: object, reason: str) -> None:
    """Labels are at least two distinct strings that can be shown."""
    with pytest.raises(FormatError, match=reason):
        check_labels("They", labels)


@pytest.mark.parametrize(("content", "reason"), [("[", "not JSON"), ('{"a": 1}', "a list"), (None, "Cannot read")])
def test_a_file_of_no_labels_is_refused(tmp_path: Path, content: str | None, reason: str) -> None:
    """The sentence names the file."""
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ArtefactError, match=reason) as refused:
        read_labels(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("Mood", {}, "name"),
        ("mood", {"labels": ["no", "no"]}, "twice"),
        ("mood", {"weight": "?"}, "not base64"),
        ("mood", {"weight": 7}, "not base64"),
        ("mood", {"bias": "AAAA"}, "not base64"),
        ("mood", {"bias": "AAAAAA=="}, "do not fit its 2 labels"),
        ("mood", {"bias": "AADAfwAAwH8="}, "not finite"),
        ("mood", {"record": []}, "not a JSON object"),
        ("mood", {"more": 1}, "must hold labels, weight, bias and record"),
    ],
)
def test_a_broken_probe_is_refused(name: str, change: dict[str, object], reason: str) -> None:
    """Each field is checked, and the sentence says what to mend."""
    with pytest.raises(FormatError, match=reason):
        Probe.from_json(name, PROBE.to_json() | change)


def test_a_probe_of_other_states_is_refused(model: Path) -> None:
    """A probe has to read as many numbers as the states hold."""
    artefact = read_artefact(model)
    wide = Probe(("no", "yes"), bytes(4 * 2 * 17), bytes(4 * 2))
    with pytest.raises(ArtefactError, match="reads 17 numbers, the states hold 16"):
        artefact.with_metadata(Metadata("a", tuple(CHARACTERS), probes={"mood": wide}))


# States


@pytest.mark.parametrize("prefill", [True, False])
def test_states_are_those_of_the_equations(tmp_path: Path, prefill: bool) -> None:  # noqa: FBT001
    """Side by side or alone, with either graph, texts lead where NumPy's equations lead, and to equal bits."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx", "lstm", 2, prefill=prefill))
    ids = [encode_text(artefact.metadata.vocabulary, text, "It") for text in ("To be, or", "not", "x" * 70)]
    step = reference_step("lstm", WEIGHTS)
    found = dict(states_at(Runtime(artefact), [(text, (0, len(text) - 1)) for text in ids]))
    for index, text in enumerate(ids):
        state: list[Any] = [np.zeros((1, 16)) for _ in range(4)]
        flats = []
        for char in text:
            _, state = step(np.array([char]), state)
            flats.append(np.concatenate(state, axis=1)[0])
        assert np.allclose(found[index], [flats[0], flats[-1]], atol=1e-5)
        alone = b"".join(state_after(Runtime(artefact), text))
        assert alone == found[index][-1].tobytes()


# Fitting


def test_a_probe_learns_what_the_state_holds(tmp_path: Path, model: Path) -> None:
    """The last character can be read off the state, as the held-out accuracy says; the formula is as documented."""
    corpus = read_labelled(write(tmp_path / "vowels.jsonl", *vowels(200)), tuple(CHARACTERS))
    artefact = read_artefact(model)
    probe = fit_probe(artefact, corpus, 1.0)
    weight, bias = (np.frombuffer(part, "<f4") for part in (probe.weight, probe.bias))
    assert (probe.labels, probe.num_inputs) == (("other", "vowel"), 16)
    assert (probe.record["num_held_out"], probe.record["num_examples"]) == (40, 160)
    assert probe.record["accuracy"] > 0.85
    assert probe.record["majority"] < 0.7
    new = [encode_text(tuple(CHARACTERS), entry["text"], "It") for entry in vowels(50, seed=1)]
    states = np.concatenate([rows for _, rows in sorted(states_at(Runtime(artefact), [(t, (7,)) for t in new]))])
    z = [[float(w @ state + b) for w, b in zip(weight.reshape(2, 16), bias, strict=True)] for state in states]
    expected = [[a - math.log(math.exp(a) + math.exp(b)), b - math.log(math.exp(a) + math.exp(b))] for a, b in z]
    assert np.allclose(predict(probe, states), expected, atol=1e-4)


def test_labels_of_characters_stand_on_their_last_byte(tmp_path: Path) -> None:
    """In a byte-level model a character of several bytes bears its label at its end; null bears none."""
    path = write(tmp_path / "a.jsonl", {"text": "é€a", "labels": ["x", None, "y"]})
    (text,) = read_labelled(path, None).texts
    assert (text.positions, text.labels, len(text.ids)) == ((1, 5), ("x", "y"), 6)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Line 2 .* is not JSON"),
        ("[]", 'lacks "text"'),
        ('{"text": "a"}', 'either "label" or "labels"'),
        ('{"text": "a", "label": 1}', 'either "label" or "labels"'),
        ('{"text": "a", "label": "b", "labels": ["b"]}', "and nothing else"),
        ('{"text": "", "label": "b"}', "is empty"),
        ('{"text": "a€", "label": "b"}', r"holds '\\u20ac' at 1"),
        ('{"text": "ab", "labels": ["b"]}', "1 labels for 2 characters"),
        ('{"text": "a", "labels": [1]}', "has no label or one that is not a string"),
        ('{"text": "a", "labels": [null]}', "has no label or one that is not a string"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    """One sentence tells which line is wrong, and how."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=reason):
        read_labelled(path, tuple(CHARACTERS))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (vowels(9), "There are 9 labelled texts"),
        (vowels(1) * 20, "There are 1 labelled texts"),
        ([{"text": c, "label": "same"} for c in CHARACTERS], "Every text has the label 'same'"),
        ([{"text": c, "label": f"is {ord(c)}"} for c in CHARACTERS], "is on too few texts"),
    ],
)
def test_too_little_to_learn_from_is_refused(tmp_path: Path, model: Path, entries: list[object], reason: str) -> None:
    """Few texts, the same text again and again, one label, or labels that come once."""
    before = model.read_bytes()
    result = run("probe", model, write(tmp_path / "a.jsonl", *entries), "--name", "mood")
    assert (result.exit_code, reason in result.stderr, model.read_bytes() == before) == (1, True, True)


def test_a_name_is_taken_once(tmp_path: Path, model: Path) -> None:
    """Another probe of the same name needs --replace; a foreign name is refused before anything is read."""
    labelled = write(tmp_path / "a.jsonl", *vowels(40))
    first = run("probe", model, labelled, "--name", "vowels")
    assert (first.exit_code, "Accuracy" in first.stdout) == (0, True), first.output
    again = run("probe", model, labelled, "--name", "vowels")
    assert (again.exit_code, "add --replace" in again.stderr) == (1, True)
    other = run(
        "probe", model, labelled, "--name", "vowels", "--replace", "--strength", "0.1", "-o", tmp_path / "b.onnx"
    )
    assert (other.exit_code, read_artefact(tmp_path / "b.onnx").metadata.probes["vowels"].record["strength"]) == (
        0,
        0.1,
    )
    assert "must match" in run("probe", model, labelled, "--name", "No").stderr
    shown = json.loads(run("inspect", model, "--json").stdout)["probes"]["vowels"]
    assert (shown["labels"], shown["num_texts"]) == (["other", "vowel"], 40)


# Personas


def test_a_primed_state_is_the_state_after_the_text(tmp_path: Path, model: Path) -> None:
    """The state is stored under its name, beside the others, and a second of that name needs --replace."""
    text = tmp_path / "juliet.txt"
    text.write_text("O Romeo, Romeo!\n")
    assert run("prime", model, "--name", "juliet", "--text", text).exit_code == 0
    assert run("prime", model, "--name", "romeo", "--text", text, "-o", tmp_path / "b.onnx").exit_code == 0
    artefact = read_artefact(tmp_path / "b.onnx")
    ids = encode_text(artefact.metadata.vocabulary, "O Romeo, Romeo!\n", "It")
    (expected,) = state_after(Runtime(artefact), ids)
    states = artefact.metadata.initial_states
    assert states == dict.fromkeys(("juliet", "romeo"), (expected,))
    assert "add --replace" in run("prime", model, "--name", "juliet", "--text", text).stderr


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"caf\xe9", "not UTF-8 (byte 3)"),
        ("a€".encode(), "at 1, which the model's vocabulary lacks"),
    ],
)
def test_a_text_that_cannot_be_read_primes_nothing(tmp_path: Path, model: Path, content: bytes, reason: str) -> None:
    """One sentence, and the file stays as it was."""
    text, before = tmp_path / "a.txt", model.read_bytes()
    text.write_bytes(content)
    result = run("prime", model, "--name", "a", "--text", text)
    assert (result.exit_code, reason in result.stderr, model.read_bytes() == before) == (1, True, True)


def test_a_state_that_is_not_finite_is_not_stored(tmp_path: Path) -> None:
    """A foreign name and a state beyond the numbers are refused."""
    artefact = read_artefact(nan_model(tmp_path / "nan.onnx"))
    state = {"mad": (np.array([np.nan], np.float32).tobytes(),)}
    with pytest.raises(ArtefactError, match="not finite"):
        artefact.with_metadata(Metadata("nan", tuple(CHARACTERS), initial_states=state))
    with pytest.raises(ArtefactError, match="name is 'Mad'"):
        artefact.with_metadata(Metadata("nan", tuple(CHARACTERS), initial_states={"Mad": state["mad"]}))
