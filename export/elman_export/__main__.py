"""The command line: one table of commands, each imported when it is used."""

import io
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from elman_export.errors import ExportError

LIBRARIES = {"matplotlib", "numpy", "onnx", "onnxruntime", "onnxscript", "rich", "safetensors", "sklearn", "torch"}
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

# Command to its module in `commands`, and what --help says of it: no module is imported for that.
COMMANDS = {
    "card": ("card", "Write the model card of all artefacts in a folder."),
    "evaluate": ("evaluate", "Measure how well an artefact predicts a text."),
    "inspect": ("inspect", "Print what is inside an artefact."),
    "prime": ("prime", "Store the state after a text as an initial state."),
    "probe": ("probe", "Fit a linear read-out of the state and store it."),
    "quantize": ("quantize", "Write an artefact with int8 products."),
    "trace": ("trace", "Turn a checkpoint or any nn.Module into an artefact."),
    "train": ("train", "Train an Elman, GRU or LSTM network on a text."),
    "verify": ("trace", "Compare an artefact with its source and with itself."),
}


class _Group(click.Group):
    """Finds the commands of the table and prints our errors as one line on stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 — click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 — the same
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"elman_export.commands.{module}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 — the same
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ExportError as error:
            if ctx.params["shows_traceback"]:
                traceback.print_exception(error)
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:  # the client or the server alone was installed
            if error.name not in LIBRARIES:
                raise
            message = f"{error.name} is not installed; run: pip install 'elman[export]'"
            raise click.ClickException(message) from error
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="elman")
@click.option("--traceback", "shows_traceback", is_flag=True, help="Print the traceback of an error, too.")
def main(*, shows_traceback: bool) -> None:  # noqa: ARG001 — for _Group.invoke
    """Train recurrent text models, and export them as artefacts that elman-server serves.

    \b
    Examples:
      python -m elman_export train my.txt -o runs/mine
      python -m elman_export trace runs/mine -o mine.onnx
    """  # noqa: D301 — click's paragraph mark is a real backspace
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack characters of the text


if __name__ == "__main__":
    main(prog_name="python -m elman_export")
