"""What tests of turns share."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.models import tiny_model
from tests.server.house import House


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory) -> AsyncIterator[House]:
    """A small model; its sessions are in a store that replicas share. Some files have a house of their own."""
    async with House([tiny_model(tmp_path_factory.mktemp("models") / "tiny.onnx", "gru", 1, 32, seed=3)]) as house:
        house.store.is_shared = True  # by replicas
        yield house
