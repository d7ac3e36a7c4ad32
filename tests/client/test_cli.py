import json
import math
import os
import re
import signal
import socket
import subprocess
import threading

import click
import grpc
import pytest

from elman_client import Client
from elman_client.cli import cli
from elman_client.cli._output import printable
from tests.client.fake_memory import ALPHABET, VOCABULARY
from tests.client.fake_server import FakeServer
from tests.client.processes import ELMAN, PATIENCE, Terminal, environment, run, start


def _commands(group: click.Group, path: str = "elman") -> list[tuple[str, click.Command]]:
    found = []
    for name, command in group.commands.items():
        found.append((f"{path} {name}", command))
        if isinstance(command, click.Group):
            found += _commands(command, f"{path} {name}")
    return found


@pytest.mark.parametrize(("path", "command"), _commands(cli))
def test_every_command_explains_itself(path, command):
    """Each command's help has an example of it, and each that calls has the common options."""
    shown = command.get_help(click.Context(command, info_name=path))

    assert re.search(rf"Examples?:\n.*{path}", shown, re.DOTALL)
    if not isinstance(command, click.Group) and path != "elman top":  # which asks another port
        assert all(option in shown for option in ("--target", "--timeout", "--json"))


def test_generate_prints_prompt_and_text(server):
    """The prompt and what follows it come on standard output and nothing else does."""
    done = run(server.target, "generate", "ROMEO:", "--max-chars", "10")

    assert (done.returncode, done.stdout, done.stderr) == (0, "ROMEO:ghijklmnop", "")


def test_generate_reads_a_prompt_and_echoes_none(server):
    """A prompt may come from standard input, and need not be printed."""
    done = run(server.target, "generate", "-", "--no-echo", "--max-chars=2", stdin="a\nb")

    assert (done.returncode, done.stdout) == (0, "de")


def test_every_option_of_sampling_is_sent(server):
    """The server gets what was asked for, and the text ends at the first of several stop strings."""
    sampling = {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.5, "seed": 7}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in sampling.items()]

    done = run(server.target, "generate", "a", "--json", *options, "--stop=x", "--stop=d")

    started, *chunks, finished = map(json.loads, done.stdout.splitlines())
    assert started["sampling"].items() >= sampling.items()
    assert ("".join(chunk["text"] for chunk in chunks), finished["stop_string"]) == ("bc", "d")


def test_generate_goes_on_with_a_session(server):
    """A session keeps what was read and drawn."""
    with Client(server.target) as client:
        session = client.create_session("tiny")
        run(server.target, "generate", "a", "--session", session.name, "--max-chars=2")

        assert session.transcript().text == "abc"


def test_generate_prints_events_as_json(server):
    """With --json each event is an object on a line, with details if asked for."""
    done = run(server.target, "generate", "a", "--max-chars=2", "--json", "--detail=1", "--seed=5")

    started, chunk, finished = map(json.loads, done.stdout.splitlines())
    assert (started["event"], started["sampling"]["seed"]) == ("started", 5)
    assert (chunk["event"], chunk["text"]) == ("chunk", "bc")
    assert chunk["details"][0] == {"text": "b", "log_probability": -0.5, "top": [], "labels": [], "effective": None}
    assert (finished["event"], finished["finish_reason"]) == ("finished", "MAX_CHARS")
    assert finished["usage"] == {"prompt_chars": 1, "generated_chars": 2}


def test_generate_tells_its_speed(server):
    """--stats counts on standard error."""
    done = run(server.target, "generate", "a", "--max-chars=10", "--stop=h", "--stats")

    assert done.stdout == "abcdefg"
    assert re.fullmatch(r"6 characters, \d+ characters per second, ended by STOP_STRING\n", done.stderr)


def test_generate_shows_text_as_it_comes(server):
    """The first piece can be read while the next is still to be drawn; Ctrl-C ends with 130."""
    server.servicer.seconds_per_chunk = 0.1
    with start(server.target, "generate", "a", "--max-chars=1000") as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 100) == b"a"
        assert os.read(process.stdout.fileno(), 100) == b"bcde"
        server.servicer.seconds_per_chunk = 60
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


