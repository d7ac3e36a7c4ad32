from collections.abc import Iterator
from pathlib import Path

import pytest

from elman_client import Client
from elman_server.process.settings import BUNDLED
from tests.lesson.models import HELLO, HELLO_CHARACTERS, NUMBERS, constant_model, elman_model
from tests.server_process import ServerProcess


@pytest.fixture(scope="session")
def lesson_models(tmp_path_factory) -> Path:
    """The lesson's networks: `constant`, `numbers` and `hello`."""
    folder: Path = tmp_path_factory.mktemp("lesson")
    constant_model(folder / "constant.onnx", "constant")
    elman_model(folder / "numbers.onnx", "numbers", "abc", NUMBERS)
    elman_model(folder / "hello.onnx", "hello", HELLO_CHARACTERS, HELLO)
    return folder


@pytest.fixture(scope="session")
def lesson_server(lesson_models) -> Iterator[ServerProcess]:
    """A server of the lesson's networks."""
    with ServerProcess(lesson_models) as process:
        yield process


@pytest.fixture
def lesson(lesson_server) -> Iterator[Client]:
    """A client of the lesson's networks."""
    with Client(lesson_server.address, timeout=100) as client:
        yield client


@pytest.fixture(scope="session")
def bundled() -> Iterator[Client]:
    """A client of a server of the bundled models."""
    missing = [name for name in ("shakespeare", "elman-128") if not (BUNDLED / f"{name}.onnx").exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not trained yet: make models")
    with ServerProcess(None) as process, Client(process.address, timeout=100) as client:
        yield client
