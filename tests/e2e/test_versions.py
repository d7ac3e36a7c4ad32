"""Several versions of a model in one server: loaded and removed while it serves."""

import json
import os
import signal
from pathlib import Path

import pytest

from elman_client import Client, ModelNotFoundError, Session
from tests.client.processes import run
from tests.models import tiny_model
from tests.server_process import ServerProcess


def reload(server: ServerProcess, pattern: str) -> None:
    """Let a server look at its models again, and wait for an event."""
    os.kill(server.pid, signal.SIGHUP)
    server.log.wait_for(pattern)


def test_versions_come_and_go_while_sessions_stay_on_theirs(tmp_path: Path) -> None:
    """A new version serves new sessions beside the old one, a broken file harms nobody, and an old one ends unused."""
    first = tiny_model(tmp_path / "first.onnx", version="9")
    with ServerProcess(tmp_path, "--grace-seconds", "0") as server, Client(server.address) as client:
        old = client.create_session("tiny", session_id="pinned", seed=1)
        with client.create_session("tiny").generate("a", max_chars=90_000) as running:
            next(running)  # a turn that runs all the while

            # A higher version (10 > 9), and beside it a file that nobody can serve.
            tiny_model(tmp_path / "second.onnx", version="10", seed=1)
            (tmp_path / "broken.onnx").write_bytes(b"nothing")
            reload(server, r'"serving": \["models/tiny/versions/9", "models/tiny/versions/10"\], "refused": 1')
            server.log.wait_for(r'broken.onnx.*"event": "model_refused"')
            assert [model.version for model in client.list_models()] == ["9", "10"]
            assert client.get_model("tiny").version == "10"
            new = client.create_session("tiny")
            assert (new.refresh().model, old.refresh().model) == ("models/tiny/versions/10", "models/tiny/versions/9")
            assert client.create_session("models/tiny/versions/9").refresh().model == "models/tiny/versions/9"
            assert len("".join(new.generate("a", max_chars=9)) + "".join(old.generate("a", max_chars=9))) == 18

            # The old one is removed: it stays for its sessions, and for nobody else.
            first.unlink()
            reload(server, r'"serving": \["models/tiny/versions/10"\], "refused": 1')
            assert len("".join(old.generate("b", max_chars=9))) == 9
            assert [model.version for model in client.list_models()] == ["10"]
            assert next(running)
            _upgrade(server, client, old)
        assert server.health() == "SERVING"

        for session in client.list_sessions():
            if session.info.model.endswith("/9"):
                session.delete()
        reload(server, r'"model": "tiny", "version": "9", .*"event": "model_unloaded"')
        assert len(server.engines()) == 1
        assert len("".join(new.generate("c", max_chars=9))) == 9
        with pytest.raises(ModelNotFoundError):
            client.create_session("models/tiny/versions/9")


def _upgrade(server: ServerProcess, client: Client, old: Session) -> None:
    """Let the new version read a session: as another one, then in its place. Only then the old one is gone."""
    text, seed = old.transcript().text, old.info.seed
    losses = {}
    for version in ("9", "10"):
        with_detail = client.create_session(f"models/tiny/versions/{version}").append(text, log_probability=True)
        nats = [detail.log_probability for detail in with_detail.details if detail.log_probability is not None]
        losses[version] = -sum(nats) / len(nats)
    kept = run(server.address, "sessions", "upgrade", "pinned", "--as", "beside")
    expected = f"{losses['10']:.4f} nats per character, {losses['9']:.4f} before ({losses['10'] - losses['9']:+.4f})"
    assert expected in kept.stdout, kept.stderr
    assert (old.refresh().model, old.transcript().text) == ("models/tiny/versions/9", text)

    done = run(server.address, "sessions", "upgrade", "pinned", "--json")
    found = json.loads(done.stdout)
    assert (found["session"], found["model"], found["num_chars"]) == (old.name, "models/tiny/versions/10", len(text))
    assert (found["loss"], found["loss_before"]) == (pytest.approx(losses["10"]), pytest.approx(losses["9"]))
    assert (old.refresh().model, old.info.seed, old.transcript().text) == ("models/tiny/versions/10", seed, text)
    assert client.get_session("beside").info.state_digest == old.info.state_digest
    again = run(server.address, "sessions", "upgrade", "pinned")
    assert (again.returncode, "is on models/tiny/versions/10 already" in again.stderr) == (2, True)


def test_a_file_that_was_moved_is_the_same_model(tmp_path: Path) -> None:
    """The same artefact under another name needs no second engine; the same version of other weights is refused."""
    first = tiny_model(tmp_path / "first.onnx")
    with ServerProcess(tmp_path) as server, Client(server.address) as client:
        session = client.create_session("tiny")
        first.rename(tmp_path / "moved.onnx")
        tiny_model(tmp_path / "other.onnx", seed=1)
        reload(
            server, r'version 1 of a model named tiny is already served, from .*moved.onnx.*"event": "model_refused"'
        )
        server.log.wait_for("models_reloaded")

        assert [model.digest for model in client.list_models()] == [session.info.model_digest]
        assert len("".join(session.generate("a", max_chars=9))) == 9
        assert len(server.engines()) == 1
