"""A session that moves between servers of different processors is the session that stayed: `make portability`."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from elman_client import Chunk, Client
from tests.models import quantized_model
from tests.portability.machines import X86, has_emulator, python
from tests.server_process import ServerProcess
from tests.services import need

if TYPE_CHECKING:
    from elman_client import Session

pytestmark = pytest.mark.timeout(1200)

MODEL = "int8"
LOADING = 600  # seconds: an emulated engine needs 10 of a core, which may be busy
# Only the engines, which compute everything, run on another processor: QEMU 7.2 crashes when a process with gRPC's
# threads starts another one.
_WITH_ENGINES_OF = (
    "import runpy, sys; sys.executable = sys.argv[1]; del sys.argv[1:5]; "
    "runpy.run_module('elman_server', run_name='__main__', alter_sys=True)"
)


class Emulated(ServerProcess):
    """A server whose engines are slow to load."""

    loading = LOADING


class Pair(NamedTuple):
    """Two servers with the same snapshot key: of this processor, and of one whose engines compute on another."""

    here: Client
    there: Client


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Both, with a small int8 model."""
    need("qemu-x86_64", is_there=has_emulator())
    quantized_model(tmp_path / "small.onnx", "lstm", 2, 32, MODEL)
    engine, key = tmp_path / "python", tmp_path / "key"
    engine.write_text(f'#!/bin/sh\nexec {shlex.join(python(X86[0]))} "$@"\n', encoding="utf-8")
    engine.chmod(0o755)
    key.write_bytes(bytes(range(32)))
    launcher = (sys.executable, "-c", _WITH_ENGINES_OF, str(engine))
    with (
        ServerProcess(tmp_path, "--snapshot-key", str(key)) as near,
        Emulated(tmp_path, "--snapshot-key", str(key), launcher=launcher) as far,
        Client(near.address, timeout=LOADING) as here,
        Client(far.address, timeout=LOADING) as there,
    ):
        assert ["qemu-x86_64" in Path(f"/proc/{pid}/cmdline").read_text() for pid in far.engines()] == [True]
        yield Pair(here, there)


def test_a_session_moves_to_another_processor_and_back(pair):
    """Begun here, exported, continued there, brought back: texts, probabilities and states as if it had stayed."""
    assert pair.there.get_model(MODEL) == pair.here.get_model(MODEL)
    stayed = pair.here.create_session(MODEL, seed=3)
    expected = [turn(stayed, number) for number in range(3)]
    near = pair.here.create_session(MODEL, seed=3)
    found = [turn(near, 0)]
    far = pair.there.import_session(near.export())
    found.append(turn(far, 1))
    back = pair.here.import_session(far.export())
    found.append(turn(back, 2))
    assert found == expected
    for session, num_turns in ((far, 2), (back, 3)):
        replayed = list(session.replay())
        assert [one.is_equal and one.is_fingerprint_equal for one in replayed] == [True] * num_turns


def turn(session: "Session", number: int) -> Any:
    """Run a turn, each in another way; return all that was computed in it."""
    sampling: dict[str, Any] = {"temperature": (0.5, 0.8, 1.2)[number], "top_p": 0.9, "repetition_penalty": 1.2}
    running = session.generate("ROMEO:\n", max_chars=200, log_probability=True, effective=True, **sampling)
    details = [detail for event in running.events() if isinstance(event, Chunk) for detail in event.details]
    return details, running.finished.state_digest
