"""``card``: the artefacts of a folder side by side, as Markdown with a picture."""

# ruff: noqa: D301, PLC0415 — click's paragraph mark is a real backspace; onnxruntime is not needed for --help

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import track

from elman_export.commands.options import check_output
from elman_export.errors import ArtefactError

if TYPE_CHECKING:
    from elman_export.artefacts.artefact import Artefact
    from elman_export.cards.entries import Entry


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The Markdown file to write.")
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    help="Also measure on its last 10 % how far back each model looks.",
)
def card(*, folder: Path, output: Path, text: Path | None) -> None:
    """Write the model card of all artefacts in FOLDER.

    Sizes, losses and training are what the artefacts themselves say; the speed is measured now, so leave the machine
    idle meanwhile. The picture is written next to the output, under the same name with .svg.

    \b
    Example:
      python -m elman_export card models -o models.md --text my.txt
    """
    from elman_export.cards.curves import plot
    from elman_export.cards.entries import read_folder
    from elman_export.cards.page import render

    check_output(output, overwrite=True)
    console = Console(stderr=True)
    artefacts = read_folder(folder)
    entries = [
        _entry(artefact, text)
        for artefact in track(artefacts, "measuring", console=console, disable=not console.is_terminal)
    ]
    picture = output.with_suffix(".svg")
    try:
        has_picture = plot(picture, entries)
        output.write_text(render(entries, picture.name if has_picture else None), encoding="utf-8")
    except OSError as error:
        raise ArtefactError(f"Cannot write {error.filename}: {error.strerror}.") from error
    click.echo(f"Wrote {output}{f' and {picture}' if has_picture else ''}, {len(entries)} models.")


def _entry(artefact: "Artefact", text: Path | None) -> "Entry":
    from elman_export.cards.entries import Entry
    from elman_export.cards.speed import measure_speed
    from elman_export.evaluation.evaluate import evaluate
    from elman_export.evaluation.split import read_split

    evaluation = None if text is None else evaluate(artefact, read_split(text, artefact.metadata.vocabulary))
    return Entry.of(artefact, measure_speed(artefact), evaluation)
