import os
import subprocess
import sys

import grpc

_TRACED = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
import elman_client

def sync():
    with elman_client.Client(sys.argv[1]) as client:
        session = client.create_session("tiny", session_id="mine")
        assert "".join(session.generate("a", max_chars=12)) == "bcdefghijklm"
        try:
            next(session.generate("€"))
        except elman_client.CharacterNotInVocabularyError:
            pass
        with session.generate("!", max_chars=900) as left:
            next(left)
        session.delete()

async def asynchronous():
    async with elman_client.AsyncClient(sys.argv[1]) as client:
        session = await client.create_session("tiny", session_id="mine")
        assert "".join([text async for text in session.generate("a", max_chars=12)]) == "bcdefghijklm"
        try:
            await anext(session.generate("€"))
        except elman_client.CharacterNotInVocabularyError:
            pass
        async with session.generate("!", max_chars=900) as left:
            await anext(left)
        await session.delete()

for run in (sync, lambda: asyncio.run(asynchronous())):
    exporter.clear()
    with provider.get_tracer("mine").start_as_current_span("mine") as mine:
        run()
    spans = [span for span in exporter.get_finished_spans() if span.name.endswith(("/Generate", "/Resume"))]
    codes = [span.attributes["rpc.response.status_code"] for span in spans]
    print(sorted("OK" if code == "CANCELLED" else code for code in codes))  # of a stream left: which comes first
    print({(span.parent.span_id == mine.get_span_context().span_id, span.kind.name) for span in spans})
    print({span.attributes["rpc.system.name"] + str(span.attributes["server.port"] > 0) for span in spans})
"""


def test_each_call_of_both_clients_is_a_span(server):
    """A program that has set OpenTelemetry up gets a span a call: of its end, a broken try, an error, a stream left."""
    server.servicer.cuts = [grpc.StatusCode.UNAVAILABLE]
    environment = {**os.environ, "OTEL_SDK_DISABLED": "false"}
    done = subprocess.run(
        [sys.executable, "-c", _TRACED, server.target],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )

    of_one = ["['INVALID_ARGUMENT', 'OK', 'OK', 'UNAVAILABLE']", "['INVALID_ARGUMENT', 'OK', 'OK']"]
    rest = ["{(True, 'CLIENT')}", "{'grpcTrue'}"]
    assert (done.stderr, done.stdout.splitlines()) == ("", [of_one[0], *rest, of_one[1], *rest])


def test_the_client_imports_no_opentelemetry(server):
    """A program without it does not wait for its import, though it is installed."""
    program = """
import sys
import elman_client
assert "opentelemetry" not in sys.modules
with elman_client.Client(sys.argv[1]) as client:
    client.list_models()
"""
    subprocess.run([sys.executable, "-c", program, server.target], timeout=60, check=True)
