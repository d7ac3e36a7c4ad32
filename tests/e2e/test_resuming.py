"""Real servers that are killed, drained and replaced under a client that reads: it sees one text."""

import asyncio
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from elman.v1 import generation_pb2 as messages
from elman_client import AsyncClient, Chunk, Client, ElmanError, FinishReason, InvalidArgumentError
from tests.e2e.wire import PATIENCE, PROMPT, wire_to
from tests.redis_process import RedisProcess, free_port
from tests.server_process import ServerProcess
from tests.services import need

LENGTH = 2000
QUICK = ("--commit-seconds", "0.05", "--commit-chars", "200", "--lease-seconds", "1")


@pytest.fixture(scope="module")
def expected(server_process) -> tuple[str, str]:
    """The text and the state that an undisturbed run gives."""
    with Client(server_process.address, timeout=PATIENCE) as client:
        turn = client.create_session("lstm", seed=3).generate(PROMPT, max_chars=LENGTH)
        return "".join(turn), turn.finished.state_digest


class Restarted:
    """A server that is killed again and again, and started on the same port and store."""

    def __init__(self, models: Path, folder: Path) -> None:
        self._models, self.address = models, f"127.0.0.1:{free_port()}"
        self._flags = ("--store", f"sqlite:{folder / 'sessions.db'}", "--listen", self.address, *QUICK)
        self.process = ServerProcess(models, *self._flags)

    def kill(self) -> None:
        """SIGKILL, and a new one."""
        self.process.kill()
        self.process = ServerProcess(self._models, *self._flags)

    def lose_engine(self) -> None:
        """SIGKILL of the engine alone, which the server starts again."""
        for engine in self.process.engines():
            os.kill(engine, signal.SIGKILL)

    def drain(self) -> None:
        """SIGTERM without grace, and a new one."""
        self.process.terminate()
        assert self.process.wait() == 0
        self.process = ServerProcess(self._models, *self._flags)


@pytest.mark.parametrize("way", ["kill", "drain", "lose_engine"])
def test_a_text_survives_its_server(lstm, expected, tmp_path, way):
    """5: killed or drained twice in the middle of a turn, the reader of the iterator sees one text."""
    server = Restarted(lstm, tmp_path)
    try:
        with Client(server.address, timeout=PATIENCE, retry_seconds=PATIENCE) as client:
            session = client.create_session("lstm", session_id="mine", seed=3)
            turn = session.generate(PROMPT, max_chars=LENGTH, chunk_chars=20)
            text, breaks = "", iter((400, 1200, LENGTH + 1))
            at = next(breaks)
            for piece in turn:
                text += piece
                if len(text) >= at:
                    at = next(breaks)
                    getattr(server, way)()
            assert text == expected[0]
            assert turn.finished.finish_reason is FinishReason.MAX_CHARS
            assert turn.finished.state_digest == expected[1]
            info = session.refresh()
            assert (info.turn_count, info.position, info.etag) == (1, len(PROMPT) + LENGTH, turn.finished.etag)
            assert session.transcript().text == PROMPT + text
            assert [replayed.is_equal for replayed in session.replay()] == [True]
    finally:
        server.process.kill()


async def test_many_readers_survive_a_kill(lstm, expected, tmp_path):
    """Sixteen streams at once, sync or async alike: all finish with the text of an undisturbed run."""
    server = Restarted(lstm, tmp_path)
    killed = threading.Event()

    async def read(client: AsyncClient) -> str:
        session = await client.create_session("lstm", seed=3)
        text = ""
        async for piece in session.generate(PROMPT, max_chars=LENGTH, chunk_chars=50):
            text += piece
            if len(text) > 600 and not killed.is_set():
                killed.set()
                await asyncio.to_thread(server.kill)
        return text

    try:
        async with AsyncClient(server.address, timeout=PATIENCE, retry_seconds=PATIENCE) as client:
            texts = await asyncio.gather(*(read(client) for _ in range(16)))
        assert set(texts) == {expected[0]}
    finally:
        server.process.kill()


