"""What the door refuses, each with one sentence, and readers that misbehave."""

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from click.testing import CliRunner

from elman_client import AsyncClient, SessionBusyError
from elman_web.__main__ import main
from elman_web.app import build
from elman_web.settings import Settings
from tests.server_process import PATIENCE
from tests.web.process import WebProcess

OK = {"model": "lstm", "prompt": "To be", "max_tokens": 5}
CHAT = {"model": "lstm", "messages": [{"role": "user", "content": "To"}]}
SCRIPT = "<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({**OK, "n": 1000}, "n", "less than or equal to 16"),
        ({**OK, "max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({**OK, "max_tokens": "5"}, "max_tokens", "valid integer"),
        ({**OK, "max_tokens": 10**30}, "max_tokens", "less than"),
        ({**OK, "temperature": -1}, "temperature", "greater than or equal to 0"),
        ({**OK, "top_p": 0}, "top_p", "greater than 0"),
        ({**OK, "prompt": [1, 2]}, "prompt", "valid string"),
        ({**OK, "prompt": []}, "prompt", "at least 1"),
        ({**OK, "prompt": "\ud800"}, None, "lone surrogate"),
        ({**OK, "suffix": "x"}, "suffix", "reads in one direction"),
        ({**OK, "best_of": 3}, "best_of", "choose yourself"),
        ({**OK, "presence_penalty": 1}, "presence_penalty", "repetition_penalty"),
        ({**OK, "user": "me"}, "user", "does not know the field"),
        ({**OK, "logit_bias": {"e": 101}}, "logit_bias.e", "less than or equal to 100"),
        ({**OK, "logit_bias": {"50256": -100}}, "sampling.logit_bias[0].character", "of 5 characters; allowed is one"),
        ({**OK, "session": "new", "n": 2}, None, "fork the session"),
        ({**OK, "prompt": ["a"] * 9, "n": 2}, None, "at most 16"),
        ({**OK, "max_tokens": 0}, None, "echo"),
        ({**CHAT, "tools": [{"type": "function"}]}, "tools", "call no tools"),
        ({**CHAT, "messages": []}, "messages", "at least 1"),
        ({**CHAT, "messages": [{"role": "robot", "content": ""}]}, "messages.0.role", "'system'"),
        ({**CHAT, "top_logprobs": 3}, None, "needs logprobs"),
    ],
)
def test_a_wrong_field_is_a_sentence(http, body, param, words):
    """The answer is 400 in the dialect's shape, names the field and says what is allowed."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    answer = http.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert words in error["message"]
    assert "\n" not in error["message"]


def test_what_changes_nothing_is_allowed(http):
    """Fields of the dialect that are not honoured may be sent with the value that means nothing."""
    neutral = {"suffix": None, "best_of": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "user": None}
    assert http.post("/v1/completions", json={**OK, **neutral}).status_code == 200


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[" * 100_000, b'{"temperature": NaN}', b"null", b"3"])
def test_a_body_that_is_not_an_object_is_refused(http, content):
    """Neither broken JSON nor other values are a request."""
    answer = http.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_ten_megabytes_are_too_large(http, is_chunked):
    """A body above the limit is refused, whether it says its length or not."""
    body = b'{"prompt": "' + b"a" * 10_000_000 + b'"}'
    content = iter([body[at : at + 65_536] for at in range(0, len(body), 65_536)]) if is_chunked else body
    try:
        answer = http.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    except (httpx2.WriteError, httpx2.ReadError):  # the door may close before all is sent
        assert is_chunked
    else:
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "BODY_TOO_LARGE")
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
        ({"host": "evil.example:8080"}, 421),
        ({"host": "[::1", "origin": "x"}, 421),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, 200),
    ],
)
def test_pages_of_other_sites_may_not_call(http, headers, status):
    """Neither another Origin nor a name that somebody points to this machine gets through; no CORS header either."""
    answer = http.post("/v1/completions", json=OK, headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


async def test_a_site_can_be_allowed(server_process):
    """With --cors-origin the pages of that site may call, and only they."""
    site = "https://lab.example"
    async with door(server_process.address, cors_origins=(site,)) as http:
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        allowed = await http.options("/v1/completions", headers={"origin": site, **asked})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, site)
        answer = await http.post("/v1/completions", json=OK, headers={"origin": site})
        assert answer.headers["access-control-allow-origin"] == site
        assert (await http.post("/v1/completions", json=OK, headers={"origin": f"{site}.evil"})).status_code == 403


def door(target: str, **options: Any) -> httpx2.AsyncClient:
    """Return a client of a door within this process."""
    app = build(Settings(target=target, **options))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost")


def test_scripts_stay_text(http):
    """HTML in labels comes back as data of JSON, and errors repeat none of it as HTML."""
    made = http.post("/v1/sessions", json={"model": "lstm", "labels": {"note": SCRIPT}})
    assert made.json()["labels"] == {"note": SCRIPT}
    wrong = http.post("/v1/completions", json={**OK, "prompt": SCRIPT})
    assert (wrong.status_code, wrong.headers["content-type"]) == (400, "application/json")
    for answer in (made, wrong, http.get(f"/{SCRIPT}"), http.get("/")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "'unsafe" not in answer.headers["content-security-policy"]


def test_a_key_reaches_the_server(http):
    """The caller's bearer token is sent on; one that no header can carry is refused."""
    assert http.get("/v1/models", headers={"authorization": "Bearer key"}).status_code == 200
    bad = http.get("/v1/models", headers={"authorization": "Bearer é".encode()})
    assert (bad.status_code, bad.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_lost_server_is_unavailable():
    """Without a server the answer is 503 with Retry-After; health says it too."""
    async with door("127.0.0.1:1") as http:
        answer = await http.post("/v1/completions", json=OK)
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await http.get("/healthz")).status_code == 503


