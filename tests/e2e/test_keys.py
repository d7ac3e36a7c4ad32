"""The key drill of docs/operations.md, step by step."""

import base64
import secrets
from pathlib import Path

import pytest

from elman_client import Client, DataLossError, InvalidArgumentError
from tests.server_process import ServerProcess


def test_the_key_drill(lstm: Path, tmp_path: Path) -> None:
    """New keys come first and the old ones stay: all is read. Without them, what still needs them is shown."""
    keys, beside = tmp_path / "keys", tmp_path / "sessions.db.key"
    old, new = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    flags = ["--store", f"sqlite:{tmp_path}/sessions.db", "--store-keys", f"file:{keys}"]

    keys.write_text(old)
    with ServerProcess(lstm, *flags) as server, Client(server.address) as client:
        for name in ("used", "unused"):
            client.create_session("lstm", session_id=name, seed=1).append("abc")
        undisturbed = client.session("used").fork()[0]
        expected = "".join(undisturbed.generate(max_chars=20))
        snapshot = client.session("used").export()
        undisturbed.delete()

    keys.write_text(f"{new}\n{old}\n")
    beside.rename(f"{beside}.old")
    with ServerProcess(lstm, *flags) as server, Client(server.address) as client:
        assert beside.read_bytes() != Path(f"{beside}.old").read_bytes()
        assert "".join(client.session("used").generate(max_chars=20)) == expected
        client.import_session(snapshot, session_id="imported")
        assert client.session("unused").transcript().text == "abc"

    keys.write_text(new)
    Path(f"{beside}.old").unlink()
    with ServerProcess(lstm, *flags) as server, Client(server.address) as client:
        assert client.session("imported").transcript().text == "abc"
        listed = {session.name: session.info.state.name for session in client.list_sessions()}
        assert listed == {"sessions/imported": "ACTIVE", "sessions/unused": "UNREADABLE", "sessions/used": "ACTIVE"}
        with pytest.raises(DataLossError):
            client.session("unused").refresh()
        client.session("unused").delete()
        with pytest.raises(InvalidArgumentError, match="signed with another key"):
            client.import_session(snapshot)
