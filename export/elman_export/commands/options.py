"""Options and checks that several commands share."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from elman_export.errors import ArtefactError
from elman_format import NAME

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The ONNX file to write; by default MODEL itself."
)
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


@contextmanager
def reading(total: int, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on stderr if that is a terminal; yields the function that advances it."""
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)
