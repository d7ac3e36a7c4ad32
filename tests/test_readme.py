"""What the README and the pages beside it say, done."""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import torch
import yaml

import elman_web.__main__ as elman_web
from elman_client import Client
from scripts.demo import running_server
from tests.server_process import environment

ROOT: Final = Path(__file__).parent.parent
BIN: Final = Path(sys.executable).parent
README: Final = (ROOT / "README.md").read_text()
OWN_MODEL: Final = (ROOT / "docs" / "own-model.md").read_text()
SESSIONS: Final = (ROOT / "docs" / "sessions.md").read_text()
TEXT: Final = "To be, or not to be: that is the question.\n" * 130
PATIENCE: Final = 100  # seconds


def commands(document: str) -> list[str]:
    """Return the commands of a document, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", document, re.DOTALL)
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]


def programs(document: str) -> list[str]:
    """Return the Python programs of a document."""
    return re.findall(r"```python\n(.*?)```", document, re.DOTALL)


def commands_of(program: str) -> list[str]:
    """Return the README's commands that end in a call of a program."""
    return [command for command in commands(README) if command.rpartition("| ")[2].split()[0] == program]


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """The address of a server of the bundled models."""
    with running_server() as address:
        yield address


def test_every_command_is_run_below() -> None:
    """The README has no command but those that a test here runs or checks."""
    names = ("make", "elman", "python", "elman-server", "elman-web", "docker-compose", "pip")
    known = [command for name in names for command in commands_of(name)]
    assert sorted(known) == sorted(commands(README))


@pytest.mark.parametrize("command", commands_of("elman"))
def test_a_client_command_works(command: str, target: str) -> None:
    """Each `elman` command succeeds against a server, and prints something if there is something to print."""
    environ = {**os.environ, "ELMAN_TARGET": target, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], check=False, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout or command.startswith("elman chat") or command == "elman sessions list"


@pytest.mark.parametrize("command", commands_of("make"))
def test_a_make_target_exists(command: str) -> None:
    """Each `make` command names a target."""
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, check=True)


@pytest.mark.parametrize("command", commands_of("pip"))
def test_a_package_has_the_extras_that_are_installed(command: str) -> None:
    """Each `pip install` names this project and extras that it has; tests/test_packaging.py installs the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    match = re.fullmatch(r"pip install (\w+)(?:\[([\w,]+)\])?", " ".join(shlex.split(command)))
    assert match is not None
    assert match[1] == project["name"]
    assert set((match[2] or "").split(",")) - {""} <= set(project["optional-dependencies"])


@pytest.mark.parametrize("command", commands_of("elman-web"))
def test_a_page_has_the_options_that_are_given(command: str) -> None:
    """Each `elman-web` command parses, and the wheel installs it; tests/web runs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, *options = shlex.split(command)
    assert project["scripts"][name] == "elman_web.__main__:main"
    elman_web.main.make_context(name, options)


@pytest.mark.parametrize("command", commands_of("docker-compose"))
def test_a_container_command_parses(command: str) -> None:
    """Each `docker-compose` command has known options, and names profiles and services of docker-compose.yml."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--profile", choices={name for each in services.values() for name in each.get("profiles", ())})
    verbs = parser.add_subparsers(required=True)
    up = verbs.add_parser("up", exit_on_error=False)
    up.add_argument("-d", action="store_true", required=True)
    up.add_argument("services", nargs="*", choices=[*services, []])
    verbs.add_parser("down", exit_on_error=False)
    parser.parse_args(shlex.split(command)[1:])


def test_the_client_program_works(target: str) -> None:
    """The client's ten lines stream text and print the transcript."""
    (program,) = programs(README)
    done = run_program(program, target)
    first_turn = done.stdout[:200]
    assert f"ROMEO:{first_turn}\nJULIET:" in done.stdout[200:]


