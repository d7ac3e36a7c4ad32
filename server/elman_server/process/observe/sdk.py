"""OpenTelemetry's own providers; imported only where they are wanted."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def providers() -> list[Any]:
    """Set up what sends spans and metrics by OTLP, and return it; keep what the process was started with, if anything.

    `opentelemetry-instrument` has its own.
    """
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return []
    own = Resource.create({"service.name": "elman-server", SERVICE_VERSION: version("elman")})
    resource = own.merge(OTELResourceDetector().detect())  # OTEL_SERVICE_NAME wins
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)
    meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource)
    metrics.set_meter_provider(meters)
    return [tracers, meters]
