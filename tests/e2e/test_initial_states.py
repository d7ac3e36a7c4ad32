"""A persona from its text to a conversation: exporter, real server, both clients."""

import asyncio
from pathlib import Path

import click.testing
import pytest

from elman_client import AsyncClient, Client, InvalidArgumentError
from elman_export.__main__ import main as exporter
from tests.models import tiny_model
from tests.server_process import ServerProcess

TEXT = "O Romeo, Romeo! wherefore art thou Romeo?\n"
PROMPT = "Deny thy father"


def test_a_persona_remembers_its_text(tmp_path: Path) -> None:
    """A session that starts from it goes on, bit for bit, as one that has read the text; an unknown one is refused."""
    model, text = tiny_model(tmp_path / "tiny.onnx", "lstm"), tmp_path / "juliet.txt"
    text.write_text(TEXT)
    arguments = ["prime", str(model), "--name", "juliet", "--text", str(text)]
    assert click.testing.CliRunner().invoke(exporter, arguments).exit_code == 0

    async def primed(address: str) -> tuple[str, str, str]:
        async with AsyncClient(address, timeout=100) as client:
            session = await client.create_session("tiny", initial_state="juliet")
            info = (await session.append(PROMPT)).session
            text = "".join([part async for part in session.generate("", temperature=0, max_chars=40)])
            return info.initial_state, info.state_digest, text

    with ServerProcess(tmp_path) as server, Client(server.address, timeout=100) as client:
        assert client.get_model("tiny").initial_states == ("default", "juliet")
        fresh = client.create_session("tiny")
        info = fresh.append(TEXT + PROMPT).session
        expected = "".join(fresh.generate("", temperature=0, max_chars=40))
        assert asyncio.run(primed(server.address)) == ("juliet", info.state_digest, expected)
        with pytest.raises(InvalidArgumentError, match="'romeo'; models/tiny/versions/1 has default, juliet"):
            client.create_session("tiny", initial_state="romeo")
