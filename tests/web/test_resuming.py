"""Streams that break anywhere and continue: the joined text is the whole one."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.server_process import PATIENCE, ServerProcess
from tests.web.process import WebProcess

NUM_STREAMS = 100
MAX_CHARS = 60
HTTP = httpx2.Client(trust_env=False, timeout=PATIENCE)  # a stream that is left ends its connection


@pytest.fixture(scope="module", autouse=True)
def _closed():
    yield
    HTTP.close()


class Reader:
    """A reader of one answer, as a careful client is: whole events only, and Last-Event-ID after a break."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self._url, self._body = url, body
        self._last = ""
        self.texts: dict[int, str] = {}
        self.is_done = False

    def read(self, num_bytes: float = float("inf")) -> None:
        """Connect, read up to some bytes, and break the connection."""
        headers = {"last-event-id": self._last} if self._last else {}
        with HTTP.stream("POST", self._url, json=self._body, headers=headers) as response:
            assert response.status_code == 200, response.read()
            known, num_read = b"", 0
            for piece in response.iter_raw():
                known += piece[: max(0, int(min(num_bytes - num_read, len(piece))))]
                num_read += len(piece)
                *events, known = known.split(b"\n\n")
                for event in events:
                    self._take(event.decode())
                if num_read >= num_bytes:
                    return

    def _take(self, event: str) -> None:
        for line in event.split("\n"):
            field, _, value = line.partition(": ")
            if field == "id":
                self._last = value
            elif value == "[DONE]":
                self.is_done = True
            elif field == "data":
                for choice in json.loads(value)["choices"]:
                    text = choice["text"] if "text" in choice else choice["delta"].get("content", "")
                    self.texts[choice["index"]] = self.texts.get(choice["index"], "") + text


def test_a_hundred_streams_that_break_give_the_whole_text(web):
    """Cut at random bytes again and again, with sessions and without, not one character differs."""
    with ThreadPoolExecutor(4) as pool:
        differing = sum(pool.map(lambda seed: _num_differing(web.url, seed), range(NUM_STREAMS)))
    assert differing == 0


def _num_differing(url: str, seed: int) -> int:
    chance = random.Random(seed)
    body: dict[str, Any] = {
        "model": chance.choice(["lstm", "gru", "bytes"]),
        "prompt": "To be",
        "seed": seed,
        "max_tokens": MAX_CHARS,
        "stream": True,
        "chunk_chars": chance.choice([1, 7, 50]),
    }
    path = "completions"
    kind = chance.choice(["text", "texts", "session", "chat"])
    if kind == "texts":
        body["n"] = 3
    elif kind == "session":
        body |= {"session": "new", "stop": ["xyz"], "logprobs": 2}
    elif kind == "chat":
        path = "chat/completions"
        body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
    whole = Reader(f"{url}/v1/{path}", body)
    whole.read()
    broken = Reader(f"{url}/v1/{path}", body)
    while not broken.is_done:
        broken.read(chance.randrange(1_000, 12_000))
    assert whole.is_done
    assert whole.texts.keys() == broken.texts.keys()
    pairs = [(whole.texts[index], broken.texts[index]) for index in whole.texts]
    return sum(a != b for one, other in pairs for a, b in zip(one.ljust(9999), other.ljust(9999), strict=True))


def test_streams_survive_the_death_of_the_web_process(server_process):
    """After kill -9 of the web process a new one continues a session's turn and a text without a session."""
    body = {"model": "lstm", "prompt": "A", "seed": 5, "max_tokens": 1000, "stream": True}
    with WebProcess(server_process.address) as first:
        url = f"{first.url}/v1/completions"
        broken = Reader(url, {**body, "session": "new"}), Reader(url, body)
        for reader in broken:
            reader.read(5_000)
        port = int(first.url.rpartition(":")[2])
    with WebProcess(server_process.address, port=port):
        whole = Reader(url, body)
        for reader in (whole, *broken):
            reader.read()
    assert [reader.is_done for reader in broken] == [True, True]
    assert [reader.texts for reader in broken] == [whole.texts, whole.texts]


def test_a_stream_survives_the_death_of_the_server(lstm, tmp_path):
    """The server is killed in the middle of a stream and started again: the reader sees a pause."""
    store = ["--store", f"sqlite:{tmp_path / 'sessions.db'}"]
    body = {"model": "lstm", "prompt": "A", "seed": 5, "max_tokens": 5000, "stream": True, "session": "new"}
    with ServerProcess(lstm, *store) as server:
        address = server.address
        with WebProcess(address) as web:
            whole = Reader(f"{web.url}/v1/completions", body)
            whole.read()
            with HTTP.stream("POST", f"{web.url}/v1/completions", json=body) as response:
                events = response.iter_lines()
                lines = [next(events) for _ in range(6)]  # of some hundred events
                server.kill()
                with ServerProcess(lstm, *store, "--listen", address):
                    lines += events
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert lines[-2:] == ["data: [DONE]", ""]
    assert "".join(each["choices"][0]["text"] for each in data) == whole.texts[0]


def test_a_turn_is_delivered_again(http):
    """The same request with the same request_id does not generate twice."""
    name = http.post("/v1/sessions", json={"model": "lstm"}).raise_for_status().json()["name"]
    body = {"model": "lstm", "session": name, "prompt": "A", "max_tokens": 50, "request_id": str(uuid4())}
    first, second = (http.post("/v1/completions", json=body).json() for _ in range(2))
    assert first["choices"] == second["choices"]
    assert http.get(f"/v1/{name}").json()["position"] == 51


@pytest.mark.parametrize(
    "last_event_id", ["x", "text-1-0000000000000000@3", "turn-00000000-0000-0000-0000-000000000000-some@", "é" * 9]
)
def test_an_id_of_something_else_is_refused(http, last_event_id):
    """An id that no event of the same request had is an error, and not another text."""
    body = {"model": "lstm", "stream": True}
    answer = http.post("/v1/completions", json=body, headers={"last-event-id": last_event_id.encode()})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_EVENT_ID")
