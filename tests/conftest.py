import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.models import nan_model, tiny_model
from tests.server_process import ServerProcess

# A shell's `&` starts programs that ignore Ctrl-C, and they pass that on to theirs.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("elman", deadline=None)  # no test depends on how fast the machine is
settings.load_profile("elman")


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A directory of tiny models: `elman` (the lesson's sizes), `gru`, `lstm`, `bytes` and `nan`."""
    folder: Path = tmp_path_factory.mktemp("models")
    tiny_model(folder / "elman.onnx", "elman", hidden_size=128, name="elman")
    tiny_model(folder / "gru.onnx", "gru", name="gru")
    tiny_model(folder / "lstm.onnx", "lstm", name="lstm")
    tiny_model(folder / "bytes.onnx", "gru", vocabulary=None, name="bytes")
    nan_model(folder / "nan.onnx")
    return folder


@pytest.fixture(scope="session")
def lstm(models, tmp_path_factory) -> Path:
    """A directory of one of them: servers of it start sooner."""
    folder: Path = tmp_path_factory.mktemp("lstm")
    shutil.copy(models / "lstm.onnx", folder)
    return folder


@pytest.fixture(scope="session")
def server_process(models) -> Iterator[ServerProcess]:
    """A server of these models with default settings, for all tests that do it no harm."""
    with ServerProcess(models) as process:
        yield process
