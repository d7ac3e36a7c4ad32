"""JSON Web Tokens, good and bad; keys in a file and from a real HTTP server."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from elman_server.domain.errors import IssuerUnavailableError, SettingsError, UnauthenticatedError
from elman_server.grpc.access import issuer as module
from elman_server.grpc.access.issuer import Issuer
from elman_server.grpc.access.principals import IssuerTable

ISSUER, AUDIENCE = "https://login.example.com/", "elman"
OLD, NEW, STRANGER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
RSA = rsa.generate_private_key(65537, 2048)


def claims(**changes: Any) -> dict[str, Any]:
    """Return what a good token says."""
    now = time.time()
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "auth0|1", "exp": now + 3600, "iat": now}
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(key: Any = OLD, kid: str | None = "old", algorithm: str = "ES256", **changes: Any) -> str:
    """Return a token."""
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid} if kid else {})


def key_set(**keys: Any) -> str:
    """Return public keys as a JSON Web Key Set."""
    entries = []
    for kid, key in keys.items():
        algorithm = jwt.algorithms.get_default_algorithms()["RS256" if key is RSA else "ES256"]
        entries.append(json.loads(algorithm.to_jwk(key.public_key())) | {"kid": kid})
    return json.dumps({"keys": entries})


def table(keys: str, **changes: Any) -> IssuerTable:
    """Return what the file of principals says of the issuer."""
    return IssuerTable(issuer=ISSUER, audience=AUDIENCE, keys=keys, **changes)


@pytest.fixture
def path(tmp_path) -> Path:
    """A file with two keys."""
    path: Path = tmp_path / "keys.json"
    path.write_text(key_set(old=OLD, rsa=RSA))
    return path


async def test_a_good_token_names_its_caller(path):
    """Name, end and scopes are what the token says; elliptic curves and RSA are known."""
    issuer = Issuer(table(f"file:{path}", scope_claim="scope", leeway_seconds=5))
    exp = int(time.time()) + 60
    words = frozenset({"read", "openid"})

    assert await issuer.claims(token(exp=exp, scope="read openid")) == ("auth0|1", exp + 5, words)
    assert (await issuer.claims(token(RSA, "rsa", "RS256")))[2] == frozenset()
    assert (await Issuer(table(f"file:{path}")).claims(token(scope="read")))[2] is None


def forged(algorithm: str, signature: bytes = b"") -> str:
    """Return a token whose header names an algorithm of our choice."""
    parts = [json.dumps(part).encode() for part in ({"alg": algorithm, "kid": "old"}, claims())]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, signature))


def public_key_as_secret() -> str:
    """Return a token that is signed with the public key as if that was a shared secret."""
    pem = OLD.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = forged("HS256").rpartition(".")[0]
    mac = hmac.digest(pem, signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (token(exp=time.time() - 60), "has expired"),
        (token(exp=None), "is not valid here"),
        (token(aud="another"), "is not valid here"),
        (token(aud=None), "is not valid here"),
        (token(iss="https://evil.example.com/"), "is not valid here"),
        (token(sub=None), "is not valid here"),
        (token(sub=""), "is not valid here"),
        (token(nbf=time.time() + 600), "is not valid here"),
        (token(STRANGER), "is not valid here"),
        (token(STRANGER, "stranger"), "is not valid here"),
        (token(kid=None), "is not valid here"),
        (token()[:-3] + "AAA", "is not valid here"),
        (forged("none"), "is not valid here"),
        (forged("HS256", b"x" * 32), "is not valid here"),
        (public_key_as_secret(), "is not valid here"),
        ("a.b.c", "is not valid here"),
        ("..", "is not valid here"),
        ("{}.{}." + "x" * 10_000, "is not valid here"),
    ],
)
async def test_a_bad_token_is_refused(path, bad, sentence):
    """No signature, a wrong one, another issuer or audience, too old or too young: refused, and never shown."""
    with pytest.raises(UnauthenticatedError, match=sentence) as refused:
        await Issuer(table(f"file:{path}", leeway_seconds=0)).claims(bad)

    assert bad not in str(refused.value)


async def test_clocks_may_differ_a_little(path):
    """A token that has just expired is good within the leeway."""
    issuer = Issuer(table(f"file:{path}", leeway_seconds=120))

    assert (await issuer.claims(token(exp=time.time() - 60)))[0] == "auth0|1"


@pytest.fixture
def keys_served() -> Iterator[tuple[str, dict[str, Any]]]:
    """A server of keys: its URL, and what it answers, which the test may change."""
    state: dict[str, Any] = {"body": key_set(old=OLD), "status": 200, "count": 0}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state["count"] += 1
            self.send_response(state["status"])
            self.end_headers()
            self.wfile.write(state["body"].encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/keys", state
    server.shutdown()
    thread.join()
    server.server_close()


async def test_new_keys_are_read_when_a_token_needs_them(keys_served, monkeypatch):
    """A rotation of keys needs no restart; keys that were taken away are good no more; few reads suffice."""
    url, state = keys_served
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    issuer = Issuer(table(url))
    for _ in range(3):
        await issuer.claims(token())
    assert state["count"] == 1
    state["body"] = key_set(new=NEW)
    await issuer.claims(token(NEW, "new"))
    with pytest.raises(UnauthenticatedError):
        await issuer.claims(token())


async def test_unknown_keys_are_not_asked_for_again_and_again(keys_served):
    """A caller who invents keys does not make the server read more than once in a while."""
    url, state = keys_served
    issuer = Issuer(table(url))
    for number in range(20):
        with pytest.raises(UnauthenticatedError):
            await issuer.claims(token(STRANGER, f"invented-{number}"))

    assert state["count"] == 1


async def test_keys_that_cannot_be_read_are_another_error(keys_served, monkeypatch):
    """Without any keys the call may be repeated later; with earlier ones it goes on."""
    url, state = keys_served
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    state["status"] = 500
    issuer = Issuer(table(url))
    with pytest.raises(IssuerUnavailableError):
        await issuer.claims(token())
    state["status"] = 200
    await issuer.claims(token())
    state["body"] = "nothing"
    await issuer.claims(token())


@pytest.mark.parametrize("keys", ["keys.json", "http://example.com/keys", "ftp://localhost/x", "file:/nowhere.json"])
def test_keys_come_from_a_file_or_over_tls(keys):
    """A source that anyone on the way could change is refused."""
    with pytest.raises(SettingsError, match=r"jwt\.keys"):
        Issuer(table(keys))