def test_generate_leaves_quietly_when_nobody_reads(server):
    """A reader that has had enough is no error, as in `elman generate … | head`."""
    server.servicer.seconds_per_chunk = 0.01
    with start(server.target, "generate", "a", "--max-chars=1000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["generate"], 2, "Missing argument 'PROMPT'. See `elman generate --help`."),
        (["generate", "a", "--temperature=hot"], 2, "not a valid float"),
        (["generate", "a", "--detail=1"], 2, "--detail needs --json"),
        (["generate", "a", "--model=x", "--session=y"], 2, "exclude each other"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["score", "/nowhere"], 2, "No such file"),
        (["models", "--timeout=0"], 2, "--timeout"),
        (["models", "--target=127.0.0.1:1"], 3, "is elman-server running? start it with `elman-server`"),
        (["models", "--target=a..b:1"], 3, "cannot reach a..b:1: there is no host of that name"),
        (["models", "--target=http://a:1"], 2, "--target is HOST:PORT without http://, such as a:1"),
        (["models", "--target=localhost"], 2, "--target is HOST:PORT, such as 127.0.0.1:50051, not 'localhost'"),
        (["generate", "a", "--max-chars=0"], 2, "Invalid value for '--max-chars': 0 is not in the range"),
        (["generate", "a", r"--stop=\n"], 1, r"--stop: the model does not have '\'; for a line break write $'\n'"),
        (["sessions", "create", "--ttl=7x"], 2, "'7x' is no duration: write 90s, 15m, 2h or 7d"),
        (["sessions", "create", "--label=a"], 2, "'a' is no label: write KEY=VALUE"),
        (["sessions", "update", "x"], 2, "nothing to update: give --ttl, --label or --remove-label"),
        (["generate", "a", "--model=x"], 4, "there is no models/x: see ListModels"),
        (["sessions", "show", "x"], 4, "there is no sessions/x"),
        (["sessions", "delete", "x"], 4, "there is no sessions/x"),
        (["chat", "--session=x"], 4, "there is no sessions/x"),
        (["chat", "--session=x", "--initial-state=y"], 2, "--initial-state and --session exclude each other"),
        (
            ["generate", "€"],
            1,
            "the model does not have '€'; leave them out, or choose --unknown skip or --unknown replace=?",
        ),
    ],
)
def test_errors_are_one_line_and_a_code(server, arguments, code, message):
    """Each way to fail has one line on standard error and an exit code for scripts."""
    done = run(server.target, *arguments)

    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert done.stderr.startswith("elman: ")
    assert done.stdout == ""
    assert message in done.stderr


@pytest.mark.parametrize("arguments", [[], ["sessions"]])
def test_a_bare_group_shows_its_help(arguments):
    """Asked for nothing, a group says what there is to ask for."""
    done = run("127.0.0.1:1", *arguments)

    assert (done.returncode, "Commands:" in done.stdout) == (0, True)


@pytest.mark.parametrize(("models", "code"), [(["only"], 0), (["one", "two"], 2)])
def test_the_only_model_need_not_be_named(models, code):
    """Without --model the only one is taken; of several none is guessed."""
    with FakeServer(*models) as server:
        done = run(server.target, "generate", "a", "--max-chars=1")

    assert done.returncode == code
    assert ("the server has one, two" in done.stderr) == bool(code)


def test_models_are_listed(server):
    """Models come as a table, or as JSON."""
    table = run(server.target, "models").stdout.splitlines()
    rows = [json.loads(line) for line in run(server.target, "models", "--json").stdout.splitlines()]

    header = "NAME VERSION CELL LAYERS HIDDEN SYMBOLS PARAMETERS LABELS READ-OUTS STARTS"
    assert table[0].split() == header.split()
    assert table[1].split() == f"shakespeare 1 lstm 2 8 {len(VOCABULARY)} 0 - mood default,juliet".split()
    assert [(row["name"], row["cell"]) for row in rows] == [
        ("models/shakespeare", "LSTM"),
        ("models/tiny", "LSTM"),
    ]


def test_sessions_are_listed_shown_and_deleted(server):
    """The session commands see what a chat has left."""
    run(server.target, "chat", "--max-chars=1", stdin="ab\n")

    listed = run(server.target, "sessions", "list").stdout.splitlines()
    shown = run(server.target, "sessions", "show", "made-0").stdout
    as_json = json.loads(run(server.target, "sessions", "show", "made-0", "--json").stdout)
    deleted = run(server.target, "sessions", "delete", "made-0").stdout

    assert listed[1].split()[:4] == ["made-0", "shakespeare/versions/1", "active", "4"]
    assert re.search(r"position +4\n", shown)
    assert (as_json["name"], as_json["position"]) == ("sessions/made-0", 4)
    assert deleted == "deleted sessions/made-0\n"
    assert run(server.target, "sessions", "list", "--json").stdout == ""


