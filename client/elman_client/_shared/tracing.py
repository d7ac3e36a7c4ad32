"""OpenTelemetry: a span for each sent call, where the program has set it up; otherwise nothing.

Names and attributes are those of its conventions for RPC. The server continues the trace: `traceparent` goes along.
"""

import sys
from typing import Any

_SCOPE = "elman_client"


class Span:
    """The span of one call, or of none."""

    __slots__ = ("_span", "header")

    def __init__(self, path: str, target: str, request_id: str) -> None:
        self._span: Any = None
        self.header: tuple[tuple[str, str], ...] = ()
        # Not imported: a program that has not done so itself sends no spans, and need not wait for the import.
        api = sys.modules.get("opentelemetry.trace")
        if api is None:
            return
        method = path.removeprefix("/")
        attributes: dict[str, str | int] = {
            "rpc.system.name": "grpc",
            "rpc.method": method,
            "elman.request_id": request_id,
        }
        host, _, port = target.rpartition(":")
        if port.isdecimal():
            attributes |= {"server.address": host.rpartition("/")[2], "server.port": int(port)}
        span: Any = api.get_tracer(_SCOPE).start_span(method, kind=api.SpanKind.CLIENT, attributes=attributes)
        context = span.get_span_context()
        if context.is_valid:
            self._span = span
            parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
            self.header = (("traceparent", parent),)

    def end(self, code: str = "OK") -> None:
        """Note how the call ended; a second time does nothing."""
        span, self._span = self._span, None
        if span is None:
            return
        span.set_attribute("rpc.response.status_code", code)
        if code != "OK":
            span.set_attribute("error.type", code)
            span.set_status(sys.modules["opentelemetry.trace"].StatusCode.ERROR)
        span.end()
