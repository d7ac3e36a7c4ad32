"""Standard input, output and error as a command finds them: closed, of another encoding, or with a slow reader."""

from __future__ import annotations

import array
import fcntl
import io
import os
import stat
import sys
import termios

import click

_STANDARD = ("stdin", "stdout", "stderr")


def open_streams() -> None:
    """Make the three streams usable.

    Raises:
        ClickException: Standard output is closed.
    """
    is_closed = sys.stdout is None
    for fd, name in enumerate(_STANDARD):
        if getattr(sys, name) is None:  # else the next socket would become standard output
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(fd, "w" if fd else "r", closefd=False))  # noqa: SIM115 - for the process
    if is_closed:
        raise click.ClickException("standard output is closed: there is nowhere to print to")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error has it


def silence() -> None:
    """Let what is still to be flushed at exit go nowhere: nobody reads it, or the disk is full."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(null, stream.fileno())


class Output:
    """Text on standard output, and how much of it nobody has read."""

    def __init__(self) -> None:
        self._fd = sys.stdout.fileno()
        self._is_pipe = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
        self._num_left = 0
        self._has_open_line = False

    @property
    def encoding(self) -> str:
        """The encoding of what is written."""
        return sys.stdout.encoding

    def encode(self, text: str) -> bytes:
        """Return a text as it is written."""
        return text.encode(sys.stdout.encoding, sys.stdout.errors or "strict")

    def write(self, text: str) -> None:
        """Write all of a text, now.

        Raises:
            BrokenPipeError: Nobody reads it any more.
        """
        if not text:
            return
        self._has_open_line = not text.endswith("\n")
        sys.stdout.flush()
        data = memoryview(self.encode(text))
        while data:
            self._num_left = len(data)
            data = data[os.write(self._fd, data) :]
        self._num_left = 0

    @property
    def has_open_line(self) -> bool:
        """Whether the last line has no end yet."""
        return self._has_open_line

    @property
    def is_mid_line(self) -> bool:
        """Whether the cursor of a terminal stands behind text."""
        return self._has_open_line and os.isatty(self._fd)

    @property
    def num_unread(self) -> int:
        """Bytes that could not be written, and those that lie in a pipe without a reader."""
        in_pipe = array.array("i", [0])
        if self._is_pipe:
            fcntl.ioctl(self._fd, termios.FIONREAD, in_pipe)
        return self._num_left + in_pipe[0]
