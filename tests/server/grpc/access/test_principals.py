from pathlib import Path
from typing import Any

import pytest

from elman_server.domain.errors import SettingsError
from elman_server.grpc.access.principals import NOBODY, Quotas, Scope, read_principals
from elman_server.process.settings import Settings
from tests.certificates import token_digest

DIGEST = token_digest("t")
READ, GENERATE, ADMIN = Scope.READ, Scope.GENERATE, Scope.ADMIN


def write(folder: Path, text: str) -> Path:
    """Write a file of principals."""
    path = folder / "access.toml"
    path.write_text(text)
    return path


def test_what_a_principal_lacks_is_the_default(tmp_path):
    """Scopes and quotas come from the principal's table, then from the defaults, then there is no limit."""
    path = write(
        tmp_path,
        f"""
        [defaults]
        streams = 8
        sessions = 9
        [principals.alice]
        tokens = ["{DIGEST}"]
        also = ["jwt:auth0|1", "cert:CN=alice,O=Acme"]
        scopes = ["read", "admin"]
        sessions = 0
        """,
    )
    principals = read_principals(path)
    alice = principals.of_token(DIGEST)

    assert alice is not None
    assert (alice.name, alice.owner, alice.scopes) == ("alice", "alice", frozenset({READ, ADMIN}))
    assert alice.quotas == Quotas(sessions=0, streams=8)
    assert principals.vouched("jwt:auth0|1") == principals.vouched("cert:CN=alice,O=Acme") == alice
    other = principals.vouched("jwt:alice")
    assert (other.name, other.scopes, other.quotas) == (
        "jwt:alice",
        frozenset({READ, GENERATE}),
        Quotas(sessions=9, streams=8),
    )
    assert principals.of_token(token_digest("u")) is None
    assert principals.nobody is None


def test_callers_without_credentials_can_be_let_in(tmp_path):
    """The principal `anonymous` owns what has no owner."""
    nobody = read_principals(write(tmp_path, f'[principals.{NOBODY}]\nscopes = ["read"]')).nobody

    assert nobody is not None
    assert (nobody.owner, nobody.scopes) == ("", frozenset({READ}))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x", "Expected '='|expected"),
        ("[principal.alice]", "unknown field `principal`"),
        ("[principals.alice]\nsesions = 1", "unknown field `sesions`"),
        ("[principals.alice]\nsessions = -1", ">= 0"),
        ("[principals.alice]\nscopes = ['write']", "Invalid enum value 'write'"),
        ("[principals.alice]\ntokens = ['secret']", "a token of alice is not the SHA-256 of one"),
        ("[principals.alice]\nalso = ['CN=alice']", "begins neither with cert: nor with jwt:"),
        (f"[principals.a]\ntokens = ['{DIGEST}']\n[principals.b]\ntokens = ['{DIGEST}']", "stands there twice"),
        ("[principals.a]\nalso = ['jwt:b']\n[principals.'jwt:b']", "stands there twice"),
        ("[principals.'']", "a principal is named ''"),
        ("[jwt]\nissuer = 'x'", "missing required field"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(tmp_path, text, sentence):
    """The error names the file and what is wrong; it never shows what may be a token."""
    path = write(tmp_path, text)
    with pytest.raises(SettingsError, match=sentence) as refused:
        read_principals(path)

    assert str(path) in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_missing_file_is_an_error(tmp_path):
    """A server that shall know its callers does not start without."""
    with pytest.raises(SettingsError, match=r"cannot read .*access\.toml"):
        read_principals(tmp_path / "access.toml")


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.com:1"])
def test_others_are_not_let_in_unless_it_is_said(listen):
    """A port that others can reach has TLS and authentication, or `insecure`."""
    secure: dict[str, Any] = {"tls_certificate": Path("c"), "tls_key": Path("k")}
    lacking: dict[str, Any]
    for lacking in ({}, secure, {"access": Path("a")}):
        with pytest.raises(SettingsError, match=r"without .*--insecure true \(ELMAN_INSECURE\)"):
            Settings(listen=listen, **lacking)
        assert Settings(listen=listen, insecure=True, **lacking).lacks
    assert not Settings(listen=listen, **secure, access=Path("a")).lacks
    assert not Settings(listen=listen, **secure, tls_client_ca=Path("a")).lacks


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "localhost:1", "unix:/s"])
def test_this_machine_needs_nothing(listen):
    """What only this machine can reach needs neither."""
    assert not Settings(listen=listen).lacks
