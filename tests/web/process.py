"""The real `elman-web` in a process of its own."""

import os
import subprocess
import sys

from tests.killed import Killed
from tests.server_process import PATIENCE, Log, environment, resident_bytes


class WebProcess(Killed):
    """A page and door from start to end, on a free port; it listens when built.

    Args:
        target: The gRPC server.
        flags: Of the command, beside.

    Attributes:
        url: Where it listens.
        pid: Of the process.
        log: What it writes to standard error.
    """

    def __init__(self, target: str, *flags: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "elman_web", "--target", target, "--listen", f"127.0.0.1:{port}", *flags]
        ours, theirs = os.pipe()
        self._process = subprocess.Popen(command, stderr=theirs, env=environment())
        os.close(theirs)
        self.log = Log(ours)
        self.pid = self._process.pid
        try:
            self.url = self.log.wait_for(r"running on (http://[^ ]+)")[1]
        except BaseException:
            self.kill()
            raise

    def rss(self) -> int:
        """Return the resident memory, in bytes."""
        return resident_bytes(self.pid)

    def terminate(self) -> int:
        """Send SIGTERM; return the exit code."""
        self._process.terminate()
        code = self._process.wait(PATIENCE)
        self.log.close()
        return code

    def kill(self) -> None:
        """Send SIGKILL and see it gone; again does nothing."""
        self._process.kill()
        self._process.wait(PATIENCE)
        self.log.close()
