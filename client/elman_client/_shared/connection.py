"""Where the server is, how to get there, and what every call brings with it."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4

import grpc

from elman_client._errors import FailedPreconditionError
from elman_client._shared.fields import invalid, number, wrong_type
from elman_client._shared.operation import Operation
from elman_client._shared.tracing import Span

CHANNEL_OPTIONS: Final = (
    # The server sets the limits; a long Score with many candidates passes gRPC's 4 MiB.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A dead peer is noticed within 20 seconds. Elman servers allow pings much more often.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # gRPC waits this long, a minute by default, whatever the line above says
    # And found again soon after it is back: gRPC's own pauses grow to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # also the seconds that one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_LONGEST_SECONDS: Final = 1e9  # 31 years; gRPC's own times overflow at some 290
_URL: Final = re.compile(r"(https?|grpcs?|wss?)://([^/]*)", re.IGNORECASE)
_HEADER: Final = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

Token: TypeAlias = str | Callable[[], str]


@dataclass(frozen=True)
class Call:
    """One sent call, as its errors need to know it."""

    target: str
    request_id: str
    metadata: tuple[tuple[str, str | bytes], ...] = field(repr=False)  # a token may be among them
    timeout: float | None
    span: Span = field(repr=False)


class Connection:
    """The settings of a client. It holds no socket."""

    def __init__(
        self,
        target: str,
        *,
        tls: bool,
        root_certificates: str | Path | None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        credentials: grpc.ChannelCredentials | None,
        token: Token | None = None,
        metadata: Mapping[str, str] | None,
        timeout: float | None,
        retry_seconds: float,
    ) -> None:
        files = {"root_certificates": root_certificates, "key": key, "certificate": certificate}
        unused = [name for name, file in files.items() if file is not None and not tls]
        if unused:
            raise ValueError(f"{unused[0]} without tls=True would not be used: pass both")
        if credentials is not None and tls:
            raise ValueError("pass credentials or tls=True, not both")
        if (certificate is None) != (key is None):
            raise ValueError("pass certificate and key, or neither")
        self.target = _target(target)
        if token is not None and not tls and credentials is None and not _is_loopback(target):
            raise ValueError("token without tls=True would be sent in clear: pass tls=True")
        pem = [Path(file).read_bytes() if file is not None else None for file in files.values()]
        self.credentials = grpc.ssl_channel_credentials(*pem) if tls else credentials
        self.channel_options = (*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0 if _is_loopback(target) else 1))
        self.is_closed = False
        self.is_proven = False  # a server has answered
        self.retry_seconds = _patience(retry_seconds)
        self._metadata = tuple(_headers(metadata))
        self._token = token
        self._timeout = _seconds(timeout)
        self._process = os.getpid()

    @property
    def is_of_this_process(self) -> bool:
        """Whether the client was made here, and not before a fork."""
        return os.getpid() == self._process

    def check_process(self) -> None:
        """Check that the client was made in this process: gRPC's threads stay behind in the parent.

        Raises:
            FailedPreconditionError: It was made before a fork.
        """
        if not self.is_of_this_process:
            raise FailedPreconditionError("this client was made before a fork: make a new one in each process")

    def call(self, operation: Operation[Any], timeout: float | None) -> Call:
        """Return what goes with ``operation``: a request id, the headers and the deadline.

        Raises:
            FailedPreconditionError: The client is closed, or was made before a fork.
        """
        if self.is_closed:
            raise FailedPreconditionError("this client is closed: make a new one")
        self.check_process()
        request_id = str(uuid4())
        span = Span(operation.path, self.target, request_id)
        headers = (*self._metadata, ("x-request-id", request_id), *span.header)
        if self._token is not None:
            headers += (("authorization", _bearer(self._token)),)
        if operation.session:
            headers += (("x-session-id", operation.session.removeprefix("sessions/")),)
        if operation.key:
            headers += (("idempotency-key", operation.key),)
        return Call(self.target, request_id, headers, self.timeout_of(timeout), span)

    def timeout_of(self, timeout: float | None) -> float | None:
        """Return the seconds of a call; ``None``: no deadline."""
        return self._timeout if timeout is None else _seconds(timeout)


def _seconds(timeout: float | None) -> float | None:
    """Return what gRPC takes for ``timeout``; more seconds than anyone waits are no deadline."""
    if timeout is None:
        return None
    seconds = number("timeout", timeout)
    if not seconds > 0:
        raise invalid("timeout", "is a number of seconds above 0; leave it out for no deadline")
    return seconds if seconds <= _LONGEST_SECONDS else None


def _patience(retry_seconds: float) -> float:
    seconds = number("retry_seconds", retry_seconds)
    if not seconds >= 0:
        raise invalid("retry_seconds", "is a number of seconds; 0 never makes a call again")
    return seconds


def _target(target: str) -> str:
    if not isinstance(target, str):
        raise wrong_type("target", "a str such as localhost:50051", target)
    if found := _URL.match(target):
        tls = " with tls=True" if found[1].lower() in {"https", "grpcs", "wss"} else ""
        raise invalid("target", f"{target!r} is a URL; gRPC takes a host and a port: {found[2] or 'host:50051'!r}{tls}")
    if not target.strip():
        raise invalid("target", "is empty; it is a host and a port such as localhost:50051")
    return target


def _is_loopback(target: str) -> bool:
    """Return whether no proxy can be meant for ``target``."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    host = re.sub(r"^(dns:(//[^/]*/)?|ipv[46]:|passthrough:/*)", "", target)
    host = re.sub(r":\d+$", "", host).strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def _headers(metadata: Mapping[str, str] | None) -> list[tuple[str, str | bytes]]:
    """Return the headers of every call.

    Raises:
        TypeError: They are no mapping of names to texts.
        InvalidArgumentError: HTTP/2 or gRPC does not allow one.
    """
    if metadata is None:
        return []
    if not isinstance(metadata, Mapping):
        raise wrong_type("metadata", 'a mapping, as {"authorization": "Bearer x"}', metadata)
    for name, value in metadata.items():
        if not isinstance(name, str):
            raise wrong_type("each name of metadata", "a str", name)
        if not _HEADER.fullmatch(name):
            raise invalid("metadata", f"{name!r} is no name of a header: use lower-case letters, digits, - _ and .")
        if name.startswith("grpc-"):
            raise invalid("metadata", f"{name!r} is one of gRPC's own headers")
        _check_header_value(name, value)
    return list(metadata.items())


def _bearer(token: Token) -> str:
    """Return the header's value for a token; its errors do not show it."""
    text = token if isinstance(token, str) else token()
    if not isinstance(text, str):
        raise wrong_type("token", "a str, or a function that returns one", text)
    if not _TOKEN.fullmatch(text):
        raise invalid("token", "is empty, or has characters outside printable ASCII")
    return f"Bearer {text}"


def _check_header_value(name: str, value: object) -> None:
    kind: type = bytes if name.endswith("-bin") else str
    if not isinstance(value, kind):
        raise wrong_type(f"metadata[{name!r}]", f"a {kind.__name__}", value)
    if isinstance(value, str) and not _HEADER_VALUE.fullmatch(value):
        raise invalid("metadata", f"the value of {name!r} has characters outside printable ASCII")
