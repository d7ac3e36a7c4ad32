"""Backup and restore by the command, as an operator runs it."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from elman_client import Client
from elman_server.__main__ import main
from tests.server_process import ServerProcess, environment


def command(*arguments: str | Path, **variables: str) -> tuple[int, str]:
    """Run `elman-server`; return its exit status and what it says."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments], env=variables)
    return done.exit_code, done.output


def test_a_copy_of_a_running_store_serves_as_the_store_did(lstm: Path, tmp_path: Path) -> None:
    """A backup that is made in the middle of a turn has all that was committed; restored, its sessions continue."""
    store, copy, restored = tmp_path / "sessions.db", tmp_path / "copy.db", tmp_path / "restored.db"
    with ServerProcess(lstm, "--store", f"sqlite:{store}") as server, Client(server.address) as client:
        session = client.create_session("lstm", session_id="kept", seed=1)
        text = "".join(session.generate("a", max_chars=100))
        snapshot = session.export()
        with client.create_session("lstm").generate("a", max_chars=50_000) as running:
            next(running)
            assert command("backup", copy, ELMAN_STORE=f"sqlite:{store}") == (0, f"2 sessions are in {copy}\n")
        after = "".join(session.generate("b", max_chars=100))
        assert command("--store", f"sqlite:{store}", "restore", copy)[0] == 1  # a running store

    assert [path.stat().st_mode & 0o777 for path in (copy, Path(f"{copy}.key"))] == [0o600, 0o600]
    assert command("--store", f"sqlite:{restored}", "restore", copy) == (0, f"2 sessions are in sqlite:{restored}\n")
    with ServerProcess(lstm, "--store", f"sqlite:{restored}") as server, Client(server.address) as client:
        session = client.get_session("kept")
        assert session.transcript().text == "a" + text
        assert "".join(session.generate("b", max_chars=100)) == after
        assert client.import_session(snapshot, session_id="again").transcript().text == "a" + text


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store, and its copy `copy.db`."""
    from elman_server.sessions.stores import SqliteStore  # noqa: PLC0415  its threads belong to the test

    SqliteStore(tmp_path / "sessions.db", 10)
    assert command("--store", f"sqlite:{tmp_path}/sessions.db", "backup", tmp_path / "copy.db")[0] == 0
    return tmp_path / "sessions.db"


def test_nothing_is_overwritten(store: Path) -> None:
    """Neither a backup nor a store: the sentence names the file that is there."""
    where = f"sqlite:{store}"
    copy = store.with_name("copy.db")
    exists = "exists; move it away, or name another file"

    assert command("--store", where, "backup", copy) == (1, f"elman-server: {copy} {exists}\n")
    assert command("--store", where, "restore", copy) == (
        1,
        f"elman-server: {store}-wal exists: a server may use this store; stop it, and move its files away\n",
    )


def test_what_is_no_copy_is_refused_and_leaves_nothing(store: Path) -> None:
    """Garbage, another program's database, a cut file: one sentence, and no file of it stays."""
    folder = store.parent
    (folder / "garbage.db").write_bytes(b"garbage" * 1000)
    (folder / "cut.db").write_bytes((folder / "copy.db").read_bytes()[:9000])
    sqlite3.connect(folder / "foreign.db").execute("CREATE TABLE t (x)").connection.close()
    for name, reason in (("garbage", "damaged"), ("cut", "damaged"), ("foreign", "does not hold"), ("none", "exist")):
        code, text = command("--store", f"sqlite:{folder}/new.db", "restore", folder / f"{name}.db")
        assert (code, text.count("\n")) == (1, 1)
        assert reason in text

    assert list(folder.glob("new.db*")) == []


@pytest.mark.parametrize("where", ["memory:", "redis://127.0.0.1:1"])
def test_other_stores_say_what_to_do(where: str, tmp_path: Path) -> None:
    """The commands are for SQLite."""
    code, text = command("--store", where, "backup", tmp_path / "copy.db")
    assert code == 1
    assert "backup and restore are for sqlite:PATH" in text


def test_a_disk_that_is_full_is_a_sentence(store: Path) -> None:
    """A copy that cannot be written leaves nothing; the store is as it was."""
    copy = store.with_name("small.db")
    shell = f"ulimit -f 8; exec {sys.executable} -m elman_server --store sqlite:{store} backup {copy}"
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {shell}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "nothing was written" in done.stderr
    assert list(store.parent.glob("small.db*")) == []
