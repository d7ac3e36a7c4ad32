import json
import pickle
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner, Result

from elman_export.__main__ import main
from elman_export.artefacts.artefact import read_artefact
from elman_export.artefacts.vocabulary import read_vocabulary
from elman_export.training.checkpoint import CheckpointConfig, save_checkpoint
from elman_export.training.model import CharModel, ModelConfig
from tests.models import CHARACTERS, tiny_model

RECORD = {
    "corpus_sha256": "0" * 64,
    "protocol": "streaming",
    "nats_per_character": 1.5,
    "standard_error": 0.1,
    "num_characters": 9,
}


def run(*arguments: object) -> Result:
    """What the command line does with the arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def make_checkpoint(folder: Path, cell: str = "gru", seed: int = 0) -> Path:
    """A small network that has learnt nothing."""
    config = ModelConfig(cell, tuple(CHARACTERS), 2, 8, 4)  # type: ignore[arg-type]  # parametrised
    model = CharModel(config)
    model.initialise(torch.Generator().manual_seed(seed))
    save_checkpoint(folder, model, CheckpointConfig(config, {"seed": seed}, (RECORD,)))
    return folder


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    """The 65 characters in a file."""
    path = tmp_path / "characters.txt"
    path.write_bytes(CHARACTERS.encode())
    return path


# trace


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_a_checkpoint_becomes_an_artefact(cell: str, tmp_path: Path):
    """The file says what the checkpoint says, carries a prefill graph, and verify finds no difference."""
    checkpoint = make_checkpoint(tmp_path / "run", cell)
    output = tmp_path / "mine.onnx"
    result = run("trace", checkpoint, "-o", output, "--model-version", "2")
    assert (result.exit_code, result.output.splitlines()[-1][: len(f"Wrote {output}")]) == (0, f"Wrote {output}")
    metadata = read_artefact(output).metadata
    assert (metadata.name, metadata.version, metadata.cell) == ("mine", "2", cell)
    assert (metadata.recipe, metadata.evaluation) == ({"seed": 0}, (RECORD,))
    result = run("verify", output, checkpoint, "--json")
    assert (result.exit_code, json.loads(result.stdout)["passed"]) == (0, True)


def test_a_module_becomes_an_artefact(tmp_path: Path, vocabulary: Path):
    """Any module goes the same way, and is verified against PyTorch again later."""
    output = tmp_path / "a.onnx"
    module = ["--module", "tests.modules:min_gru"]
    assert run("trace", *module, "--vocab", vocabulary, "-o", output, "--name", "mine").exit_code == 0
    assert read_artefact(output).metadata.name == "mine"
    assert run("verify", output, *module).exit_code == 0


def test_an_artefact_that_differs_is_not_written(tmp_path: Path, vocabulary: Path):
    """Verification comes before the file; the error is one line on stderr."""
    output = tmp_path / "a.onnx"
    result = run("trace", "--module", "tests.modules:mean_over_rows", "--vocab", vocabulary, "-o", output)
    assert (result.exit_code, output.exists()) == (1, False)
    assert result.stdout == ""
    assert "rows must be independent" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [[], ["checkpoint", "--vocab", "bytes"], ["checkpoint", "--module", "a:b"], ["--module", "a:b"]]
)
def test_a_source_is_given_in_one_way(arguments: list[str]):
    """Anything else is a mistake in the command, and exits with 2."""
    result = run("trace", *arguments, "-o", "a.onnx")
    assert (result.exit_code, "Give either a CHECKPOINT" in result.stderr) == (2, True)


def test_ctrl_c_exits_with_130(tmp_path: Path):
    """As shells have it, with a word and no traceback."""
    result = run("trace", "--module", "tests.modules:interrupted", "--vocab", "bytes", "-o", tmp_path / "a.onnx")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


# verify and inspect


def test_another_checkpoint_is_found(tmp_path: Path):
    """The table says where it differs, the exit code is 1."""
    output = tmp_path / "a.onnx"
    run("trace", make_checkpoint(tmp_path / "run"), "-o", output)
    result = run("verify", output, make_checkpoint(tmp_path / "other", seed=1))
    assert (result.exit_code, "DIFFERS" in result.stdout) == (1, True)
    assert result.stderr.splitlines()[-1].startswith("Error: The artefact differs from NumPy, float64 by")


def test_a_checkpoint_of_another_shape_is_one_sentence(tmp_path: Path):
    """What does not fit at all is told before anything is computed."""
    result = run("verify", tiny_model(tmp_path / "a.onnx"), make_checkpoint(tmp_path / "run", "lstm"))
    assert (result.exit_code, result.stderr.splitlines()) == (
        1,
        ["Error: The artefact has cell 'gru', the checkpoint 'lstm': give the checkpoint that it was made from."],
    )


def test_two_sources_are_too_many(tmp_path: Path):
    """A mistake in the command exits with 2."""
    assert run("verify", tiny_model(tmp_path / "a.onnx"), tmp_path, "--module", "a:b").exit_code == 2


def test_without_a_source_an_artefact_is_compared_with_itself(tmp_path: Path):
    """Batches and prefill can always be checked."""
    result = run("verify", tiny_model(tmp_path / "a.onnx"), "--json")
    against = {finding["against"] for finding in json.loads(result.stdout)["findings"]}
    assert (result.exit_code, against) == (0, {"itself, other batches", "itself, prefill"})


def test_inspect_prints_what_is_inside(tmp_path: Path):
    """As lines for people and as JSON for scripts."""
    path = tiny_model(tmp_path / "a.onnx")
    assert "cell             gru" in run("inspect", path).stdout.splitlines()
    assert json.loads(run("inspect", path, "--json").stdout)["cell"] == "gru"


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("content", [b"", b"text", b"\x00" * 1000])
def test_a_file_that_is_no_artefact_is_one_line(command: str, content: bytes, tmp_path: Path):
    """No traceback, exit code 1."""
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    result = run(command, path)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith(f"Error: {path}: Not an artefact, or cut short")


# The group


@pytest.mark.parametrize("command", main.list_commands(click.Context(main)))
def test_every_command_has_help_with_an_example(command: str):
    """The example is on a line by itself."""
    result = run(command, "--help")
    lines = [line.strip() for line in result.output.splitlines()]
    assert result.exit_code == 0
    assert any(line.startswith(f"python -m elman_export {command} ") for line in lines)


def test_help_does_not_wait_for_torch():
    """`trace --help` imports neither torch nor onnxruntime."""
    code = (
        "import sys; from elman_export.__main__ import main; main(['trace', '--help'], standalone_mode=False); "
        "print({'torch', 'onnxruntime'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout
    assert output.splitlines()[-1] == "set()"


# Vocabularies


def test_a_vocabulary_is_read_from_text_json_or_is_bytes(tmp_path: Path):
    """The file's characters in order, line ends included."""
    (tmp_path / "a.txt").write_bytes("b\r\na\u00e9".encode())
    (tmp_path / "a.json").write_text('["\\n", "b"]')
    assert read_vocabulary(str(tmp_path / "a.txt")) == ("b", "\r", "\n", "a", "\u00e9")
    assert read_vocabulary(str(tmp_path / "a.json")) == ("\n", "b")
    assert read_vocabulary("bytes") is None


