"""The processes that are measured, each in an address space of its own, and the CPU time that they take."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE: Final = 60.0
ROOT: Final = Path(__file__).parent.parent


class Server:
    """A running server.

    Attributes:
        address: where it listens.
        pid: of its first process; engines are its children.
        start_seconds: from the start of the process to its line that it serves.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        begin = time.perf_counter()
        self.address = self._wait_for_address()
        self.start_seconds = time.perf_counter() - begin

    @property
    def pids(self) -> list[int]:
        """Its process and its engines'."""
        return [self.pid, *children(self.pid)]

    def _wait_for_address(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if match := re.search(r'serving [^"]* on ([0-9.:]+)', line):
                return match[1]
        raise RuntimeError(f"the server ended with {self._process.wait()}")


@contextmanager
def elman_server(models: Path | None, *flags: str, cores: set[int] | None = None) -> Iterator[Server]:
    """Run `elman-server` on a free loopback port while entered; `models` None: the bundled ones."""
    where = [] if models is None else ["--models", str(models)]
    quiet = ["--listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "info"]
    with _running([sys.executable, "-m", "elman_server", *quiet, *where, *flags], cores) as server:
        yield server


@contextmanager
def naive_server(model: Path) -> Iterator[Server]:
    """Run the naive server while entered."""
    with _running([sys.executable, "-m", "benchmarks.naive_server", str(model)]) as server:
        yield server


@contextmanager
def _running(command: list[str], cores: set[int] | None = None) -> Iterator[Server]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ELMAN_")}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)
    try:
        server = Server(process)
        drain = subprocess.Popen(
            ["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL
        )  # so that its log never blocks
        try:
            yield server
        finally:
            process.terminate()
            process.wait(PATIENCE)
            drain.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()


def load(**options: Any) -> dict[str, Any]:
    """Run the load client in its own process; see `benchmarks.load` for the options and what comes back."""
    begun = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", json.dumps(options)], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, Any] = json.loads(begun.stdout)
    return answer


def children(parent: int) -> list[int]:
    """Return the process ids of a process's children."""
    found = []
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        found += [int(pid) for pid in task.read_text().split()]
    return sorted(found)


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time that processes took so far, all their threads together."""
    ran = 0
    for pid in pids:
        for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            ran += int(stat.read_text().split()[0])
    return ran / 1e9


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
