from collections.abc import Iterator

import pytest

from elman_client import Client
from tests.e2e.wire import Wire, reference, wire_to
from tests.server_process import ServerProcess

_MODELS = ("bytes", "elman", "gru", "lstm")


@pytest.fixture
def wire(server_process) -> Iterator[Wire]:
    """A channel to the shared server."""
    with wire_to(server_process.address) as wire:
        yield wire


@pytest.fixture(scope="session")
def references(server_process) -> dict[str, str]:
    """What every model answers to the same request, from the beginning of the tests to their end."""
    with Client(server_process.address) as client:
        return {model: reference(client, model=model) for model in _MODELS}


@pytest.fixture(scope="session")
def odd_server(models, tmp_path_factory) -> Iterator[ServerProcess]:
    """A server on a unix socket: large messages, few rows, no reflection, and a log of all that it can say."""
    socket = tmp_path_factory.mktemp("socket") / "s"
    flags = ["--listen", f"unix:{socket}", "--max-message-bytes", str(2**26), "--reflection", "off", "--max-batch", "8"]
    with ServerProcess(models, *flags, ELMAN_LOG_LEVEL="debug") as process:
        yield process