def test_a_caller_that_leaves_frees_its_session(http, server_process):
    """A turn ends when its reader closes the connection: the session takes the next turn at once."""
    name = http.post("/v1/sessions", json={"model": "lstm"}).json()["name"]
    body = {"model": "lstm", "session": name, "prompt": "A", "max_tokens": 100_000, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as response:
        events = response.iter_raw()
        next(events)
        busy = http.post("/v1/completions", json={**OK, "session": name})
        assert (busy.status_code, busy.json()["error"]["code"]) == (503, "SESSION_BUSY")
    asyncio.run(_until_free(server_process.address, name))
    assert http.post("/v1/completions", json={**OK, "session": name}).status_code == 200


async def _until_free(address: str, name: str) -> None:
    async with AsyncClient(address) as client, asyncio.timeout(PATIENCE):
        while True:
            try:
                await client.session(name).append("a")
            except SessionBusyError as error:
                await asyncio.sleep(error.retry_after or 0.05)
            else:
                return


def test_streams_are_bounded_and_a_reader_that_does_not_read_is_left(server_process):
    """A stream more than the limit is refused; one whose reader sleeps ends, and gives its place back."""
    flags = ["--max-streams", "1", "--write-seconds", "0.5"]
    endless = {**OK, "max_tokens": 100_000, "stream": True}
    with WebProcess(server_process.address, *flags) as web:
        with httpx2.Client(base_url=web.url, trust_env=False, timeout=PATIENCE) as http:
            with http.stream("POST", "/v1/completions", json=endless) as running:
                events = running.iter_raw()
                next(events)
                full = http.post("/v1/completions", json=OK)
                assert (full.status_code, full.json()["error"]["code"]) == (503, "OVERLOADED")
            while (sleeper := _sleeper(web.url)) is None:  # the stream before is ending
                pass
            with sleeper:
                web.log.wait_for("a reader read nothing for 0.5 s")
                while http.post("/v1/completions", json=OK).status_code != 200:
                    pass
        assert web.terminate() == 0  # SIGTERM ends the process in order


def _sleeper(url: str) -> socket.socket | None:
    """Ask for more than any buffer holds, and read only the status; return None if the door is full."""
    where = urlsplit(url)
    asked = {**OK, "prompt": "To be, " * 1000, "echo": True, "logprobs": 20, "max_tokens": 100_000, "stream": True}
    body = json.dumps(asked).encode()
    sleeper = socket.socket()
    sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sleeper.connect((where.hostname, where.port))
    head = ["POST /v1/completions HTTP/1.1", "host: localhost", "content-type: application/json"]
    sleeper.sendall("\r\n".join([*head, f"content-length: {len(body)}", "", ""]).encode() + body)
    if b"200" in sleeper.recv(64):
        return sleeper
    sleeper.close()
    return None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "8080"], "not a host and a port"),
        (["--cors-origin", "*"], "not an origin"),
        (["--target", "http://x:1"], "is a URL"),
        (["--max-streams", "0"], "x>=1"),
    ],
)
def test_settings_that_mean_nothing_are_a_sentence(options, words):
    """A wrong option is a sentence on standard error, and no start."""
    done = CliRunner().invoke(main, options)
    assert done.exit_code in {1, 2}
    assert words in done.stderr


async def test_a_proxy_that_buffers_changes_nothing(web):
    """Behind a proxy that sends nothing before it has all, the events are the same, and the door asks it not to."""

    async def buffer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = urlsplit(web.url)
        from_door, to_door = await asyncio.open_connection(where.hostname, where.port)
        to_door.write(await reader.read(65_536))
        writer.write(await from_door.read())
        to_door.close()
        writer.close()

    body = {**OK, "max_tokens": 40, "seed": 3, "stream": True}
    proxy = await asyncio.start_server(buffer, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    async with proxy, httpx2.AsyncClient(trust_env=False, headers={"connection": "close"}, timeout=PATIENCE) as http:
        behind = await http.post(f"http://127.0.0.1:{port}/v1/completions", json=body)
        direct = await http.post(f"{web.url}/v1/completions", json=body)
    assert _texts(behind.text) == _texts(direct.text)
    assert (behind.headers["x-accel-buffering"], behind.headers["cache-control"]) == ("no", "no-cache, no-transform")


def _texts(events: str) -> str:
    data = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    return "".join(each["choices"][0]["text"] for each in data)
