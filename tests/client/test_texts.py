"""What commands read: files from anywhere, and characters that the model does not have."""

import pytest

from elman_client import Client
from tests.client.processes import run

_FILE = "\ufeffa\r\nb"
_NOTES = [
    "elman: {name}: the byte order mark at the beginning is left out",
    "elman: {name}: CRLF line ends are read as LF",
]


def _notes(name: str) -> list[str]:
    return [note.format(name=name) for note in _NOTES]


def test_generate_reads_a_file_of_windows(server):
    """The byte order mark is left out and line ends become LF, with a note each."""
    done = run(server.target, "generate", "-", "--max-chars=2", stdin=_FILE)

    assert (done.returncode, done.stdout) == (0, "a\nbde")
    assert done.stderr.splitlines() == _notes("standard input")


def test_generate_on_a_session_looks_at_its_model(server):
    """A model that has carriage returns gets them."""
    server.servicer.models["models/tiny"].byte_level = True
    with Client(server.target) as client:
        session = client.create_session("tiny")
        run(server.target, "generate", "-", "--session", session.name, "--max-chars=1", stdin="a\nb")
        done = run(server.target, "generate", "-", "--session", session.name, "--max-chars=1", stdin="a\r\nb")

    assert (done.returncode, "'\\r'" in done.stderr) == (1, True)


def test_score_reads_a_file_of_windows(server, tmp_path):
    """As generate does; the text that is scored has three characters."""
    file = tmp_path / "text"
    file.write_bytes(_FILE.encode())

    done = run(server.target, "score", str(file))

    assert "2 characters scored" in done.stdout
    assert done.stderr.splitlines() == _notes(str(file))


def test_chat_reads_a_file_of_windows(server):
    """Each line of a pipe loses its carriage return, with one note for all."""
    done = run(server.target, "chat", "--max-chars=1", stdin=_FILE + "\r\nc\r\n")

    assert done.returncode == 0
    assert done.stderr.splitlines() == _notes("standard input")
    assert server.servicer.memories["sessions/made-0"].text == "a\ncb\nfc\ni"


def test_what_is_no_utf_8_is_refused(server, tmp_path):
    """A sentence says where, and what converts it."""
    file = tmp_path / "text"
    file.write_bytes(b"ab\xff")

    done = run(server.target, "score", str(file))

    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file} is not UTF-8 at byte 2: convert it first" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        (["--unknown=skip"], "ab"),
        (["--unknown=replace=?"], "?a??b"),
        (["--plain-quotes", "--unknown=skip"], "'a-b"),
        (["--plain-quotes", "--unknown=replace=?"], "'a-?b"),
    ],
)
def test_unknown_characters_are_left_out_or_replaced(server, arguments, read):
    """Each command that reads text has the choice, and curly quotes and dashes become those that the model has."""
    with Client(server.target) as client:
        client.create_session("tiny", session_id="mine")
        run(server.target, "generate", "“a—€b", "--session=mine", "--max-chars=1", *arguments)
        assert client.session("mine").transcript().text[:-1] == read
    scored = run(server.target, "score", "-", *arguments, stdin="“a—€b")
    assert f"{len(read) - 1} characters scored" in scored.stdout
    run(server.target, "chat", "--max-chars=1", *arguments, stdin="“a—€b\n")
    assert server.servicer.memories["sessions/made-1"].text[:-2] == read


@pytest.mark.parametrize("policy", ["drop", "replace", "replace=", "replace=ab", "skip=a"])
def test_a_policy_that_is_none_is_refused(server, policy):
    """The sentence names the three that there are."""
    done = run(server.target, "generate", "a", f"--unknown={policy}")

    assert (done.returncode, "is neither skip, reject nor replace=?" in done.stderr) == (2, True)
