"""The short forms: `python -m tests.endurance` has the long ones."""

import asyncio
from pathlib import Path

import pytest

from tests.endurance.cancels import cancel_many
from tests.endurance.churn import churn
from tests.endurance.restarts import Restarted, busy, restart_many, undisturbed
from tests.models import tiny_model
from tests.server_process import PATIENCE, ServerProcess


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A directory of one model, not so small that its texts are over before its server is asked to end."""
    folder: Path = tmp_path_factory.mktemp("models")
    return tiny_model(folder / "gru.onnx", hidden_size=128, name="gru").parent


def test_callers_come_and_go(models: Path):
    """In every way and each with its text; every cancelled turn has its status; the log has no error."""
    with ServerProcess(models) as process:
        counts, memory = asyncio.run(churn(process, 2))
        cancels = asyncio.run(cancel_many(process.address, 100))

        assert sum(counts.values()) > 0
        assert memory.front
        assert cancels.statuses == {"OK": 100}
        assert cancels.longest < PATIENCE
        assert '"level": "error"' not in process.log.text


def test_a_stop_breaks_no_reader(models: Path, tmp_path: Path):
    """A server ends and starts again in the middle of all texts, beside a busy loop: each reader has its text."""
    expected = asyncio.run(undisturbed(models, 4))
    with Restarted(models, tmp_path, 1) as servers, busy(1):
        result = asyncio.run(restart_many(servers, expected, 1))

    assert result.broken == {}
    assert result.num_turns >= 4
