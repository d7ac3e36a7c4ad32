"""The real ``elman`` in a process of its own, on pipes or on a terminal."""

import codecs
import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any, Self

ELMAN = str(Path(sys.executable).with_name("elman"))
PATIENCE = 30  # seconds before a silent process fails its test
_BECOME_FOREGROUND = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); "  # ignored, where a shell's `&` began the tests
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def environment(target: str, **variables: str) -> dict[str, str]:
    """Return an environment whose commands talk to ``target``."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return {**kept, "TERM": "xterm", "ELMAN_TARGET": target, **variables}


def run(target: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [ELMAN, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(target),
    )


def start(target: str, *arguments: str, **streams: Any) -> "subprocess.Popen[bytes]":
    """Start a command on pipes."""
    return subprocess.Popen(
        [ELMAN, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(target),
        **streams,
    )


class Terminal:
    """A command on a terminal of its own, which its Ctrl-C reaches."""

    def __init__(self, target: str, *arguments: str, **variables: str) -> None:
        self.output = self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a read may end within a character
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x18\x00\x78\x00\x00\x00\x00\x00")  # 24 x 120
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BECOME_FOREGROUND, ELMAN, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment(target, PROMPT_TOOLKIT_NO_CPR="1", **variables),
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def expect(self, pattern: str) -> str:
        """Wait until the output matches, and forget it up to there."""
        deadline = time.monotonic() + PATIENCE
        while not (match := re.search(pattern, self.output, re.DOTALL)):
            self._read(deadline, pattern)
        self.output = self.output[match.end() :]
        return match[0]

    def wait(self) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline, "its end"):
            pass
        return self.process.wait(PATIENCE)

    def _read(self, deadline: float, awaited: str) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # how Linux says that the other end is closed
            data = b""
        if not data and awaited != "its end":
            raise AssertionError(f"no {awaited!r} in {self.output!r}")
        text = self._decoder.decode(data)
        self.output += text
        self.seen += text
        return bool(data)
