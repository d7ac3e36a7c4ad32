import json

import pytest

from tests.client.interrupted import interrupt_chat
from tests.client.processes import Terminal, run

_CTRL_C, _CTRL_D = "\x03", "\x04"
_WAYS_OUT = "leave them out, or choose --unknown skip or --unknown replace=?"


def test_chat_works_on_pipes(server):
    """Each line of a pipe is a turn on one session; answers come on standard output."""
    done = run(server.target, "chat", "--max-chars=3", stdin="ab\n\ncd\n")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["def", "ghi", "mno"]
    assert server.servicer.memories["sessions/made-0"].text == "ab\ndefghicd\nmno"


def test_chat_bounds_its_answers(server):
    """Unless told else, an answer has 500 characters at most."""
    done = run(server.target, "chat", "--json", stdin="ab\n")

    assert json.loads(done.stdout.splitlines()[0])["max_chars"] == 500


def test_chat_takes_commands(server):
    """Slash commands set temperature and seed, show, forget and help."""
    lines = [
        "/temp 0.5",
        "/seed 9",
        "ab",
        "/info",
        "/reset",
        "/info",
        "/help",
    ]

    done = run(server.target, "chat", "--json", "--max-chars=1", stdin="\n".join(lines) + "\n")

    started, _chunk, _finished, info, new = map(json.loads, done.stdout.splitlines())
    assert started["sampling"]["temperature"] == 0.5
    assert started["sampling"]["seed"] == 9
    assert (info["name"], info["position"]) == ("sessions/made-0", 4)
    assert (new["name"], new["position"]) == ("sessions/made-1", 0)
    hints = done.stderr.splitlines()
    assert hints[0] == "new session made-1"
    assert any(hint.startswith("/temp X") for hint in hints)


def test_chat_knows_the_past(server, tmp_path):
    """/undo takes a turn back, /fork leaves the session behind, /save and /load carry it, /replay judges it."""
    file = tmp_path / "talk.elman"
    lines = ["ab", "cd", "/undo", "/info", "/fork", "/info", f"/save {file}", "/reset", f"/load {file}"]
    lines += ["/info", "/replay"]

    done = run(server.target, "chat", "--json", "--max-chars=2", stdin="\n".join(lines) + "\n")

    shown = [json.loads(line) for line in done.stdout.splitlines()]
    infos = [value for value in shown if "event" not in value]
    assert [(info["name"], info["position"]) for info in infos] == [
        ("sessions/made-0", 5),
        ("sessions/made-1", 5),
        ("sessions/made-3", 5),
    ]
    assert infos[1]["forked_from"] == {"name": "sessions/made-0", "position": 5}
    assert done.stderr.splitlines() == [
        "back at 5",
        "new session made-1; made-0 stays as it is",
        f"10 bytes in {file}",
        "new session made-2",
        "new session made-3, at 5",
        "there is nothing to replay",
    ]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("€", 1, f"the prompt: the model does not have '€'; {_WAYS_OUT}"),
        (
            "“a”",
            1,
            f"the prompt: the model does not have '“'; {_WAYS_OUT}, or --plain-quotes for curly quotes and dashes",
        ),
        ("/nonsense", 2, "there is no /nonsense: /help lists what there is; //nonsense sends the line itself"),
        ("/temp hot", 2, "/temp takes a number from 0 up, such as /temp 0.5, not 'hot'"),
        ("/temp -1", 2, "/temp takes a number from 0 up, such as /temp 0.5, not '-1'"),
        ("/temp nan", 2, "/temp takes a number from 0 up, such as /temp 0.5, not 'nan'"),
        ("/seed -1", 2, "/seed takes a whole number from 0 up, such as /seed 7, not '-1'"),
        ("/undo", 2, "there is nothing to undo"),
        ("/load", 2, "/load takes a file: as in /load talk.elman"),
        ("/load /nowhere/talk.elman", 1, "/nowhere/talk.elman: No such file or directory"),
    ],
)
def test_chat_on_a_pipe_fails_with_a_code(server, line, code, message):
    """Where nobody can correct the line, an error ends the chat: what follows was meant for another session, maybe."""
    done = run(server.target, "chat", stdin=f"{line}\nab\n")

    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"elman: {message}\n")


