"""Logs: structlog to standard error, one line an event, other libraries' records among them."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def set_up_logs(log_format: str, log_level: str, stream: TextIO | None = None) -> None:
    """Send structlog and the standard `logging` to `stream`, by default standard error.

    Args:
        log_format: `console`, `json`, or `auto`: console where `stream` is a terminal.
        log_level: `debug`, `info`, `warning` or `error`.
        stream: where the lines go.
    """
    stream = stream or sys.stderr
    is_console = log_format == "console" or (log_format == "auto" and stream.isatty())
    render = _console(is_terminal=stream.isatty()) if is_console else _json()
    level = logging.getLevelNamesMapping()[log_level.upper()]
    structlog.configure(
        processors=[*_SHARED, *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    handler = logging.StreamHandler(stream)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_SHARED, processors=[remove, *render]))
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


# Both renderers write tracebacks without local variables: those hold texts and states.
def _console(*, is_terminal: bool) -> list[Processor]:
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=is_terminal, exception_formatter=plain)]


def _json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
