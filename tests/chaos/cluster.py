"""Three servers of one Redis behind Envoy, and all that can happen to them."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.chaos.proxy import Proxy
from tests.envoy_process import EnvoyProcess
from tests.redis_process import RedisProcess, free_port, need_program
from tests.server_process import PATIENCE, ServerProcess

NUM_REPLICAS: Final = 3
# Short times, so that what takes seconds in production takes fractions here; the drain is longer than two of Envoy's
# health checks.
_FLAGS: Final = {
    "--commit-chars": "300",
    "--commit-seconds": "0.2",
    "--drain-delay-seconds": "2.5",
    "--engine-threads": "1",
    "--grace-seconds": "0.2",
    "--lease-seconds": "1",
    "--store-patience-seconds": "2",
}


class Replica:
    """A server with its own way to Redis, on a port that it keeps."""

    def __init__(self, models: Path, redis_port: int) -> None:
        self.port = free_port()
        self.way = Proxy(redis_port)
        flags = {**_FLAGS, "--listen": f"127.0.0.1:{self.port}", "--store": f"redis://127.0.0.1:{self.way.port}"}
        self._models = models
        self._flags = [word for pair in flags.items() for word in pair]
        self.logs: list[str] = []  # of the processes that are gone
        self.process = ServerProcess(models, *self._flags)

    @property
    def log(self) -> str:
        """What all of its processes have written."""
        return "".join([*self.logs, self.process.log.text])

    def signal(self, number: int) -> None:
        """Send a signal to the server; its engine gets none."""
        os.kill(self.process.pid, number)

    def restart(self) -> None:
        """Start a new process in place of one that was killed."""
        self.process.kill()
        self._start()

    def restart_drained(self) -> None:
        """Start a new process in place of one that was asked to end, once it has."""
        assert self.process.wait() == 0, self.process.log.text
        self._start()

    def kill_engine(self) -> None:
        """SIGKILL of the engine, which the server starts again."""
        (engine,) = self._engines
        os.kill(engine, signal.SIGKILL)

    def is_whole(self) -> bool:
        """Whether it serves, with its engine; that is noted for `kill_engine`, which has no time to look for it."""
        self._engines = self.process.engines()
        return len(self._engines) == 1 and self.process.health() == "SERVING"

    def close(self) -> None:
        """End it, and its way to Redis."""
        self.process.kill()
        self.way.close()

    def _start(self) -> None:
        self.logs.append(self.process.log.text)
        self.process = ServerProcess(self._models, *self._flags)


class Cluster:
    """All of them, healthy when built.

    Attributes:
        address: of Envoy.
    """

    def __init__(self, models: Path, folder: Path) -> None:
        need_program("redis-server")
        with ExitStack() as stack:
            options = ("--appendonly", "yes", "--appendfsync", "always")
            self.redis = stack.enter_context(RedisProcess(folder, *options))
            self.replicas: list[Replica] = []
            with ThreadPoolExecutor() as pool:
                for start in [pool.submit(Replica, models, self.redis.port) for _ in range(NUM_REPLICAS)]:
                    replica = start.result()
                    stack.callback(replica.close)
                    self.replicas.append(replica)
            self.envoy = stack.enter_context(EnvoyProcess(folder, [replica.port for replica in self.replicas]))
            self._stack = stack.pop_all()
        self.address = self.envoy.address
        self.heal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def signal_redis(self, number: int) -> None:
        """Send a signal to Redis."""
        os.kill(self.redis.pid, number)

    def restart_redis(self) -> None:
        """Start Redis again from its append-only file, after it was killed."""
        self.redis.kill()
        self.redis.start()

    def faults(self) -> str:
        """Return what the servers say of faults of their own."""
        lines = [line for replica in self.replicas for line in replica.log.splitlines()]
        return "\n".join(
            line for line in lines if '"level":"error"' in line.replace(" ", "") or not line.startswith("{")
        )

    def heal(self) -> None:
        """Wait until every server is there, in Envoy's eyes too."""
        for replica in self.replicas:
            replica.way.heal()
            until(replica.is_whole)
        self.envoy.wait_until_whole()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that is nobody's to tell."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it does not come to hold"
        time.sleep(0.02)


def count(logs: Sequence[str], word: str) -> int:
    """Return how many lines of logs hold a word."""
    return sum(word in line for log in logs for line in log.splitlines())
