"""Callers who send or read slowly, or not at all, and hold nothing for it."""

import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from elman.v1 import generation_pb2 as messages
from elman.v1.session_pb2 import GetSessionRequest, Session
from tests.attacks.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    WINDOW_UPDATE,
    Connection,
    frame,
    headers,
    message,
)
from tests.e2e.wire import GENERATE, PATIENCE, PROMPT, Refusal, Wire, held, one_shot, refusal, refused, text_of, wire_to
from tests.server_process import ServerProcess


@pytest.fixture(scope="module")
def process(lstm) -> Iterator[ServerProcess]:
    """A server that waits a second for its readers, and has place for two streams."""
    with ServerProcess(lstm, "--stalled-seconds", "1", "--max-streams", "2") as process:
        yield process


class Standing:
    """A call of which nothing is read until `wake`."""

    def __init__(self, address: str, request: messages.GenerateRequest) -> None:
        self._connection = Connection(address, reads=False, window=0)
        self._socket = self._connection.socket
        data = message(request.SerializeToString())
        self._connection.send([headers(GENERATE, 1), frame(DATA, END_STREAM, 1, data)])

    def wake(self) -> list[int]:
        """Read everything; return the flags of the HEADERS frames, of which the last ends the stream."""
        self._connection.send([frame(WINDOW_UPDATE, 0, at, struct.pack(">I", 2**30)) for at in (0, 1)])
        found: list[int] = []
        while not found or not found[-1] & END_STREAM:
            head = self._receive(9)
            payload = self._receive(int.from_bytes(head[:3], "big"))
            if head[3] == HEADERS:
                found.append(head[4])
            assert head[3] in {DATA, HEADERS} or len(payload) < 100
        self._connection.close()
        return found

    def _receive(self, size: int) -> bytes:
        data = b""
        self._socket.settimeout(PATIENCE)
        while len(data) < size:
            more = self._socket.recv(size - len(data), socket.MSG_WAITALL)
            assert more, "the connection was closed"
            data += more
        return data


def state(wire: Wire, name: str) -> Session:
    """Return a session."""
    return wire.sessions.GetSession(GetSessionRequest(name=name), timeout=PATIENCE).session


def test_a_reader_that_takes_nothing_loses_its_place(process: ServerProcess):
    """Its stream ends with a status, its turn is committed where it was delivered, and others have room."""
    with wire_to(process.address) as wire:
        names = [wire.session("lstm") for _ in range(2)]
        calls = [Standing(process.address, held(name)) for name in names]
        process.log.wait_for('"reason": ?"READER_STALLED"')
        while {state(wire, name).state for name in names} != {Session.STATE_ACTIVE}:
            pass

        assert len(text_of(wire.generate(one_shot(model="lstm")))) == 20
        assert all(len(PROMPT) < state(wire, name).position < len(PROMPT) + 2000 for name in names)
        for call in calls:
            assert call.wake() == [END_HEADERS, END_HEADERS | END_STREAM]


def test_a_turn_that_cancel_ends_has_its_status(process: ServerProcess):
    """Also if not even its first message was taken."""
    with wire_to(process.address) as wire:
        name = wire.session("lstm")
        call = Standing(process.address, held(name))
        while state(wire, name).state != Session.STATE_GENERATING:
            pass
        cancelled: Any = wire.generation.Cancel(messages.CancelRequest(session=name), timeout=PATIENCE)

        assert cancelled.session.state == Session.STATE_ACTIVE
        assert call.wake() == [END_HEADERS, END_HEADERS | END_STREAM]


def test_silent_chats_take_no_place(process: ServerProcess):
    """Two chats are open, as many as may be, and have no turn: both streams are free. A third chat is refused."""
    with wire_to(process.address) as wire:
        is_over = threading.Event()
        silent = [wire.generation.Chat(_nothing_until(is_over), timeout=PATIENCE) for _ in range(2)]
        while (found := _end_of(wire.generation.Chat(iter([]), timeout=PATIENCE))) is None:
            pass
        assert found == Refusal("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS", retry=True)
        turns = [wire.generation.Generate(one_shot(model="lstm"), timeout=PATIENCE) for _ in range(2)]
        assert [len(text_of(list(turn))) for turn in turns] == [20, 20]
        is_over.set()
        assert [list(chat) for chat in silent] == [[], []]


def _nothing_until(is_over: threading.Event) -> Iterator[messages.ChatRequest]:
    is_over.wait(PATIENCE)
    yield from ()


def _end_of(call: Any) -> Refusal | None:
    try:
        list(call)
    except grpc.RpcError as error:
        return refusal(error)
    return None


def test_a_call_without_a_message_is_answered(process: ServerProcess):
    """Of every kind: one answer or many, ours or health."""
    for path in (GENERATE, "/elman.v1.SessionService/GetSession", "/elman.v1.SessionService/ListSessions"):
        with grpc.insecure_channel(process.address) as channel:
            call: Any = channel.stream_unary(path)
            assert refused(call, iter([])) == Refusal("INVALID_ARGUMENT", "INVALID_FIELD", ("request",))
