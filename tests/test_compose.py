"""The image and the compose file: read always, run where there is a docker engine and the base image."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from elman_client import AsyncClient, Event, Finished, FinishReason, Started
from elman_server.process.settings import RULES, variable
from tests.chaos.load import MANY_STREAMS, Fault, Load, Report
from tests.chaos.scenarios import undisturbed
from tests.envoy_process import CONFIG
from tests.redis_process import free_port
from tests.services import need

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "server/elman_server/bundled"
BASE = "python:3.11-slim-bookworm"
CLUSTER_IMAGES = ("envoyproxy/envoy:v1.40.0", "redis:7-bookworm")
OBSERVE_IMAGES = ("grafana/grafana:12.1.0", "prom/prometheus:v3.5.0")
OWN_SETTINGS = {"listen", "metrics_listen", "store", "grace_seconds", "drain_delay_seconds"}  # have values in the files
MAX_IMAGE_BYTES = 350_000_000
NUM_DRAINED = 64  # streams, which together need a minute for what one has in a few seconds


# What the files say


def test_the_compose_file_is_hardened_and_good_for_both_versions() -> None:
    """Read-only, no capabilities, loopback only; and nothing that docker-compose 1.29 or v2 would not know."""
    text = (ROOT / "docker-compose.yml").read_text()
    lines = {line.strip() for line in text.splitlines()}
    assert lines >= {
        '- "127.0.0.1:${ELMAN_PORT:-50051}:50051"',
        "- /tmp",
        "- ALL",
        "- sessions:/var/lib/elman",
        '- "127.0.0.1:${ELMAN_WEB_PORT:-8080}:8080"',
        "ELMAN_STORE: ${ELMAN_STORE:-sqlite:/var/lib/elman/sessions.db}",
        "- no-new-privileges",
        "cap_drop:",
        "init: true",
        "mem_limit: 2g",
        "pids_limit: 512",
        'max-file: "3"',
        "max-size: 10m",
        "read_only: true",
        "security_opt:",
        "stop_grace_period: 15s",
        "tmpfs:",
    }
    assert re.findall(r"^(?:version|name|include|configs):", text, re.MULTILINE) == []


def test_the_cluster_is_three_servers_of_one_redis_behind_envoy() -> None:
    """Only its profile starts it; Redis writes each command down, and Envoy gets the shipped configuration."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {name for name, service in services.items() if "profiles" not in service} == {"server", "web"}
    assert all(services[name]["profiles"] == ["cluster"] for name in ("envoy", "replica", "redis"))
    assert services["replica"]["deploy"] == {"replicas": 3}
    assert services["replica"]["environment"]["ELMAN_STORE"] == "redis://redis:6379"
    assert services["redis"]["command"][1:5] == ["--appendonly", "yes", "--appendfsync", "always"]
    (mount,) = services["envoy"]["volumes"]
    assert (ROOT / mount.partition(":")[0]).samefile(CONFIG)
    (cluster,) = yaml.safe_load(CONFIG.read_text())["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "replica", "port_value": 50051}
    images = {service["image"] for service in services.values()}
    assert images == {"elman", *CLUSTER_IMAGES, *OBSERVE_IMAGES}


def test_every_setting_passes_through_the_compose_file() -> None:
    """Each setting can be given in the environment of the command, to the single server and to the replicas."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name in ("server", "replica"):
        environment = services[name]["environment"]
        assert {variable(setting) for setting in RULES if setting not in OWN_SETTINGS} <= set(environment)
        assert [key for key in environment if key.startswith("ELMAN_") and key[6:].lower() not in RULES] == []


def test_the_gauges_mount_what_is_there() -> None:
    """Prometheus and Grafana get the shipped rules and dashboard, and Grafana alone is published, on loopback."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounts = [mount for name in ("prometheus", "grafana") for mount in services[name]["volumes"] if mount[0] == "."]
    assert len(mounts) == 3
    assert all((ROOT / mount.partition(":")[0]).is_dir() and mount.endswith(":ro") for mount in mounts)
    assert all(services[name]["profiles"] == ["observe"] for name in ("prometheus", "grafana"))
    assert "ports" not in services["prometheus"]
    assert services["grafana"]["ports"] == ["127.0.0.1:${ELMAN_GRAFANA_PORT:-3000}:3000"]


def test_the_image_is_built_in_stages_and_runs_as_nobody() -> None:
    """The last stage gets the environment alone, switches telemetry off and is not root; any builder builds it."""
    text = (ROOT / "server/Dockerfile").read_text()
    build, last = text.split(f"\nFROM {BASE}")[1:]
    assert "pip" in build
    assert "pip" not in last
    assert {"COPY --from=build /opt/venv /opt/venv", "USER elman"} <= set(last.splitlines())
    assert "ORT_DISABLE_TELEMETRY=1" in last
    assert 'CMD ["elman-health"]' in last
    assert "COPY --from=build /src/server/healthcheck.sh /usr/local/bin/elman-health" in last
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'org.opencontainers.image.version="{project["version"]}"' in last
    assert re.findall(r"^# *syntax|^RUN --mount|<<", text, re.MULTILINE) == []


def test_the_image_gets_what_it_copies_and_nothing_else() -> None:
    """All that the Dockerfile copies passes .dockerignore, and nothing else does."""
    copies = re.findall(r"^COPY (?!--)(.*) \S+$", (ROOT / "server/Dockerfile").read_text(), re.MULTILINE)
    copied = {name for names in copies for name in names.split()}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed


# What docker does with them


@dataclass(frozen=True)
class Stack:
    """A running compose project."""

    compose: list[str]
    target: str
    container: str

    def run(self, *command: str) -> str:
        """Run a command in the container."""
        return docker("exec", self.container, *command)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The compose project on a free port, healthy."""
    with _up("single", [], "server", "ELMAN_PORT") as stack:
        yield stack


@pytest.fixture(scope="module")
def cluster() -> Iterator[Stack]:
    """The cluster on a free port; the container is Envoy's, healthy after all others."""
    for image in CLUSTER_IMAGES:
        need(f"the image {image}", is_there=_works("docker", "image", "inspect", image), switch="REQUIRE_DOCKER")
    with _up("cluster", ["--profile", "cluster"], "envoy", "ELMAN_CLUSTER_PORT") as stack:
        yield stack


@contextmanager
def _up(name: str, options: list[str], service: str, variable: str) -> Iterator[Stack]:
    need("a docker engine", is_there=_works("docker", "info"), switch="REQUIRE_DOCKER")
    need(f"the image {BASE}", is_there=_works("docker", "image", "inspect", BASE), switch="REQUIRE_DOCKER")
    program = ["docker", "compose"] if _works("docker", "compose", "version") else ["docker-compose"]
    need("docker compose", is_there=_works(*program, "version"), switch="REQUIRE_DOCKER")
    compose, port = [*program, "--project-name", f"elman-{name}-{os.getpid()}", *options], free_port()
    environ = {**os.environ, variable: str(port)}
    try:
        subprocess.run([*compose, "up", "-d", "--build", service], cwd=ROOT, env=environ, check=True)
        container = subprocess.check_output([*compose, "ps", "-q", service], cwd=ROOT, env=environ, text=True).strip()
        _wait_until_healthy(container)
        yield Stack(compose, f"127.0.0.1:{port}", container)
    finally:
        subprocess.run([*compose, "down", "--volumes"], cwd=ROOT, env=environ, check=True, capture_output=True)


def docker(*command: str) -> str:
    """Run docker; return what it says."""
    return subprocess.check_output(["docker", *command], text=True).strip()


def _works(*command: str) -> bool:
    return bool(shutil.which(command[0])) and not subprocess.run(command, capture_output=True, check=False).returncode


def _wait_until_healthy(container: str) -> None:
    """Wait for docker's own word; what it said before we listened counts too."""
    heard = ["docker", "events", "--since", "10m", "--filter", f"container={container}"]
    with subprocess.Popen([*heard, "--filter", "event=health_status"], stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout is not None
        status = events.stdout.readline()
        events.terminate()
    assert "health_status: healthy" in status, docker("logs", container)


@pytest.mark.docker
@pytest.mark.timeout(600)
def test_the_container_answers_and_drains(stack: Stack) -> None:
    """The command line generates through the published port; a stop ends running streams in order, and exits 0."""
    elman = Path(sys.executable).with_name("elman")
    command: list[str | Path] = [
        elman,
        "generate",
        "ROMEO:",
        "--max-chars",
        "50",
        "--seed",
        "7",
        "--target",
        stack.target,
    ]
    assert len(subprocess.check_output(command, text=True).removesuffix("\n")) >= len("ROMEO:") + 50
    assert asyncio.run(ends_of_stop(stack)) == [FinishReason.SERVER_DRAINING] * NUM_DRAINED
    assert docker("inspect", "--format", "{{.State.ExitCode}}", stack.container) == "0"
    docker("start", stack.container)  # for the tests that follow


async def ends_of_stop(stack: Stack) -> list[FinishReason]:
    """Stop the container under streams, so many that none comes to its end before; return how they end."""

    async def last(events: AsyncIterator[Event]) -> FinishReason:
        async for event in events:
            end = event
        assert isinstance(end, Finished)
        return end.finish_reason

    async with AsyncClient(stack.target, retry_seconds=0) as client:  # they would go on elsewhere
        turns = [client.generate("ROMEO:", model="shakespeare", max_chars=100_000) for _ in range(NUM_DRAINED)]
        streams = [turn.events() for turn in turns]
        assert all(isinstance(event, Started) for event in await asyncio.gather(*map(anext, streams)))
        stop = await asyncio.create_subprocess_exec("docker", "stop", "--time", "15", stack.container)
        ends = await asyncio.gather(*map(last, streams))
        await stop.wait()
    return ends


@pytest.mark.docker
@pytest.mark.timeout(600)
def test_the_container_can_do_little(stack: Stack) -> None:
    """Inside there is no root, no writable file system, no torch, no onnx and no pip."""
    assert stack.run("id", "-u") == "10001"
    write = "import os; print(os.statvfs('/').f_flag & os.ST_RDONLY)"
    assert stack.run("python", "-c", write) == "1"
    find = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'pip', 'numpy') if u.find_spec(n)])"
    assert stack.run("python", "-c", find) == "['numpy']"


