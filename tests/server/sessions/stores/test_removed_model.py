"""Sessions whose model was removed from the server, in every kind of store."""

from pathlib import Path

import pytest

from elman_server.domain.errors import ModelNotFoundError, SessionNotFoundError
from elman_server.domain.requests import AppendRequest, Target
from elman_server.sessions.session import Filter
from tests.models import tiny_model
from tests.server.house import House


@pytest.mark.parametrize(
    ("make_store", "vocabulary"),
    [("memory", None), ("sqlite", "abcdefgh"), ("redis", "abcdefgh")],
    indirect=["make_store"],
    ids=["memory-bytes", "sqlite", "redis"],
)
async def test_it_can_be_read_exported_and_deleted(store, tmp_path: Path, vocabulary: str | None) -> None:
    """Text, turns and list are what they were, and a snapshot serves where the model is; a new turn says what lacks."""
    path = tiny_model(tmp_path / "old.onnx", vocabulary=None if vocabulary is None else tuple(vocabulary))
    async with House([path], store=store) as before, House([], store=store) as after:
        name, empty = [(await before.session("tiny")).name for _ in range(2)]
        await before.turns.append(AppendRequest(name, "cafe"))
        await before.generate(Target(name), "bad", max_chars=20)
        for start, end in ((0, None), (5, 9)):
            expected = await before.sessions.transcript(name, start, end)
            assert await after.sessions.transcript(name, start, end) == expected
        assert (await after.sessions.transcript(empty, 0, None)).text == ""
        listed = await after.sessions.list(page_size=10, page_token="", filter=Filter())
        assert await before.sessions.get(name) in listed.sessions
        with pytest.raises(ModelNotFoundError, match="models/tiny is not served here"):
            await after.generate(Target(name), "a")

        restored = await before.history.restore(await after.history.export(name), "")
        assert (await before.sessions.transcript(restored.name, 5, 9)).text == expected.text
        await after.sessions.delete(name, etag="")
        with pytest.raises(SessionNotFoundError):
            await before.sessions.get(name)
