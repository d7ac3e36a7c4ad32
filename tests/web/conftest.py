from collections.abc import Iterator

import httpx2
import pytest

from tests.server_process import PATIENCE
from tests.web.process import WebProcess


@pytest.fixture(scope="session")
def web(server_process) -> Iterator[WebProcess]:
    """A door to the shared server, for all tests that do it no harm."""
    with WebProcess(server_process.address) as process:
        yield process


@pytest.fixture
def http(web) -> Iterator[httpx2.Client]:
    """A plain HTTP client of that door."""
    with httpx2.Client(base_url=web.url, timeout=PATIENCE, trust_env=False) as client:
        yield client
