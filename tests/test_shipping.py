"""What every bundled file must carry, and how much all of them may weigh."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
import pytest

from elman_export.__main__ import main
from elman_export.artefacts.artefact import read_artefact
from elman_export.training.recipe import load_recipe
from scripts import lesson_models, models

MAX_BYTES = 12_000_000
NAMES = [model.name for model in models.BUNDLED]


def test_exactly_the_listed_models_ship() -> None:
    """A file for each model of scripts/models.py, and nothing else beside them."""
    assert sorted(path.name for path in models.FOLDER.iterdir()) == sorted(f"{name}.onnx" for name in NAMES)


def test_all_of_them_weigh_at_most_12_megabytes() -> None:
    """They travel in the wheel and in the image."""
    assert sum(path.stat().st_size for path in models.FOLDER.iterdir()) <= MAX_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_a_model_says_where_it_comes_from(name: str) -> None:
    """Inside each file: its recipe, the one that the package has, with seed, corpus, effort and exporter."""
    metadata = read_artefact(models.FOLDER / f"{name}.onnx").metadata
    recipe = metadata.recipe
    assert metadata.name == name
    settings = asdict(load_recipe(name, {}))
    assert {key: recipe.get(key) for key in settings} == settings  # the seed among them
    assert re.fullmatch("[0-9a-f]{64}", recipe["corpus_sha256"])
    assert recipe["corpus_characters"] > 0
    assert recipe["training"]["seconds"] > 0
    assert recipe["training"]["cpu_seconds"] > 0
    assert all(len(row) == 3 for row in recipe["training"]["curve"])
    assert sorted(metadata.exporter) >= ["elman", "onnx", "onnxruntime", "torch"]
    assert "unknown" not in metadata.exporter.values()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_says_how_well_it_predicts(name: str) -> None:
    """Both protocols and their halves, beside a 5-gram model, over the same characters of its own text."""
    metadata = read_artefact(models.FOLDER / f"{name}.onnx").metadata
    own = [record for record in metadata.evaluation if record["corpus_sha256"] == metadata.recipe["corpus_sha256"]]
    names = {
        f"{protocol}{half}" for protocol in ("streaming", "windows-256") for half in ("", "-first-half", "-second-half")
    }
    assert {record["protocol"] for record in own} == names | {"kneser-ney-5"}
    assert len({record["num_characters"] for record in own if not record["protocol"].endswith("-half")}) == 1
    assert all(0 < record["standard_error"] < record["nats_per_character"] for record in own)


@pytest.mark.parametrize("model", models.BUNDLED, ids=NAMES)
def test_the_commands_that_make_a_model_exist(model: models.Bundled) -> None:
    """Each command of `make models` is one that the exporter takes."""
    for words in models.commands(model, "corpus.txt", Path("runs")):
        _parse(words)


def test_the_lessons_models_ship_and_can_be_made_again() -> None:
    """A file for each of `make lesson-models`, small ones; each command of the exporter is one that it takes."""
    commands = lesson_models.commands(Path("runs"))
    shipped = list(lesson_models.FOLDER.glob("*.onnx"))
    assert {path.stem for path in shipped} == set(commands)
    assert sum(path.stat().st_size for path in shipped) < 300_000
    for module, words in ((step[1], step[2:]) for steps in commands.values() for step in steps):
        if module == "elman_export":
            _parse(words)


def _parse(words: Sequence[str]) -> None:
    command = main.get_command(click.Context(main), words[0])
    assert command is not None, words[0]
    command.make_context(command.name, list(words[1:]), resilient_parsing=True)