@pytest.mark.parametrize("program", programs(SESSIONS))
def test_a_program_about_sessions_works(program: str, target: str) -> None:
    """What the assertions of docs/sessions.md say of forks, rewinds, snapshots and stop strings holds."""
    assert "assert " in program
    run_program(program, target)


@pytest.mark.timeout(1800)  # trains a GRU and imports torch seven times; minutes where the machine is busy
def test_your_own_model_is_made_line_by_line(tmp_path: Path) -> None:
    """Every command of docs/own-model.md, in order, in an empty folder; the server then serves what they wrote."""
    (tmp_path / "my.txt").write_text(TEXT)
    (tmp_path / "juliet.txt").write_text(TEXT[:40])
    (tmp_path / "labelled.jsonl").write_text(labelled())
    (tmp_path / "chars.txt").write_text("".join(map(chr, range(32, 32 + 65))))
    (tmp_path / "my_pkg").mkdir()
    (tmp_path / "my_pkg" / "my_file.py").write_text("".join(programs(OWN_MODEL)))
    served: list[set[str]] = []
    for command in commands(OWN_MODEL):
        if command.startswith("elman-server"):
            served.append(models_served(command, tmp_path))
        else:
            assert command.startswith("python -m elman_export ")
            words = [sys.executable, *shlex.split(command)[1:]]
            done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
            assert done.returncode == 0, (command, done.stderr)
    assert served == [{"mine"}]
    assert models_served("elman-server --models .", tmp_path) == {"mine", "mine-int8", "module"}


def test_the_readme_has_the_first_lines_of_your_own_model() -> None:
    """So its exporter commands are run as well, and what they write is served."""
    lines = [*commands_of("python"), *commands_of("elman-server")[1:]]
    assert lines == [line for line in commands(OWN_MODEL)[:4] if "evaluate" not in line]


def test_the_server_without_options_serves_the_bundled_models(tmp_path: Path) -> None:
    """`elman-server` alone starts, in any folder, with four models."""
    assert commands_of("elman-server")[0] == "elman-server"
    names = {path.stem for path in (ROOT / "server" / "elman_server" / "bundled").glob("*.onnx")}
    assert models_served("elman-server", tmp_path) == names
    assert len(names) == 4


def test_the_module_is_one_that_the_exporter_takes() -> None:
    """The example module returns logits [1, 65] and a state [1, 128] from a character and a state."""
    scope: dict[str, object] = {}
    exec("".join(programs(OWN_MODEL)), scope)  # the page's own lines
    module, state = scope["build"]()  # type: ignore[operator]  # whatever the page defines
    logits, after = module(torch.zeros(1, dtype=torch.int64), *state)
    assert (tuple(logits.shape), tuple(after.shape)) == ((1, 65), (1, 128))


def run_program(program: str, target: str) -> subprocess.CompletedProcess[str]:
    """Run a program that calls the server at its usual address against the one of the tests."""
    assert "localhost:50051" in program
    code = program.replace("localhost:50051", target)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def models_served(command: str, folder: Path) -> set[str]:
    """Start a server in a folder, on a free port; return its models' names and stop it."""
    environ = environment(ELMAN_LISTEN="127.0.0.1:0", ELMAN_LOG_FORMAT="json")
    words = [str(BIN / "elman-server"), *shlex.split(command)[1:]]
    with subprocess.Popen(words, cwd=folder, env=environ, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = ""
            for line in server.stderr:
                said += line
                if match := re.search(r'"event": "serving [^"]* ([^ "]+)"', line):
                    with Client(match[1], timeout=PATIENCE) as client:
                        return {model.name.removeprefix("models/") for model in client.list_models()}
            raise AssertionError(said)
        finally:
            server.terminate()
            server.communicate(timeout=PATIENCE)


def labelled() -> str:
    """Return labelled texts: which of two words a text ends with."""
    texts = [(f"{'to ' * number}{word}", word) for number in range(30) for word in ("be", "question")]
    return "".join(f'{{"text": "{text}", "label": "{label}"}}\n' for text, label in texts)
