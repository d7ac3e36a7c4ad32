"""The server's certificate and key, and who may have signed its callers' certificates.

The files are read again when they change: each handshake looks, so that a rotation needs no restart and touches no
connection that is open.
"""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING

import grpc
import structlog

from elman_server.domain.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from elman_server.process.settings import Settings

log = structlog.get_logger(__name__)


def credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Return what the port needs for TLS; None: it has none.

    Raises:
        SettingsError: a file cannot be used.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    files = CertificateFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    return grpc.dynamic_ssl_server_credentials(
        files.load(),
        files.changed,  # type: ignore[arg-type]  # gRPC takes None for no change; its stubs do not
        require_client_authentication=settings.tls_client_ca is not None,
    )


class CertificateFiles:
    """PEM files that may change while the server runs; the last ones that could be used stay in force."""

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._seen: list[tuple[int, ...]] = []
        self._lock = threading.Lock()  # handshakes run in threads of gRPC

    def load(self) -> grpc.ServerCertificateConfiguration:
        """Return what the files hold.

        Raises:
            SettingsError: one cannot be read, or certificate and key are not a pair.
        """
        seen = self._versions()
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate, self._key, password=lambda: "")
            pair = (self._key.read_bytes(), self._certificate.read_bytes())
            roots = None
            if self._client_ca is not None:
                context.load_verify_locations(self._client_ca)
                roots = self._client_ca.read_bytes()
        except (OSError, ValueError) as error:
            raise SettingsError(f"{self._cause(error)}; TLS needs PEM files") from error
        self._seen = seen
        return grpc.ssl_server_certificate_configuration([pair], roots)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files hold if they have changed since they were read last and can be used; else None."""
        with self._lock:
            seen = self._versions()
            if seen == self._seen:
                return None
            try:
                loaded = self.load()
            except SettingsError as error:  # perhaps in the middle of a rotation
                self._seen = seen
                log.error("certificate_not_reloaded", error=str(error))  # noqa: TRY400  expected: no traceback
                return None
            log.info("certificate_reloaded", path=str(self._certificate))
            return loaded

    def _versions(self) -> list[tuple[int, ...]]:
        """Return what changes with the files."""
        return [_version(path) for path in (self._certificate, self._key, self._client_ca) if path is not None]

    def _cause(self, error: Exception) -> str:
        """Return what is wrong with the files, in words."""
        for path in filter(None, (self._certificate, self._key, self._client_ca)):
            try:
                path.read_bytes()
            except OSError as unread:
                return f"cannot read {path}: {unread.strerror}"
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            return f"{self._key} is not the key of the certificate {self._certificate}"
        return f"{self._certificate}, {self._key} or the clients' authority is not in PEM form, or has a password"


def _version(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ctime_ns, status.st_ino, status.st_size
