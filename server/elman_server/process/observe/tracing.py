"""Traces: one span a call, and below it the parts that take time; nothing unless `--open-telemetry` is on.

OpenTelemetry's own variables, `OTEL_EXPORTER_OTLP_ENDPOINT` and others, say where they are sent and how. Names and
attributes are those of its conventions for RPC.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from elman_server.domain.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from elman_server.process.observe.call import Call

TRACEPARENT: Final = "traceparent"
_TRACE: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
_SCOPE: Final = "elman_server"
_LAST_MILLISECONDS: Final = 2000  # for what is still to be sent at the end
# Codes with which the server says that it is at fault itself, by the conventions.
_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_nothing: Final = nullcontext()


class Tracing:
    """What sends spans and the times of calls; until `start` nobody does."""

    def __init__(self) -> None:
        self._api: Any = None
        self._tracer: Any = None
        self._providers: list[Any] = []
        self._seconds: Any = None

    @property
    def is_on(self) -> bool:
        """Whether anything is sent."""
        return self._tracer is not None

    def start(self) -> None:
        """Send from now on.

        Raises:
            SettingsError: the libraries are not installed.
        """
        try:
            self._api = importlib.import_module("opentelemetry.trace")
            metrics = importlib.import_module("opentelemetry.metrics")
            sdk = importlib.import_module("elman_server.process.observe.sdk")
        except ImportError as error:
            raise SettingsError("--open-telemetry needs more libraries: pip install 'elman[telemetry]'") from error
        self._providers = sdk.providers()
        self._tracer = self._api.get_tracer(_SCOPE)
        meter = metrics.get_meter(_SCOPE)
        self._seconds = meter.create_histogram("rpc.server.call.duration", "s", "Time of a call.")

    def stop(self) -> None:
        """Send what is left, and nothing more."""
        self._tracer = None
        for provider in self._providers:
            with contextlib.suppress(Exception):  # a collector that is not there holds up no stop
                provider.force_flush(_LAST_MILLISECONDS)
                provider.shutdown()
        self._providers = []

    def call(self, call: Call, parent: str) -> AbstractContextManager[None]:
        """Return what makes a span of a call; `parent` is its `traceparent`."""
        return _nothing if self._tracer is None else self._call(call, parent)

    def part(self, name: str, **attributes: Any) -> AbstractContextManager[None]:
        """Return what makes a span of a part of the present call."""
        return _nothing if self._tracer is None else self._part(name, attributes)

    @contextmanager
    def _call(self, call: Call, parent: str) -> Iterator[None]:
        service_method = call.method.removeprefix("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": service_method, "elman.request_id": call.request_id}
        context = self._remote(parent)
        kind = self._api.SpanKind.SERVER
        with self._tracer.start_as_current_span(
            service_method, context, kind, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            call.trace_id = f"{span.get_span_context().trace_id:032x}"
            try:
                yield
            finally:
                self._end(span, call, attributes)

    def _end(self, span: Any, call: Call, attributes: dict[str, str]) -> None:
        outcome = {"rpc.response.status_code": call.code}
        found = {"elman.session": call.session, "elman.model": call.model, "enduser.id": call.principal}
        found |= {"error.type": call.reason or call.code if call.code in _FAULTS else "", "elman.finish": call.finish}
        counts = {"elman.characters.read": call.num_read, "elman.characters.sampled": call.num_sampled}
        span.set_attributes(outcome | {name: value for name, value in found.items() if value} | counts)
        if call.code in _FAULTS:
            span.set_status(self._api.StatusCode.ERROR, call.reason)
        labels = {name: attributes[name] for name in ("rpc.system.name", "rpc.method")} | outcome
        self._seconds.record(time.monotonic() - call.begin, labels)

    @contextmanager
    def _part(self, name: str, attributes: dict[str, Any]) -> Iterator[None]:
        # Not the current span: a stream's part is open while its generator rests, and other code runs.
        with self._tracer.start_span(name, attributes=attributes):
            yield

    def _remote(self, parent: str) -> Any:
        """Return the context of a caller's span; None if it has none."""
        found = _TRACE.fullmatch(parent)
        if found is None:
            return None
        flags = self._api.TraceFlags(int(parent[-2:], 16))
        remote = self._api.SpanContext(int(found[1], 16), int(found[2], 16), is_remote=True, trace_flags=flags)
        return self._api.set_span_in_context(self._api.NonRecordingSpan(remote))


def trace_id(parent: str) -> str:
    """Return the trace that a `traceparent` names; "" if it is none."""
    found = _TRACE.fullmatch(parent)
    return found[1] if found else ""


TRACING: Final = Tracing()