def test_score_measures_a_long_file(server, tmp_path):
    """A file longer than one request is scored as one text, and leaves no session behind."""
    file = tmp_path / "long.txt"
    file.write_text(ALPHABET * 100)

    done = run(server.target, "score", str(file))

    bits = 0.5 / math.log(2)
    assert done.stdout == (f"0.5000 nats per character, {bits:.4f} bits per character, 2599 characters scored\n")
    assert server.servicer.memories == {}


def test_score_prints_each_character_as_json(server):
    """With --json each character has its line, and the sum comes last."""
    done = run(server.target, "score", "-", "--json", stdin="a\nb")

    *characters, summary = map(json.loads, done.stdout.splitlines())
    assert [(c["text"], c["log_probability"]) for c in characters] == [
        ("a", None),
        ("\n", -0.5),
        ("b", -0.5),
    ]
    assert summary["num_scored"] == 2
    assert summary["nats_per_character"] == 0.5


def test_labels_are_columns_in_a_pipe(server):
    """Each character has its likeliest label and the probability of every label; white space is spelt out."""
    done = run(server.target, "score", "-", "--read-out=mood", stdin="a\nb")

    header, *rows = (line.split("\t") for line in done.stdout.splitlines())
    assert header == ["character", "label", "bad", "good"]
    assert rows == [["a", "good", "0.2500", "0.7500"], ["\\n", "good", "0.2500", "0.7500"], ["b", *rows[0][1:]]]
    assert server.servicer.memories == {}


def test_labels_are_objects_as_json(server):
    """With --json each character has the log-probabilities of its labels."""
    done = run(server.target, "score", "-", "--read-out=mood", "--json", stdin="ab")

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["a", "b"]
    assert rows[0]["labels"] == {"bad": math.log(0.25), "good": math.log(0.75)}