def test_chat_on_a_terminal(server):
    """Ctrl-C stops an answer and keeps the session, errors and wrong commands do not end it, Ctrl-D leaves."""
    server.servicer.seconds_per_chunk = 0.05
    with Terminal(server.target, "chat") as terminal:
        terminal.expect(">")
        terminal.type("ab\r")
        terminal.expect("defg")
        terminal.type(_CTRL_C)
        terminal.expect("stopped")
        terminal.expect(">")
        terminal.type("€\r")
        terminal.expect("the model does not have '€'")
        terminal.expect(">")
        terminal.type("/load /nowhere/talk.elman\r")
        terminal.expect("/nowhere/talk.elman: No such file or directory")
        terminal.expect(">")
        terminal.type("/nonsense\r")
        terminal.expect("there is no /nonsense")
        terminal.expect(">")
        terminal.type(_CTRL_C)
        terminal.expect("Ctrl-D leaves")
        terminal.type("/info\r")
        terminal.expect("sessions/made-0")
        terminal.expect(">")
        terminal.type("\x1b[A")  # the key Up: history
        terminal.expect("/info")
        terminal.type("\r")
        terminal.expect("sessions/made-0")
        terminal.expect(">")
        terminal.type("cd\r")
        terminal.expect("[a-z]{4}")
        terminal.type(_CTRL_C)
        terminal.expect("stopped")
        terminal.expect(">")
        terminal.type(_CTRL_D)
        terminal.expect("The session stays: elman chat --session made-0")
        assert terminal.wait() == 0
    memory = server.servicer.memories["sessions/made-0"]
    assert memory.text.startswith("ab\ndefg")
    assert "cd\n" in memory.text
    assert memory.info.turn_count == 2


def test_a_chat_introduces_itself(server):
    """The banner tells server, model, session and settings; commands change them, and /quit leaves."""
    with Terminal(server.target, "chat", "--seed=7", "--max-chars=3", NO_COLOR="1") as terminal:
        terminal.expect(rf"elman [\d.]+ at {server.target}")
        terminal.expect(r"model shakespeare \(lstm, 2 x 8\), session made-0")
        terminal.expect("temperature 0.8, seed 7, at most 3 characters or up to an empty line")
        terminal.expect("/help lists the commands")
        terminal.expect(">")
        terminal.type("/temp 0.5\r")
        terminal.expect(">")
        terminal.type("/seed\r")
        terminal.expect(">")
        terminal.type("/stop q\\n\r")
        terminal.expect(">")
        terminal.type("/info\r")
        terminal.expect(r"answers +temperature 0.5, seed 0 of the session, at most 3 characters or up to 'q\\n'")
        terminal.expect(">")
        terminal.type("/model\r")
        terminal.expect("shakespeare, tiny; this is shakespeare")
        terminal.expect(">")
        terminal.type("/model ti\t")
        terminal.expect("ny")  # completed
        terminal.type("\r")
        terminal.expect(r"model tiny \(lstm, 2 x 8\), session made-1")
        terminal.expect(">")
        terminal.type("/quit\r")
        terminal.expect("The session stays: elman chat --session made-1")
        assert terminal.wait() == 0


def test_a_continued_chat_shows_its_past(server):
    """The text of before comes after the banner, its lines come back by the key Up, and /transcript shows all."""
    run(server.target, "chat", "--max-chars=3", stdin="ab\ncd\n")
    with Terminal(server.target, "chat", "--session=made-0", "--max-chars=3") as terminal:
        terminal.expect("Ctrl-D leaves")
        terminal.expect("ab\r\ndefcd\r\njkl\r\n")
        terminal.expect(">")
        terminal.type("/transcript\r")
        terminal.expect("ab\r\ndefcd\r\njkl\r\n")
        terminal.expect(">")
        terminal.type("\x1b[A\x1b[A\r")  # the key Up, twice
        terminal.expect("cd.*pqr")
        terminal.expect(">")
        terminal.type(_CTRL_D)
        assert terminal.wait() == 0


def test_a_line_may_begin_with_a_slash(server):
    """A second slash sends the line, with one."""
    done = run(server.target, "chat", "--max-chars=1", "--unknown=replace=?", stdin="//ab\n")

    assert done.returncode == 0
    assert server.servicer.memories["sessions/made-0"].text == "?ab\ne"


def test_quit_leaves_a_pipe(server):
    """What follows is not read."""
    done = run(server.target, "chat", "--max-chars=1", stdin="ab\n/quit\ncd\n")

    assert (done.returncode, done.stdout) == (0, "d\n")


def test_info_tells_what_is_in_force(server):
    """As JSON, the answers' settings stand beside the session."""
    done = run(server.target, "chat", "--json", stdin="/temp 0.5\n/seed 9\n/info\n/seed\n/info\n")

    infos = [json.loads(line)["answers"] for line in done.stdout.splitlines()]
    assert [(info["temperature"], info["seed"]) for info in infos] == [(0.5, 9), (0.5, 0)]
    assert infos[0]["max_chars"] == 500


def test_interrupts_never_end_a_chat(server):
    """Thirty times Ctrl-C, before, at the start of and in an answer: all that was shown is kept, and no more."""
    server.servicer.seconds_per_chunk = 0.01
    with Terminal(server.target, "chat", "--max-chars=100", "--stop=?") as terminal:
        answers = interrupt_chat(terminal, 30)

    memory = server.servicer.memories["sessions/made-0"]
    assert [memory.text[turn.prompt_end : turn.end] for turn in memory.turns] == answers
    assert len(answers) > 10
