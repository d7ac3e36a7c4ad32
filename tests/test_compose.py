"""The image and the compose file: read always, run where there is a docker engine and the base image."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from elman_client import Client, Finished, FinishReason, Started
from tests.services import need

ROOT = Path(__file__).parent.parent
BASE = "python:3.11-slim-bookworm"
MAX_IMAGE_BYTES = 350_000_000


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
        "ELMAN_STORE: ${ELMAN_STORE:-sqlite:/var/lib/elman/sessions.db}",
        "- no-new-privileges",
        "cap_drop:",
        "init: true",
        "mem_limit: 2g",
        "read_only: true",
        "security_opt:",
        "stop_grace_period: 15s",
        "tmpfs:",
    }
    assert re.findall(r"^(?:version|name|include|configs):", text, re.MULTILINE) == []


def test_the_image_is_built_in_stages_and_runs_as_nobody() -> None:
    """The last stage gets the environment alone, switches telemetry off and is not root; any builder builds it."""
    text = (ROOT / "server/Dockerfile").read_text()
    build, last = text.split(f"\nFROM {BASE}")[1:]
    assert "pip" in build
    assert "pip" not in last
    assert {"COPY --from=build /opt/venv /opt/venv", "USER elman"} <= set(last.splitlines())
    assert "ORT_DISABLE_TELEMETRY=1" in last
    assert "HEALTHCHECK" in last
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
    need("a docker engine", is_there=_works("docker", "info"), switch="REQUIRE_DOCKER")
    need(f"the image {BASE}", is_there=_works("docker", "image", "inspect", BASE), switch="REQUIRE_DOCKER")
    program = ["docker", "compose"] if _works("docker", "compose", "version") else ["docker-compose"]
    need("docker compose", is_there=_works(*program, "version"), switch="REQUIRE_DOCKER")
    compose, port = [*program, "--project-name", f"elman-test-{os.getpid()}"], free_port()
    environ = {**os.environ, "ELMAN_PORT": str(port)}
    try:
        subprocess.run([*compose, "up", "-d", "--build"], cwd=ROOT, env=environ, check=True, capture_output=True)
        container = subprocess.check_output([*compose, "ps", "-q"], cwd=ROOT, env=environ, text=True).strip()
        _wait_until_healthy(container)
        yield Stack(compose, f"127.0.0.1:{port}", container)
    finally:
        subprocess.run([*compose, "down", "--volumes"], cwd=ROOT, env=environ, check=True, capture_output=True)


def docker(*command: str) -> str:
    """Run docker; return what it says."""
    return subprocess.check_output(["docker", *command], text=True).strip()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


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
    """The command line generates through the published port; a stop ends a running stream in order, and exits 0."""
    elman = Path(sys.executable).with_name("elman")
    command: list[str | Path] = [elman, "generate", "ROMEO:", "--max-chars", "50", "--target", stack.target]
    assert len(subprocess.check_output(command, text=True).removesuffix("\n")) >= len("ROMEO:") + 50
    with Client(stack.target) as client:
        events = client.generate("ROMEO:", model="shakespeare", max_chars=100_000).events()
        assert isinstance(next(events), Started)
        stop = subprocess.Popen(["docker", "stop", "--time", "15", stack.container], stdout=subprocess.DEVNULL)
        *_, last = events
    assert isinstance(last, Finished)
    assert last.finish_reason is FinishReason.SERVER_DRAINING
    stop.wait()
    assert docker("inspect", "--format", "{{.State.ExitCode}}", stack.container) == "0"
    docker("start", stack.container)  # for the tests that follow


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
