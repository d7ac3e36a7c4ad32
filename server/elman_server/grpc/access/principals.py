"""Principals: who may call, what, and how much; as the file of `access` says.

[defaults]                       # of principals who have no value of their own
characters_per_minute = 100_000

[principals.alice]
tokens = ["9f86d0…"]             # SHA-256 of each token, in hex
also = ["cert:CN=alice,O=Acme", "jwt:auth0|123"]
scopes = ["read", "generate"]
sessions = 100

[jwt]
issuer = "https://login.example.com/"
audience = "elman"
keys = "https://login.example.com/.well-known/jwks.json"
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from elman_server.domain.errors import SettingsError
from elman_server.domain.owner import ANONYMOUS

if TYPE_CHECKING:
    from pathlib import Path

CERTIFICATE: Final = "cert:"  # begins the names of those whom an authority vouches for
JWT: Final = "jwt:"  # and of those whom an issuer does
NOBODY: Final = (
    "anonymous"  # callers without credentials, if the file has them; and what was stored before there were owners
)
MAX_NAME_CHARS: Final = 256
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Scope(enum.Enum):
    """What a principal may do."""

    READ = "read"  # what neither changes anything nor runs a model
    GENERATE = "generate"  # all the rest of elman.v1
    ADMIN = "admin"  # act for another principal, and look into the server


class Quotas(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much a principal may have or use; None: no limit.

    Attributes:
        sessions: at once.
        stored_bytes: of all sessions, about.
        streams: turns that run or wait at once.
        characters_per_minute: sampled and read.
        requests_per_minute: calls, and turns of a Chat.
    """

    sessions: _Count | None = None
    stored_bytes: _Count | None = None
    streams: _Count | None = None
    characters_per_minute: _Count | None = None
    requests_per_minute: _Count | None = None

    def or_else(self, defaults: Quotas) -> Quotas:
        """Return these, and the defaults where there are none."""
        return Quotas(**{name: _first(getattr(self, name), getattr(defaults, name)) for name in _QUOTAS})


_QUOTAS: Final = Quotas.__struct_fields__
_SCOPES: Final = (Scope.READ, Scope.GENERATE)


class DefaultsTable(Quotas, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[defaults]`: of principals without values of their own."""

    scopes: tuple[Scope, ...] = _SCOPES


class PrincipalTable(Quotas, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[principals.NAME]`."""

    scopes: tuple[Scope, ...] | None = None
    tokens: list[str] = []
    also: list[str] = []


class IssuerTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[jwt]`: whose tokens are accepted.

    Attributes:
        keys: a JSON Web Key Set: `file:PATH` or an `https:` URL.
        name_claim: names the principal.
        scope_claim: holds words of `Scope`, which then limit what the token is good for; "": nothing does.
    """

    issuer: str
    audience: str
    keys: str
    name_claim: str = "sub"
    scope_claim: str = ""
    leeway_seconds: Annotated[float, msgspec.Meta(ge=0, le=300)] = 30.0


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    principals: dict[str, PrincipalTable] = {}
    defaults: DefaultsTable = DefaultsTable()
    jwt: IssuerTable | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls."""

    name: str
    scopes: frozenset[Scope]
    quotas: Quotas

    @property
    def owner(self) -> str:
        """The owner of the principal's sessions."""
        return ANONYMOUS if self.name == NOBODY else self.name


class Principals:
    """Everybody of whom the file knows, and everybody who is vouched for."""

    def __init__(self, file: File) -> None:
        self.issuer = file.jwt
        self._defaults = file.defaults
        self._known = {name: self._principal(name, table) for name, table in file.principals.items()}
        self._by_token = {token: self._known[name] for name, table in file.principals.items() for token in table.tokens}
        self._by_alias = {alias: self._known[name] for name, table in file.principals.items() for alias in table.also}

    @classmethod
    def of_certificates(cls) -> Principals:
        """Return those of a server without a file: everybody with a certificate."""
        return cls(File())

    def of_token(self, digest: str) -> Principal | None:
        """Return whose token has a SHA-256.

        A table of digests needs no comparison in constant time: nobody can choose the digest that is looked up.
        """
        return self._by_token.get(digest)

    def vouched(self, name: str) -> Principal:
        """Return the principal of a name that an authority or an issuer vouches for."""
        known = self._by_alias.get(name) or self._known.get(name)
        return known or self._principal(name, PrincipalTable())

    @property
    def nobody(self) -> Principal | None:
        """Who a caller without credentials is, if there are to be any."""
        return self._known.get(NOBODY)

    def _principal(self, name: str, table: PrincipalTable) -> Principal:
        scopes = self._defaults.scopes if table.scopes is None else table.scopes
        return Principal(name, frozenset(scopes), table.or_else(self._defaults))


def read_principals(path: Path) -> Principals:
    """Return the principals of a file.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong.
    """
    try:
        file = msgspec.toml.decode(path.read_bytes(), type=File)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}; see --access") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise SettingsError(f"--access {path}: {error}") from None
    if problem := _problem(file):
        raise SettingsError(f"--access {path}: {problem}")
    return Principals(file)


def _problem(file: File) -> str:
    """Return what is wrong with a file beside its types; "": nothing."""
    seen: set[str] = set(file.principals)
    for name, table in file.principals.items():
        if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
            return f"a principal is named {name[:80]!a}; a name has 1 to {MAX_NAME_CHARS} printable characters"
        if any(not _DIGEST.fullmatch(token) for token in table.tokens):
            # Not shown: it may be the token itself.
            return f"a token of {name} is not the SHA-256 of one: 64 hex digits in lower case"
        if any(not alias.startswith((CERTIFICATE, JWT)) for alias in table.also):
            return f"`also` of {name} has a name that begins neither with {CERTIFICATE} nor with {JWT}"
        for key in (*table.tokens, *table.also):
            if key in seen:
                return f"a token or name of {name} stands there twice"
            seen.add(key)
    return ""


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value
