import fcntl
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from elman_server.process import logs
from elman_server.process.logs import MAX_LINES, LineWriter, set_up_logs
from elman_server.process.observe.call import Call, begin_call
from tests.server_process import PATIENCE


class Output:
    """A file that logs are written to."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+")

    def set_up(self, log_format: str, log_level: str) -> None:
        """Send the log there."""
        self._writer = set_up_logs(log_format, log_level, self._file.fileno())

    @property
    def text(self) -> str:
        """What was logged so far."""
        self._writer.drain(PATIENCE)
        self._file.seek(0)
        return self._file.read()

    @property
    def lines(self) -> list[dict[str, object]]:
        """The events so far."""
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def output(tmp_path) -> Iterator[Output]:
    """A log in a file; what the test sets up is undone."""
    handlers, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers = []  # pytest's own, that the set-up would close
    output = Output(tmp_path / "log")
    yield output
    structlog.reset_defaults()
    logs._fast.writer = None
    begin_call(None)
    logging.root.handlers, logging.root.level = handlers, level
    output._writer.drain(PATIENCE)
    output._file.close()


def test_json_is_one_object_a_line(output):
    """Each event is one JSON object with level, time and what is bound."""
    output.set_up("json", "info")
    begin_call(Call("/a/B", "id-1"))
    structlog.get_logger().info("hello", code="OK")
    (line,) = output.lines

    assert str(line.pop("timestamp")).endswith("Z")
    assert line == {"event": "hello", "level": "info", "code": "OK", "request_id": "id-1"}


CALL = Call("/a/B", "id-1", "unix:", "OK", principal="ann", session="abcd", model="m", num_read=2, num_sampled=3)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_call_is_one_line_with_what_it_did(output, log_format: str):
    """Who, what, how much and how it ended; what a call does not have is left out."""
    output.set_up(log_format, "info")
    logs.log_call("info", CALL)
    logs.log_call("debug", CALL)
    (line,) = output.text.splitlines()

    for word in ("call", "/a/B", "unix:", "OK", "ann", "abcd", "sampled", "3"):
        assert word in line
    assert "finish" not in line


def test_the_line_of_a_call_is_as_structlog_writes_it(output):
    """The short way and structlog's own give the same fields; an error has its traceback."""
    output.set_up("json", "info")
    logs.log_call("info", CALL)
    logs.log_call("error", CALL, ValueError("no"))
    short, long = output.lines

    assert "ValueError: no" in str(long.pop("exception"))
    assert set(short) == set(long) | {"request_id"}


@pytest.mark.parametrize(("log_format", "is_json"), [("auto", True), ("console", False), ("json", True)])
def test_a_file_gets_json_unless_console_is_asked_for(output, log_format: str, is_json: bool):  # noqa: FBT001  a parameter
    """`auto` is JSON in a file; the others are what they say."""
    output.set_up(log_format, "info")
    structlog.get_logger().info("hello")

    assert output.text.startswith("{") == is_json


@pytest.mark.parametrize(("log_format", "is_json"), [("auto", False), ("console", False), ("json", True)])
def test_a_terminal_gets_console_unless_json_is_asked_for(output, log_format: str, is_json: bool):  # noqa: FBT001  a parameter
    """`auto` is console on a terminal; the others are what they say."""
    ours, terminal = pty.openpty()
    output._writer = set_up_logs(log_format, "info", terminal)
    structlog.get_logger().info("hello")
    output._writer.drain(PATIENCE)

    assert os.read(ours, 1000).startswith(b"{") == is_json
    os.close(terminal)
    os.close(ours)


def test_the_level_is_kept(output):
    """What lies below the level is not written."""
    output.set_up("json", "warning")
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")

    assert [line["event"] for line in output.lines] == ["loud"]


def test_other_libraries_are_among_them(output):
    """Records of the standard `logging` look alike, from warning up."""
    output.set_up("json", "debug")
    logging.getLogger("grpc").info("chatter")
    logging.getLogger("grpc").warning("trouble with %s", "this")
    (line,) = output.lines

    assert (line["event"], line["level"]) == ("trouble with this", "warning")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_have_no_local_variables(output, log_format: str):
    """A traceback shows where, never what the variables held: texts and states live there."""
    output.set_up(log_format, "info")
    try:
        _fail("a private" + " prompt")
    except ZeroDivisionError as error:
        structlog.get_logger().error("failed", exc_info=error)
    try:
        _fail("a private" + " prompt")
    except ZeroDivisionError:
        logging.getLogger("asyncio").exception("failed too")

    assert output.text.count("ZeroDivisionError: division by zero") == 2
    assert "a private prompt" not in output.text


def _fail(prompt: str) -> float:
    return len(prompt) / 0


# A log that nobody reads


def _fill(descriptor: int) -> None:
    """Fill a pipe."""
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except BlockingIOError:
        pass


@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_log_that_nobody_reads_drops_lines_and_counts_them(is_blocking: bool):  # noqa: FBT001  a parameter
    """Writing never waits for the reader; once there is one, it sees what was kept and a count of the rest."""
    reader, descriptor = os.pipe()
    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 4096)
    _fill(descriptor)
    os.set_blocking(descriptor, is_blocking)
    writer = LineWriter(descriptor, lambda count: f"{count} dropped\n")
    for number in range(3 * MAX_LINES):
        writer.write(f"{number}\n")
    kept, num_dropped = list[int](), 0
    with os.fdopen(reader, "rb") as file:
        file.read(4096)
        while len(kept) + num_dropped < 3 * MAX_LINES:
            first, _, dropped = file.readline().partition(b" ")
            if dropped:
                num_dropped += int(first)
            else:
                kept.append(int(first))

    assert kept[:MAX_LINES] == list(range(MAX_LINES))
    assert kept == sorted(kept)
    assert num_dropped > 0
    os.close(descriptor)


def test_a_log_whose_reader_is_gone_drops_lines_and_counts_them():
    """EPIPE, as any error of the disk, ends neither the writer nor the caller."""
    reader, descriptor = os.pipe()
    os.close(reader)
    writer = LineWriter(descriptor, lambda count: f"{count} dropped\n")
    for _ in range(3):
        writer.write("lost\n")
    writer.drain(PATIENCE)
    reader, later = os.pipe()
    os.dup2(later, descriptor)
    writer.write("found\n")
    writer.drain(PATIENCE)

    assert os.read(reader, 1000) == b"3 dropped\nfound\n"
    for number in (reader, later, descriptor):
        os.close(number)


def test_a_full_disk_drops_lines():
    """`/dev/full`, which answers as a full disk does, ends neither the writer nor the caller."""
    full = os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(full, str)
    writer.write("lost\n")
    writer.drain(PATIENCE)

    assert writer._num_failed == 1
    os.close(full)


@pytest.mark.parametrize("start", ["fail()", "thread = threading.Thread(target=fail); thread.start(); thread.join()"])
def test_what_nobody_catches_is_an_event(start: str):
    """An exception that ends the process or one of its threads is one line of the log."""
    code = f"""
import threading
from elman_server.process.logs import log_uncaught, set_up_logs
def fail():
    raise ZeroDivisionError("unforeseen")
log_uncaught(set_up_logs("json", "info"))
{start}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, check=False)
    line = json.loads(done.stderr)

    assert (line["event"], line["level"]) == ("uncaught_exception", "error")
    assert line["exception"].endswith("ZeroDivisionError: unforeseen")
