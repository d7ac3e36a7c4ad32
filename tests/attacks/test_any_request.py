"""Any request to any method, on each store, from anybody: it is answered, and the server is not at fault.

`NUM_BASES=30` in the environment makes it ten times as long.
"""

import contextlib
import itertools
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings

from elman.v1.session_pb2 import DeleteSessionsRequest
from elman.v1.session_pb2_grpc import SessionServiceStub
from elman_client import Client
from tests.attacks.canary import Canary
from tests.attacks.requests import HIDDEN, METHODS, MINE, MODEL, Request, around, messages
from tests.certificates import token_digest
from tests.models import tiny_model
from tests.redis_process import RedisProcess, need_program
from tests.server_process import ServerProcess

_NUM_BASES: Final = int(os.environ.get("NUM_BASES", "3"))  # requests of each method, whose neighbours are sent too
_SWEEP: Final = 2223  # requests to all methods with one base each, at least
_MAX_OPEN: Final = 8  # calls at once
_PATIENCE: Final = 60  # seconds of a call, on a busy machine; the slowest is in the test's properties
_MAX_BYTES: Final = 50e6  # of memory that does not come back
_FAULTS: Final = {"INTERNAL", "UNKNOWN", "DATA_LOSS", "DEADLINE_EXCEEDED"}
_SECRET: Final = "To be hidden or not to be hidden"
_ALICE, _BOB, _CAROL = (secrets.token_hex(32) for _ in range(3))
_ACCESS: Final = f"""
[principals.alice]
tokens = ["{token_digest(_ALICE)}"]
[principals.bob]
tokens = ["{token_digest(_BOB)}"]
[principals.carol]
tokens = ["{token_digest(_CAROL)}"]
scopes = ["read"]
"""
_ATTACKERS: Final = (_BOB, _BOB, _CAROL, _BOB, "", _BOB, "x" * 64)


class Scene:
    """A server with a session that is the attackers' own, and one that they must not read; and the attackers.

    Attributes:
        outcomes: how many calls ended with which status.
        slowest: the longest call, seconds.
    """

    def __init__(self, server: ServerProcess, *, has_door: bool) -> None:
        self.server = server
        self.alice = _ALICE if has_door else None
        self.bob = _BOB if has_door else None
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0
        self._callers = itertools.cycle(_ATTACKERS if has_door else ("",))
        # Without principals all sessions are everybody's: then its name must not be known.
        self._hidden = HIDDEN if has_door else secrets.token_hex(16)
        with Client(server.address, token=self.alice) as alice, Client(server.address, token=self.bob) as bob:
            alice.create_session(MODEL, session_id=self._hidden).append(_SECRET)
            bob.create_session(MODEL, session_id=MINE)

    def attack(self) -> None:
        """Send requests to all methods."""
        with grpc.insecure_channel(self.server.address) as channel, ThreadPoolExecutor(_MAX_OPEN) as threads:
            for method in METHODS:
                self._attack(method, channel, threads)

    def _attack(self, method: MethodDescriptor, channel: grpc.Channel, threads: ThreadPoolExecutor) -> None:
        @settings(max_examples=_NUM_BASES, database=None, suppress_health_check=list(HealthCheck))
        @given(messages(method.input_type))
        def send(base: Message) -> None:
            callers = zip(around(method, base), self._callers, strict=False)
            list(threads.map(lambda caller: self._call(channel, *caller), callers))

        send()

    def is_as_it_was(self) -> bool:
        """Whether Alice's session is."""
        with Client(self.server.address, token=self.alice) as alice:
            return alice.get_session(self._hidden).transcript().text == _SECRET

    def clear(self) -> None:
        """Delete all sessions."""
        for token in (self.alice, self.bob):
            with grpc.insecure_channel(self.server.address) as channel:
                metadata = (("authorization", f"Bearer {token}"),) if token else None
                SessionServiceStub(channel).DeleteSessions(DeleteSessionsRequest(filter="*"), metadata=metadata)

    def _call(self, channel: grpc.Channel, request: Request, token: str) -> None:
        begin = time.monotonic()
        is_stream = request.method.client_streaming
        stub: Any = (channel.stream_stream if is_stream else channel.unary_stream)(request.path)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        call = stub(iter(request.messages) if is_stream else request.messages[0], metadata=metadata, timeout=_PATIENCE)
        with contextlib.suppress(grpc.RpcError):
            for answer in call:
                assert _SECRET.encode() not in answer, request
        code, sentence = call.code().name, call.details()
        assert code not in _FAULTS, (code, sentence, request)
        assert _SECRET not in sentence, request
        self.outcomes[code] += 1
        self.slowest = max(self.slowest, time.monotonic() - begin)


@pytest.fixture(params=["memory", "sqlite, principals", "redis, principals"])
def scene(request, tmp_path: Path) -> Iterator[Scene]:
    """A server with each store, with and without principals."""
    store, _, door = request.param.partition(", ")
    folder = tmp_path / "models"
    folder.mkdir()
    tiny_model(folder / "gru.onnx", name=MODEL)
    flags = ["--max-chars", "300", "--max-prompt-chars", "10000"]
    if door:
        access = tmp_path / "access.toml"
        access.write_text(_ACCESS)
        flags += ["--access", str(access)]
    with contextlib.ExitStack() as stack:
        where = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path / 'sessions.db'}"}.get(store)
        if where is None:
            need_program("redis-server")
            where = stack.enter_context(RedisProcess(tmp_path)).url
        server = stack.enter_context(ServerProcess(folder, "--store", where, *flags))
        yield Scene(server, has_door=bool(door))


@pytest.mark.timeout(600 * _NUM_BASES)
def test_every_request_is_answered(scene: Scene, record_property):
    """None is INTERNAL or UNKNOWN, none hangs, none shows another's text; a canary is exact, and memory comes back."""
    before = scene.server.rss()
    with Canary(scene.server.address, token=scene.alice):
        scene.attack()

    assert scene.outcomes.total() >= _NUM_BASES * _SWEEP
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND"} <= scene.outcomes.keys()
    assert scene.alice is None or scene.is_as_it_was()
    assert '"level": "error"' not in scene.server.log.text
    scene.clear()
    assert scene.server.rss() - before < _MAX_BYTES
    record_property("outcomes", dict(scene.outcomes))
    record_property("slowest", scene.slowest)
