"""JSON Web Tokens (RFC 7519) of one issuer, by PyJWT."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jwt
import structlog

from elman_server.domain.errors import IssuerUnavailableError, SettingsError, UnauthenticatedError
from elman_server.process.tasks import background

if TYPE_CHECKING:
    from elman_server.grpc.access.principals import IssuerTable

log = structlog.get_logger(__name__)

# Signatures by private keys alone: a public key must never be taken for a shared secret.
ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
FRESH_SECONDS: Final = 300.0  # until the keys are read again
RETRY_SECONDS: Final = 10.0  # until they are read again for a token whose key is unknown, or after a failure
TIMEOUT_SECONDS: Final = 5
_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}


class Issuer:
    """Checks tokens against the issuer's keys, which it reads again now and then. The last ones that came are kept."""

    def __init__(self, table: IssuerTable) -> None:
        self._table = table
        self._keys: dict[str, jwt.PyJWK] = {}
        self._tried = self._read = -FRESH_SECONDS
        self._reading = asyncio.Lock()
        kind, _, where = table.keys.partition(":")
        self._path = Path(where) if kind == "file" else None
        url = urlsplit(table.keys)
        if self._path is None and url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
            raise SettingsError(f"jwt.keys is {table.keys[:80]!a}; it has to be file:PATH or an https URL")
        if self._path is not None:
            try:
                self._keys = _keys_of(self._path.read_bytes())
            except (OSError, ValueError, jwt.PyJWTError) as error:
                raise SettingsError(f"jwt.keys cannot be read from {self._path}: {error}") from None

    async def claims(self, token: str) -> tuple[str, float, frozenset[str] | None]:
        """Return what a token says: a name, until when it is valid, and the words of its scope, if that counts.

        Raises:
            UnauthenticatedError: it is not one of this issuer's for this server, or not valid now.
            IssuerUnavailableError: the keys could not be read yet.
        """
        table = self._table
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(header)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=sorted(ALGORITHMS),
                audience=table.audience,
                issuer=table.issuer,
                leeway=table.leeway_seconds,
                options={"require": ["exp", "iss", "aud", table.name_claim]},
            )
        except jwt.ExpiredSignatureError:
            raise UnauthenticatedError("the token has expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise UnauthenticatedError("the token is not valid here") from None
        name, words = claims[table.name_claim], claims.get(table.scope_claim, "")
        if not isinstance(name, str) or not name:
            raise UnauthenticatedError("the token is not valid here")
        listed = words.split() if isinstance(words, str) else words
        scopes = frozenset(map(str, listed)) if isinstance(listed, list) else frozenset()
        return name, claims["exp"] + table.leeway_seconds, scopes if table.scope_claim else None

    async def _key(self, header: dict[str, Any]) -> jwt.PyJWK:
        now = time.monotonic()
        name = header.get("kid", "")
        if header.get("alg") not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError
        if now - self._tried > RETRY_SECONDS:
            if name not in self._keys:
                await self._refresh()
            elif now - self._read > FRESH_SECONDS:
                background(self._refresh(), "read the keys of the issuer")  # this call need not wait for them
        if not self._keys:
            raise IssuerUnavailableError
        return self._keys[name] if name in self._keys else _only(self._keys, name)

    async def _refresh(self) -> None:
        async with self._reading:
            if time.monotonic() - self._tried <= RETRY_SECONDS:  # another call was first
                return
            self._tried = time.monotonic()
            try:
                self._keys = await asyncio.to_thread(self._fetch)
                self._read = time.monotonic()
            except (OSError, ValueError, jwt.PyJWTError) as error:
                log.error("jwt_keys_not_read", keys=self._table.keys, error=str(error))  # noqa: TRY400  expected

    def _fetch(self) -> dict[str, jwt.PyJWK]:
        if self._path is not None:
            return _keys_of(self._path.read_bytes())
        client = jwt.PyJWKClient(self._table.keys, timeout=TIMEOUT_SECONDS, cache_jwk_set=False)
        return _keys_of(json.dumps(client.fetch_data()).encode())


def _keys_of(data: bytes) -> dict[str, jwt.PyJWK]:
    found = jwt.PyJWKSet.from_json(data.decode()).keys
    return {key.key_id or "": key for key in found if key.algorithm_name in ALGORITHMS}


def _only(keys: dict[str, jwt.PyJWK], name: object) -> jwt.PyJWK:
    """Return the one key, for tokens that name none."""
    if name or len(keys) != 1:
        raise jwt.InvalidKeyError
    return next(iter(keys.values()))
