"""What may go wrong around a real server, and what it makes of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from elman_client import Client, UnavailableError
from tests.e2e.wire import PATIENCE, PROMPT, begin, held, wire_to
from tests.models import endless_model, tiny_model
from tests.redis_process import RedisProcess, free_port, need_program
from tests.server_process import Log, ServerProcess, children, environment, health_of, refused_start, wait_until_gone

_STOP_SECONDS: Final = 5  # beside grace and drain delay
_COMMAND: Final = [sys.executable, "-m", "elman_server", "--log-format", "json", "--listen", "127.0.0.1:0"]


def started(*flags: str) -> tuple["subprocess.Popen[bytes]", Log]:
    """Start a server without waiting for it to serve."""
    ours, theirs = os.pipe()
    process = subprocess.Popen([*_COMMAND, *flags], stderr=theirs, env=environment())
    os.close(theirs)
    return process, Log(ours)


def test_one_file_is_served_as_one_model(models):
    """`--models` names a file as well as a directory."""
    with ServerProcess(models / "gru.onnx") as process, Client(process.address, timeout=PATIENCE) as client:
        assert [model.name for model in client.list_models()] == ["models/gru"]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (os.mkfifo, "is no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
        (lambda _: None, "does not exist"),
    ],
    ids=["fifo", "device", "missing"],
)
def test_what_is_no_file_stops_the_start(tmp_path: Path, make: Callable[[Path], None], what: str):
    """A pipe or a device that would never end is one sentence, named or found in the directory."""
    path = tmp_path / "model.onnx"
    make(path)
    expected = f"elman-server: {path} {what}; --models names an *.onnx file or a directory of some"

    assert refused_start("--listen", "127.0.0.1:0", "--models", str(path)) == (1, [expected])


def test_a_stop_during_the_start_is_a_stop(tmp_path: Path):
    """SIGTERM while a model never comes to an end of its loading: exit 0, in time, and no engine is left."""
    process, log = started("--models", str(endless_model(tmp_path / "endless.onnx")), "--grace-seconds", "3600")
    engines: list[int] = []
    while not engines:
        engines = children(process.pid)
        time.sleep(0.05)
    process.terminate()

    assert process.wait(PATIENCE) == 0
    log.close()
    wait_until_gone(engines)


def test_a_hang_up_ends_nothing(lstm):
    """SIGHUP, again and again while a server starts, serves and drains: its turn is whole, and it exits 0."""
    process, log = started("--models", str(lstm), "--grace-seconds", "3600")
    _until(lambda: _ignores(process.pid, signal.SIGHUP))  # Python itself does not, for some milliseconds
    while '"serving 1 model on ' not in log.text:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    with wire_to(log.wait_for(r'"serving \d+ models? on ([^"]+)"')[1]) as wire:
        turn = begin(wire, held(wire.session("lstm")))
        process.send_signal(signal.SIGHUP)
        log.wait_for("models_reloaded")
        process.terminate()
        log.wait_for("drain_begins")
        process.send_signal(signal.SIGHUP)
        assert list(turn)[-1].finished.usage.generated_chars == 2000
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    log.close()
    assert process.returncode == 0


def test_a_stop_ends_whatever_hangs(lstm, tmp_path: Path):
    """SIGTERM with an engine that hangs, a stream on it and a store that is gone ends the server all the same."""
    need_program("redis-server")
    redis = RedisProcess(tmp_path)
    with (
        redis,
        ServerProcess(lstm, "--store", redis.url, "--grace-seconds", "0.5", "--max-chars", str(10**9)) as process,
        wire_to(process.address) as wire,
    ):
        call = begin(wire, held(wire.session("lstm")))
        (engine,) = process.engines()
        os.kill(engine, signal.SIGSTOP)
        redis.kill()
        before = time.monotonic()
        process.terminate()
        process.wait()
        took = time.monotonic() - before
        wait_until_gone([engine])
        call.cancel()

    assert took < 0.5 + _STOP_SECONDS + PATIENCE / 10  # of which the last is the machine's own slowness


def test_an_engine_that_hangs_is_replaced(lstm):
    """SIGSTOP of an engine: within seconds its streams end UNAVAILABLE, and the next turn runs on another one."""
    with (
        ServerProcess(lstm, "--max-chars", str(10**9)) as process,
        Client(process.address, timeout=PATIENCE, retry_seconds=0) as client,
    ):
        turn = client.create_session("lstm").generate(PROMPT)
        next(turn)
        os.kill(process.engines()[0], signal.SIGSTOP)
        with pytest.raises(UnavailableError) as caught:
            list(turn)
        assert caught.value.reason == "ENGINE_RESTARTED"
        process.log.wait_for("engine_hangs")
        process.log.wait_for("engine_restarted")
        assert len("".join(client.create_session("lstm").generate(PROMPT, max_chars=10))) == 10


def test_health_follows_an_engine_that_cannot_come_back(tmp_path: Path):
    """While a model's file is gone its server takes no turns: NOT_SERVING and an error line, and SERVING afterwards."""
    path = tiny_model(tmp_path / "tiny.onnx", "gru")
    with ServerProcess(path) as process:
        away = path.rename(tmp_path / "away")
        os.kill(process.engines()[0], signal.SIGKILL)
        process.log.wait_for('"engine_failed_to_start", "level": "error"')
        _until(lambda: process.health() == "NOT_SERVING")
        assert process.health("elman.v1.GenerationService") == "NOT_SERVING"
        assert process.health("elman.v1.SessionService") == "SERVING"
        away.rename(path)
        _until(lambda: process.health() == "SERVING")