@pytest.mark.parametrize("content", ['{"b": 1, "a": 0}', '{"1": "b", "0": "a"}', '["a", "b"]', '\ufeff["a", "b"]'])
def test_a_vocabulary_of_a_training_program_is_read(content: str, tmp_path: Path):
    """stoi, itos and a list, with or without a byte order mark."""
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    assert read_vocabulary(str(tmp_path / "a.json")) == ("a", "b")


def test_a_byte_order_mark_is_no_character(tmp_path: Path):
    """Editors on Windows write one at the beginning of a file."""
    (tmp_path / "a.txt").write_bytes("\ufeffab".encode())
    assert read_vocabulary(str(tmp_path / "a.txt")) == ("a", "b")


# Outputs


def trace(vocabulary: Path, *arguments: object) -> Result:
    """Trace the quickest module."""
    return run("trace", "--module", "tests.modules:min_gru", "--vocab", vocabulary, *arguments)


def test_a_second_trace_does_not_overwrite_the_first(tmp_path: Path, vocabulary: Path):
    """An output that exists is refused before the work begins, unless --overwrite allows it."""
    output = tmp_path / "a.onnx"
    output.write_bytes(b"the first")
    refused = trace(vocabulary, "-o", output)
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"Error: {output} exists already: choose another -o, or add --overwrite.\n",
    )
    assert output.read_bytes() == b"the first"
    assert trace(vocabulary, "-o", output, "--overwrite").exit_code == 0
    assert read_artefact(output).metadata.name == "a"


