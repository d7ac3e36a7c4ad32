"""The processes that are measured, and what they use of the machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Load = Callable[..., dict[str, Any]]

PATIENCE: Final = 60.0
ROOT: Final = Path(__file__).parent.parent


class Server:
    """A running server.

    Attributes:
        address: where it listens.
        pid: of its first process; engines are its children.
        log: the lines up to the one that says that it serves.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self.log: list[str] = []
        self.address = self._wait_for_address()

    @property
    def pids(self) -> list[int]:
        """Its process and its engines'."""
        return [self.pid, *children(self.pid)]

    def threads(self) -> dict[str, int]:
        """Return how many threads the engine of each model has, from the log."""
        lines = [json.loads(line) for line in self.log if '"engine_ready"' in line]
        return {line["model"]: line["threads"] for line in lines}

    def _wait_for_address(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.log.append(line)
            if match := re.search(r'serving [^"]* on ([0-9.:]+)', line):
                return match[1]
        raise RuntimeError(f"the server ended with {self._process.wait()}: {self.log[-1:]}")


@contextmanager
def elman_server(models: Path | None, *flags: str) -> Iterator[Server]:
    """Run `elman-server` on a free loopback port while entered; `models` None: the bundled ones."""
    where = [] if models is None else ["--models", str(models)]
    quiet = ["--listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "info"]
    with _running("elman_server", *quiet, *where, *flags) as server:
        yield server


@contextmanager
def python_server(module: str, *arguments: str) -> Iterator[Server]:
    """Run a server of this folder while entered."""
    with _running(f"benchmarks.{module}", *arguments) as server:
        yield server


@contextmanager
def _running(module: str, *arguments: str) -> Iterator[Server]:
    with _python(module, *arguments, stderr=subprocess.STDOUT) as process:
        server = Server(process)
        # Something must read its log, which would otherwise block it; not on the core of a pinned server.
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        os.sched_setaffinity(drain.pid, range(os.cpu_count() or 1))
        try:
            yield server
            process.terminate()
            process.wait(PATIENCE)
        finally:
            process.kill()  # after an error, or Ctrl-C, at once; its engines see their sockets close
            drain.wait(PATIENCE)


@contextmanager
def load_client() -> Iterator[Load]:
    """Run the load client in a process of its own while entered; yields a function that runs a load.

    `benchmarks.load` has the options and the answers. An endless stream ends with the load that opened it.
    """
    with _python("benchmarks.load", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, answers = process.stdin, process.stdout

        def load(**options: Any) -> dict[str, Any]:
            print(json.dumps(options), file=requests, flush=True)
            if not (line := answers.readline()):
                raise RuntimeError(f"the load client ended with {process.wait()}")
            answer: dict[str, Any] = json.loads(line)
            return answer

        yield load


@contextmanager
def _python(
    module: str, *arguments: str, stdin: int | None = None, stderr: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a module of ours while entered; it is killed at the end if it is still running."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ELMAN_")}
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def two_cores() -> tuple[int, int]:
    """Return two of the cores that this process may use."""
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        raise RuntimeError("two cores are needed: one for the server and one for the client")
    return found[0], found[1]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Run on one core while entered; a process that is started meanwhile stays on it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def children(parent: int) -> list[int]:
    """Return the process ids of a process's children."""
    found = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        found += [int(pid) for pid in task.read_text().split()]
    return sorted(found)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used so far, in all its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def available_bytes() -> int:
    """Return the free memory of the machine."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert found is not None
    return int(found[1]) * 1024
