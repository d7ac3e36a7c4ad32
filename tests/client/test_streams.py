"""Standard input and output as a command may find them: closed, full, of another encoding, read by half."""

import array
import fcntl
import os
import subprocess
import termios
import time
from pathlib import Path

import pytest

from elman_client import Client
from tests.client.processes import ELMAN, PATIENCE, environment

_COMMANDS = ["generate - --max-chars 3", "score -", "chat", "models", "sessions list"]


def shell(target: str, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `elman` is ours."""
    environ = {**environment(target, **variables), "PATH": f"{Path(ELMAN).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", line], env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize("command", _COMMANDS)
def test_closed_standard_output_is_a_sentence(server, command):
    """There is nowhere to print to; and no socket becomes standard output."""
    done = shell(server.target, f"echo -n ab | elman {command} >&-")

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("elman: standard output is closed")


@pytest.mark.parametrize("command", _COMMANDS)
def test_closed_standard_input_is_empty(server, command):
    """A command says what it lacks, or does without."""
    done = shell(server.target, f"elman {command} <&-")

    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if command == "score -" else 0)


@pytest.mark.parametrize("command", [*_COMMANDS, "--help"])
def test_a_closed_standard_error_hurts_nobody(server, command):
    """Notes and errors go nowhere."""
    done = shell(server.target, f"echo -n ab | elman {command} 2>&-")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["models", "--help"])
def test_a_full_disk_is_a_sentence(server, command):
    """What cannot be written is an error like others."""
    done = shell(server.target, f"elman {command} > /dev/full")

    assert (done.returncode, done.stderr) == (1, "elman: standard output: No space left on device\n")


@pytest.mark.parametrize("command", ["models", "--help", "sessions list --json"])
def test_a_reader_that_leaves_hears_nothing(server, command):
    """As in `elman models | true`."""
    assert shell(server.target, f"elman {command} | true").stderr == ""


@pytest.mark.parametrize(
    ("variables", "shown"),
    [({"LC_ALL": "C"}, "€"), ({"PYTHONIOENCODING": "latin-1"}, r"\u20ac"), ({"PYTHONIOENCODING": "ascii"}, r"\u20ac")],
)
def test_any_encoding_shows_the_text(server, variables, shown):
    """What the output's encoding cannot say is spelt out."""
    done = shell(server.target, "elman generate 'a€' --unknown skip --max-chars 1", **variables)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"a{shown}b"


def test_the_session_keeps_what_was_read(server):
    """A reader of 50 characters that reads no more and leaves later: the session has those 50, and not the pipe's."""
    server.servicer.seconds_per_chunk = 0.001
    with Client(server.target) as client:
        session = client.create_session("tiny")
        reading, writing = os.pipe()
        command = [ELMAN, "generate", "abc", "--session", session.name, "--max-chars=100000"]
        with subprocess.Popen(command, stdout=writing, env=environment(server.target)) as process:
            os.close(writing)
            read = b""
            while len(read) < 50:
                read += os.read(reading, 50 - len(read))
            _wait_for_unread(reading)
            os.close(reading)
            assert process.wait(PATIENCE) == 0

        assert session.transcript().text == read.decode()


def _wait_for_unread(pipe: int) -> None:
    """Return when some text lies in a pipe that nobody has read."""
    deadline, unread = time.monotonic() + PATIENCE, array.array("i", [0])
    while unread[0] < 100:
        assert time.monotonic() < deadline
        fcntl.ioctl(pipe, termios.FIONREAD, unread)
        time.sleep(0.001)