def test_the_outputs_folder_is_created(tmp_path: Path, vocabulary: Path):
    """models/ need not exist."""
    assert trace(vocabulary, "-o", tmp_path / "new" / "models" / "a.onnx").exit_code == 0
    assert (tmp_path / "new" / "models" / "a.onnx").exists()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("trace", ["no-such-run", "-o"]),
        ("quantize", ["{model}", "--calibrate", "no-such-text", "-o"]),
        ("train", ["no-such-text", "-o"]),
    ],
)
def test_an_output_is_checked_before_the_work(command: str, arguments: list[str], tmp_path: Path):
    """What cannot be written is said first, though the input is missing, too."""
    (tmp_path / "file").touch()
    model = tiny_model(tmp_path / "tiny.onnx")
    given = [argument.format(model=model) for argument in arguments]
    result = run(command, *given, tmp_path / "file" / "mine.onnx")
    assert (result.exit_code, "Cannot create the folder" in result.stderr) == (1, True), result.stderr


@pytest.mark.parametrize(
    ("stem", "name"), [("char_rnn", "char-rnn"), ("My Model", "my-model"), ("Shakespeare.v2", "shakespeare-v2")]
)
def test_a_file_may_have_any_name(stem: str, name: str, tmp_path: Path, vocabulary: Path):
    """The model's name is made of the file's, and a line says how."""
    output = tmp_path / f"{stem}.onnx"
    result = trace(vocabulary, "-o", output)
    assert (result.exit_code, read_artefact(output).metadata.name) == (0, name)
    assert f"The model is named {name}: names consist of a-z, 0-9 and -." in result.stderr


def test_a_given_name_is_not_changed(tmp_path: Path, vocabulary: Path):
    """One that is not allowed is refused, with one that is."""
    result = trace(vocabulary, "-o", tmp_path / "a.onnx", "--name", "char_rnn")
    assert (result.exit_code, "use char-rnn" in result.stderr) == (1, True)


def test_a_traceback_is_there_for_the_asking(tmp_path: Path):
    """An error of the user's own code shows its lines with --traceback."""
    arguments = ["trace", "--module", "tests.modules:failing", "--vocab", "bytes", "-o", tmp_path / "a.onnx"]
    assert "Traceback" not in run(*arguments).output
    assert 'raise ValueError("the weights are' in run("--traceback", *arguments).output


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"abca", "The vocabulary holds 'a' twice"),
        ("a.txt", b"\xff", "is not UTF-8"),
        ("a.txt", b"", "The vocabulary must be a list of characters"),
        ("a.json", b'{"a": 1}', "must be 0 to 0, each of them once"),
        ("a.json", b'{"a": "b"}', "must be an object of characters and ids"),
        ("a.json", b'["a", "th"]', "holds 'th', which is not one character. A special that is never sampled"),
        ("a.json", b'["<pad>", "[UNK]"]', "The vocabulary holds no character"),
        ("a.json", b"3", "The vocabulary must be a list of characters"),
        ("a.pkl", pickle.dumps({"a": 0}), 'is a pickle: write it as JSON, json.dump(stoi, open("vocab.json", "w"))'),
        ("a.json", b"[", "not JSON"),
        ("b.txt", b"", "Cannot read the vocabulary"),
    ],
)
def test_what_is_no_vocabulary_is_refused(name: str, content: bytes, sentence: str, tmp_path: Path):
    """In one sentence, with exit code 1."""
    (tmp_path / name.replace("b", "c")).write_bytes(content)
    path = tmp_path / name
    result = run("trace", "--module", "tests.modules:min_gru", "--vocab", path, "-o", tmp_path / "a.onnx")
    assert (result.exit_code, sentence in result.stderr) == (1, True)
