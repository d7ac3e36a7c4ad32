"""The wheel, which is what users get."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(400)  # three environments are made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a clean environment that holds the wheel with its extra `server`."""
    home = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", home / "venv", cwd=home)
    commands = home / "venv/bin"
    pip: list[str | Path] = [
        commands / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        ROOT / "constraints.txt",
    ]
    run(*pip, f"{wheel}[server]", cwd=home)
    return commands


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the sources; return what it says."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    """The six packages are inside with their type markers, models, contract and recipes, and no test."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"elman", "elman_client", "elman_export", "elman_format", "elman_server", "elman_web"}
    expected = [
        "elman/py.typed",
        "elman/v1/session.proto",
        "elman/v1/session_pb2.py",
        "elman/v1/session_pb2.pyi",
        "elman_client/py.typed",
        "elman_export/py.typed",
        "elman_export/recipes/shakespeare.toml",
        "elman_format/py.typed",
        "elman_server/bundled/elman-128.onnx",
        "elman_server/bundled/shakespeare.onnx",
        "elman_server/py.typed",
        "elman_web/lesson/counting.onnx",
        "elman_web/page/app.js",
        "elman_web/page/index.html",
        "elman_web/py.typed",
    ]
    assert [name for name in expected if name not in names] == []
    (sbom,) = [name for name in names if ".dist-info/sboms/" in name]
    parts = {part["name"] for part in json.loads(zipfile.ZipFile(wheel).read(sbom))["components"]}
    assert {"grpcio", "msgspec", "onnxruntime"} <= parts


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """Without sources and without torch, the demo streams its text and stops cleanly."""
    demo = tmp_path / "demo.py"
    demo.write_text((ROOT / "scripts/demo.py").read_text())
    said = run(installed / "python", demo, cwd=tmp_path)
    assert len(said) > 400
    assert "characters a second" in said


def test_the_server_needs_no_torch_and_no_onnx(installed: Path, tmp_path: Path) -> None:
    """The extra `server` brings neither torch nor onnx."""
    find = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'elman_server') if u.find_spec(n)])"
    assert run(installed / "python", "-c", find, cwd=tmp_path).strip() == "['elman_server']"


def test_the_commands_are_installed(installed: Path, tmp_path: Path) -> None:
    """Both commands of the extra `server` tell the same version."""
    commands = ["elman", "elman-server"]
    versions = {run(installed / command, "--version", cwd=tmp_path).split()[-1] for command in commands}
    assert len(versions) == 1
