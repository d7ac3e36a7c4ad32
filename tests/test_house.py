"""The walls and habits of the house, as `make check` keeps them."""

import importlib
import os
import pkgutil
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import grimp
import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PACKAGES = ["elman_client", "elman_export", "elman_format", "elman_server", "elman_web"]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in the root of the sources."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_the_import_contracts_hold() -> None:
    """No module imports what stands above it, nor a library that is not its business."""
    done = run(BIN / "lint-imports", "--no-cache")
    assert done.returncode == 0, done.stdout


def test_the_contract_is_clean() -> None:
    """The .proto files pass buf's STANDARD rules."""
    done = run(BIN / "buf", "lint", "proto")
    assert done.returncode == 0, done.stdout


def test_what_is_generated_is_current() -> None:
    """The code of proto/ and docs/settings.md are what would be generated now."""
    done = run(sys.executable, "scripts/check_generated.py")
    assert done.returncode == 0, done.stderr


def test_every_target_is_phony_and_explained() -> None:
    """Each target of the Makefile that is not a file is .PHONY, as folders bear such names, and `make` tells it."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    targets = [line.partition(":")[0] for line in lines if line[:1].islower() and ":" in line and ":=" not in line]
    phony = next(line for line in lines if line.startswith(".PHONY:")).split()[1:]
    told = [line.split()[1] for line in run("make", "--no-print-directory", "help").stdout.splitlines()]
    assert targets == phony == told


def test_every_constraint_is_exact() -> None:
    """Installs are repeatable: constraints.txt pins each package, and torch is left to the user."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0].lower() for line in lines if "==" in line]
    assert len(names) == len(set(names)) == len(lines)
    assert not [name for name in names if name.startswith(("torch", "nvidia", "triton", "elman"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_in_a_circle(package: str) -> None:
    """The modules of a package have an order, imports for the type checker included."""
    graph = grimp.build_graph(package, cache_dir=None)
    order = TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules})
    assert len(list(order.static_order())) == len(graph.modules)


@pytest.mark.parametrize("package", ["elman_export", "elman_server", "elman_web"])
def test_no_folder_has_more_than_ten_rooms(package: str) -> None:
    """A newcomer takes in at a glance what is in a folder."""
    modules = grimp.build_graph(package, cache_dir=None).modules
    rooms = Counter(name.rpartition(".")[0] for name in modules if "." in name)
    assert {folder: number for folder, number in rooms.items() if number > 10} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_face_is_complete(package: str) -> None:
    """Every name in each `__all__` can be imported; ruff keeps their order."""
    for module in _modules(package):
        names = list(getattr(module, "__all__", ()))
        assert [name for name in names if not hasattr(module, name)] == [], module.__name__


@pytest.mark.parametrize("package", ["elman_export", "elman_server"])
def test_importing_switches_telemetry_off(package: str) -> None:
    """Whoever imports the server or the exporter has onnxruntime's telemetry off before it is imported."""
    ask = f"import {package}, os, sys; print(os.environ['ORT_DISABLE_TELEMETRY'], 'onnxruntime' in sys.modules)"
    environ = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", ask], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def _modules(package: str) -> list[ModuleType]:
    face = importlib.import_module(package)
    names = [found.name for found in pkgutil.walk_packages(face.__path__, f"{package}.")]
    return [face, *(importlib.import_module(name) for name in names if not name.endswith("__main__"))]
