"""Two real servers on one SQLite file."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from elman_client import Client, SessionBusyError
from tests.e2e.wire import PATIENCE, PROMPT, begin, held, wire_to
from tests.server_process import ServerProcess

LENGTH = 2000


def test_two_servers_share_a_file(lstm: Path, tmp_path: Path):
    """Each has all sessions, one of them runs a turn; after kill -9 of that one the other continues it, exactly."""
    flags = ("--store", f"sqlite:{tmp_path / 'sessions.db'}", "--lease-seconds", "1", "--commit-seconds", "0.05")
    with ServerProcess(lstm, *flags) as first, ServerProcess(lstm, *flags) as second:
        one = Client(first.address, timeout=PATIENCE, retry_seconds=0)
        two = Client(second.address, timeout=PATIENCE, retry_seconds=0)
        with one, two:
            undisturbed = one.create_session("lstm", session_id="undisturbed", seed=3)
            expected = "".join(undisturbed.generate(PROMPT, max_chars=LENGTH))
            # At once: a turn on each. In turns: one session from both.
            alone, shared = (one.create_session("lstm", session_id=name, seed=3) for name in ("alone", "shared"))
            with ThreadPoolExecutor() as threads:
                running = threads.submit(lambda: "".join(alone.generate(PROMPT, max_chars=LENGTH)))
                theirs = "".join(two.get_session("shared").generate(PROMPT, max_chars=LENGTH // 2))
                theirs += "".join(shared.generate(max_chars=LENGTH // 2))
                assert running.result() == theirs == expected
            assert {info.name for info in two.list_sessions()} == {info.name for info in one.list_sessions()}

            one.create_session("lstm", session_id="lost", seed=3)
            lost, request_id = two.get_session("lost"), str(uuid.uuid4())
            with wire_to(first.address) as wire:
                reader = begin(
                    wire, held(lost.name, LENGTH, request_id=request_id)
                )  # a call that nobody has is cancelled
                with pytest.raises(SessionBusyError):
                    "".join(lost.generate("x"))
                first.kill()
                with pytest.raises(grpc.RpcError):
                    list(reader)
            assert "".join(lost.resume(request_id)) == expected
            assert lost.refresh().state_digest == two.get_session("undisturbed").info.state_digest
            assert lost.transcript().text == PROMPT + expected
