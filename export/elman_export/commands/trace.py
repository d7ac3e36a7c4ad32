"""``trace`` and ``verify``: from a source to an artefact, and the comparison of the two.

What needs torch is imported where it is used: --help does not wait for it.
"""

# ruff: noqa: D301, PLC0415 — click's paragraph mark is a real backspace

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from elman_export.artefacts.artefact import read_artefact
from elman_export.commands.options import check_output, json_option, model_name, overwrite_option
from elman_export.errors import DifferenceError

if TYPE_CHECKING:
    from elman_export.artefacts.artefact import Artefact
    from elman_export.exporting.reference import Step
    from elman_export.exporting.report import Report

MIN_BYTES_FOR_THREADS = 4_000_000  # of an artefact: a million weights
_path = click.Path(path_type=Path)
_checkpoint = click.argument("checkpoint", required=False, type=_path)
_module = click.option("--module", metavar="PACKAGE.FILE:FUNCTION", help="Any nn.Module instead of a CHECKPOINT.")


@click.command()
@_checkpoint
@_module
@click.option(
    "--vocab",
    metavar="FILE",
    help="For --module: a UTF-8 file with only the characters in id order, a .json file with "
    "an array of them or an object of characters and ids, or the word bytes.",
)
@click.option(
    "--labels",
    metavar="FILE",
    type=_path,
    help="For --module: a JSON array of the labels that the logits score instead of the vocabulary.",
)
@click.option("-o", "--output", required=True, type=_path, help="The ONNX file to write.")
@click.option("--name", help="The model's name; by default the output's, without .onnx.")
@click.option("--model-version", default="1", show_default=True, help="The model's version.")
@overwrite_option
def trace(
    *,
    checkpoint: Path | None,
    module: str | None,
    vocab: str | None,
    labels: Path | None,
    output: Path,
    name: str | None,
    model_version: str,
    overwrite: bool,
) -> None:
    """Turn CHECKPOINT, a folder written by train, or any nn.Module into an artefact.

    The file is written only if verify finds that it computes the same as its source.

    FUNCTION takes no arguments and returns (module, state). The module's forward(char, *state) returns
    (logits, *next_state): char is int64 [B], logits are [B, V], each state is float32 [B, ...].
    A time axis, as in char [B, 1] or [1, B], PyTorch's states [layers, B, hidden] and a state that
    is one tuple or dict are recognised as well.
    With --labels the logits are [B, L]: a label for every character that is read.
    state consists of tensors of one row, the initial state of new sessions. The current folder is
    importable.

    \b
    Examples:
      python -m elman_export trace runs/mine -o mine.onnx
      python -m elman_export trace --module my_pkg.my_file:build --vocab chars.txt -o mine.onnx
      python -m elman_export trace --module tags:build --vocab bytes --labels tags.json -o tags.onnx
    \b
      def build():  # in my_pkg/my_file.py
          module = MyCell()
          elman_export.load_state_dict(module, "mine.pt")  # or .safetensors
          return module, (torch.zeros(1, 256),)
    """
    check_output(output, overwrite=overwrite)
    name = model_name(name, output)
    if checkpoint and not (module or vocab or labels):
        artefact, steps = _from_checkpoint(checkpoint, name, model_version)
    elif module and vocab and not checkpoint:
        artefact, steps = _from_module(module, vocab, labels, name, model_version)
    else:
        raise click.UsageError("Give either a CHECKPOINT, or --module and --vocab (and --labels).")
    report = _verify(artefact, steps)
    report.require()
    artefact.save(output)
    _show(report)
    click.echo(f"Wrote {output}, {len(artefact.data):,} bytes, digest {artefact.digest}.")


@click.command()
@click.argument("model", type=_path)
@_checkpoint
@_module
@json_option
def verify(*, model: Path, checkpoint: Path | None, module: str | None, as_json: bool) -> None:
    """Compare MODEL with the CHECKPOINT or module from which it was made, and with itself.

    Over 1,000 random characters, at 1, 2, 7, 17 and 64 rows: PyTorch, ONNX Runtime and, for the known
    cells, NumPy; the same rows in other batches and the prefill graph must agree bit for bit.
    Without a source only the latter is checked. Exits with 1 on a difference.

    \b
    Examples:
      python -m elman_export verify mine.onnx runs/mine
    """
    if checkpoint and module:
        raise click.UsageError("Give either a CHECKPOINT or --module.")
    artefact = read_artefact(model)
    report = _verify(artefact, _steps(artefact, checkpoint, module))
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        _show(report)
    report.require()


def _from_checkpoint(checkpoint: Path, name: str, version: str) -> "tuple[Artefact, dict[str, Step]]":
    """An artefact and the sources to compare it with."""
    from elman_export.exporting.from_checkpoint import checkpoint_steps, export_checkpoint
    from elman_export.training.checkpoint import load_checkpoint

    model, config = load_checkpoint(checkpoint)
    return export_checkpoint(model, config, name, version), checkpoint_steps(model)


def _from_module(
    module: str, vocab: str, labels: Path | None, name: str, version: str
) -> "tuple[Artefact, dict[str, Step]]":
    """The same for a user's module."""
    from elman_export.artefacts.vocabulary import read_labels, read_vocabulary
    from elman_export.tracing.source import load_source, module_steps
    from elman_export.tracing.trace import trace_module
    from elman_format import Metadata

    metadata = Metadata(name, read_vocabulary(vocab), version, labels=read_labels(labels) if labels else ())
    source = load_source(module)
    return trace_module(source, metadata), module_steps(source)


def _steps(artefact: "Artefact", checkpoint: Path | None, module: str | None) -> "dict[str, Step]":
    """The sources to compare an existing artefact with."""
    if module:
        from elman_export.tracing.source import load_source, module_steps

        return module_steps(load_source(module))
    if not checkpoint:
        return {}
    own = artefact.metadata
    again, steps = _from_checkpoint(checkpoint, own.name, own.version)
    for what in ("cell", "num_layers", "hidden_size", "vocabulary"):
        expected, actual = getattr(again.metadata, what), getattr(own, what)
        if actual != expected:
            raise DifferenceError(
                f"The artefact has {what} {actual!r}, the checkpoint {expected!r}: "
                "give the checkpoint that it was made from."
            )
    return steps


def _verify(artefact: "Artefact", steps: "dict[str, Step]") -> "Report":
    from rich.console import Console

    from elman_export.exporting.verify import verify

    if steps and len(artefact.data) < MIN_BYTES_FOR_THREADS:
        import torch

        torch.set_num_threads(1)  # two would wait for each other longer than such small sums take
    with Console(stderr=True).status("Verifying over 1,000 characters"):
        return verify(artefact, steps)


def _show(report: "Report") -> None:
    from rich.console import Console

    Console().print(report.to_table())
    for note in report.notes:
        click.echo(note)