def test_health_follows_the_store(lstm, tmp_path: Path):
    """A store that is not there at the start, or goes later, is NOT_SERVING and an error line; it may come back."""
    need_program("redis-server")
    port = free_port()
    flags = ("--store", f"redis://127.0.0.1:{port}", "--store-patience-seconds", "0", "--store-timeout-seconds", "0.5")
    process, log = started("--models", str(lstm), *flags)
    try:
        address = log.wait_for(r'"serving \d+ models? on ([^"]+)"')[1]
        log.wait_for("store_unreachable")
        assert health_of(address) == health_of(address, "elman.v1.SessionService") == "NOT_SERVING"
        assert health_of(address, "elman.v1.ModelService") == "SERVING"
        with RedisProcess(tmp_path, port=port):
            _until(lambda: health_of(address) == "SERVING")
        _until(lambda: health_of(address) == "NOT_SERVING")
    finally:
        process.terminate()
        process.wait(PATIENCE)
        log.close()


def test_a_log_that_nobody_reads_stops_nothing(lstm):
    """With standard error unread hundreds of calls are answered, and the server stops when it is asked to."""
    ours, theirs = os.pipe()
    port = free_port()
    command = [*_COMMAND[:-1], f"127.0.0.1:{port}", "--models", str(lstm)]
    with subprocess.Popen(command, stderr=theirs, env=environment()) as server:
        os.close(theirs)
        with Client(f"127.0.0.1:{port}", timeout=PATIENCE) as client:
            _until(client.is_serving)
            for _ in range(2000):
                client.list_models()
        server.terminate()
        assert server.wait(PATIENCE) == 0
    os.close(ours)


def test_a_log_whose_reader_is_gone_stops_nothing(lstm):
    """With standard error closed at its other end calls are answered, and the server stops when it is asked to."""
    ours, theirs = os.pipe()
    os.close(ours)
    port = free_port()
    command = [*_COMMAND[:-1], f"127.0.0.1:{port}", "--models", str(lstm)]
    with subprocess.Popen(command, stderr=theirs, env=environment()) as server:
        os.close(theirs)
        with Client(f"127.0.0.1:{port}", timeout=PATIENCE) as client:
            _until(client.is_serving)
            for _ in range(10):
                client.list_models()
        server.terminate()
        assert server.wait(PATIENCE) == 0


def test_a_saved_session_loads_after_a_restart(lstm, tmp_path: Path):
    """With `sqlite:` the key of snapshots lies beside the file, for its owner alone, and outlives the server."""
    store = tmp_path / "sessions.db"
    with ServerProcess(lstm, "--store", f"sqlite:{store}") as process, Client(process.address) as client:
        session = client.create_session("lstm")
        text = "".join(session.generate(PROMPT, max_chars=20))
        snapshot = session.export()
        life = session.info.expire_time - session.info.create_time
    key = tmp_path / "sessions.db.key"
    assert (key.stat().st_mode & 0o777, key.stat().st_size) == (0o600, 32)
    with ServerProcess(lstm, "--store", f"sqlite:{store}") as process, Client(process.address) as client:
        assert client.import_session(snapshot).transcript().text == PROMPT + text
    assert life.days == 30


def _ignores(pid: int, number: int) -> bool:
    """Whether a signal does not end a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigIgn", "SigCgt"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
