import re

from elman.v1.session_pb2 import GetSessionRequest
from elman_client import Client
from tests.chaos.cluster import until
from tests.e2e.wire import PATIENCE, PROMPT, wire_to
from tests.server_process import PATIENCE as LONG


def test_any_server_serves_any_session(cluster) -> None:
    """A turn that was taken through Envoy is there at every server, and each goes on with the same text."""
    texts = set()
    with Client(cluster.address, timeout=PATIENCE) as client:
        session = client.create_session("gru", session_id="shared", seed=5)
        first = "".join(session.generate(PROMPT, max_chars=200))
        for replica in cluster.replicas:
            with Client(f"127.0.0.1:{replica.port}", timeout=PATIENCE) as direct:
                mine = direct.session("shared")
                assert mine.transcript().text == PROMPT + first
                texts.add("".join(mine.generate(max_chars=100)))
                mine.rewind(len(PROMPT) + 200)
        session.delete()
    assert len(texts) == 1


def test_a_session_stays_at_its_server(cluster) -> None:
    """Calls with one `x-session-id` go to one server, and the sessions are spread over all of them."""
    with Client(cluster.address, timeout=PATIENCE) as client, wire_to(cluster.address) as wire:
        client.create_session("gru", session_id="sticky")
        for number in range(30):
            for call in range(3):
                metadata = (("x-session-id", f"s{number}"), ("x-request-id", f"sticky-{number}-{call}"))
                wire.sessions.GetSession(GetSessionRequest(name="sessions/sticky"), timeout=LONG, metadata=metadata)
        client.session("sticky").delete()

    def calls() -> list[set[tuple[str, str]]]:
        return [set(re.findall(r"sticky-(\d+)-(\d)", replica.log)) for replica in cluster.replicas]

    until(lambda: sum(map(len, calls())) == 90)  # logs are written a little later
    found = calls()
    assert all(found)
    assert sum(len({number for number, _ in each}) for each in found) == 30
