"""The key that signs snapshots."""

from pathlib import Path

import pytest

from elman_server.domain.errors import SettingsError
from elman_server.history.key import snapshot_key
from elman_server.process.settings import Settings


def test_a_key_beside_the_file_is_made_once(tmp_path: Path):
    """Every server of a SQLite file has the same key, which only its owner can read."""
    settings = Settings(store=f"sqlite:{tmp_path / 'sessions.db'}")
    key = snapshot_key(settings)

    assert snapshot_key(settings) == key == (tmp_path / "sessions.db.key").read_bytes()
    assert (tmp_path / "sessions.db.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["sessions.db.key"]


def test_a_key_of_ones_own_comes_first(tmp_path: Path):
    """With the setting no file is made."""
    own = tmp_path / "own.key"
    own.write_bytes(b"k" * 40)

    assert snapshot_key(Settings(store=f"sqlite:{tmp_path / 's.db'}", snapshot_key=own)) == b"k" * 40
    assert [path.name for path in tmp_path.iterdir()] == ["own.key"]


@pytest.mark.parametrize("store", ["memory:", "redis://somewhere"])
def test_elsewhere_a_key_is_of_the_process(store: str):
    """Without a file of this machine's the key ends with the server."""
    assert len(snapshot_key(Settings(store=store))) == 32
    assert snapshot_key(Settings(store=store)) != snapshot_key(Settings(store=store))


def test_a_key_that_cannot_be_used_stops_the_start(tmp_path: Path):
    """Missing, too short, or in a folder that is not there: one sentence with the file."""
    short = tmp_path / "short.key"
    short.write_bytes(b"k" * 31)

    with pytest.raises(SettingsError, match=r"short.key has 31 bytes; it needs at least 32"):
        snapshot_key(Settings(snapshot_key=short))
    with pytest.raises(SettingsError, match=r"cannot read the snapshot key .*missing.key: No such file"):
        snapshot_key(Settings(snapshot_key=tmp_path / "missing.key"))
    with pytest.raises(SettingsError, match=r"cannot write the snapshot key .*s.db.key: No such file"):
        snapshot_key(Settings(store=f"sqlite:{tmp_path / 'nowhere' / 's.db'}"))
