import asyncio
import contextlib
import http.client
import socket
import threading
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from elman_server.domain.errors import SettingsError
from elman_server.process.observe import endpoint as module
from elman_server.process.observe.collector import State, registry
from elman_server.process.observe.endpoint import MAX_CONNECTIONS, Endpoint


class Served:
    """An endpoint, and what the test lets it say."""

    def __init__(self) -> None:
        self.is_ready = False
        shown = registry(lambda: State(num_sessions=3, quotas={("ann", "sessions"): (2, 10)}))
        self.endpoint = Endpoint("127.0.0.1:0", shown, lambda: self.is_ready)

    async def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        """Return status, type and body."""
        return await asyncio.to_thread(self.get_now, path, method, headers)

    def get_now(self, path: str, method: str, headers: dict[str, str]) -> tuple[int, str, str]:
        """Ask from a thread of the caller's."""
        connection = http.client.HTTPConnection(self.endpoint.address, timeout=50)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
        finally:
            connection.close()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """An endpoint that listens."""
    served = Served()
    served.endpoint.start()
    yield served
    await served.endpoint.stop()


async def test_metrics_are_prometheus_text(served):
    """Prometheus' own parser reads them; each family has its help, and the process its memory."""
    status, kind, text = await served.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}

    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert {"elman_build_info", "elman_sessions", "elman_loop_lag_seconds", "process_resident_memory_bytes"} <= set(
        families
    )
    assert all(family.documentation for family in families.values())
    assert families["elman_sessions"].samples[0].value == 3
    assert families["elman_quota_limit"].samples[0].labels == {"principal": "ann", "quota": "sessions"}


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=1.0.0", "text/plain;version=x", "*/*", ""])
async def test_any_wish_for_a_format_is_answered(served, accept):
    """OpenMetrics for those who ask for it; what nobody knows gets the plain format."""
    status, kind, text = await served.get("/metrics", Accept=accept)

    assert status == 200
    assert text.endswith("# EOF\n") == ("openmetrics" in accept) == ("openmetrics" in kind)


async def test_health_and_readiness_are_two(served):
    """The server lives from the start; it is ready while health is SERVING."""
    assert (await served.get("/healthz"))[0] == 200
    assert (await served.get("/readyz"))[0] == 503
    served.is_ready = True
    assert (await served.get("/readyz")) == (200, "text/plain; charset=utf-8", "ready\n")
    assert (await served.get("/readyz", "HEAD"))[2] == ""


async def test_a_loop_that_hangs_is_not_healthy(served, monkeypatch):
    """While the event loop does not run, both answers are 503, though the thread answers."""
    monkeypatch.setattr(module, "LIVE_SECONDS", 0.05)
    answers: list[int] = []
    asking = threading.Thread(
        target=lambda: answers.extend(served.get_now(path, "GET", {})[0] for path in ("/healthz", "/readyz"))
    )
    asking.start()
    asking.join()  # which blocks the loop

    assert answers == [503, 503]


@pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 501)])
async def test_other_requests_are_refused(served, path, method, status):
    """There are three pages, to be read."""
    assert (await served.get(path, method))[0] == status


async def test_callers_that_send_nothing_do_not_stop_others(served):
    """Silent connections are few and closed in time; past their number new ones are closed, and later served again."""
    host, _, port = served.endpoint.address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(MAX_CONNECTIONS)]
    with pytest.raises((http.client.HTTPException, OSError)):
        await served.get("/healthz")
    for connection in silent:
        connection.close()

    for _ in range(1000):  # until the server has seen them leave
        with contextlib.suppress(http.client.HTTPException, OSError):
            assert (await served.get("/healthz"))[0] == 200
            return
    pytest.fail("nobody is served any more")


async def test_a_port_that_is_taken_is_told(served):
    """The sentence names the address and the flag."""
    other = Endpoint(served.endpoint.address, registry(State), lambda: True)
    with pytest.raises(SettingsError, match=r"cannot listen on 127\.0\.0\.1:\d+: .*--metrics-listen"):
        other.start()
