"""A collector of OpenTelemetry: what programs send there can be waited for."""

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from tests.server_process import PATIENCE


class Collector(TraceServiceServicer, MetricsServiceServicer):
    """Takes spans and metrics from its start to its end.

    Attributes:
        endpoint: as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
        metrics: the names that came.
    """

    def __init__(self) -> None:
        self.metrics: set[str] = set()
        self._spans: list[Any] = []
        self._changed = threading.Condition()
        self._server = grpc.server(futures.ThreadPoolExecutor(2))
        add_TraceServiceServicer_to_server(self, self._server)
        add_MetricsServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  both services call it so
        """Take what a program sends."""
        del context
        with self._changed:
            if hasattr(request, "resource_spans"):
                self._take_spans(request)
                self._changed.notify_all()
                return ExportTraceServiceResponse()
            self._take_metrics(request)
            return ExportMetricsServiceResponse()

    def _take_spans(self, request: Any) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self._spans += scope.spans

    def _take_metrics(self, request: Any) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self.metrics |= {metric.name for metric in scope.metrics}

    def wait_for(self, is_enough: Callable[[list[Any]], bool]) -> list[Any]:
        """Return the spans, once there are enough."""
        with self._changed:
            assert self._changed.wait_for(lambda: is_enough(self._spans), PATIENCE), self._spans
            return list(self._spans)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


def attributes(span: Any) -> dict[str, Any]:
    """Return a span's attributes as plain values."""
    return {entry.key: getattr(entry.value, entry.value.WhichOneof("value")) for entry in span.attributes}
