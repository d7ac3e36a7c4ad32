"""Inspections beside turns: how much of the engine's time they may take."""

import types

import pytest

from elman_server.domain.inspection import Signal, Units
from elman_server.engine.core.inspection import inspector as module
from elman_server.engine.core.inspection.inspector import BESIDE_SECONDS, SHARE, Inspector
from elman_server.engine.core.model_runner import ModelRunner
from elman_server.engine.inspection import Watch
from elman_server.engine.job import Job
from elman_server.models.artefact import read_artefact
from tests.models import tiny_model


@pytest.mark.parametrize("char_seconds", [0.0001, 0.0007, 0.005])
def test_a_watch_beside_turns_has_its_share_of_their_time(tmp_path, monkeypatch, char_seconds):
    """Whatever a character costs: all pieces together take their share, and no piece is longer than one may be."""
    model = ModelRunner(read_artefact(tiny_model(tmp_path / "lstm.onnx", "lstm")), capacity=1, num_threads=1)
    inspector, now, pieces = Inspector(model), 0.0, []
    monkeypatch.setattr(module, "time", types.SimpleNamespace(process_time=lambda: now))
    walk = model.walk

    def slow_walk(chars, states):
        nonlocal now
        now += char_seconds * len(chars)
        pieces.append(len(chars))
        return walk(chars, states)

    monkeypatch.setattr(model, "walk", slow_walk)
    inspector.open(
        1, Job(model.initial, 0, [3] * 20_000, window=20_000, inspect=Watch((Units(Signal.H, 0, (0,)),), 0, 0))
    )
    pieces.clear()
    for _ in range(5000):
        inspector.run_beside(0.001)
    taken = char_seconds * sum(pieces)
    longest = max(BESIDE_SECONDS, char_seconds)
    assert 5 * SHARE - 2 * longest <= taken <= 5 * SHARE + longest
    assert char_seconds * max(pieces[2:]) <= 2 * longest
