"""The command line: train, trace, verify, inspect."""

import json
import math
from pathlib import Path
from typing import Any

import click

from elman_export.errors import DifferenceError, ExportError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class _Group(click.Group):
    """Turns our errors into one line on stderr, and loads torch for no --help but train's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "train"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "train":
            from elman_export.train_command import train  # noqa: PLC0415 — seconds of torch

            return train
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
_checkpoint_argument = click.argument("checkpoint", required=False, type=_path)
_module_option = click.option(
    "--module", metavar="PACKAGE.FILE:FUNCTION", help="Any nn.Module instead of a checkpoint."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@main.command()
@_checkpoint_argument
@_module_option
@click.option(
    "--vocab",
    help="For --module: a UTF-8 file of nothing but the characters in id order, a .json file with "
    "an array of them, or the word bytes.",
)
@click.option("-o", "--output", required=True, type=_path, help="The ONNX file to write.")
@click.option("--name", help="The model's name; by default the output's, without .onnx.")
@click.option("--model-version", default="1", show_default=True, help="The model's version.")
def trace(
    checkpoint: Path | None,
    module: str | None,
    vocab: str | None,
    output: Path,
    name: str | None,
    model_version: str,
) -> None:
    """Turn CHECKPOINT, a folder that `train` wrote, or any nn.Module into an artefact.

    Nothing is written unless `verify` finds that the artefact computes what its source computes.

    FUNCTION takes nothing and returns (module, state): forward(char, *state) of the module returns
    (logits, *next_state), where char is int64 [B], logits [B, V], every state float32 [B, ...];
    state is a tuple of one-row tensors that new sessions start from. The current folder is
    importable.

    \b
    Example:
      python -m elman_export trace runs/mine -o mine.onnx
      python -m elman_export trace --module my_pkg.my_file:build --vocab chars.txt -o mine.onnx
    \b
      def build():  # my_pkg/my_file.py
          cell = MyCell()
          cell.load_state_dict(safetensors.torch.load_file("mine.safetensors"))
          return cell, (torch.zeros(1, 256),)
    """
    from elman_export import sources  # noqa: PLC0415 — seconds of torch, not for --help

    if (module is None) != (vocab is None):
        raise click.UsageError("--module and --vocab go together.")
    source = sources.load(checkpoint, module)
    artefact = source.export(name or output.stem, model_version, vocab)
