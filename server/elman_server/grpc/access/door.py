"""The door: finds out who calls, and whether they may."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from elman_server.domain.errors import PermissionDeniedError, SettingsError, UnauthenticatedError
from elman_server.domain.owner import ANONYMOUS, owner
from elman_server.grpc.access.account import Account, Places
from elman_server.grpc.access.principals import (
    CERTIFICATE,
    JWT,
    MAX_NAME_CHARS,
    NOBODY,
    Principals,
    Scope,
    read_principals,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elman_server.grpc.access.issuer import Issuer
    from elman_server.grpc.access.principals import IssuerTable, Principal
    from elman_server.process.settings import Settings

LOOK_SECONDS: Final = 1.0  # between two looks at the file
MAX_ACCOUNTS: Final = 100_000
MAX_VERIFIED: Final = 10_000
VERIFIED_SECONDS: Final = 60.0  # until a JSON Web Token is checked again: the issuer may have changed its keys
_BEARER: Final = re.compile(r"bearer +([\x21-\x7e]+)", re.IGNORECASE)
_SERVICES: Final = "/elman.v1."
# What neither changes anything nor runs a model.
READS: Final = frozenset(
    {"EncodeText", "ExportSession", "GetModel", "GetSession", "GetTranscript", "ListModels", "ListSessions"}
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and how that is known.

    Attributes:
        scopes: what the call may do.
        credential: the SHA-256 of a token of the file; else the name that was vouched for.
        expires: unix seconds, until when it is known.
        account: what the principal has and uses.
    """

    principal: Principal
    scopes: frozenset[Scope]
    credential: str
    expires: float
    account: Account


# Of the call that runs; the tasks of the call inherit it.
caller: Final[ContextVar[Caller | None]] = ContextVar("caller", default=None)


