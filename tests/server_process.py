"""The real `elman-server` in a process of its own, and what can be seen of it from outside."""

import os
import re
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.killed import Killed

PATIENCE: Final = 100  # seconds until a process that does not do its part fails the test
_COMMAND: Final = [sys.executable, "-m", "elman_server", "--log-format", "json"]
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def environment(**variables: str) -> dict[str, str]:
    """Return the tester's variables without settings of the server, and these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ELMAN_")}
    return clean | {"ORT_DISABLE_TELEMETRY": "1"} | variables


def refused_start(*flags: str, **variables: str) -> tuple[int, list[str]]:
    """Run a server that shall not start; return its exit code and what it says beside its log."""
    done = subprocess.run(
        [*_COMMAND, *flags],
        env=environment(**variables),
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("{")]


class Log:
    """Lines as a process writes them, for any thread to wait for."""

    def __init__(self, pipe: int) -> None:
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """What was written so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, patience: float = PATIENCE) -> re.Match[str]:
        """Return the first match of a pattern within a line, once there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._find(pattern), patience)
            match = self._find(pattern)
            assert match, f"no {pattern!r} in:\n{''.join(self._lines)}"
            return match

    def close(self) -> None:
        """Wait until the process has closed its end."""
        self._thread.join(PATIENCE)

    def _find(self, pattern: str) -> re.Match[str] | None:
        return next(filter(None, (re.search(pattern, line) for line in self._lines)), None)

    def _read(self, pipe: int) -> None:
        with open(pipe, encoding="utf-8") as lines:
            for line in lines:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class ServerProcess(Killed):
    """A server from its start to its end, on a free port unless told else; it is SERVING when built.

    Args:
        models: The directory that it serves; None: the bundled models.
        flags: Of the command, beside.
        launcher: A command that runs the one that follows it, and becomes it.
        variables: Of its environment, beside.

    Attributes:
        address: Where it listens, as clients write it.
        pid: Of the server; the engines have their own.
        log: What it writes to standard error, one JSON object a line.
    """

    loading: float = PATIENCE  # seconds until it serves

    def __init__(self, models: Path | None, *flags: str, launcher: Sequence[str] = (), **variables: str) -> None:
        where = ["--models", str(models)] if models else []
        listen = [] if "--listen" in flags else ["--listen", "127.0.0.1:0"]
        ours, theirs = os.pipe()
        self._process = subprocess.Popen(
            [*launcher, *_COMMAND, *listen, *where, *flags], stderr=theirs, env=environment(**variables)
        )
        os.close(theirs)
        self.log = Log(ours)
        self.pid = self._process.pid
        try:
            self.address = self.log.wait_for(r'"serving \d+ models? on ([^"]+)"', self.loading)[1]
            if "--tls-key" not in flags:
                assert self.health() == "SERVING"
        except BaseException:
            self.kill()
            raise

    def health(self, service: str = "") -> str:
        """Return what the server says of a service."""
        return health_of(self.address, service)

    def engines(self) -> list[int]:
        """Return the process ids of the engines."""
        return children(self.pid)

    def rss(self) -> int:
        """Return the resident memory of the server without its engines, in bytes."""
        return resident_bytes(self.pid)

    def loop_seconds(self) -> float:
        """Return how long the thread of the server's event loop has computed."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def wait(self) -> int:
        """Return the exit code, once there is one and the log is complete."""
        code = self._process.wait(PATIENCE)
        self.log.close()
        return code

    def kill(self) -> None:
        """Send SIGKILL and see server and engines gone; again does nothing."""
        engines = self.engines()
        self._process.kill()
        self.wait()
        wait_until_gone(engines)


def health_of(address: str, service: str = "") -> str:
    """Return what a server says of a service."""
    with grpc.insecure_channel(address) as channel:
        answer = HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=PATIENCE)
    name: str = HealthCheckResponse.ServingStatus.Name(answer.status)
    return name


def children(parent: int) -> list[int]:
    """Return the process ids of a process's living children."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = status.read_text().rpartition(") ")[2].split()[:2]
        except OSError:  # it ended between the two looks
            continue
        if int(ppid) == parent and state != "Z":
            found.append(int(status.parent.name))
    return found


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def wait_until_gone(pids: list[int]) -> None:
    """Wait until processes have ended, whoever their parent is."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], PATIENCE)[0], f"process {pid} goes on"
        finally:
            os.close(descriptor)
