"""Real servers of Redis or Valkey in processes of their own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import redis

from tests.killed import Killed
from tests.services import need

PATIENCE: Final = 30  # seconds until a process that does not do its part fails the test
NUM_SLOTS: Final = 16384


def need_program(name: str) -> None:
    """Skip or fail the test if a program is not installed; see `need`."""
    need(name, is_there=shutil.which(name) is not None)


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class RedisProcess(Killed):
    """A server from its start to its end; it answers when built.

    Args:
        folder: where it keeps its files.
        options: its configuration, beside: `--appendonly yes`.
        program: which binary.
        tls: the folder of `ca.pem`, `server.pem` and `server.key`; it then takes no other connections.
        password: that it asks for.

    Attributes:
        url: as `--store` takes it.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int | None = None,
        program: str = "redis-server",
        tls: Path | None = None,
        password: str | None = None,
    ) -> None:
        self.port = port or free_port()
        self._command = [program, "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
        self._command += ["--port", "0" if tls else str(self.port)]
        user = ""
        if password:
            self._command += ["--requirepass", password]
            user = f":{password}@"
        self.url = f"redis://{user}127.0.0.1:{self.port}"
        if tls:
            self._command += ["--tls-port", str(self.port), "--tls-auth-clients", "no"]
            for option, file in (("ca-cert", "ca.pem"), ("cert", "server.pem"), ("key", "server.key")):
                self._command += [f"--tls-{option}-file", str(tls / file)]
            self.url = f"rediss://{user}127.0.0.1:{self.port}?ca={tls / 'ca.pem'}"
            self.client = redis.Redis(
                port=self.port, host="127.0.0.1", password=password, ssl=True, ssl_ca_certs=str(tls / "ca.pem")
            )
        else:
            self.client = redis.Redis(port=self.port, host="127.0.0.1", password=password)
        self.start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def start(self) -> None:
        """Start it, again after `kill`; it answers when this returns."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.client.ping()
            except redis.exceptions.ConnectionError:
                assert self._process.poll() is None, f"it ended: {self._command}"
                assert time.monotonic() < end, f"no answer: {self._command}"
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        """Send SIGKILL and see it gone; again does nothing."""
        self.client.close()
        self._process.kill()
        self._process.wait(PATIENCE)


@contextmanager
def cluster(folder: Path, num_nodes: int = 3) -> Iterator[list[RedisProcess]]:
    """Run a cluster of so many primaries that share the slots."""
    with ExitStack() as stack:
        nodes: list[RedisProcess] = []
        for number in range(num_nodes):
            bus = free_port()
            options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "2000"]
            node_folder = folder / str(number)
            node_folder.mkdir()
            node = stack.enter_context(RedisProcess(node_folder, *options))
            low, high = NUM_SLOTS * number // num_nodes, NUM_SLOTS * (number + 1) // num_nodes - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
            if nodes:
                nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
            nodes.append(node)
        end = time.monotonic() + PATIENCE
        while not all(_is_whole(node, num_nodes) for node in nodes):
            assert time.monotonic() < end, "the nodes do not find one another"
            time.sleep(0.05)
        yield nodes


def _is_whole(node: RedisProcess, num_nodes: int) -> bool:
    info = bytes(node.client.execute_command("CLUSTER", "INFO"))
    return b"cluster_state:ok" in info and b"cluster_known_nodes:%d" % num_nodes in info