@pytest.mark.parametrize(("variables", "color"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_labels_are_colors_on_a_terminal(server, tmp_path, variables, color):
    """A legend, the text in colours, bars below it and the end; or columns where colours are not wanted."""
    file = tmp_path / "text"
    file.write_text("ab")

    with Terminal(server.target, "score", str(file), "--read-out=mood", **variables) as terminal:
        assert terminal.wait() == 0
        shown = terminal.output
    assert ("\x1b[33ma\x1b[0m\x1b[33mb\x1b[0m" in shown) is color
    assert ("in the end: bad 25.0%, good 75.0%" in shown) is color
    assert ("\x1b[33m\u2587\x1b[0m" in shown) is color


def test_a_session_starts_from_a_named_state(server):
    """`sessions create` and `chat` choose it, and a reset chat starts there again."""
    made = run(server.target, "sessions", "create", "--initial-state=juliet", "--id=mine", "--seed=3").stdout
    run(server.target, "chat", "--initial-state=juliet", "--max-chars=1", stdin="a\n/reset\n")

    assert made == "sessions/mine\n"
    assert re.search(r"started +juliet\n", run(server.target, "sessions", "show", "mine").stdout)
    assert [memory.info.initial_state for memory in server.servicer.memories.values()] == ["juliet"] * 3


def test_score_of_nothing_is_refused(server, tmp_path):
    """Neither an empty file nor one that is no text can be scored."""
    file = tmp_path / "bytes"
    file.write_bytes(b"\xff\xfe")

    assert run(server.target, "score", "-").returncode == 2
    assert "not UTF-8" in run(server.target, "score", str(file)).stderr


@pytest.mark.parametrize(("variables", "color"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_color_is_for_terminals_that_want_it(variables, color):
    """Errors are colored on a terminal unless NO_COLOR is set."""
    with Terminal("127.0.0.1:1", "models", **variables) as terminal:
        assert terminal.wait() == 3
        assert ("\x1b[31melman:\x1b[0m" in terminal.output) is color


def test_sessions_are_forked_and_rewound(server):
    """The names of the forks are printed one a line; a rewind says where the session is; --json shows them."""
    with Client(server.target) as client:
        session = client.create_session("tiny", session_id="mine")
        session.append("abcdef")
        forked = run(server.target, "sessions", "fork", "mine", "--at", "3", "--count", "2")
        rewound = run(server.target, "sessions", "rewind", "mine", "4")
        shown = run(server.target, "sessions", "show", "made-1")
        as_json = run(server.target, "sessions", "rewind", "mine", "2", "--json")

        assert forked.stdout.split() == ["sessions/made-1", "sessions/made-2"]
        assert rewound.stdout == "sessions/mine is at 4\n"
        assert "forked from sessions/mine at 3" in shown.stdout
        assert json.loads(as_json.stdout)["position"] == 2
        assert client.session("made-1").transcript().text == "abc"
    refused = run(server.target, "sessions", "rewind", "mine", "7")
    assert refused.returncode == 1


def test_sessions_are_exported_and_imported(server, tmp_path):
    """Through a file or a pipe; a file that is none is refused, and a failed export leaves no file."""
    file = tmp_path / "mine.elman"
    with Client(server.target) as client:
        client.create_session("tiny", session_id="mine").append("abc")
        exported = run(server.target, "sessions", "export", "mine", str(file))
        imported = run(server.target, "sessions", "import", str(file), "--as", "arrived")
        piped = run(server.target, "sessions", "export", "mine", "-")
        again = run(server.target, "sessions", "import", "-", stdin=piped.stdout)

        assert exported.stdout == f"sessions/mine is in {file}, 8 bytes\n"
        assert imported.stdout == "sessions/arrived\n"
        assert piped.stdout == "ELMANabc"
        assert client.session(again.stdout.strip()).transcript().text == "abc"
    missing = run(server.target, "sessions", "export", "nobody", str(tmp_path / "nobody.elman"))
    assert (missing.returncode, list(tmp_path.iterdir())) == (4, [file])
    nowhere = run(server.target, "sessions", "export", "mine", "/nowhere/mine.elman")
    assert (nowhere.returncode, nowhere.stderr) == (1, "elman: /nowhere/mine.elman: No such file or directory\n")
    file.write_bytes(b"nonsense")
    refused = run(server.target, "sessions", "import", str(file))
    assert (refused.returncode, refused.stderr) == (1, "elman: snapshot is no snapshot of a session\n")


def test_an_import_says_that_the_arithmetic_is_another(server, tmp_path):
    """On standard error: the session is there, and its name on standard output."""
    file = tmp_path / "mine.elman"
    file.write_bytes(b"ELMANabc")
    server.servicer.imported_fingerprint = "another machine"
    imported = run(server.target, "sessions", "import", str(file), "--as", "arrived")
    shown = run(server.target, "sessions", "show", "arrived")
    assert (imported.returncode, imported.stdout) == (0, "sessions/arrived\n")
    assert "run by other arithmetic (another machine)" in imported.stderr
    assert "arithmetic  another machine\n" in shown.stdout


def test_replay_says_whether_it_is_equal(server):
    """Bit-equal with exit code 0, or where it differs with 1; with --json turn by turn."""
    with Client(server.target) as client:
        session = client.create_session("tiny", session_id="mine")
        empty = run(server.target, "replay", "mine")
        session.append("abc")
        session.append("de")
    equal = run(server.target, "replay", "mine")
    server.servicer.difference_at = 4
    differs = run(server.target, "replay", "mine")
    as_json = run(server.target, "replay", "mine", "--json")

    assert (empty.returncode, empty.stdout) == (0, "there is nothing to replay\n")
    assert (equal.returncode, equal.stdout) == (0, "bit-equal: 5 characters, 2 turns\n")
    assert (differs.returncode, differs.stdout) == (1, "differs at position 4, in the turn from 3 to 5\n")
    assert as_json.returncode == 1
    turns = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [(turn["is_equal"], turn["turn"]["end"]) for turn in turns] == [(False, 3), (False, 5)]


@pytest.mark.parametrize(("path", "command"), _commands(cli))
def test_every_command_has_a_short_help(path, command):
    """-h is as good as --help, everywhere."""
    context = click.Context(command, info_name=path, parent=click.Context(cli, info_name="", **cli.context_settings))

    assert set(command.get_help_option_names(context)) == {"-h", "--help"}


def test_sessions_have_a_time_to_live_and_labels(server):
    """`create` sets them, `update` changes one of them and keeps the others."""
    labels = ["--label", "user=ann", "--label", "draft=1"]
    run(server.target, "sessions", "create", "--id=mine", "--ttl=7d", *labels)
    info = server.servicer.memories["sessions/mine"].info
    assert dict(info.labels) == {"user": "ann", "draft": "1"}
    assert info.expire_time.seconds - info.create_time.seconds == 7 * 86400

    shown = run(server.target, "sessions", "update", "mine", "--ttl=90", "--label=a=b=c", "--remove-label=draft")

    assert re.search(r"labels +(a=b=c user=ann|user=ann a=b=c)\n", shown.stdout)
    assert info.expire_time.seconds - info.create_time.seconds == 90
    run(server.target, "sessions", "update", "mine", "--ttl=2m")
    assert dict(info.labels) == {"user": "ann", "a": "b=c"}


def test_a_transcript_is_printed(server):
    """All of it or a part; with --json the turns too."""
    with Client(server.target) as client:
        session = client.create_session("tiny", session_id="mine")
        session.append("abc")
        session.append("de")

    whole = run(server.target, "sessions", "transcript", "mine")
    part = run(server.target, "sessions", "transcript", "mine", "--start=1", "--end=3")
    as_json = json.loads(run(server.target, "sessions", "transcript", "mine", "--json").stdout)

    assert (whole.stdout, part.stdout, as_json["text"]) == ("abcde", "bc", "abcde")
    assert [(turn["start"], turn["end"]) for turn in as_json["turns"]] == [(0, 3), (3, 5)]


def test_a_running_turn_is_cancelled(server):
    """`sessions cancel` ends it, and the command that runs it ends with what there is."""
    server.servicer.seconds_per_chunk = 0.05
    with Client(server.target) as client:
        client.create_session("tiny", session_id="mine")
    with start(server.target, "generate", "a", "--session=mine", "--max-chars=1000") as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 100)
        done = run(server.target, "sessions", "cancel", "mine")
        assert re.fullmatch(r"sessions/mine is at \d+\n", done.stdout)
        assert process.wait(PATIENCE) == 0


def test_the_help_tells_the_defaults():
    """How long a text gets and how daring it is stand in --help."""
    shown = run("127.0.0.1:1", "generate", "--help").stdout

    assert re.search(r"--temperature.*default: 0\.8", shown, re.DOTALL)
    assert re.search(r"--max-chars.*default:\s+500", shown, re.DOTALL)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("generate --model s", {"shakespeare"}),
        ("chat --session mi", {"mine"}),
        ("sessions show ", {"mine"}),
        ("replay m", {"mine"}),
        ("score - --read-out ", {"mood"}),
        ("chat --model tiny --initial-state j", {"juliet"}),
        ("chat --target 127.0.0.1:1 --model ", set()),
    ],
)
def test_the_shell_completes_names(server, words, completed):
    """Models, sessions, read-outs and initial states come from the server; from one that does not answer, none."""
    with Client(server.target) as client:
        client.create_session("tiny", session_id="mine")
    typed = ["elman", *words.split(" ")]
    variables = {
        "_ELMAN_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(typed),
        "COMP_CWORD": str(len(typed) - 1),
    }

    environ = environment(server.target, **variables)
    done = subprocess.run([ELMAN], env=environ, capture_output=True, text=True, check=False)

    assert {line.removeprefix("plain,") for line in done.stdout.split()} == completed
    assert done.stderr == ""


def test_a_lost_server_is_reported_once(server):
    """A note on a line of its own says that the command reconnects; the text has no gap."""
    server.servicer.cuts = [grpc.StatusCode.UNAVAILABLE] * 3
    with Client(server.target) as client:
        client.create_session("tiny", session_id="mine")

    done = run(server.target, "generate", "a", "--session=mine", "--max-chars=20")

    assert done.stdout == "abcdefghijklmnopqrstu"
    notes = done.stderr.splitlines()
    assert set(notes) == {f"elman: {server.target}: lost the server: reconnecting …"}
    assert len(notes) <= 3


def test_what_is_no_elman_server_is_told_apart():
    """A web server, and a server that wants TLS, are not taken for one that is down."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=_answer_http, args=[listener])
        answering.start()
        done = run(f"127.0.0.1:{listener.getsockname()[1]}", "models")
        listener.shutdown(socket.SHUT_RDWR)
        answering.join()

    assert done.returncode == 3
    assert "another program listens there, not an elman-server" in done.stderr


def _answer_http(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.recv(1000)


def test_a_server_that_closes_may_want_tls():
    """The connection is closed at once, as by a server that expects TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closing = threading.Thread(target=_close_all, args=[listener])
        closing.start()
        done = run(f"127.0.0.1:{listener.getsockname()[1]}", "models")
        listener.shutdown(socket.SHUT_RDWR)
        closing.join()

    assert (done.returncode, "it may expect --tls" in done.stderr) == (3, True)


def _close_all(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(1000)


def test_labels_move_no_cursor():
    """What others wrote into labels is shown without control characters."""
    assert printable("a\x1b[2Jb\r\u202e") == "a\ufffd[2Jb\ufffd\ufffd"
