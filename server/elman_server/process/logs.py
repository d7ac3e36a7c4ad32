"""Logs: structlog to standard error, one line per event, other libraries' records among them.

A log cannot stop the server. Lines go through a bounded queue to a thread that writes them; where nobody reads them, or
the disk is full, they are dropped and counted.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from elman_server.process.observe.call import present_call

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from structlog.typing import EventDict, Processor

    from elman_server.process.observe.call import Call

MAX_LINES: Final = 4096  # in the queue; usually about a megabyte
GATHER_SECONDS: Final = 0.02
_STANDARD_ERROR: Final = 2
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "error": logging.ERROR}
_LAST_SECONDS: Final = 0.5  # for the lines of an exception that ends the process
_stamp: Final = structlog.processors.TimeStamper(fmt="iso", utc=True)
_encode: Final = msgspec.json.Encoder().encode


def _name_call(_: object, __: str, event: EventDict) -> EventDict:
    """Add the id of the call that a line belongs to."""
    call = present_call()
    if call is not None:
        event.setdefault("request_id", call.request_id)
    return event


_SHARED: Final[tuple[Processor, ...]] = (
    _name_call,
    structlog.processors.add_log_level,
    _stamp,
)


class LineWriter:
    """Writes lines to a file descriptor in a thread of its own. `write` never blocks and never raises.

    Args:
        descriptor: stays open.
        report: returns the line that reports how many lines were dropped.
    """

    def __init__(self, descriptor: int, report: Callable[[int], str]) -> None:
        self._descriptor = descriptor
        self._report = report
        self._lines: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        self._num_refused = 0  # the queue was full
        self._num_failed = 0  # the write failed
        self._num_reported = 0
        threading.Thread(target=self._run, name="elman-log", daemon=True).start()

    def write(self, text: str) -> None:
        """Queue a line; drop it if the queue is full."""
        if self._lines.qsize() < MAX_LINES:
            self._lines.put(text)
        else:
            self._num_refused += 1

    def flush(self) -> None:
        """Do nothing: the thread writes as fast as it can."""

    def drain(self, seconds: float) -> None:
        """Wait until every line is written or dropped, for that long at most."""
        is_written = threading.Event()
        self._lines.put(is_written)
        is_written.wait(seconds)

    def _run(self) -> None:
        while True:
            batch = [self._lines.get()]
            if isinstance(batch[0], str):
                time.sleep(GATHER_SECONDS)  # while this sleeps a line wakes no thread; then all go out in one write
            batch += [self._lines.get() for _ in range(self._lines.qsize())]
            self._write_lines([line for line in batch if isinstance(line, str)])
            for is_written in batch:
                if isinstance(is_written, threading.Event):
                    is_written.set()

    def _write_lines(self, lines: list[str]) -> None:
        num_dropped = self._num_refused + self._num_failed
        notice = self._report(num_dropped - self._num_reported) if num_dropped > self._num_reported else ""
        data = (notice + "".join(lines)).encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[self._write(data) :]
            self._num_reported = num_dropped
        except OSError:  # the log has no reader any more, or the disk is full
            self._num_failed += len(lines)

    def _write(self, data: bytes) -> int:
        """Write some bytes; return how many."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])


def set_up_logs(log_format: str, log_level: str, descriptor: int = _STANDARD_ERROR) -> LineWriter:
    """Send structlog and the standard `logging` to a file descriptor, by default standard error.

    Args:
        log_format: `console`, `json`, or `auto`: console where `descriptor` is a terminal.
        log_level: `debug`, `info`, `warning` or `error`.
        descriptor: where the lines go.

    Returns:
        The writer; drain it before the process ends.
    """
    is_terminal = os.isatty(descriptor)
    is_console = log_format == "console" or (log_format == "auto" and is_terminal)
    render = _console(is_terminal=is_terminal) if is_console else _json()
    level = logging.getLevelNamesMapping()[log_level.upper()]
    writer = LineWriter(descriptor, lambda count: _report(render, count))
    _fast.writer, _fast.level = None if is_console else writer, level
    structlog.configure(
        processors=[*_SHARED, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Logger(writer),
    )
    handler = logging.StreamHandler(writer)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_SHARED, processors=[remove, *render]))
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    return writer


class _Fast:
    """Where the lines of calls go without structlog, which takes ten times as long; nowhere unless they are JSON."""

    writer: LineWriter | None = None
    level = logging.INFO


_fast: Final = _Fast()


def log_call(level: str, call: Call, error: Exception | None = None) -> None:
    """Log one call, as one line; `error` with its traceback."""
    line: dict[str, Any] = {"method": call.method, "code": call.code}
    if call.reason:
        line["reason"] = call.reason
    line["seconds"] = round(time.monotonic() - call.begin, 6)
    line["peer"] = call.peer
    if call.principal:
        line["principal"] = call.principal
    if call.session:
        line["session"] = call.session
    if call.model:
        line["model"] = call.model
    if call.num_read or call.num_sampled:
        line["read"], line["sampled"] = call.num_read, call.num_sampled
    if call.finish:
        line["finish"] = call.finish
    if call.trace_id:
        line["trace_id"] = call.trace_id
    writer = _fast.writer
    if writer is None or error is not None:
        getattr(structlog.get_logger(), level)("call", **line, **({"exc_info": error} if error else {}))
    elif _LEVELS[level] >= _fast.level:
        line["request_id"], line["event"], line["level"] = call.request_id, "call", level
        line["timestamp"] = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        writer.write(_encode(line).decode() + "\n")


def log_uncaught(writer: LineWriter) -> None:
    """Log the exceptions that no code catches, of any thread."""

    def log(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        structlog.get_logger().error("uncaught_exception", exc_info=(kind, error, trace))
        writer.drain(_LAST_SECONDS)

    sys.excepthook = log
    threading.excepthook = lambda uncaught: log(uncaught.exc_type, uncaught.exc_value, uncaught.exc_traceback)


class _Logger:
    """Takes events from structlog as rendered lines."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def msg(self, message: str) -> None:
        """Write a line."""
        self._writer.write(message + "\n")

    debug = info = warning = error = critical = msg


def _report(render: list[Any], count: int) -> str:
    """Return the line that reports dropped lines."""
    steps: list[Processor] = [_stamp, *render]
    line: Any = {"event": "log_lines_dropped", "level": "warning", "count": count}
    for processor in steps:
        line = processor(None, "warning", line)
    return f"{line}\n"


# Both renderers write tracebacks without local variables: those hold texts and states.
def _console(*, is_terminal: bool) -> list[Processor]:
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=is_terminal, exception_formatter=plain)]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
