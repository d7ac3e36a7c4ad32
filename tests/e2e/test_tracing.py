"""Traces of a real server, by its own setting and by OpenTelemetry's command."""

import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from elman.v1.generation_pb2 import GenerateRequest
from elman.v1.generation_pb2_grpc import GenerationServiceStub
from elman_client import Client, ElmanError, Finished
from tests.otlp import Collector, attributes
from tests.server_process import ServerProcess, refused_start

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GENERATE = "elman.v1.GenerationService/Generate"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that listens."""
    with Collector() as collector:
        yield collector


def variables(collector: Collector) -> dict[str, str]:
    """Return what tells a program where to send its spans, soon."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_SDK_DISABLED": "false",
    }


def use(server: ServerProcess) -> None:
    """Let streams end, fail and be left."""
    with Client(server.address) as client:
        session = client.create_session("lstm")
        assert len("".join(session.generate("a", max_chars=50))) == 50
        with pytest.raises(ElmanError, match="not in the vocabulary"):
            "".join(session.generate("€"))
        with session.generate("a", max_chars=5000) as left:
            text = next(left)
        assert session.transcript().text.endswith(text)
        chat = session.chat()
        chat.say("a", max_chars=4)
        chat.end()
        assert isinstance(list(chat.events())[-1], Finished)


def test_a_call_is_a_span_with_its_parts(collector, lstm, tmp_path):
    """It continues its caller's trace and has the names of the conventions; store, engine and stream are below it."""
    flags = ("--open-telemetry", "true", "--store", f"sqlite:{tmp_path}/sessions.db")
    with ServerProcess(lstm, *flags, **variables(collector)) as server:
        with Client(server.address) as client:
            name = client.create_session("lstm").name
        with grpc.insecure_channel(server.address) as channel:
            request = GenerateRequest(session=name, prompt="ab")
            request.stopping.max_chars = 20
            call = GenerationServiceStub(channel).Generate(
                request, metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),)
            )
            list(call)
        server.log.wait_for(rf'/Generate".*"trace_id":"{TRACE}"')
        server.terminate()
        assert server.wait() == 0
    spans = collector.wait_for(lambda spans: any(span.name == GENERATE for span in spans))
    own = next(span for span in spans if span.name == GENERATE)
    parts = {span.name for span in spans if span.parent_span_id == own.span_id}

    assert (own.trace_id.hex(), own.parent_span_id.hex(), own.kind) == (TRACE, PARENT, 2)  # SPAN_KIND_SERVER
    assert (
        attributes(own).items()
        >= {
            "rpc.system.name": "grpc",
            "rpc.method": GENERATE,
            "rpc.response.status_code": "OK",
            "elman.model": "lstm",
            "elman.characters.sampled": 20,
            "elman.characters.read": 2,
            "elman.finish": "max_chars",
        }.items()
    )
    assert {"store load", "engine first output", "stream", "store commit"} <= parts
    assert "rpc.server.call.duration" in collector.metrics


def test_a_server_under_opentelemetrys_command_breaks_no_stream(collector, lstm):
    """`opentelemetry-instrument` wraps every handler: streams end, fail and are left as without it, and have spans."""
    launcher = [str(Path(sys.executable).with_name("opentelemetry-instrument"))]
    with ServerProcess(lstm, launcher=launcher, OTEL_METRICS_EXPORTER="none", **variables(collector)) as server:
        use(server)
        spans = collector.wait_for(lambda spans: sum(span.name.endswith("/Generate") for span in spans) >= 3)
        server.terminate()
        assert server.wait() == 0

    codes = sorted(attributes(span)["rpc.grpc.status_code"] for span in spans if span.name.endswith("/Generate"))
    assert codes[-1] == 3  # INVALID_ARGUMENT
    assert '"level": "error"' not in server.log.text
    assert '"level":"error"' not in server.log.text


def test_missing_libraries_are_a_sentence(lstm, tmp_path):
    """One line says which extra brings them."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry.sdk'] = None\n")
    code, lines = refused_start(
        *("--models", str(lstm), "--listen", "127.0.0.1:0", "--open-telemetry", "true"), PYTHONPATH=str(tmp_path)
    )

    assert code == 1
    assert lines == ["elman-server: --open-telemetry needs more libraries: pip install 'elman[telemetry]'"]
