"""Recipes: bundled, from a file, overridden, refused."""

from pathlib import Path
from typing import Any

import pytest

from elman_export.errors import ExportError
from elman_export.training.recipe import Recipe, load_recipe


def test_bundled_recipes_are_understood():
    """The two models of the package can be made again by name."""
    lesson = load_recipe("elman-128", {})
    assert (lesson.cell, lesson.num_layers, lesson.hidden_size, lesson.embedding_size) == ("elman", 1, 128, 0)
    assert load_recipe("shakespeare", {}).cell == "lstm"


def test_overrides_win(tmp_path: Path):
    """What is said on the command line stands above the file, the file above the defaults."""
    path = tmp_path / "mine.toml"
    path.write_text('cell = "lstm"\nepochs = 3\nseed = 5\n')
    assert load_recipe(str(path), {"seed": 6}) == Recipe(cell="lstm", epochs=3.0, seed=6)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden_dropout": 1.0},
        {"learning_rate": float("nan")},
        {"seed": -1},
        {"hidden_size": 2.5},
        {"cell": "rnn"},
        {"vocabulary": "words"},
        {"epochs": 1.0, "minutes": 1.0},
        {"epochs": 0.0},
        {"length": 4, "length_jitter": 4},
        {"embedding_size": 0},  # with an embedding_dropout
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]):
    """A setting that cannot be honoured is an error that names it."""
    with pytest.raises(ExportError) as caught:
        Recipe(**settings)
    assert next(iter(settings)) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no recipe"), ("cell = ", "not TOML"), ("hidden = 3", "unknown keys: hidden")]
)
def test_a_bad_recipe_file_is_refused(tmp_path: Path, content: str | None, words: str):
    """A file that is missing, garbled or misspelt gives a sentence."""
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ExportError, match=words):
        load_recipe(str(path), {})
