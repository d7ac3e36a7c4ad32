"""What `elman-web` is started with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The options of the command, checked.

    Attributes:
        target: The gRPC server, as clients write it.
        listen: Host and port of the page; port 0: a free one.
        tls: Encrypt the connection to the server.
        root_certificates: PEM file to check it against.
        allowed_hosts: Names under which browsers may reach this, besides loopback and the host of `listen`.
        cors_origins: Sites whose pages may call the door.
        max_body_bytes: Largest request body.
        max_streams: Requests to the door that may run at once.
        write_seconds: How long a stream waits for a reader that does not read.
    """

    target: str = "localhost:50051"
    listen: str = "127.0.0.1:8080"
    tls: bool = False
    root_certificates: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 4_194_304
    max_streams: int = 256
    write_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Check what the types do not say; raises ValueError."""
        host, _, port = self.listen.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004 - the largest port
            raise ValueError(f"--listen {self.listen!r} is not a host and a port such as 127.0.0.1:8080")
        for origin in self.cors_origins:
            scheme, _, site = origin.partition("://")
            if scheme not in {"http", "https"} or not site or "/" in site or "*" in site:
                raise ValueError(f"--cors-origin {origin!r} is not an origin such as https://example.org")

    @property
    def host(self) -> str:
        """The host to listen on."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port to listen on."""
        return int(self.listen.rpartition(":")[2])

    @property
    def max_connections(self) -> int:
        """Sockets that may be open: an idle tab keeps a few."""
        return 4 * self.max_streams

    @property
    def hosts(self) -> frozenset[str]:
        """The names that a request's Host header may have; empty: any."""
        if "*" in self.allowed_hosts:
            return frozenset()
        return frozenset({"localhost", "127.0.0.1", "::1", self.host.lower(), *map(str.lower, self.allowed_hosts)})
