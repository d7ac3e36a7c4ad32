"""How a real server ends, and what its sessions and callers see of it."""

import os
import signal
from typing import Any, Final

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from elman.v1 import generation_pb2 as messages
from elman.v1.session_pb2 import Session
from elman_client import Client, DeadlineExceededError, FinishReason, UnavailableError
from tests.e2e.wire import PATIENCE, PROMPT, Refusal, Wire, begin, held, one_shot, refused, text_of, wire_to
from tests.server_process import ServerProcess, wait_until_gone

_ENDLESS: Final = 10**9
_SERVICES: Final = ("", "elman.v1.SessionService", "elman.v1.GenerationService", "elman.v1.ModelService")


def watch(wire: Wire) -> Any:
    """Follow the server's health; the first answer has been SERVING."""
    changes = HealthStub(wire.channel).Watch(HealthCheckRequest(), timeout=PATIENCE)
    assert next(changes).status == HealthCheckResponse.SERVING
    return changes


def test_a_stop_lets_running_turns_finish(models):
    """SIGTERM turns health, refuses new turns, lets the running one come to its end, and exits 0."""
    with ServerProcess(models) as process, wire_to(process.address) as wire:
        changes, name = watch(wire), wire.session()
        call = begin(wire, held(name))
        process.terminate()

        assert next(changes).status == HealthCheckResponse.NOT_SERVING
        assert refused(wire.generate, one_shot()) == Refusal("UNAVAILABLE", "DRAINING", retry=True)
        rest = list(call)
        assert rest[-1].finished.usage.generated_chars == 2000
        assert process.wait() == 0
        assert process.engines() == []


def test_a_stop_ends_turns_after_the_grace(models):
    """A turn that goes on after the grace ends with SERVER_DRAINING and keeps what it has handed over."""
    with (
        ServerProcess(models, "--grace-seconds", "0.2", "--max-chars", str(_ENDLESS)) as process,
        Client(process.address, timeout=PATIENCE, retry_seconds=0) as client,
    ):
        session = client.create_session("gru")
        turn = session.generate(PROMPT)
        text = next(turn)
        process.terminate()
        text += "".join(turn)

        assert turn.finished.finish_reason is FinishReason.SERVER_DRAINING
        assert turn.finished.position == len(PROMPT) + len(text)
        assert process.wait() == 0


def test_a_second_signal_ends_at_once(models):
    """A server that waits for its turns leaves at the second signal, and takes its engines with it."""
    with ServerProcess(models, "--grace-seconds", "3600") as process, wire_to(process.address) as wire:
        changes, engines = watch(wire), process.engines()
        _kept = begin(wire, held(wire.session()))  # gRPC cancels a call that nobody has
        process.terminate()
        assert next(changes).status == HealthCheckResponse.NOT_SERVING
        process.terminate()

        assert process.wait() == 128 + signal.SIGTERM
        assert len(engines) == 5
        wait_until_gone(engines)


def test_a_killed_server_leaves_no_engine(models):
    """SIGKILL of the server ends its engines: they go when their socket closes."""
    with ServerProcess(models) as process:
        engines = process.engines()
        os.kill(process.pid, signal.SIGKILL)

        assert process.wait() == -signal.SIGKILL
        assert len(engines) == 5
        wait_until_gone(engines)


def test_a_killed_engine_costs_only_its_running_streams(models):
    """They end with UNAVAILABLE, another engine is started, and sessions at rest go on bit for bit."""
    with (
        ServerProcess(models, "--max-chars", str(_ENDLESS)) as process,
        wire_to(process.address) as wire,
        Client(process.address, timeout=PATIENCE, retry_seconds=0) as client,
    ):
        whole, resting, running = (client.create_session("gru", seed=3) for _ in range(3))
        expected = "".join(whole.generate(PROMPT, max_chars=200))
        before = "".join(resting.generate(PROMPT, max_chars=100))
        turn = running.generate(PROMPT)
        text = next(turn)
        for engine in process.engines():
            os.kill(engine, signal.SIGKILL)

        with pytest.raises(UnavailableError) as caught:
            list(turn)
        assert caught.value.reason == "ENGINE_RESTARTED"
        assert caught.value.retry_after
        process.log.wait_for('"model": "gru", "event": "engine_restarted"')
        assert before + "".join(resting.generate(max_chars=100)) == expected
        assert resting.refresh().state_digest == whole.refresh().state_digest
        kept = running.cancel().position
        assert kept >= len(PROMPT) + len(text)
        assert running.transcript().text.startswith(PROMPT + text)
        assert len(text_of(wire.generate(one_shot()))) == 20


def test_a_deadline_keeps_what_was_handed_over(server_process):
    """Whoever noticed it first, the call fails in one way, and the session holds what the caller has."""
    with Client(server_process.address) as client:
        session = client.create_session("gru")
        turn = session.generate(PROMPT, timeout=1, top_n=20)
        text = ""
        with pytest.raises(DeadlineExceededError):  # noqa: PT012  the text until then counts
            for more in turn:
                text += more

        assert 0 < len(text) < 100_000
        assert session.transcript(timeout=PATIENCE).text == PROMPT + text


def test_cancelled_turns_free_their_rows(odd_server):
    """After more turns than there are rows were cancelled, 300 others come to their end."""
    with wire_to(odd_server.address) as wire, wire_to(odd_server.address) as other:
        for name in [wire.session() for _ in range(12)]:
            turn: Any = wire.generation.Generate(held(name), timeout=PATIENCE)
            assert next(turn).HasField("started")
            cancelled = other.generation.Cancel(messages.CancelRequest(session=name), timeout=PATIENCE).session
            assert cancelled.state == Session.STATE_ACTIVE
        running = [other.generation.Generate(one_shot(), timeout=PATIENCE) for _ in range(300)]
        assert {len(text_of(list(call))) for call in running} == {20}


def test_health_is_told_for_each_service(server_process, wire):
    """Check says SERVING for the server and each of its services, and NOT_FOUND for others."""
    assert {server_process.health(service) for service in _SERVICES} == {"SERVING"}
    request = HealthCheckRequest(service="elman.v1.Nothing")
    with pytest.raises(grpc.RpcError) as caught:
        HealthStub(wire.channel).Check(request, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
