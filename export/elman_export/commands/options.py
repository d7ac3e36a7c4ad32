"""Options and checks that several commands share."""

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from elman_export.errors import ArtefactError
from elman_format.names import NAME

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The ONNX file to write; by default MODEL itself."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
replace_option = click.option("--replace", "is_replaced", is_flag=True, help="Replace an entry of the same name.")


def check_name(what: str, name: str, taken: Collection[str], *, is_replaced: bool) -> None:
    """Refuse a name before the work begins.

    Raises:
        ArtefactError: It is not allowed, or it exists and is not to be replaced.
    """
    if not NAME.fullmatch(name):
        raise ArtefactError(f"The {what}'s name {name!r:.80} must match ^{NAME.pattern}$.")
    if name in taken and not is_replaced:
        raise ArtefactError(f"The {what} {name} exists already: choose another name, or add --replace.")


def model_name(name: str | None, output: Path) -> str:
    """The model's name: as given, or the output's without .onnx; a note says if that had to be changed.

    Raises:
        ArtefactError: The given name is not allowed, or nothing of the output's name is.
    """
    given = output.stem if name is None else name
    allowed = re.sub(r"[^a-z0-9]+", "-", given.lower()).strip("-")[:63]
    if name is not None and not NAME.fullmatch(name):
        hint = f": use {allowed}" if allowed else ""
        raise ArtefactError(f"The model's name {name!r:.80} must match ^{NAME.pattern}${hint}.")
    if not allowed:
        raise ArtefactError(f"No model can be named after {output.name!r:.80}: give --name.")
    if name is None and not NAME.fullmatch(given):
        click.echo(f"The model is named {allowed}: names consist of a-z, 0-9 and -.", err=True)
        return allowed
    return given


def check_output(path: Path, *, overwrite: bool, num_bytes: int = 0) -> None:
    """Refuse an output before the work begins, and create its folder.

    Raises:
        ArtefactError: It is a folder, it exists and is not to be replaced, or it cannot be written.
    """
    if path.is_dir():
        raise ArtefactError(f"{path} is a folder: name a file to write.")
    if path.exists() and not overwrite:
        raise ArtefactError(f"{path} exists already: choose another -o, or add --overwrite.")
    check_folder(path.parent, num_bytes)


def check_folder(folder: Path, num_bytes: int = 0) -> None:
    """Create a folder; refuse one that cannot be written or has too little space.

    Raises:
        ArtefactError: It cannot be created or written, or its disk is too full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ArtefactError(f"Cannot create the folder {folder}: {error.strerror}.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ArtefactError(f"Cannot write into the folder {folder}: permission denied.")
    if free < num_bytes:
        raise ArtefactError(f"The disk of {folder} has {free:,} bytes left, about {num_bytes:,} are needed.")


@contextmanager
def reading(total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on stderr if that is a terminal; yields the function that advances it."""
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
