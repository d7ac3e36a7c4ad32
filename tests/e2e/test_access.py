"""The door as callers meet it: TLS, certificates, tokens, quotas; over real connections to a real server."""

import contextlib
import os
import secrets
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from elman_client import (
    Client,
    Generation,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.certificates import make_certificates, replace_file, token_digest
from tests.server_process import PATIENCE, ServerProcess

NAMES = ("alice", "bob", "carol", "few-sessions", "few-streams", "few-characters", "few-requests", "nothing")
TOKENS = {name: secrets.token_hex(32) for name in NAMES}
QUOTAS = {
    "bob": 'scopes = ["read"]',
    "carol": 'scopes = ["read", "generate", "admin"]',
    "few-sessions": "sessions = 2",
    "few-streams": "streams = 1",
    "few-characters": "characters_per_minute = 100",
    "few-requests": "requests_per_minute = 3",
    "nothing": "streams = 0\nsessions = 0",
}


@dataclass(frozen=True)
class Place:
    """A server, its certificates and its file of principals."""

    server: ServerProcess
    folder: Path
    access: Path

    def client(self, name: str | None = "alice", **options: Any) -> Client:
        """Return a client of a principal."""
        token = TOKENS[name] if name else None
        options = {"root_certificates": self.folder / "ca.pem", "token": token, "retry_seconds": 0} | options
        return Client(self.server.address, tls=True, **options)

    def serial(self) -> str:
        """Return what a new connection is shown."""
        host, _, port = self.server.address.rpartition(":")
        return ssl.get_server_certificate((host, int(port)))

    @contextlib.contextmanager
    def principals(self, **changes: str | None) -> Iterator[None]:
        """Change the file of principals for a while; None takes one away."""
        before = self.access.read_text()
        replace_file(self.access, _principals(changes))
        try:
            yield
        finally:
            replace_file(self.access, before)


def _principals(changes: dict[str, str | None]) -> str:
    tables = {name: QUOTAS.get(name, "") for name in NAMES} | changes
    return "".join(
        f'[principals.{name}]\ntokens = ["{token_digest(TOKENS[name])}"]\n{table}\n'
        for name, table in tables.items()
        if table is not None
    )


@pytest.fixture(scope="module")
def place(lstm, tmp_path_factory) -> Iterator[Place]:
    """A server with TLS and tokens."""
    folder = make_certificates(tmp_path_factory.mktemp("certificates"))
    access = folder / "server/access.toml"
    access.write_text(_principals({}))
    flags = {"--tls-certificate": "server.pem", "--tls-key": "server.key", "--access": "access.toml"}
    words = [word for flag, name in flags.items() for word in (flag, str(folder / "server" / name))]
    with ServerProcess(lstm, *words) as server:
        yield Place(server, folder, access)


def _first(client: Client, **options: Any) -> tuple[Generation, str]:
    """Begin a turn that is long enough to be interrupted; return it with its first text."""
    session = client.create_session("lstm", seed=1)
    turn = session.generate("x", max_chars=2000, **options)
    return turn, next(iter(turn))


# Transport


def test_a_new_certificate_breaks_no_stream(place: Place) -> None:
    """Certificates that are renewed are shown to new connections at once; a stream that runs is whole."""
    before = place.serial()
    with place.client() as client:
        whole = "".join(client.create_session("lstm", seed=1).generate("x", max_chars=2000))
        turn, text = _first(client)
        make_certificates(place.folder)
        assert place.serial() != before
        with place.client() as other:
            assert len(other.list_models()) == 1
        assert text + "".join(turn) == whole
    assert "certificate_reloaded" in place.server.log.text


def test_a_wrong_pair_is_not_taken(place: Place) -> None:
    """With a key that does not match, the last pair stays in force, and the log says so once; then the right one is."""
    key = place.folder / "server/server.key"
    before, shown = key.read_text(), place.serial()
    other = make_certificates(place.folder / "other")
    replace_file(key, (other / "server/server.key").read_text())
    assert [place.serial(), place.serial()] == [shown, shown]
    place.server.log.wait_for(r'"certificate_not_reloaded".*|.*is not the key of the certificate')
    replace_file(key, before)
    assert place.serial() == shown
    with place.client() as client:
        assert client.is_serving()


def test_certificates_are_checked(place: Place, tmp_path: Path) -> None:
    """A server whose authority is another's, or whose name is another's, is not talked to."""
    stranger = make_certificates(tmp_path / "stranger")
    with place.client(root_certificates=stranger / "ca.pem") as client, pytest.raises(UnavailableError):
        client.list_models()
    elsewhere = place.server.address.replace("127.0.0.1", "127.0.0.2")
    named = Client(elsewhere, tls=True, root_certificates=place.folder / "ca.pem", retry_seconds=0)
    with named as client, pytest.raises(UnavailableError):
        client.list_models()
    with Client(place.server.address, token="x", retry_seconds=0) as client, pytest.raises(UnavailableError):
        client.list_models()


def test_an_expired_certificate_is_not_talked_to(place: Place) -> None:
    """What has expired is refused by clients; a new one cures it without a restart."""
    make_certificates(place.folder, DAYS="-1")
    with place.client() as client, pytest.raises(UnavailableError):
        client.list_models()
    make_certificates(place.folder)
    with place.client() as client:
        assert len(client.list_models()) == 1


def test_mutual_tls_names_the_caller(lstm, tmp_path: Path) -> None:
    """Without a certificate there is no connection; with one its subject is the principal."""
    folder = make_certificates(tmp_path / "c")
    server = folder / "server"
    flags = ["--tls-certificate", server / "server.pem", "--tls-key", server / "server.key"]
    options: dict[str, Any] = {"tls": True, "root_certificates": folder / "ca.pem", "retry_seconds": 0}
    mine: dict[str, Any] = {"certificate": folder / "client.pem", "key": folder / "client.key"}
    with ServerProcess(lstm, *map(str, flags), "--tls-client-ca", str(folder / "ca.pem")) as process:
        with Client(process.address, **options) as client, pytest.raises(UnavailableError):
            client.list_models()
        with Client(process.address, **options, **mine) as client:
            assert client.is_serving()
            assert len(client.list_models()) == 1
        process.log.wait_for('"principal": ?"cert:CN=operator"')


# Tokens


def test_health_is_open(place: Place) -> None:
    """A health check needs no token; anything else does."""
    with place.client(None) as client:
        assert client.is_serving()
        with pytest.raises(UnauthenticatedError, match="has no token"):
            client.list_models()


def test_scopes_limit_what_a_token_is_good_for(place: Place) -> None:
    """Who may only read can neither run a model nor change anything; only an admin acts for another."""
    with place.client("bob") as bob:
        assert len(bob.list_models()) == 1
        for call in (bob.create_session, lambda model: bob.score("x", model=model)):
            with pytest.raises(PermissionDeniedError, match="needs the scope generate"):
                call("lstm")
    acting = place.client("alice", metadata={"x-elman-principal": "bob"})
    with acting as alice, pytest.raises(PermissionDeniedError, match="needs the scope admin"):
        list(alice.list_sessions())


def test_an_admin_acts_for_another(place: Place) -> None:
    """An operator sees and deletes another principal's sessions, whose quotas do not count for it."""
    with place.client("alice") as alice, place.client("carol", metadata={"x-elman-principal": "alice"}) as carol:
        alice.create_session("lstm", session_id="alices")
        assert "sessions/alices" in [session.name for session in carol.list_sessions()]
        carol.session("alices").delete()
        assert "sessions/alices" not in [session.name for session in alice.list_sessions()]


def test_a_token_that_is_taken_back_ends_its_streams(place: Place) -> None:
    """A stream in the middle ends with UNAUTHENTICATED, its turn committed; others continue."""
    with place.client("alice") as alice, place.client("carol") as carol:
        other, text = _first(carol)
        session = alice.create_session("lstm", session_id="cut-off", seed=1)
        turn = session.generate("x", max_chars=100_000)
        begun = next(iter(turn))
        with place.principals(alice=None):
            place.server.log.wait_for(r'"access_reloaded"')
            with pytest.raises(UnauthenticatedError, match="was taken back"):
                begun += "".join(turn)
            with pytest.raises(UnauthenticatedError, match="is not known"):
                session.refresh()
            text += "".join(other)
        assert len(text) == 2000
        _wait_until_known(place, "alice")
        kept = session.transcript().text
        assert 1 < len(kept) < 100_001
        session.delete()


def _wait_until_known(place: Place, name: str) -> None:
    """Wait until the server has read the file of principals again, which it looks at once a second."""
    with place.client(name) as client:
        while True:
            try:
                client.list_models()
            except UnauthenticatedError:
                time.sleep(0.05)
            else:
                return


def test_a_broken_file_changes_nothing(place: Place) -> None:
    """A file that cannot be read leaves the last one in force, and the log says why."""
    with place.principals(alice="sesions = 3"):
        place.server.log.wait_for(r"access_not_reloaded.*|.*unknown field `sesions`")
        with place.client("alice") as alice:
            assert len(alice.list_models()) == 1


@pytest.mark.parametrize(
    "values",
    [[""], ["Bearer"], ["Basic abc"], ["Bearer a b"], ["Bearer " + "x" * 7000], [f"Bearer {TOKENS['alice']}"] * 2],
    ids=["empty", "no-token", "basic", "two-words", "long", "twice"],
)
def test_odd_tokens_are_refused(place: Place, values: list[str]) -> None:
    """What is not one token that the server knows is UNAUTHENTICATED, whatever it is."""
    roots = grpc.ssl_channel_credentials((place.folder / "ca.pem").read_bytes())
    with grpc.secure_channel(place.server.address, roots) as channel:
        call: Any = channel.unary_unary("/elman.v1.ModelService/ListModels")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", metadata=[("authorization", value) for value in values], timeout=PATIENCE)
    error: Any = refused.value
    assert error.code().name == "UNAUTHENTICATED"


def test_the_command_takes_its_token_from_a_file_or_a_variable(place: Place, tmp_path: Path) -> None:
    """`elman` needs no token in its arguments, and shows it nowhere."""
    file = tmp_path / "token"
    file.write_text(TOKENS["alice"] + "\n")
    start = "from elman_client.cli import main; main()"
    command = [sys.executable, "-c", start, "models", "--target", place.server.address]
    security = ["--ca", str(place.folder / "ca.pem")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ELMAN_")}
    for flags, variables in (
        (["--token-file", str(file)], {}),
        ([], {"ELMAN_TOKEN_FILE": str(file), "ELMAN_TLS": "1"}),
    ):
        done = _run([*command, *security, *flags], clean | variables)
        assert (done.returncode, "lstm" in done.stdout) == (0, True), done.stderr
    wrong = _run([*command, *security], clean | {"ELMAN_TOKEN": TOKENS["alice"][:-1] + "z"})
    assert (wrong.returncode, TOKENS["alice"][:20] in wrong.stderr) == (1, False)
    assert "the token is not known" in wrong.stderr
    clear = _run([*command[:-1], "192.0.2.1:50051"], clean | {"ELMAN_TOKEN": TOKENS["alice"]})
    assert (clear.returncode, "in clear: pass --tls" in clear.stderr) == (2, True)


def _run(command: list[str], variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PATIENCE, check=False)


# Quotas


def test_sessions_have_a_quota(place: Place) -> None:
    """A third session is refused until one is deleted; forks and imports count as well."""
    with place.client("few-sessions") as client:
        one, two = client.create_session("lstm"), client.create_session("lstm")
        snapshot = one.export()
        for more in (
            lambda: client.create_session("lstm"),
            one.fork,
            lambda: client.import_session(snapshot),
        ):
            with pytest.raises(ResourceExhaustedError, match="you have reached your limit of 2 sessions") as refused:
                more()
            assert (refused.value.reason, refused.value.retry_after) == ("TOO_MANY_SESSIONS", 5.0)
        two.delete()
        one.fork()[0].delete()
        one.delete()


def test_streams_have_a_quota(place: Place) -> None:
    """A second stream at once is refused, and of no other principal."""
    with place.client("few-streams") as client, place.client("alice") as alice:
        turn, _ = _first(client)
        with pytest.raises(ResourceExhaustedError, match="limit of 1 streams") as refused:
            _first(client)
        assert refused.value.reason == "TOO_MANY_STREAMS"
        _first(alice)
        list(turn)
        _first(client)


def test_characters_have_a_quota(place: Place) -> None:
    """What is read and sampled counts; a turn is never cut, and the next one waits until the debt is paid."""
    with place.client("few-characters") as client:
        session = client.create_session("lstm")
        assert len("".join(session.generate("x", max_chars=200))) == 200
        with pytest.raises(ResourceExhaustedError, match="100 characters a minute") as refused:
            session.append("x")
        assert refused.value.reason == "TOO_MANY_CHARACTERS"
        assert 30 < (refused.value.retry_after or 0) < 62
        session.delete()


def test_requests_have_a_quota(place: Place) -> None:
    """Past it each call is refused at once."""
    with place.client("few-requests") as client:
        for _ in range(3):
            client.list_models()
        with pytest.raises(ResourceExhaustedError, match="3 requests a minute") as refused:
            client.list_models()
        assert 0 < (refused.value.retry_after or 0) <= 20


def test_a_quota_of_nothing_allows_nothing(place: Place) -> None:
    """Zero is a limit like others."""
    with place.client("nothing") as client:
        with pytest.raises(ResourceExhaustedError, match="limit of 0 sessions"):
            client.create_session("lstm")
        with pytest.raises(ResourceExhaustedError, match="limit of 0 streams"):
            client.score("x", model="lstm")


def test_no_token_is_in_the_log(place: Place) -> None:
    """After all of this the log has names, and neither tokens nor their digests."""
    with place.client("alice") as client:
        client.list_models()
    place.server.log.wait_for('"principal": ?"alice"')
    log = place.server.log.text
    assert not [name for name, token in TOKENS.items() if token in log or token_digest(token) in log]