def test_the_contract_on_the_wire(server_process: ServerProcess):
    """Resume, ids, committed positions, fork, rewind, export and import, through the real server."""
    with Client(server_process.address, timeout=PATIENCE) as client:
        session, request_id = client.create_session("gru", seed=4), str(uuid.uuid4())
        turn = session.generate(PROMPT, max_chars=100, request_id=request_id)
        text = "".join(turn)
        again = session.generate(PROMPT, max_chars=100, request_id=request_id)
        assert "".join(again) == text
        assert again.finished == turn.finished
        assert "".join(session.resume(request_id, len(PROMPT) + 60)) == text[60:]
        with pytest.raises(InvalidArgumentError, match="another request"):
            "".join(session.generate("x", request_id=request_id))
        (recorded,) = session.transcript().turns
        assert (recorded.request_id, recorded.seed) == (request_id, 4)
        assert recorded.sampling == turn.started.sampling
        assert recorded.fingerprint == client.get_model("gru").fingerprint

        (fork,) = session.fork(len(PROMPT) + 30)
        assert "".join(fork.generate(max_chars=70)) == text[30:]
        assert fork.refresh().state_digest == turn.finished.state_digest
        restored = client.import_session(session.export())
        assert restored.info.state_digest == turn.finished.state_digest
        damaged = bytearray(session.export())
        damaged[-5] ^= 1
        with pytest.raises(InvalidArgumentError, match="damaged"):
            client.import_session(bytes(damaged))
        session.rewind(len(PROMPT))
        assert "".join(session.generate(max_chars=100)) == text


def test_chat_is_interrupted_on_the_wire(server_process: ServerProcess):
    """A turn that comes while one is running ends it, through the real stack and the blocking client."""
    with Client(server_process.address, timeout=PATIENCE) as client:
        session = client.create_session("gru", seed=4)
        with session.chat() as chat:
            chat.say(PROMPT, max_chars=100_000)
            events = chat.events()
            kinds = [type(next(events)).__name__ for _ in range(3)]
            chat.say("x", max_chars=5)
            chat.end()
            ends = [event.finish_reason for event in events if hasattr(event, "finish_reason")]
        assert kinds == ["Started", "Chunk", "Chunk"]
        assert ends == [FinishReason.CANCELLED, FinishReason.MAX_CHARS]
        with session.chat() as chat:
            chat.say("€")
            with pytest.raises(ElmanError, match="vocabulary"):
                list(chat.events())


def test_a_second_stream_of_one_turn_takes_it_over(server_process: ServerProcess):
    """LEASE_LOST ends the first, with ABORTED, and the second has the whole text."""
    with wire_to(server_process.address) as wire, Client(server_process.address, timeout=PATIENCE) as client:
        session, request_id = client.create_session("gru"), str(uuid.uuid4())
        request = messages.GenerateRequest(
            session=session.name,
            prompt=PROMPT,
            stopping=messages.Stopping(max_chars=20_000),
            request_id=request_id,
        )
        first = wire.generation.Generate(request, timeout=PATIENCE)
        next(first)
        second = session.resume(request_id)
        assert len("".join(second)) == 20_000
        with pytest.raises(grpc.RpcError) as lost:
            list(first)
        assert lost.value.code() in {grpc.StatusCode.ABORTED, grpc.StatusCode.CANCELLED}
        assert session.refresh().turn_count == 1


@pytest.fixture
def redis(tmp_path) -> Iterator[RedisProcess]:
    """A Redis for servers to share."""
    need("redis-server", is_there=shutil.which("redis-server") is not None)
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisProcess(folder) as process:
        yield process


@pytest.mark.parametrize("fate", ["killed", "paused"])
def test_another_server_goes_on(lstm, expected, redis, fate):
    """5 and 6: a turn whose server is killed or paused goes on at another; the one that comes back writes nothing."""
    store = ("--store", redis.url, *QUICK)
    with (
        ServerProcess(lstm, *store) as one,
        ServerProcess(lstm, *store) as other,
        Client(one.address, timeout=PATIENCE, retry_seconds=0) as here,
        Client(other.address, timeout=PATIENCE, retry_seconds=0) as there,
    ):
        here.create_session("lstm", session_id="mine", seed=3)
        request_id = str(uuid.uuid4())
        turn = here.session("mine").generate(PROMPT, max_chars=LENGTH, chunk_chars=20, request_id=request_id)
        text, position = "", 0
        for event in turn.events():
            if isinstance(event, Chunk):
                text, position = text + event.text, event.position
                if event.committed_position > 0 and len(text) > 300:
                    break
        os.kill(one.pid, signal.SIGKILL if fate == "killed" else signal.SIGSTOP)
        assert there.get_session("mine").info.position == 0
        rest = there.session("mine").resume(request_id, position)
        assert text + "".join(rest) == expected[0]
        assert rest.finished.state_digest == expected[1]
        assert "".join(there.session("mine").generate("x", max_chars=5)) != ""
        after = there.session("mine").refresh()
        if fate == "paused":
            os.kill(one.pid, signal.SIGCONT)
            with pytest.raises(ElmanError) as lost:
                list(turn.events())
            assert lost.value.reason == "LEASE_LOST"
        assert there.session("mine").refresh() == after
        assert after.turn_count == 2
