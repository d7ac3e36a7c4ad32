"""Sessions over plain REST."""

import json
from base64 import b64encode

from elman_client import Client


def made(http, **fields):
    """Create a session."""
    return http.post("/v1/sessions", json={"model": "lstm", "seed": 7, **fields}).raise_for_status().json()


def test_a_session_lives(http):
    """Created, read, found by its label, changed, and deleted; each answer is the session."""
    session = made(http, labels={"life": "one"}, ttl_seconds=100)
    path = f"/v1/{session['name']}"
    assert http.get(path).json() == session
    assert session["position"] == 0
    found = http.get("/v1/sessions", params={"filter": 'labels.life = "one"'}).json()
    assert [each["name"] for each in found["data"]] == [session["name"]]
    changed = http.patch(path, json={"labels": {"life": "two"}, "etag": session["etag"]}).json()
    assert changed["labels"] == {"life": "two"}
    assert http.delete(path).status_code == 204
    assert (http.get(path).status_code, http.get(path).json()["error"]["code"]) == (404, "SESSION_NOT_FOUND")


def test_a_list_ends_at_its_limit(http):
    """What is left out is reported."""
    names = [made(http, labels={"list": "x"})["name"] for _ in range(2)]
    asked = {"filter": 'labels.list = "x"', "limit": 1}
    assert http.get("/v1/sessions", params=asked).json()["has_more"]
    assert not http.get("/v1/sessions", params={**asked, "limit": 2}).json()["has_more"]
    for name in names:
        http.delete(f"/v1/{name}")


def test_text_is_read_forked_and_rewound(http):
    """Append reads and scores; a fork and a rewound session continue with the same text."""
    path = f"/v1/{made(http)['name']}"
    appended = http.post(f"{path}/append", json={"text": "To be", "logprobs": 1}).json()
    assert appended["session"]["position"] == 5
    assert appended["logprobs"]["text_offset"] == [0, 1, 2, 3, 4]
    body = {"model": "lstm", "session": path.removeprefix("/v1/"), "max_tokens": 20}
    text = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    transcript = http.get(f"{path}/transcript", params={"start": 5}).json()
    assert (transcript["text"], transcript["end"], len(transcript["turns"])) == (text, 25, 1)
    (fork,) = http.post(f"{path}/fork", json={"position": 15}).json()["data"]
    assert fork["forked_from"] == {"name": path.removeprefix("/v1/"), "position": 15}
    forked = {"model": "lstm", "session": fork["name"], "max_tokens": 10}
    assert http.post("/v1/completions", json=forked).json()["choices"][0]["text"] == text[10:]
    assert http.post(f"{path}/rewind", json={"position": 5}).json()["position"] == 5
    assert http.post("/v1/completions", json=body).json()["choices"][0]["text"] == text
    assert http.post(f"{path}/cancel").json()["position"] == 25


def test_a_session_is_saved_loaded_and_replayed(http):
    """The export is bytes; its import replays turn by turn, equal."""
    path = f"/v1/{made(http)['name']}"
    http.post("/v1/completions", json={"model": "lstm", "session": path[4:], "prompt": "A", "max_tokens": 9})
    snapshot = http.get(f"{path}/export").raise_for_status().content
    octets = {"content-type": "application/octet-stream"}
    copy = http.post("/v1/sessions/import", content=snapshot, headers=octets).raise_for_status().json()
    assert copy["position"] == 10
    events = http.get(f"/v1/{copy['name']}/replay").text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert [json.loads(event[6:])["is_equal"] for event in events[:-2]] == [True]
    broken = http.post("/v1/sessions/import", content=b64encode(snapshot), headers=octets)
    assert broken.status_code == 400


def test_a_text_is_scored(http, server_process):
    """What a model or a session makes of a text: the server's own numbers."""
    scored = http.post("/v1/score", json={"model": "lstm", "text": "To be"}).json()
    with Client(server_process.address) as client:
        assert scored["log_probability"] == client.score("To be", model="lstm").log_probability
    path = made(http)["name"]
    assert http.post("/v1/score", json={"session": path, "text": "To be"}).json() == scored
    both = http.post("/v1/score", json={"session": path, "model": "lstm", "text": "x"})
    assert (both.status_code, both.json()["error"]["message"]) == (400, "the body send model or session")
