"""What the tests of all stores share."""

import pytest

from elman_server.domain.errors import SessionEvictedError, SessionExpiredError, SessionNotFoundError
from elman_server.sessions.stores import Store
from tests.clock import START

LIVES = START + 3600.0


async def names(store: Store, limit: int = 100) -> list[str]:
    """Return all names by walking the pages."""
    found, after = [], ""
    while page := await store.page(after, limit):
        found += [name for name, _ in page]
        after = found[-1]
    return found


async def end_of(store: Store, name: str) -> type[Exception]:
    """Return how a session ended: what every call on it raises."""
    with pytest.raises((SessionNotFoundError, SessionExpiredError, SessionEvictedError)) as ended:
        await store.load(name)
    assert ended.value.resource == f"sessions/{name}"
    return ended.type
