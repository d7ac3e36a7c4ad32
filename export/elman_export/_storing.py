"""What the commands share that store something named in a finished artefact."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from elman_export.errors import ArtefactError
from elman_export.read_outs import NAME

output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The ONNX file to write; by default MODEL itself."
)
replace_option = click.option("--replace", "is_replaced", is_flag=True, help="Replace one of that name.")


def check_name(what: str, name: str, taken: Collection[str], *, is_replaced: bool) -> None:
    """Refuse a name before anything is computed.

    Raises:
        ArtefactError: It is not allowed, or taken and not to be replaced.
    """
    if not NAME.fullmatch(name):
        raise ArtefactError(f"The {what}'s name {name!r:.80} must match ^{NAME.pattern}$.")
    if name in taken and not is_replaced:
        raise ArtefactError(f"There is already the {what} {name}: choose another name, or give --replace.")


@contextmanager
def reading(total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """A bar on stderr, where that is a terminal, and what moves it."""
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
