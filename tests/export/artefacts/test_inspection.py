from pathlib import Path

import pytest

from elman_export.artefacts.artefact import read_artefact
from elman_export.artefacts.inspection import describe, render
from tests.models import nan_model, tiny_model


def test_a_known_cell_is_described(tmp_path: Path):
    """Sizes, state, operators and identity of a two-layer LSTM."""
    artefact = read_artefact(tiny_model(tmp_path / "a.onnx", "lstm", 2, vocabulary="ab\n"))
    description = describe(artefact)
    exporter = description.pop("exporter")
    assert sorted(exporter) == ["elman", "onnx", "onnxruntime", "torch"]
    assert description == {
        "name": "tiny",
        "version": "1",
        "cell": "lstm",
        "num_layers": 2,
        "hidden_size": 16,
        "num_parameters": 4 * 16 * (3 + 16 + 2) + 4 * 16 * (16 + 16 + 2) + 3 * 16 + 3,
        "vocabulary_size": 3,
        "vocabulary": "ab\n",
        "specials": {},
        "state_shapes": [[16]] * 4,
        "state_bytes": 256,
        "labels": [],
        "initial_states": [],
        "probes": {},
        "operators": {"Gemm": 13, "Sigmoid": 6, "Mul": 6, "Gather": 4, "Tanh": 4, "Add": 2},
        "has_prefill": True,
        "file_bytes": len(artefact.data),
        "digest": artefact.digest,
        "recipe": {},
        "evaluation": [],
    }


def test_a_model_of_another_cell_is_described(tmp_path: Path):
    """What has no meaning is 0, and there is no prefill graph."""
    description = describe(read_artefact(nan_model(tmp_path / "a.onnx")))
    names = ("cell", "num_layers", "hidden_size", "has_prefill", "state_bytes")
    assert [description[name] for name in names] == ["other", 0, 0, False, 4]


@pytest.mark.parametrize(("vocabulary", "text"), [(None, '"bytes"'), ("a\n\u00e9", '"a\\n\u00e9"')])
def test_every_fact_is_one_line(vocabulary: str | None, text: str, tmp_path: Path):
    """Even a vocabulary with line ends stays on its line."""
    description = describe(read_artefact(tiny_model(tmp_path / "a.onnx", vocabulary=vocabulary)))
    lines = render(description).splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == list(description)
    assert f"vocabulary       {text}" in lines
