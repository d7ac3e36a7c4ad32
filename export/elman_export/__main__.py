"""The command line: train, trace, quantize, verify, evaluate, inspect, card, probe, prime.

What needs torch is imported where it is used, so that every --help but train's is there at once.
"""

# ruff: noqa: D301, PLC0415 — click's paragraph mark is a real backspace

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from elman_export.artefact import read_artefact
from elman_export.card_command import card
from elman_export.errors import DifferenceError, ExportError
from elman_export.evaluate_command import evaluate

if TYPE_CHECKING:
    from elman_export.artefact import Artefact
    from elman_export.reference import Step
    from elman_export.report import Report

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


# Commands in modules of their own, `NAME_command`, that are imported when they are asked for.
_ELSEWHERE = ("prime", "probe", "quantize", "train")


class _Group(click.Group):
    """Turns our errors into one line on stderr, and finds some commands only when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            command: click.Command = getattr(import_module(f"elman_export.{cmd_name}_command"), cmd_name)
            return command
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ExportError as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=_Group)
@click.version_option(package_name="elman")
def main() -> None:
    """Train recurrent text models, and export them as artefacts that elman-server serves.

    \b
    Example:
      python -m elman_export train my.txt -o runs/mine
      python -m elman_export trace runs/mine -o mine.onnx
    """


_path = click.Path(path_type=Path)
_checkpoint = click.argument("checkpoint", required=False, type=_path)
_module = click.option("--module", metavar="PACKAGE.FILE:FUNCTION", help="Any nn.Module instead of a CHECKPOINT.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.command()
@_checkpoint
@_module
@click.option(
    "--vocab",
    metavar="FILE",
    help="For --module: a UTF-8 file of nothing but the characters in id order, a .json file with "
    "an array of them, or the word bytes.",
)
@click.option(
    "--labels",
    metavar="FILE",
    type=_path,
    help="For --module: a JSON array of labels that the logits are of, instead of the vocabulary.",
)
@click.option("-o", "--output", required=True, type=_path, help="The ONNX file to write.")
@click.option("--name", help="The model's name; by default the output's, without .onnx.")
@click.option("--model-version", default="1", show_default=True, help="The model's version.")
def trace(
    *,
    checkpoint: Path | None,
    module: str | None,
    vocab: str | None,
    labels: Path | None,
    output: Path,
    name: str | None,
    model_version: str,
) -> None:
    """Turn CHECKPOINT, a folder that train wrote, or any nn.Module into an artefact.

    Nothing is written unless verify finds that it computes what its source computes.

    FUNCTION takes nothing and returns (module, state). The module's forward(char, *state) returns
    (logits, *next_state): char is int64 [B], logits are [B, V], each state is float32 [B, ...].
    With --labels the logits are [B, L]: a label for every character that is read.
    state is a tuple of tensors of one row that new sessions start from. The current folder is
    importable.

    \b
    Example:
      python -m elman_export trace runs/mine -o mine.onnx
      python -m elman_export trace --module my_pkg.my_file:build --vocab chars.txt -o mine.onnx
      python -m elman_export trace --module tags:build --vocab bytes --labels tags.json -o tags.onnx
    \b
      def build():  # in my_pkg/my_file.py
          module = MyCell()
          module.load_state_dict(safetensors.torch.load_file("mine.safetensors"))
          return module, (torch.zeros(1, 256),)
    """
    name = name or output.stem
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


@main.command()
@click.argument("model", type=_path)
@_checkpoint
@_module
@_json
def verify(*, model: Path, checkpoint: Path | None, module: str | None, as_json: bool) -> None:
    """Compare MODEL with the CHECKPOINT or module that it was made from, and with itself.

    Over 1,000 random characters, at 1, 2, 7, 17 and 64 rows: PyTorch, ONNX Runtime and, for the known
    cells, NumPy; the same rows in other batches and the prefill graph must agree bit for bit.
    Without a source only the latter. Exits with 1 on a difference.

    \b
    Example:
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


@main.command()
@click.argument("model", type=_path)
@_json
def inspect(*, model: Path, as_json: bool) -> None:
    """Print what is inside MODEL.

    \b
    Example:
      python -m elman_export inspect mine.onnx
    """
    from elman_export.inspection import describe, render

    description = describe(read_artefact(model))
    click.echo(json.dumps(description, indent=2) if as_json else render(description))


def _from_checkpoint(checkpoint: Path, name: str, version: str) -> "tuple[Artefact, dict[str, Step]]":
    """An artefact, and what it is to be compared with."""
    from elman_export.checkpoint import load_checkpoint
    from elman_export.known import checkpoint_steps, export_checkpoint

    model, config = load_checkpoint(checkpoint)
    return export_checkpoint(model, config, name, version), checkpoint_steps(model)


def _from_module(
    module: str, vocab: str, labels: Path | None, name: str, version: str
) -> "tuple[Artefact, dict[str, Step]]":
    """The same for a user's module."""
    from elman_export.metadata import Metadata
    from elman_export.read_outs import read_labels
    from elman_export.tracing import load_source, module_steps, trace_module
    from elman_export.vocabulary import read_vocabulary

    metadata = Metadata(name, read_vocabulary(vocab), version, labels=read_labels(labels) if labels else ())
    source = load_source(module)
    return trace_module(source, metadata), module_steps(source)


def _steps(artefact: "Artefact", checkpoint: Path | None, module: str | None) -> "dict[str, Step]":
    """What an artefact that exists already is to be compared with."""
    if module:
        from elman_export.tracing import load_source, module_steps

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

    from elman_export.verify import verify

    with Console(stderr=True).status("Verifying over 1,000 characters"):
        return verify(artefact, steps)


def _show(report: "Report") -> None:
    from rich.console import Console

    Console().print(report.to_table())
    for note in report.notes:
        click.echo(note)


main.add_command(card)
main.add_command(evaluate)

if __name__ == "__main__":
    main(prog_name="python -m elman_export")
