"""Servers that are asked to end and started again under many readers, on a machine that is busy."""

import asyncio
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from elman_client import AsyncClient, ElmanError, UnavailableError
from tests.redis_process import RedisProcess, free_port
from tests.server_process import ServerProcess

PROMPT: Final = "What is the city but the people?\n"
_LENGTH: Final = 600
_SECONDS_BETWEEN: Final = 0.5
_PATIENCE: Final = 900  # a machine that is busy
_GRACE: Final = ("--grace-seconds", "0.5", "--engine-threads", "1")
_LONGEST: Final = 1800  # seconds of a busy loop, should nobody end it
_LOOP: Final = f"import time\nend = time.monotonic() + {_LONGEST}\nwhile time.monotonic() < end: pass"


@dataclass
class Restarts:
    """What readers saw of restarts.

    Attributes:
        num_turns: read to their end, with their text.
        broken: what readers got instead, and how often.
        resumed: streams that broke and were continued.
        seconds: from SIGTERM to the end of the process, at most.
        forced: processes that ended past the grace without having settled every turn.
    """

    num_turns: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    seconds: float = 0.0
    forced: int = 0


class Restarted:
    """Servers of one store, each on its port: one of SQLite, or two and more of Redis."""

    def __init__(self, models: Path, folder: Path, num_servers: int) -> None:
        self._stack = contextlib.ExitStack()
        self._models = models
        self._ports = [free_port() for _ in range(num_servers)]
        store = f"sqlite:{folder / 'sessions.db'}"
        if num_servers > 1:
            store = self._stack.enter_context(RedisProcess(folder)).url
        self._flags = ("--store", store, *_GRACE)
        self._processes = [self._start(port) for port in self._ports]
        # A client of several servers stays with one until that one is down.
        self.address = f"ipv4:{','.join(f'127.0.0.1:{port}' for port in self._ports)}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        self._stack.close()

    def restart(self, number: int, result: Restarts) -> None:
        """Ask a server to end, wait until it has and start it again."""
        number %= len(self._ports)
        process, started = self._processes[number], time.monotonic()
        process.terminate()
        code = process.wait()
        result.seconds = max(result.seconds, time.monotonic() - started)
        assert code == 0 or "stop_took_too_long" in process.log.text, process.log.text
        result.forced += code != 0
        self._processes[number] = self._start(self._ports[number])

    def _start(self, port: int) -> ServerProcess:
        return ServerProcess(self._models, "--listen", f"127.0.0.1:{port}", *self._flags)


@contextlib.contextmanager
def busy(number: int) -> Iterator[None]:
    """Keep the machine busy with loops that do nothing."""
    loops = [subprocess.Popen([sys.executable, "-c", _LOOP]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


async def undisturbed(models: Path, num_streams: int) -> list[str]:
    """Return what a server of its own, to which nothing is done, gives to each reader."""
    with ServerProcess(models, "--engine-threads", "1") as process:
        async with AsyncClient(process.address, timeout=_PATIENCE) as client:
            return await asyncio.gather(*(_read(client, seed) for seed in range(num_streams)))


async def restart_many(servers: Restarted, expected: list[str], times: int) -> Restarts:
    """Restart servers in turn while every reader reads one turn after another, each on a session of its own."""
    result, is_over = Restarts(), asyncio.Event()
    async with AsyncClient(servers.address, timeout=_PATIENCE, retry_seconds=_PATIENCE) as client:
        open_stream, opened = client._transport.open, itertools.count()

        def counted(operation: Any, timeout: Any) -> Any:
            next(opened)
            return open_stream(operation, timeout)

        client._transport.open = counted  # type: ignore[method-assign]
        has_read = [asyncio.Event() for _ in expected]

        async def reader(seed: int) -> None:
            while not is_over.is_set():
                try:
                    text = await _read(client, seed, has_read[seed])
                except ElmanError as error:
                    what = repr(error)
                    result.broken[what] = result.broken.get(what, 0) + 1
                    continue
                assert text == expected[seed], f"seed {seed}: {text!r}"
                result.num_turns += 1

        async with asyncio.TaskGroup() as group:
            for seed in range(len(expected)):
                group.create_task(reader(seed))
            for number in range(times):
                for event in has_read:  # every reader is in the middle of a text
                    event.clear()
                await asyncio.gather(*(event.wait() for event in has_read))
                await asyncio.sleep(_SECONDS_BETWEEN)
                await asyncio.to_thread(servers.restart, number, result)
            is_over.set()
        result.resumed = next(opened) - result.num_turns
    return result


async def _read(client: AsyncClient, seed: int, has_read: asyncio.Event | None = None) -> str:
    """Read one turn on a new session."""
    session = await client.create_session("gru", seed=seed)
    text = ""
    async for piece in session.generate(PROMPT, max_chars=_LENGTH):
        text += piece
        if has_read is not None:
            has_read.set()
    with contextlib.suppress(UnavailableError):  # the text is read; a deletion that was lost is not sent again
        await session.delete()
    return text
