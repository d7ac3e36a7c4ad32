"""The attacks in their short form: the server stays, others get their text, and memory has a bound."""

from collections.abc import Iterator

import pytest

from tests.attacks.attack import attack
from tests.models import tiny_model
from tests.server_process import ServerProcess

_SHORT = [  # the others differ little; `python -m tests.attacks` runs all
    "rapid_reset",
    "half_messages",
    "standing_readers",
    "long_scores",
    "cancelled_scores",
    "forks",
    "silent_chats",
    "huge_fields",
]
_MAX_BYTES = 150 * 10**6
_MAX_WORK = 4  # seconds of a processor; a flood takes about 1
_ANSWERS = {"OK", "CANCELLED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "running", "open", "ended"}
_UNCOUNTED = {"calls", "frames", "streams"}


@pytest.fixture(scope="module")
def process(tmp_path_factory) -> Iterator[ServerProcess]:
    """A server of one small model, for all attacks."""
    folder = tmp_path_factory.mktemp("models")
    with ServerProcess(tiny_model(folder / "gru.onnx", name="gru").parent) as process:
        yield process


@pytest.mark.parametrize("name", _SHORT)
def test_an_attack_takes_little(process: ServerProcess, name: str, record_property):
    """Beside a canary that gets its text, the front takes at most 150 MB more; nothing is INTERNAL or UNKNOWN."""
    result = attack(process, name, 1.0)

    assert result.peak < _MAX_BYTES
    assert result.longest_work < _MAX_WORK
    assert result.outcomes.keys() <= _ANSWERS | _UNCOUNTED
    assert '"level": "error"' not in process.log.text
    record_property("longest_gap", result.longest_gap)
