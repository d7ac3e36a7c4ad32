import sys
from pathlib import Path

import pytest

from tests import sealed
from tests.models import tiny_model
from tests.services import need

DEMO = Path(__file__).parent.parent / "scripts/demo.py"


@pytest.fixture(autouse=True)
def _can_seal() -> None:
    need("the right to make a network namespace (unshare, ip)", is_there=sealed.is_possible())


def test_a_server_and_a_generation_send_nothing_out_and_leave_no_file(tmp_path: Path) -> None:
    """The demo, a server and a client from start to end, sends no packet out of the machine and leaves no file."""
    done = sealed.run(tmp_path, sys.executable, DEMO)
    assert (done.returncode, done.addresses, done.files) == (0, [], []), done.output


def test_the_exporter_sends_nothing_out_and_leaves_no_file(tmp_path: Path) -> None:
    """The exporter's verify, which runs onnxruntime too, sends no packet out of the machine and leaves no file."""
    model = tiny_model(tmp_path / "tiny.onnx")
    done = sealed.run(tmp_path, sys.executable, "-m", "elman_export", "verify", str(model))
    assert (done.returncode, done.addresses, done.files) == (0, [], []), done.output


def test_a_look_up_of_a_name_is_seen(tmp_path: Path) -> None:
    """The watch sees a program that asks for a name: it would see telemetry."""
    look_up = "import socket; socket.getaddrinfo('telemetry.example', 443)"
    done = sealed.run(tmp_path, sys.executable, "-c", look_up)
    assert done.addresses == ["192.0.2.53"]


def test_plain_onnxruntime_leaves_files(tmp_path: Path) -> None:
    """Without the switch onnxruntime writes a device id into the home directory: the switch is what prevents it."""
    model = tiny_model(tmp_path / "tiny.onnx")
    load = f"import onnxruntime; onnxruntime.InferenceSession({str(model)!r}, providers=['CPUExecutionProvider'])"
    plain = sealed.run(tmp_path, sys.executable, "-c", load)
    assert any("onnxruntime" in name for name in plain.files), plain.output
