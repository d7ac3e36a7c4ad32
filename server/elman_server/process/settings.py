"""Settings: one frozen dataclass, from which flags, variables, checks and docs/settings.md follow."""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

from elman_server.domain.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "ELMAN_"
BUNDLED: Final = Path(__file__).parent.parent / "bundled"
# The client's, docker-compose.yml's, and what Kubernetes and docker put into the environment beside a service `elman`
# or `elman-…`: ELMAN_PORT, ELMAN_SERVICE_HOST, ELMAN_PORT_50051_TCP_ADDR, ELMAN_REDIS_NAME, …
FOREIGN: Final = re.compile(
    r"ELMAN_(TARGET|TLS|CA|CERT|KEY|TOKEN|TOKEN_FILE|CLUSTER_PORT|TLS_PORT|WEB_PORT|CPUS|GRAFANA_PORT|"
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|NAME|ENV_\w+|"
    r"PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?))"
)
_HOUR: Final = 3600.0
_DAY: Final = 24 * _HOUR
_YEAR: Final = 365 * _DAY
_HOST_PORT: Final = re.compile(r"(?P<host>[^\s:/]+|\[[0-9a-fA-F:.%]+\]):(?P<port>\d{1,5})")
_ADDRESS: Final = re.compile(rf"unix:(?P<path>.+)|{_HOST_PORT.pattern}")
_MAX_PORT: Final = 65535
_STORE: Final = re.compile(r"memory:|sqlite:.+|rediss?(\+cluster)?://[^/?]+.*")
_KEYS: Final = re.compile(r"file:.+|env:.+")
_PASSWORD: Final = re.compile(r"(?<=://)[^/]*(?=@)")
_WORDS: Final = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting has besides its name, type and default.

    Attributes:
        line: what it does, one line.
        unit: `s`, `bytes`, ...; empty where it has none.
        low, high: the range of a number, both allowed.
        choices: the words that are allowed; empty: any.
        default: how documents write the default, where its value depends on the machine or on other settings.
    """

    line: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    default: str = ""

    @property
    def allowed(self) -> str:
        """What values are allowed, in words; empty: any."""
        if self.choices:
            return ", ".join(self.choices)
        return f"{self.low:.15g} to {self.high:.15g}" if math.isfinite(self.high) else ""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server runs. Build it with `load`, or directly; either way every value is checked.

    Raises:
        SettingsError: a value is out of range.
    """

    listen: Annotated[str, Rule("Address: `host:port` (port 0: a free one) or `unix:/path`.")] = "127.0.0.1:50051"
    models: Annotated[
        Path, Rule("The model to serve: an `*.onnx` file, or a directory of some.", default="the bundled models")
    ] = BUNDLED
    store: Annotated[
        str,
        Rule(
            "Where sessions are kept: `memory:` (until the end of the process), `sqlite:PATH` (a file), "
            "`redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]` (Redis or Valkey; `rediss://` with TLS, where "
            "`?ca=FILE` names the certificate authority; `redis+cluster://` and `rediss+cluster://` a cluster)."
        ),
    ] = "memory:"
    store_timeout_seconds: Annotated[float, Rule("Longest wait for one reply of Redis.", "s", 0.01, 60)] = 2.0
    store_keys: Annotated[
        str | None,
        Rule(
            "Encrypts what is stored: `file:PATH` or `env:VARIABLE` holds keys, each 32 bytes in base64 "
            "(`openssl rand -base64 32`); the first encrypts, all decrypt."
        ),
    ] = None
    session_ttl: Annotated[
        float | None,
        Rule(
            "Idle time after which a session expires, unless it has a time of its own.",
            "s",
            1,
            _YEAR,
            default="1 hour in `memory:`, 30 days in other stores",
        ),
    ] = None
    session_max_age: Annotated[
        float | None,
        Rule(
            "Age at which a session expires, even if it is in use.",
            "s",
            1,
            _YEAR,
            default="1 day in `memory:`, 365 days in other stores",
        ),
    ] = None
    max_sessions: Annotated[
        int, Rule("Most sessions at once, in `memory:` and `sqlite:`; Redis has its `maxmemory`.", "", 1, 10**8)
    ] = 100_000
    max_session_bytes: Annotated[int, Rule("Memory of all sessions together, in `memory:`.", "bytes", 1024, 2**42)] = (
        2**30
    )
    max_store_bytes: Annotated[int, Rule("Size of the file of `sqlite:`.", "bytes", 2**20, 2**46)] = 2**36
    max_session_chars: Annotated[
        int, Rule("Most characters that one session may have; it may have a tenth as many turns.", "", 1, 10**12)
    ] = 10_000_000
    max_streams: Annotated[int, Rule("Generate streams open at once.", "", 1, 10**6)] = 20_000
    max_batch: Annotated[int, Rule("Rows of one model stepped together.", "", 1, 1024)] = 256
    max_waiting: Annotated[int, Rule("Streams of one model waiting for a row.", "", 0, 10**6)] = 20_000
    max_prompt_chars: Annotated[int, Rule("Longest prompt or text.", "characters", 1, 10**8)] = 100_000
    max_unread_chars: Annotated[
        int, Rule("Characters of long prompts and texts that wait to be read by one engine.", "characters", 1, 10**10)
    ] = 2_000_000
    max_chars: Annotated[int, Rule("Most characters that one Generate may sample.", "characters", 1, 10**9)] = 100_000
    max_message_bytes: Annotated[
        int,
        Rule(
            "Largest gRPC message. A request has at most 4 bytes for each of `max_prompt_chars` and 64 KiB, too.",
            "bytes",
            1024,
            2**31 - 1,
        ),
    ] = 2**23
    max_connection_streams: Annotated[
        int, Rule("Most calls at once on one connection; a client that needs more opens another.", "", 1, 100_000)
    ] = 1000
    stalled_seconds: Annotated[
        float, Rule("Time after which a stream ends whose reader takes nothing; its turn is committed.", "s", 1, 86400)
    ] = 60.0
    flush_interval_ms: Annotated[
        float,
        Rule(
            "Time for which sampled characters are joined in one message; with n > 32 streams sqrt(n / 32) times that. "
            "In CPU time of the engine: on a busy machine up to four times as long. "
            "Before the end of a turn up to four times as long, to be sent with it.",
            "ms",
            0,
            1000,
        ),
    ] = 20.0
    lease_seconds: Annotated[
        float,
        Rule("Time after which a server that does not renew its turns loses them to other servers.", "s", 0.1, 600),
    ] = 5.0
    commit_chars: Annotated[
        int, Rule("A running turn becomes durable after this number of characters.", "", 1, 10**9)
    ] = 4096
    commit_seconds: Annotated[
        float, Rule("A running turn becomes durable after this time; at most half of `lease_seconds`.", "s", 0.01, 300)
    ] = 2.0
    store_patience_seconds: Annotated[
        float,
        Rule(
            "How long turns continue while the store cannot be reached; then they end UNAVAILABLE and health follows.",
            "s",
            0,
            3600,
        ),
    ] = 10.0
    snapshot_key: Annotated[
        Path | None,
        Rule(
            "File whose bytes sign exported sessions.",
            default="`PATH.key` beside `sqlite:PATH`, made at the first start; else a key until the server stops",
        ),
    ] = None
    engine_threads: Annotated[
        int,
        Rule("Most threads of one step; `auto`: by the model's size and the cores.", "", 0, 256, default="`auto`"),
    ] = 0
    engines: Annotated[int, Rule("Engine processes of one model; streams are spread over them.", "", 1, 256)] = 1
    grace_seconds: Annotated[float, Rule("Time for running streams to finish at a stop.", "s", 0, 3600)] = 30.0
    drain_delay_seconds: Annotated[
        float, Rule("How long health reports NOT_SERVING before new turns are refused.", "s", 0, 3600)
    ] = 0.0
    inspection: Annotated[
        str,
        Rule(
            "Serve InspectionService, which shows states and weights of the models; `auto`: on a loopback or `unix:` "
            "address.",
            choices=("auto", "on", "off"),
        ),
    ] = "auto"
    reflection: Annotated[bool, Rule("Serve the contract to callers (gRPC reflection).")] = True
    metrics_listen: Annotated[
        str | None,
        Rule("Address of /metrics, /healthz and /readyz: plain HTTP, `host:port` (port 0: a free one)."),
    ] = None
    open_telemetry: Annotated[
        bool,
        Rule("Send traces and the times of calls by OTLP; OpenTelemetry's own `OTEL_*` variables say where and how."),
    ] = False
    log_format: Annotated[
        str,
        Rule("Format of the log; `auto`: console on a terminal, else json.", choices=("auto", "console", "json")),
    ] = "auto"
    log_level: Annotated[str, Rule("Lowest level that is logged.", choices=("debug", "info", "warning", "error"))] = (
        "info"
    )
    tls_certificate: Annotated[
        Path | None, Rule("PEM file of the certificate chain; with `tls_key` it switches TLS on.")
    ] = None
    tls_key: Annotated[Path | None, Rule("PEM file of the certificate's private key.")] = None
    tls_client_ca: Annotated[
        Path | None,
        Rule("PEM file of the authorities whose certificates callers have to show (mutual TLS); needs `tls_key`."),
    ] = None
    access: Annotated[
        Path | None, Rule("TOML file of who may call, and how much (docs/security.md); read again when it changes.")
    ] = None
    insecure: Annotated[
        bool, Rule("Listen beyond the loopback device although TLS or `access` (or `tls_client_ca`) is missing.")
    ] = False

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            value = getattr(self, name)
            if value is None:
                continue
            # Written so that NaN is outside.
            in_range = value in rule.choices if rule.choices else not rule.allowed or rule.low <= value <= rule.high
            if not in_range:
                raise _refusal(name, value, rule.allowed)
        _check_address("listen", self.listen, _ADDRESS, ", or unix:/path")
        if self.metrics_listen is not None:
            _check_address("metrics_listen", self.metrics_listen, _HOST_PORT)
        if not _STORE.fullmatch(self.store):
            raise _refusal(
                "store", self.store, "memory:, sqlite:PATH, redis://, rediss:// or redis+cluster://HOST:PORT"
            )
        if self.store_keys is not None and not _KEYS.fullmatch(self.store_keys):
            raise _refusal("store_keys", "something else", "file:PATH or env:VARIABLE, but never the keys themselves")
        if self.commit_seconds > self.lease_seconds / 2:
            raise _refusal(
                "commit_seconds", self.commit_seconds, f"up to half of lease_seconds, {self.lease_seconds / 2:g}"
            )
        self._check_transport()

    def _check_transport(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            raise _refusal(missing, "not set", "a PEM file, because TLS needs a certificate and its key")
        if self.tls_client_ca is not None and self.tls_key is None:
            raise _refusal("tls_key", "not set", "a PEM file, because tls_client_ca needs TLS")
        if self.lacks and not self.insecure:
            raise SettingsError(
                f"--listen (ELMAN_LISTEN) is {self.listen!a}, which others can reach, without {self.lacks}; see "
                "docs/security.md, or say --insecure true (ELMAN_INSECURE)"
            )

    @property
    def lacks(self) -> str:
        """What a server that others can reach should have and this one does not, in words; empty: nothing."""
        if self._is_local:
            return ""
        lacks = {
            "TLS (--tls-certificate, --tls-key)": self.tls_key is None,
            "authentication (--access or --tls-client-ca)": self.access is None and self.tls_client_ca is None,
        }
        return " and without ".join(name for name, is_missing in lacks.items() if is_missing)

    @property
    def serves_inspection(self) -> bool:
        """Whether InspectionService is served."""
        return self.inspection == "on" or (self.inspection == "auto" and self._is_local)

    @property
    def _is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        return self.listen.startswith("unix:") or _is_loopback(self.listen.rpartition(":")[0].strip("[]"))

    @property
    def lifetimes(self) -> tuple[float, float]:
        """How long sessions live, in seconds: idle, and at most. What is kept on disk lives longer by default."""
        idle, oldest = (_HOUR, _DAY) if self.store == "memory:" else (30 * _DAY, _YEAR)
        return self.session_ttl or idle, self.session_max_age or oldest


_HINTS: Final = get_type_hints(Settings, include_extras=True)
RULES: Final[Mapping[str, Rule]] = {name: hint.__metadata__[0] for name, hint in _HINTS.items()}


def load(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """Return the effective settings: flags before variables before defaults.

    Args:
        flags: text by setting name; None is not given.
        environ: the process's variables; see `unknown_variables`.

    Raises:
        SettingsError: a value is out of range.
    """
    values: dict[str, Any] = {}
    for name in RULES:
        text = flags.get(name)
        if text is None:
            text = environ.get(variable(name))
        if text is not None:
            values[name] = _parse(name, _HINTS[name].__origin__, text)
    return Settings(**values)


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that begin with `ELMAN_` and are neither settings nor other programs', with what to do."""
    settings = [name.upper() for name in RULES]
    ours = [name for name in sorted(environ) if name.startswith(PREFIX) and not FOREIGN.fullmatch(name)]
    unknown = [word for name in ours if (word := name.removeprefix(PREFIX)) not in settings]
    near = {word: difflib.get_close_matches(word, settings, n=1) for word in unknown}
    return {PREFIX + word: f"did you mean {PREFIX}{close[0]}?" if close else "unset it" for word, close in near.items()}


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def to_toml(settings: Settings) -> str:
    """Return every effective value but passwords, as TOML; what is not set stands in a comment."""
    idle, oldest = settings.lifetimes
    effective = {"store": _masked(settings.store), "session_ttl": idle, "session_max_age": oldest}
    values = {name: getattr(settings, name) for name in RULES} | effective
    lines = [f"# {name} is not set" if value is None else f"{name} = {_toml(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def to_markdown() -> str:
    """Return docs/settings.md."""
    return _HEAD + "".join(_table_row(field) for field in dataclasses.fields(Settings))


_HEAD: Final = """# Settings

Every setting is a flag of `elman-server` and a variable; the flag wins. `elman-server --print-config` shows what is in
force. A value out of range or an unknown flag stops the start. An unknown `ELMAN_` variable is a warning, unless it is
another program's: `ELMAN_TARGET`, or what Kubernetes and docker set beside a service `elman` (`ELMAN_SERVICE_HOST`).
This table is written by `make docs` from `elman_server/process/settings.py`.

| flag | variable | default | unit | allowed | meaning |
|---|---|---|---|---|---|
"""


def _table_row(field: dataclasses.Field[Any]) -> str:
    rule = RULES[field.name]
    value = "" if field.default is None else str(field.default).lower()
    default = rule.default or (f"`{value}`" if value else "not set")
    cells = [f"`{flag(field.name)}`", f"`{variable(field.name)}`", default, rule.unit, rule.allowed, rule.line]
    return f"| {' | '.join(cells)} |\n"


def _toml(value: object) -> str:
    # TOML writes numbers, booleans and plain strings as JSON does.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _masked(text: str) -> str:
    """Return a URL without its user and password."""
    return _PASSWORD.sub("***", text)


def _parse(name: str, kind: object, text: str) -> object:
    try:
        if kind is bool:
            return _WORDS[text.lower()]
        if kind is int:
            return 0 if text == "auto" and RULES[name].default == "`auto`" else int(text)
        if kind in {float, float | None}:
            return float(text)
    except (KeyError, ValueError):
        allowed = "true or false" if kind is bool else RULES[name].allowed
        raise _refusal(name, text, allowed) from None
    if not text:
        raise _refusal(name, text, RULES[name].allowed or "a value; unset it to take the default")
    return Path(text) if kind in {Path, Path | None} else text


def _check_address(name: str, listen: str, form: re.Pattern[str], or_else: str = "") -> None:
    match = form.fullmatch(listen)
    if match is None or int(match["port"] or 0) > _MAX_PORT:
        raise _refusal(name, listen, f"host:port with a port of 0 to {_MAX_PORT}{or_else}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(name: str, value: object, allowed: str) -> SettingsError:
    unit = f" {RULES[name].unit}" if RULES[name].unit else ""
    shown = value if value == "not set" else ascii(_masked(str(value))[:100])
    return SettingsError(f"{flag(name)} ({variable(name)}) is {shown}; allowed is {allowed}{unit}")
