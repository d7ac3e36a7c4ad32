"""``inspect``: what an artefact says about itself."""

# ruff: noqa: D301 — click's paragraph mark is a real backspace

import json
from pathlib import Path

import click

from elman_export.artefacts.artefact import read_artefact
from elman_export.artefacts.inspection import describe, render
from elman_export.commands.options import json_option


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@json_option
def inspect(*, model: Path, as_json: bool) -> None:
    """Print what is inside MODEL.

    \b
    Example:
      python -m elman_export inspect mine.onnx
    """
    description = describe(read_artefact(model))
    click.echo(json.dumps(description, indent=2) if as_json else render(description))
