"""A million sessions: the time of a turn on one of them, and the memory of an idle one.

    python -m benchmarks.session_store_size build /var/tmp/elman          # 1,000,000 sessions of an LSTM 2x512, 9 GB
    python -m benchmarks.session_store_size measure /var/tmp/elman        # turns on random ones, against memory:
    python -m benchmarks.session_store_size redis                         # 1,000 in Redis: bytes, cost of a turn

Each prints JSON. `build` takes a few minutes, the others less than one.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from elman_client import AsyncClient, AsyncSession, Client
from elman_server.process.settings import BUNDLED
from elman_server.sessions import records
from elman_server.sessions.stores import MemoryStore, SqliteStore, Store
from tests.models import tiny_model
from tests.redis_process import RedisProcess
from tests.server_process import ServerProcess

NUM_LAYERS, HIDDEN_SIZE = 2, 512
GROUP = 10_000  # sessions in one transaction of the bulk load
MAX_SESSIONS = 2_000_000
PROMPT, GENERATED = "To be, or not to be:", 100  # an ordinary conversation
_RANDOM = np.random.default_rng(0)
# States are cut from them: as hard to compress as those of the bundled LSTM, whose highest bytes shrink to half.
NUMBERS = (_RANDOM.uniform(-1, 1, 2**22) * np.exp2(_RANDOM.uniform(-16, 0, 2**22))).astype(np.float32).tobytes()
SETTINGS = ("--max-sessions", str(MAX_SESSIONS), "--max-session-bytes", str(2**40))


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for part in ("build", "measure"):
        command = parts.add_parser(part)
        command.add_argument("folder", type=Path)
        command.add_argument("--sessions", type=int, default=1_000_000)
        command.add_argument("--turns", type=int, default=1000)
    command = parts.add_parser("redis")
    command.add_argument("--sessions", type=int, default=1000)
    command.add_argument("--program", default="redis-server")
    arguments = parser.parse_args()
    if arguments.part == "build":
        result = build(arguments.folder, arguments.sessions)
    elif arguments.part == "measure":
        result = measure(arguments.folder, arguments.turns)
    else:
        result = measure_redis(arguments.program, arguments.sessions)
    print(json.dumps(result, indent=2))


def build(folder: Path, num_sessions: int) -> dict[str, Any]:
    """Fill a SQLite store with sessions as a server writes them, each with its own random state."""
    models = folder / "models"
    models.mkdir(parents=True)
    tiny_model(models / "lstm.onnx", "lstm", NUM_LAYERS, HIDDEN_SIZE, name="lstm")
    database = folder / "sessions.db"
    with (
        ServerProcess(models, "--store", f"sqlite:{database}", *SETTINGS) as process,
        Client(process.address) as client,
    ):
        session = client.create_session("lstm", session_id="pattern")
        "".join(session.generate("To be, or not to be", max_chars=100))
    head, segments = asyncio.run(_pattern(SqliteStore(database, MAX_SESSIONS)))
    begin = time.perf_counter()
    connection = sqlite3.connect(database, isolation_level=None)
    # As fast as possible: the file may be lost.
    connection.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; PRAGMA cache_size = -262144;")
    names = sorted(str(uuid.UUID(int=random.getrandbits(128), version=4)) for _ in range(num_sessions))
    expires = time.time() + 86400
    for start in range(0, num_sessions, GROUP):
        group = names[start : start + GROUP]
        numbers = range(start + 2, start + 2 + len(group))  # 1 is the pattern
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO sessions (id, name, revision, expires, num_segments, head) VALUES (?, ?, ?, ?, ?, ?)",
            (
                (number, name, number, expires + random.random() * 86400, len(segments), _head_like(head, name))
                for number, name in zip(numbers, group, strict=True)
            ),
        )
        connection.executemany(
            "INSERT INTO segments VALUES (?, ?, ?)",
            (
                (number, index, records.bound(body, name, index))
                for number, name in zip(numbers, group, strict=True)
                for index, body in enumerate(segments)
            ),
        )
        connection.execute("UPDATE counters SET num_sessions = num_sessions + ?", (len(group),))
        connection.execute("COMMIT")
        if sys.stderr.isatty():
            print(f"\r{start + len(group):,} sessions", end="", file=sys.stderr)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    return {
        "sessions": num_sessions,
        "state_bytes": head.state.num_bytes,
        "file_bytes": database.stat().st_size,
        "file_bytes_per_session": database.stat().st_size / num_sessions,
        "build_seconds": time.perf_counter() - begin,
    }


def measure(folder: Path, num_turns: int) -> dict[str, Any]:
    """Run turns on random sessions of the file and, for comparison, of RAM; through a server and without."""
    database = folder / "sessions.db"
    with sqlite3.connect(database) as connection:
        (count,) = connection.execute("SELECT num_sessions FROM counters").fetchone()
        ids = random.sample(range(1, count + 1), 3 * num_turns)
        chosen = [connection.execute("SELECT name FROM sessions WHERE id = ?", (i,)).fetchone()[0] for i in ids]
    connection.close()
    descriptor = os.open(database, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # a disk is read, not the page cache
    os.close(descriptor)
    result: dict[str, Any] = {"sessions": count, "turns": num_turns}
    flags = ["--store", f"sqlite:{database}", *SETTINGS]
    with ServerProcess(folder / "models", *flags) as process, Client(process.address) as client:
        result["sqlite_turn_ms"] = _turns(client, chosen[:num_turns])
        next(iter(client.list_sessions(page_size=1000)))
        result["sqlite_server_rss_bytes"] = process.rss()
    with ServerProcess(folder / "models", *SETTINGS) as process, Client(process.address) as client:
        names = [client.create_session("lstm").name.removeprefix("sessions/") for _ in range(num_turns)]
        for name in names:  # a history like the others'
            "".join(client.session(name).generate("To be, or not to be", max_chars=100))
        result["memory_turn_ms"] = _turns(client, names)
    result["more_p99_ms"] = result["sqlite_turn_ms"]["p99"] - result["memory_turn_ms"]["p99"]
    sqlite = SqliteStore(database, MAX_SESSIONS)
    result["sqlite_load_commit_ms"] = asyncio.run(_commits(sqlite, chosen[num_turns : 2 * num_turns], 1, close=False))
    result["sqlite_load_commit_16_at_once_ms"] = asyncio.run(_commits(sqlite, chosen[2 * num_turns :], 16))
    memory = MemoryStore(MAX_SESSIONS, 2**40)
    result["memory_load_commit_ms"] = asyncio.run(_commits(memory, chosen[:num_turns], 1, fill=bytes(8500)))
    return result


def measure_redis(program: str, num_sessions: int) -> dict[str, Any]:
    """Run turns of the bundled LSTM 2x512 on sessions in Redis; return what Redis reports of their size and cost."""
    with tempfile.TemporaryDirectory() as folder, RedisProcess(Path(folder), program=program) as process:
        models = Path(folder) / "models"
        models.mkdir()
        shutil.copy(BUNDLED / "shakespeare.onnx", models)
        sizes, last_turn = {}, {}
        for num_turns in (0, 1, 5):
            with ServerProcess(models, "--store", process.url) as server:
                last_turn = asyncio.run(_sessions_of_turns(server, process, num_sessions, num_turns))
            while process.client.info("clients")["connected_clients"] > 1:  # their buffers are not sessions
                time.sleep(0.1)
            full = process.client.info("memory")["used_memory"]
            process.client.flushall()
            sizes[num_turns] = (full - process.client.info("memory")["used_memory"]) / num_sessions
        return {
            "program": program,
            "version": process.client.info("server")["redis_version"],
            "sessions": num_sessions,
            "prompt_and_generated_chars_of_a_turn": [len(PROMPT), GENERATED],
            "used_memory_per_session_after_turns": sizes,
            "a_turn": last_turn,
        }


async def _sessions_of_turns(
    server: ServerProcess, process: RedisProcess, num_sessions: int, num_turns: int
) -> dict[str, float]:
    """Create sessions and run turns on each, 32 at once; return the cost of each of the last turns."""

    async def turn(session: AsyncSession) -> None:
        async with at_once:
            async for _ in session.generate(PROMPT, temperature=0.8, max_chars=GENERATED):
                pass

    at_once, before = asyncio.Semaphore(32), {}
    async with AsyncClient(server.address) as client:
        sessions = [await client.create_session("shakespeare") for _ in range(num_sessions)]
        for _ in range(num_turns):
            process.client.config_resetstat()
            before = _spent(server, process)
            await asyncio.gather(*(turn(session) for session in sessions))
    after, calls = _spent(server, process), process.client.info("commandstats")
    spent = {name: (value - before.get(name, 0)) / num_sessions for name, value in after.items()}
    return spent | {name.removeprefix("cmdstat_"): row["calls"] / num_sessions for name, row in calls.items()}


def _spent(server: ServerProcess, process: RedisProcess) -> dict[str, float]:
    """Return what has been used so far."""
    cpu, stats = process.client.info("cpu"), process.client.info("stats")
    ticks = sum(map(int, Path(f"/proc/{server.pid}/stat").read_text().rpartition(") ")[2].split()[11:13]))
    return {
        "front_cpu_us": ticks / os.sysconf("SC_CLK_TCK") * 1e6,
        "redis_cpu_us": (cpu["used_cpu_user"] + cpu["used_cpu_sys"]) * 1e6,
        "redis_bytes_in": stats["total_net_input_bytes"],
        "redis_bytes_out": stats["total_net_output_bytes"],
    }


async def _pattern(store: Store) -> tuple[records.Head, list[bytes]]:
    head = records.decode((await store.load("pattern")).head, records.Head, "pattern")
    segments = [
        records.body_of(records.decode(data, records.Segment, "pattern", index))
        for index, data in enumerate(await store.segments("pattern"))
    ]
    await store.close()
    return head, segments


def _head_like(head: records.Head, name: str) -> bytes:
    """Return the record of a session with its own state: finite, and as hard to compress as real ones."""
    size = head.state.num_bytes
    start = random.randrange((len(NUMBERS) - size) // 4) * 4
    numbers, tensors = NUMBERS[start : start + size], []
    for tensor in head.state.tensors:
        tensors.append(numbers[: len(tensor)])
        numbers = numbers[len(tensor) :]
    state = dataclasses.replace(head.state, tensors=tuple(tensors))
    return records.encode(msgspec.structs.replace(head, state=state), name)


def _turns(client: Client, names: list[str]) -> dict[str, float]:
    """Feed one character to each session and generate one."""
    taken = []
    for name in names:
        begin = time.perf_counter()
        "".join(client.session(name).generate("a", max_chars=1))
        taken.append(time.perf_counter() - begin)
    return _summary(taken)


async def _commits(
    store: Store, names: list[str], at_once: int, *, fill: bytes = b"", close: bool = True
) -> dict[str, float]:
    """Load and commit each session, `at_once` of them at a time."""
    for name in dict.fromkeys(names) if fill else ():
        await store.create(name, fill, time.time() + 3600)
    left, taken = iter(names), []

    async def work() -> None:
        for name in left:
            begin = time.perf_counter()
            stored = await store.load(name)
            await store.commit(name, stored.revision, stored.head, stored.expires, [b"x" * 130])
            taken.append(time.perf_counter() - begin)

    await asyncio.gather(*(work() for _ in range(at_once)))
    if close:
        await store.close()
    return _summary(taken)


def _summary(taken: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(max(taken) * 1000, 3)}


if __name__ == "__main__":
    main()
