"""Where the client runs: after a fork, in a second event loop, behind a proxy, under a tracer."""

import asyncio
import os
import subprocess
import sys

import grpc
import pytest

from elman_client import AsyncClient, FailedPreconditionError, UnavailableError

_FORK = """
import os, sys, elman_client
client = elman_client.Client(sys.argv[1])
generation = client.create_session("tiny", session_id="mine").generate("a", max_chars=8)
text = next(generation)
if child := os.fork():
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, text + "".join(generation), len(client.list_models()))
else:
    for call in (client.list_models, generation.__next__):
        try:
            call()
        except elman_client.FailedPreconditionError as error:
            print(error, flush=True)
    with elman_client.Client(sys.argv[1]) as mine:
        print(len(mine.list_models(timeout=20)), flush=True)
"""


def test_a_fork_leaves_the_client_to_the_parent(server):
    """The child is told to make its own, which works; the parent's turn continues and keeps its text."""
    command = [sys.executable, "-c", _FORK, server.target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    told = "this client was made before a fork: make a new one in each process"
    assert done.stdout.splitlines() == [told, told, "2", "0 bcdefghi 2"]
    assert server.servicer.memories["sessions/mine"].text == "abcdefghi"


def test_a_second_event_loop_is_told(server):
    """An asyncio client belongs to the loop of its first call."""
    client = AsyncClient(server.target)
    asyncio.run(client.list_models())
    with pytest.raises(FailedPreconditionError, match="another event loop"):
        asyncio.run(client.list_models())


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "grpc_proxy"])
async def test_a_loopback_server_needs_no_proxy(connect, server, monkeypatch, name):
    """A proxy that the environment names is for other machines."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    for target in (server.target, server.target.replace("127.0.0.1", "localhost")):
        async with connect(target, retry_seconds=0) as client:
            assert await client.list_models(timeout=20)
    async with connect("192.0.2.1:50051") as client:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9"):
            await client.list_models(timeout=20)


_TRACED = """
import sys
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
GrpcInstrumentorClient().instrument()

import elman_client
with elman_client.Client(sys.argv[1]) as client, provider.get_tracer("mine").start_as_current_span("mine") as mine:
    session = client.create_session("tiny", session_id="mine")
    print("".join(session.generate("a", max_chars=12)))
    try:
        next(session.generate("€"))
    except elman_client.CharacterNotInVocabularyError as error:
        print(error)
    with session.generate("!", max_chars=900) as left:
        text = next(left)
    print(session.transcript().text == "abcdefghijklm!" + text)
    chat = session.chat()
    chat.say("a", max_chars=4)
    chat.end()
    print(len(list(chat.events())))
spans = [span for span in exporter.get_finished_spans() if span.name.endswith("/Generate")]
print({span.parent.span_id == mine.get_span_context().span_id for span in spans})
"""


def test_a_traced_client_works(server):
    """OpenTelemetry's interceptors: streams break and continue, fail with their errors, are left, and have spans."""
    server.servicer.cuts = [grpc.StatusCode.UNAVAILABLE]
    command = [sys.executable, "-c", _TRACED, server.target]
    environment = {**os.environ, "OTEL_SDK_DISABLED": "false"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["bcdefghijklm", "the model has no '€'", "True", "3", "{True}"]
