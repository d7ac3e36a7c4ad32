"""The bundled models, their card and how they are made."""

import re
from pathlib import Path

import pytest

from elman_export.artefacts.artefact import read_artefact
from scripts import models

CARD = models.CARD.read_text()


def bundled() -> list[Path]:
    """The files that ship."""
    return sorted(models.FOLDER.glob("*.onnx"))


def test_the_card_is_of_the_files_that_ship() -> None:
    """docs/models.md has each bundled model under its digest and no other; `make card` mends it."""
    shipped = {artefact.metadata.name: artefact.digest for artefact in map(read_artefact, bundled())}
    assert dict(re.findall(r"^\| `(.+)` \| `([0-9a-f]{64})` \|$", CARD, re.MULTILINE)) == shipped


@pytest.mark.timeout(400)  # three programs that import torch
def test_a_model_is_made_from_its_recipe_alone(tmp_path: Path) -> None:
    """Training, tracing and evaluation run as commands, and only the finished file appears, with its whole record."""
    corpus, recipe = tmp_path / "corpus.txt", tmp_path / "recipe.toml"
    corpus.write_text("To be, or not to be: that is the question.\n" * 200)
    recipe.write_text(
        'cell = "elman"\nhidden_size = 8\nembedding_size = 0\nembedding_dropout = 0.0\nepochs = 1\nstreams = 4\n'
    )
    models.build(models.Bundled("tiny", str(recipe)), str(corpus), tmp_path / "runs", tmp_path / "shipped")
    (path,) = (tmp_path / "shipped").iterdir()
    metadata = read_artefact(path).metadata
    assert (path.name, metadata.name, metadata.recipe["hidden_size"]) == ("tiny.onnx", "tiny", 8)
    assert len(metadata.recipe["training"]["curve"]) == 1
    assert {"streaming", "windows-256", "kneser-ney-5"} <= {record["protocol"] for record in metadata.evaluation}
