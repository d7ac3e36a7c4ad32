"""The client and the command line against the real server."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

from elman_client import AsyncClient, Client, SessionState
from tests.client.processes import Terminal, run
from tests.e2e.wire import PATIENCE, PROMPT
from tests.server_process import ServerProcess

_README = Path(__file__).parents[2] / "README.md"
_CTRL_C, _CTRL_D = "\x03", "\x04"
_ANSWER = r"\x1b\[\?2004l[^\x1b]{40}"  # the line editor lets go of the terminal, and text follows


def test_the_readmes_program_runs(server_process: ServerProcess):
    """The ten lines of the README print a session's transcript, streamed and as a whole."""
    found = re.search(r"```python\n(from elman_client.*?)```", _README.read_text(), re.DOTALL)
    assert found is not None
    program = found[1].replace("localhost:50051", server_process.address).replace('"shakespeare"', '"gru"')
    assert program != found[1]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, str(_README), "exec"), {})

    match = re.fullmatch(r"(.*)ROMEO:(.*)\nJULIET:(.*)\n", printed.getvalue(), re.DOTALL)
    assert match is not None
    streamed, first, second = match.groups()
    assert streamed == first + second
    assert len(first) == 200


async def test_both_clients_read_the_same(server_process: ServerProcess):
    """The blocking and the asyncio client draw the same text, and go on with each other's session."""
    with Client(server_process.address, timeout=PATIENCE) as client:
        session = client.create_session(model="gru", seed=4)
        first = "".join(session.generate(PROMPT, temperature=0.8, max_chars=200))
        whole = client.create_session(model="gru", seed=4)
        expected = "".join(whole.generate(PROMPT, temperature=0.8, max_chars=400))

        async with AsyncClient(server_process.address, timeout=PATIENCE) as twin:
            other = await twin.get_session(session.name)
            rest = "".join([text async for text in other.generate(temperature=0.8, max_chars=200)])

        assert first + rest == expected
        assert session.transcript().text == whole.transcript().text == PROMPT + expected
        assert session.refresh().state is SessionState.ACTIVE


def test_leaving_a_turn_keeps_what_was_read(server_process: ServerProcess):
    """A generation that is closed early leaves the session at what was handed over, ready to go on."""
    with Client(server_process.address, timeout=PATIENCE) as client:
        session = client.create_session("lstm", seed=1)
        with session.generate(PROMPT, max_chars=100_000) as turn:
            text = next(turn)
        text += "".join(session.generate(max_chars=50))
        transcript = session.transcript()

        assert transcript.text.startswith(PROMPT + text[:1])
        assert transcript.text.endswith(text[-50:])
        assert [turn.end for turn in transcript.turns][-1] == len(transcript.text)


def test_the_commands_work_on_a_pipe(server_process: ServerProcess, tmp_path: Path):
    """Text goes to standard output as it is, tables and JSON for the rest, and exit codes say what happened."""
    target = server_process.address
    once = run(target, "generate", "ROMEO:", "--model", "gru", "--seed", "7", "--max-chars", "100", "--stats")
    again = run(target, "generate", "-", "--model", "gru", "--seed", "7", "--max-chars", "100", stdin="ROMEO:")
    assert (once.returncode, again.returncode, again.stderr) == (0, 0, "")
    assert once.stdout == again.stdout
    assert len(once.stdout) == len("ROMEO:") + 100
    assert "100 characters" in once.stderr

    served = [json.loads(line)["name"] for line in run(target, "models", "--json").stdout.splitlines()]
    assert served == ["models/bytes", "models/elman", "models/gru", "models/lstm", "models/nan"]

    file = tmp_path / "text.txt"
    file.write_text("To be, or not to be")
    score = run(target, "score", str(file), "--model", "gru", "--json").stdout.splitlines()
    assert len(score) == 19 + 1
    assert json.loads(score[-1])["num_scored"] == 18


def test_the_commands_work_on_sessions(server_process: ServerProcess):
    """A session can be listed, shown, gone on with and deleted; then it is not there: exit code 4."""
    target = server_process.address
    with Client(target) as client:
        client.create_session("gru", session_id="by-command", labels={"made": "here"})
    done = run(target, "generate", "To be", "--session", "by-command", "--max-chars", "5", "--no-echo")
    assert (done.returncode, len(done.stdout)) == (0, 5)
    assert "by-command" in run(target, "sessions", "list", "--filter", 'labels.made = "here"').stdout
    assert json.loads(run(target, "sessions", "show", "by-command", "--json").stdout)["position"] == 10
    assert run(target, "sessions", "delete", "by-command").returncode == 0

    gone = run(target, "sessions", "show", "by-command")
    assert (gone.returncode, gone.stderr) == (
        4,
        "elman: sessions/by-command does not exist; create it first\n",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["generate", "a", "--model", "gru", "--temperature", "nan"], 1, "--temperature is nan"),
        (["generate", "a", "--model", "gru", "--top-p", "1.1"], 1, "--top-p is 1.1"),
        (["generate", "\N{SNAKE}", "--model", "gru"], 1, "the prompt: the model does not have"),
        (["generate", "!!!", "--model", "nan", "--max-chars", "9"], 1, "the server has an internal error"),
        (["generate", "a", "--model", "none"], 4, "models/none is not served here"),
        (["generate", "a", "--nonsense"], 2, "No such option"),
    ],
)
def test_a_failing_command_is_one_line_and_a_code(
    server_process: ServerProcess, arguments: list[str], code: int, sentence: str
):
    """Every failure is one line on standard error that says what is wrong."""
    done = run(server_process.address, *arguments)

    assert done.returncode == code
    assert done.stderr.startswith(f"elman: {sentence}")
    assert done.stderr.count("\n") == 1


def test_a_chat_goes_on_after_ctrl_c(server_process: ServerProcess):
    """Ctrl-C stops the answer; the session keeps it, takes the next line and answers that."""
    with Client(server_process.address, timeout=PATIENCE) as client:
        session = client.create_session("gru", session_id="a-chat", seed=2)
        arguments = ("chat", "--session", "a-chat", "--max-chars", "100000", "--stop", "QQQQQQ")
        with Terminal(server_process.address, *arguments) as terminal:
            terminal.expect(">")
            terminal.type("ab\r")
            terminal.expect(_ANSWER)
            terminal.type(_CTRL_C)
            terminal.expect("stopped")
            terminal.expect(">")
            terminal.type("/info\r")
            terminal.expect(r"turns\s+1\D")
            terminal.expect(">")
            terminal.type("cd\r")
            terminal.expect(_ANSWER)
            terminal.type(_CTRL_C)
            terminal.expect("stopped")
            terminal.expect(">")
            terminal.type(_CTRL_D)
            terminal.expect("The session stays")
            assert terminal.wait() == 0
        text = session.transcript().text

    assert text.startswith("ab\n")
    assert "cd\n" in text