class Door:
    """Knows callers by token or certificate, and ends the calls of those whose token was taken back.

    Args:
        path: the file of principals; None: everybody with a certificate is known.
        max_streams: of all principals together.
        clock: unix seconds.

    Raises:
        SettingsError: the file cannot be used.
    """

    def __init__(self, path: Path | None, max_streams: int, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._places = Places(max_streams)
        self._clock = clock
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._running: dict[asyncio.Task[object], Caller] = {}
        self._verified: dict[str, tuple[Caller, float]] = {}
        self._seen = self._version()
        self._principals, self._issuer = self._read()

    async def enter(
        self, method: str, *, authorization: str | None, certificate: str | None, acts_for: str | None
    ) -> Caller:
        """Return who calls, once it is clear that they may; the rest of the task is theirs.

        Args:
            method: the full name.
            authorization: the header, if there is one.
            certificate: the name in the caller's certificate, if it has one.
            acts_for: the principal whose sessions are meant; None: the caller's own.

        Raises:
            UnauthenticatedError, PermissionDeniedError, OwnQuotaError.
        """
        found = await self._identify(authorization, certificate)
        needed = scope_of(method)
        for scope in (needed, Scope.ADMIN) if acts_for is not None else (needed,):
            if scope not in found.scopes:
                raise PermissionDeniedError(scope.value)
        found.account.request()
        caller.set(found)
        owner.set(found.principal.owner if acts_for is None else _owner_of(acts_for))
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = found
        task.add_done_callback(self._running.pop)
        return found

    def usage(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Return what each principal of the file uses of each quota, for metrics.

        Those that an authority or an issuer vouches for are too many for that.
        """
        named = [(name, account) for name, account in list(self._accounts.items()) if ":" not in name]
        return {(name, quota): pair for name, account in named for quota, pair in account.usage().items()}

    async def watch(self) -> None:
        """Read the file again whenever it changes."""
        while self._path is not None:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Read the file again if it has changed; end the calls of those who are not known any more."""
        version = self._version()
        if version == self._seen:
            return
        self._seen = version
        try:
            self._principals, self._issuer = self._read()
        except SettingsError as error:
            log.error("access_not_reloaded", error=str(error))  # noqa: TRY400  expected: no traceback
            return
        self._verified.clear()
        for name, account in self._accounts.items():
            account.change(self._principals.vouched(name).quotas)
        ended = [task for task, running in self._running.items() if not self._is_known(running)]
        for task in ended:
            task.cancel(UnauthenticatedError("the token was taken back"))
        log.info("access_reloaded", path=str(self._path), ended_calls=len(ended))

    def _read(self) -> tuple[Principals, Issuer | None]:
        if self._path is None:
            return Principals.of_certificates(), None
        principals = read_principals(self._path)
        return principals, None if principals.issuer is None else _issuer(principals.issuer, self._path)

    def _version(self) -> tuple[int, ...]:
        try:
            status = self._path.stat() if self._path is not None else None
        except OSError:
            return ()
        return (status.st_ctime_ns, status.st_ino, status.st_size) if status else ()

    async def _identify(self, authorization: str | None, certificate: str | None) -> Caller:
        if authorization is not None:
            match = _BEARER.fullmatch(authorization)
            if match is None:
                raise UnauthenticatedError("the header authorization is not a bearer token")
            return await self._of_token(match[1])
        if certificate is not None:
            return self._vouched(CERTIFICATE + certificate)
        nobody = self._principals.nobody
        if nobody is None:
            raise UnauthenticatedError("the call has no token")
        return self._caller(nobody, NOBODY)

    async def _of_token(self, token: str) -> Caller:
        digest = hashlib.sha256(token.encode()).hexdigest()
        principal = self._principals.of_token(digest)
        if principal is not None:
            return self._caller(principal, digest)
        if self._issuer is None or token.count(".") != 2:  # noqa: PLR2004  header.claims.signature
            raise UnauthenticatedError("the token is not known")
        now = self._clock()
        known, checked = self._verified.get(digest, (None, 0.0))
        if known is None or now >= known.expires or now - checked > VERIFIED_SECONDS:
            known = await self._of_claims(self._issuer, token)
            if len(self._verified) >= MAX_VERIFIED:
                self._verified.clear()
            self._verified[digest] = (known, now)
        return known

    async def _of_claims(self, issuer: Issuer, token: str) -> Caller:
        name, expires, words = await issuer.claims(token)
        found = self._vouched(JWT + name)
        scopes = found.scopes if words is None else frozenset(s for s in found.scopes if s.value in words)
        return Caller(found.principal, scopes, found.credential, expires, found.account)

    def _vouched(self, name: str) -> Caller:
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise UnauthenticatedError("the name of the caller is too long, or cannot be printed")
        return self._caller(self._principals.vouched(name), name)

    def _caller(self, principal: Principal, credential: str) -> Caller:
        return Caller(principal, principal.scopes, credential, float("inf"), self._account(principal))

    def _account(self, principal: Principal) -> Account:
        account = self._accounts.get(principal.name)
        if account is None:
            account = self._accounts[principal.name] = Account(principal.quotas, self._places)
            if len(self._accounts) > MAX_ACCOUNTS:
                idle = next(name for name, account in self._accounts.items() if account.is_idle)
                del self._accounts[idle]
        return account

    def _is_known(self, running: Caller) -> bool:
        name = running.credential
        if name == NOBODY:
            return self._principals.nobody is not None
        if name.startswith((CERTIFICATE, JWT)):
            return bool(self._principals.vouched(name).scopes)
        found = self._principals.of_token(name)
        return found is not None and found.name == running.principal.name


def open_door(settings: Settings) -> Door | None:
    """Return what lets callers in; None: the settings ask for nothing.

    Raises:
        SettingsError: the file of principals cannot be used.
    """
    if settings.access is None and settings.tls_client_ca is None:
        return None
    return Door(settings.access, min(settings.max_streams, settings.max_batch + settings.max_waiting))


def scope_of(method: str) -> Scope:
    """Return what a caller needs for a method: unknown services are for admins."""
    if not method.startswith(_SERVICES):
        return Scope.ADMIN
    return Scope.READ if method.rpartition("/")[2] in READS else Scope.GENERATE


def _owner_of(name: str) -> str:
    return ANONYMOUS if name == NOBODY else name


def _issuer(table: IssuerTable, path: Path) -> Issuer:
    try:
        from elman_server.grpc.access.issuer import Issuer  # noqa: PLC0415  its library is optional
    except ImportError as error:
        raise SettingsError(f"--access {path}: [jwt] needs more libraries: pip install 'elman[jwt]'") from error
    return Issuer(table)
