"""The metrics of a real server: what its callers do is what they show."""

import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from elman_client import Client, ElmanError
from tests.server_process import PATIENCE, ServerProcess, environment, refused_start


@pytest.fixture(scope="module")
def server(lstm, tmp_path_factory) -> Iterator[ServerProcess]:
    """A server with a port for metrics and its sessions in a file."""
    store = f"sqlite:{tmp_path_factory.mktemp('store')}/sessions.db"
    with ServerProcess(lstm, "--metrics-listen", "127.0.0.1:0", "--store", store) as process:
        yield process


def get(server: ServerProcess, path: str) -> tuple[int, str]:
    """Return what the port of metrics says."""
    address = server.log.wait_for(r'"address": "([^"]+)", "event": "metrics_served"')[1]
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scrape(server: ServerProcess) -> dict[tuple[str, ...], float]:
    """Return every sample, by its name and the values of its labels."""
    families = text_string_to_metric_families(get(server, "/metrics")[1])
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_callers_do_is_counted(server):
    """Calls, characters, turns, sessions, the store and refusals add up; no session's name is in it."""
    before = scrape(server)  # what other tests did
    with Client(server.address) as client:
        session = client.create_session("lstm", session_id="secret-name")
        session.append("ab")
        text = "".join(session.generate("c", max_chars=50))
        "".join(client.generate("a", model="lstm", max_chars=7))
        with pytest.raises(ElmanError):
            client.get_session("nobody")
        session.delete()
    found = {key: value - before.get(key, 0) for key, value in scrape(server).items()}
    generation = "/elman.v1.GenerationService"

    assert len(text) == 50
    assert found["elman_characters_total", "sampled", "lstm"] == 57
    assert found["elman_characters_total", "read", "lstm"] == 4
    assert found["elman_turns_total", "max_chars", "lstm"] == 3
    assert found["elman_first_character_seconds_count", "lstm"] == 2
    assert found["elman_calls_total", "OK", f"{generation}/Generate"] == 2
    assert found["elman_calls_total", "OK", f"{generation}/Append"] == 1
    assert found["elman_refusals_total", "NOT_FOUND", "SESSION_NOT_FOUND"] == 1
    assert found["elman_sessions_created_total", "lstm"] == found["elman_sessions_ended_total", "deleted"] == 1
    assert found["elman_store_seconds_count", "commit"] >= 2
    assert found["elman_streams",] == 0
    assert not [key for key in found if "secret-name" in str(key)]


def test_scrapes_disturb_no_turn(server):
    """Scraped all the while, a turn has its text; what is counted never falls."""
    with Client(server.address) as client:
        expected = "".join(client.generate("a", model="lstm", max_chars=3000, seed=1))
        text, counted = "", [scrape(server)["elman_characters_total", "sampled", "lstm"]]
        for chunk in client.generate("a", model="lstm", max_chars=3000, seed=1):
            text += chunk
            counted.append(scrape(server)["elman_characters_total", "sampled", "lstm"])
    assert text == expected
    assert counted == sorted(counted)
    assert counted[-1] - counted[0] == 3000


def test_the_engine_reports_its_steps(server):
    """With its next beat: a step a character, each of one row, and a wait for each job."""
    with Client(server.address) as client:
        "".join(client.generate("a", model="lstm", max_chars=40))
        num_steps = 0.0
        while num_steps < 40:  # the beat comes every few seconds
            client.list_models()
            found = scrape(server)
            num_steps = found["elman_step_seconds_count", "lstm"]

    assert found["elman_batch_rows_count", "lstm"] == found["elman_batch_rows_sum", "lstm"] == num_steps
    assert found["elman_step_seconds_sum", "lstm"] > 0
    assert found["elman_queue_seconds_count", "lstm"] >= 1


def test_the_line_of_a_call_says_what_it_did(server):
    """Model, session, characters and how the turn ended stand in the line; the text does not."""
    with Client(server.address) as client:
        session = client.create_session("lstm", session_id="lines")
        text = "".join(session.generate("ab", max_chars=33))
        server.log.wait_for(
            r'"method":"/elman.v1.GenerationService/Generate","code":"OK".*"peer":"ipv4:127.0.0.1:\d+",'
            r'"session":"lines","model":"lstm","read":2,"sampled":33,"finish":"max_chars"'
        )
        with session.generate("a", max_chars=10_000) as left:
            next(left)
        server.log.wait_for(r'/Generate".*"peer":"ipv4:.*"session":"lines".*"sampled":\d+,"finish":"cancelled"')

    assert text not in server.log.text


def test_readiness_is_that_of_the_server(server):
    """Both probes are good while the server serves."""
    assert [get(server, path)[0] for path in ("/healthz", "/readyz")] == [200, 200]


def test_a_port_that_is_taken_ends_the_start(server, lstm):
    """One sentence that names the address and the flag."""
    address = server.log.wait_for(r'"address": "([^"]+)", "event": "metrics_served"')[1]
    code, lines = refused_start("--models", str(lstm), "--listen", "127.0.0.1:0", "--metrics-listen", address)

    assert code == 1
    assert lines == [
        f"elman-server: cannot listen on {address}: Address already in use; choose another with --metrics-listen"
    ]


def elman_top(server: ServerProcess, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `elman top` on a server, or elsewhere if the options say so."""
    address = server.log.wait_for(r'"address": "([^"]+)", "event": "metrics_served"')[1]
    command = [str(Path(sys.executable).with_name("elman")), "top", "--metrics", address, "--interval", "0.1", *options]
    return subprocess.run(
        command,
        env=environment(http_proxy="http://192.0.2.1:1"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_top_shows_what_the_server_does(server):
    """One look has the server, its store and a line for each model; as JSON, it has the same."""
    shown = elman_top(server, "--once")
    assert (shown.returncode, shown.stderr) == (0, "")
    first, *_, header, model = shown.stdout.splitlines()
    assert re.fullmatch(r"elman \S+ at \S+: ready", first)
    assert header.split()[:4] == ["MODEL", "ENGINES", "JOBS", "CHARS/S"]
    assert model.split()[:3] == ["lstm@1", "1", "0"]

    look = json.loads(elman_top(server, "--once", "--json").stdout)
    assert (look["is_ready"], look["store"], look["models"][0]["engines"]) == (True, "sqlite", 1)


@pytest.mark.parametrize("where", ["127.0.0.1:1", "the server"])
def test_top_without_metrics_is_a_sentence(server, where):
    """Where nothing listens, or another program does, one line says what to give."""
    address = server.address if where == "the server" else where
    done = elman_top(server, "--metrics", address)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert f"--metrics-listen {address}" in done.stderr
