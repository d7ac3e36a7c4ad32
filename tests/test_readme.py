"""What the README says, done."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import torch

from elman_export.__main__ import main as exporter
from elman_server.__main__ import main as server
from scripts.demo import running_server

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
COMMANDS = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
PROGRAMS: list[str] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """The address of a server of the bundled models."""
    with running_server() as address:
        yield address


def commands_of(program: str) -> list[str]:
    """Return the README's commands that end in a call of a program."""
    return [command for command in COMMANDS if command.rpartition("| ")[2].startswith(f"{program} ")]


def test_every_command_is_known_here() -> None:
    """No command stands in the README that no test below looks at."""
    programs = ("make", "elman", "python -m elman_export", "elman-server", "docker-compose")
    looked_at = [command for program in programs for command in commands_of(program)]
    assert sorted(looked_at) == sorted(COMMANDS)


@pytest.mark.parametrize("command", commands_of("elman"))
def test_a_client_command_works(command: str, target: str) -> None:
    """Each `elman` command succeeds against a server, and says something if there is something to say."""
    environ = {**os.environ, "ELMAN_TARGET": target, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], check=False, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout or command in {"elman chat", "elman sessions list"}


@pytest.mark.parametrize("command", commands_of("make"))
def test_a_make_target_exists(command: str) -> None:
    """Each `make` command names a target."""
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("command", [*commands_of("python -m elman_export"), *commands_of("elman-server")])
def test_an_exporter_or_server_command_parses(command: str) -> None:
    """Each option of a command that takes long, or serves for ever, exists."""
    words = shlex.split(command.removeprefix("python -m "))
    _parse(server if words[0] == "elman-server" else exporter, words[1:])


def test_the_client_program_works(target: str) -> None:
    """The client's ten lines stream text and print the transcript."""
    program = PROGRAMS[0].replace("localhost:50051", target)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first_turn = done.stdout[:200]
    assert f"ROMEO:{first_turn}\nJULIET:" in done.stdout[200:]


def test_the_program_about_the_past_works(target: str) -> None:
    """What its assertions say of forks, rewinds and snapshots holds."""
    program = PROGRAMS[1].replace("localhost:50051", target)
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_module_is_one_that_the_exporter_takes() -> None:
    """The example module returns logits [1, 65] and a state [1, 128] from a character and a state."""
    scope: dict[str, object] = {}
    exec(PROGRAMS[2], scope)  # the README's own lines
    module, state = scope["build"]()  # type: ignore[operator]  # whatever the README defines
    logits, after = module(torch.zeros(1, dtype=torch.int64), *state)
    assert (tuple(logits.shape), tuple(after.shape)) == ((1, 65), (1, 128))


def test_every_link_leads_somewhere() -> None:
    """Files that the documents link to exist."""
    for document in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "examples" / "README.md",
        *(ROOT / "docs").rglob("*.md"),
    ]:
        links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
        assert [link for link in links if not (document.parent / link).exists()] == [], document


def _parse(command: click.Command, words: list[str]) -> None:
    """Let click parse a command and its subcommand, without running it."""
    if isinstance(command, click.Group):
        chosen = command.get_command(click.Context(command), words[0])
        assert chosen is not None, words[0]
        _parse(chosen, words[1:])
    else:
        command.make_context(command.name, list(words), resilient_parsing=True)
