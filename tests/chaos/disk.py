"""A disk, put together again from the writes that strace saw: as programs see it, and as a cut may leave it."""

import math
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = "sessions.db"
SYNCS: Final = ("fdatasync", "fsync")
SECTOR: Final = 512  # bytes that a disk writes whole
CALLS: Final = "pwrite64,ftruncate,fdatasync,fsync,unlink"
TRACED: Final = re.compile(r"(\d+\.\d+) (\w+)\((?:\d+<)?\"?((?:\\x[0-9a-f]{2})+)[>\"](?:, (.*))?\) += (-?\d+)")


def watching(trace: Path) -> list[str]:
    """Return the command that runs another one and writes down what its threads do to files, under a directory."""
    every = ["-D", "-ff", "--seccomp-bpf", "-qq", "-ttt", "-y", "-xx", "-s", "1000000"]
    return ["strace", *every, "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(trace / "of")]


def killing(number: int) -> list[str]:
    """Return the command that runs another one and kills it with SIGKILL as one of its threads begins a write."""
    kill = f"inject=pwrite64:signal=KILL:when={number}"
    # Not with --seccomp-bpf, which counts no writes of threads that come later.
    return ["strace", "-D", "-f", "-qq", "-e", "trace=pwrite64", "-e", kill, "-o", "/dev/null"]


@dataclass(frozen=True)
class Write:
    """What was done to a file: `pwrite64`, `ftruncate`, `fdatasync`, `fsync` or `unlink`; `at` is unix seconds."""

    at: float
    what: str
    file: str
    data: bytes = b""
    offset: int = 0


def writes_of(trace: Path) -> Iterator[Write]:
    """Yield what the threads of a server did to its file and the files beside it, in order."""
    lines = [line for file in trace.iterdir() for line in file.read_text().splitlines() if line[0].isdigit()]
    for line in sorted(lines, key=lambda line: float(line.partition(" ")[0])):
        match = TRACED.match(line)
        if match is None or match[5] == "-1":
            continue
        file = Path(_bytes(match[3]).decode()).name
        if not file.startswith("sessions.db") or file.endswith(("-shm", ".reserve")):
            continue  # the shared memory is no part of what lasts: SQLite makes it anew
        at, what, rest = float(match[1]), match[2], match[4] or ""
        if what == "pwrite64":
            data, size, offset = re.fullmatch(r'"([^"]*)", (\d+), (\d+)', rest).groups()  # type: ignore[union-attr]
            assert len(_bytes(data)) == int(size) == int(match[5])
            yield Write(at, what, file, _bytes(data), int(offset))
        else:
            yield Write(at, what, file, offset=int(rest) if what == "ftruncate" else 0)


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


class Disk:
    """The files as a program sees them, and as they are on the disk."""

    def __init__(self) -> None:
        self.seen: dict[str, bytearray] = {}
        self.synced: dict[str, bytearray] = {}
        self.waiting: list[Write] = []  # for a sync

    def do(self, write: Write) -> None:
        """Follow one write."""
        if write.what in SYNCS:
            self.synced[write.file] = bytearray(self.seen.get(write.file, b""))
            self.waiting = [other for other in self.waiting if other.file != write.file]
            return
        apply(self.seen, write)
        if write.what == "unlink":
            self.synced.pop(write.file, None)
        else:
            self.waiting.append(write)

    def after_power_cut(self, chance: random.Random) -> dict[str, bytearray]:
        """Return what may be left: of what was not synced any part, and the last of it torn."""
        files = {name: bytearray(data) for name, data in self.synced.items()}
        kept = [write for write in self.waiting if chance.random() < 0.5]
        for write in kept:
            size = len(write.data)
            if write is kept[-1] and size > SECTOR:
                size = chance.randrange(size // SECTOR) * SECTOR
            apply(files, Write(write.at, write.what, write.file, write.data[:size], write.offset))
        return files


def apply(files: dict[str, bytearray], write: Write) -> None:
    """Do to files what was done."""
    if write.what == "unlink":
        files.pop(write.file, None)
        return
    data = files.setdefault(write.file, bytearray())
    if write.what == "ftruncate":
        data[:] = data[: write.offset].ljust(write.offset, b"\0")
    else:
        end = write.offset + len(write.data)
        data[:] = data.ljust(end, b"\0")
        data[write.offset : end] = write.data


def cuts(writes: Sequence[Write], kind: str) -> Iterator[tuple[float, dict[str, bytearray]]]:
    """Yield what is left after a cut at every moment, and the moment up to which it may have come."""
    disk, chance = Disk(), random.Random(0)
    for number, write in enumerate(writes):
        disk.do(write)
        following = writes[number + 1 :]
        if kind == "killed" and write.what not in SYNCS:
            yield _first(following), disk.seen
        elif kind == "all unsynced lost" and write.what in SYNCS:
            yield _first(other for other in following if other.what in SYNCS), disk.synced
        elif kind == "some unsynced lost":
            yield _first(following), disk.after_power_cut(chance)


def _first(writes: Iterable[Write]) -> float:
    return next((write.at for write in writes), math.inf)
