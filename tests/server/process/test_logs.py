import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from elman_server.process.logs import set_up_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers = []  # pytest's own, that the set-up would close
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.root.handlers, logging.root.level = handlers, level


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_json_is_one_object_a_line():
    """Each event is one JSON object with level, time and what is bound."""
    stream = io.StringIO()
    set_up_logs("json", "info", stream)
    structlog.contextvars.bind_contextvars(request_id="id-1")
    structlog.get_logger().info("call", code="OK")
    line = json.loads(stream.getvalue())

    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "call", "level": "info", "code": "OK", "request_id": "id-1"}


@pytest.mark.parametrize(
    ("log_format", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("console", io.StringIO(), False),
        ("json", Terminal(), True),
    ],
)
def test_auto_looks_at_the_stream(log_format: str, stream: io.StringIO, is_json: bool):  # noqa: FBT001  a parameter
    """`auto` is console on a terminal and JSON elsewhere; the others are what they say."""
    set_up_logs(log_format, "info", stream)
    structlog.get_logger().info("hello")

    assert stream.getvalue().startswith("{") == is_json


def test_the_level_is_kept():
    """What lies below the level is not written."""
    stream = io.StringIO()
    set_up_logs("json", "warning", stream)
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_other_libraries_are_among_them():
    """Records of the standard `logging` look alike, from warning up."""
    stream = io.StringIO()
    set_up_logs("json", "debug", stream)
    logging.getLogger("grpc").info("chatter")
    logging.getLogger("grpc").warning("trouble with %s", "this")
    line = json.loads(stream.getvalue())

    assert (line["event"], line["level"]) == ("trouble with this", "warning")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_have_no_local_variables(log_format: str):
    """A traceback tells where, never what the variables held: texts and states live there."""
    stream = io.StringIO()
    set_up_logs(log_format, "info", stream)
    try:
        _fail("a private" + " prompt")
    except ZeroDivisionError as error:
        structlog.get_logger().error("failed", exc_info=error)
    try:
        _fail("a private" + " prompt")
    except ZeroDivisionError:
        logging.getLogger("asyncio").exception("failed too")

    assert stream.getvalue().count("ZeroDivisionError: division by zero") == 2
    assert "a private prompt" not in stream.getvalue()


def _fail(prompt: str) -> float:
    return len(prompt) / 0