@pytest.mark.docker
@pytest.mark.timeout(600)
def test_the_image_is_small(stack: Stack) -> None:
    """The image is below 350 MB."""
    assert stack.container
    assert int(docker("image", "inspect", "--format", "{{.Size}}", "elman")) < MAX_IMAGE_BYTES


@pytest.mark.docker
@pytest.mark.timeout(900)
async def test_a_cluster_of_containers_survives_a_kill(cluster: Stack, tmp_path: Path) -> None:
    """5 and 6: 64 streams, a replica is killed under them; every text is that of a server outside of docker."""
    replicas = docker("ps", "-q", "--filter", f"name={cluster.compose[-3]}.replica").split()
    assert len(replicas) == 3

    def kill() -> None:
        docker("kill", replicas[0])
        docker("start", replicas[0])

    (tmp_path / "elman-128.onnx").symlink_to(MODELS / "elman-128.onnx")
    calm = await undisturbed(tmp_path, 2, MANY_STREAMS, "elman-128")
    report = Report("containers", 0, MANY_STREAMS)
    async with AsyncClient(cluster.target, timeout=300, retry_seconds=300) as client:
        load = Load(client, "killed", MANY_STREAMS, "elman-128")
        await load.start()
        await load.round(Fault("SIGKILL of a replica", 1 / 16, lambda: None, kill))
        await load.round()
        await load.check(calm, report)
    report.note("SIGKILL of a replica")
    report.save()
    assert report.resumes > 0
