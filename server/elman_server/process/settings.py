"""Settings: one frozen dataclass, from which flags, variables, checks and docs/settings.md follow."""

from __future__ import annotations

import dataclasses
import difflib
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
BUNDLED: Final = Path(__file__).parent / "bundled"
FOREIGN: Final = frozenset({"ELMAN_TARGET"})  # the client's
_YEAR: Final = 365 * 24 * 3600.0
_ADDRESS: Final = re.compile(r"unix:(?P<path>.+)|(?P<host>[^\s:/]+|\[[0-9a-fA-F:.%]+\]):(?P<port>\d{1,5})")
_MAX_PORT: Final = 65535
_STORE: Final = re.compile(r"memory:|sqlite:.+|rediss?(\+cluster)?://[^/?]+.*")
_KEYS: Final = re.compile(r"file:.+|env:.+")
_PASSWORD: Final = re.compile(r"(?<=://)[^/]*(?=@)")
_WORDS: Final = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Rule:
    """What is known of one setting beside its name, type and default.

    Attributes:
        line: what it does, one line.
        unit: `s`, `bytes`, ...; empty where it has none.
        low, high: the range of a number, both allowed.
        choices: the words that are allowed; empty: any.
        default: how the default is written in documents, where its value depends on the machine.
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

    listen: Annotated[str, Rule("Address: `host:port` (port 0 takes a free one) or `unix:/path`.")] = "127.0.0.1:50051"
    models: Annotated[Path, Rule("Directory of the `*.onnx` files to serve.", default="the bundled models")] = BUNDLED
    store: Annotated[
        str,
        Rule(
            "Where sessions are kept: `memory:` (until the end of the process), `sqlite:PATH` (a file), "
            "`redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]` (Redis or Valkey; `rediss://` with TLS, where "
            "`?ca=FILE` names who signed; `redis+cluster://` and `rediss+cluster://` a cluster)."
        ),
    ] = "memory:"
    store_timeout_seconds: Annotated[float, Rule("Longest wait for one answer of Redis.", "s", 0.01, 60)] = 2.0
    store_keys: Annotated[
        str | None,
        Rule(
            "Encrypts what is stored: `file:PATH` or `env:VARIABLE` holds keys, each 32 bytes in base64 "
            "(`openssl rand -base64 32`); the first encrypts, all decrypt."
        ),
    ] = None
    session_ttl: Annotated[
        float, Rule("Idle time after which a session is forgotten, where it brings none.", "s", 1, _YEAR)
    ] = 3600.0
    session_max_age: Annotated[
        float, Rule("Age at which a session is forgotten however much it is used.", "s", 1, _YEAR)
    ] = 86400.0
    max_sessions: Annotated[
        int, Rule("Sessions kept at once, in `memory:` and `sqlite:`; Redis has its `maxmemory`.", "", 1, 10**8)
    ] = 100_000
    max_session_bytes: Annotated[int, Rule("Memory of all sessions together, in `memory:`.", "bytes", 1024, 2**42)] = (
        2**30
    )
    max_streams: Annotated[int, Rule("Generate streams open at once.", "", 1, 10**6)] = 20_000
    max_batch: Annotated[int, Rule("Rows of one model stepped together.", "", 1, 1024)] = 256
    max_waiting: Annotated[int, Rule("Streams of one model waiting for a row.", "", 0, 10**6)] = 20_000
    max_prompt_chars: Annotated[int, Rule("Longest prompt or text.", "characters", 1, 10**8)] = 100_000
    max_chars: Annotated[int, Rule("Most that one Generate may draw.", "characters", 1, 10**9)] = 100_000
    max_message_bytes: Annotated[int, Rule("Largest gRPC message, either way.", "bytes", 1024, 2**31 - 1)] = 2**23
    flush_interval_ms: Annotated[
        float,
        Rule(
            "Longest time that a sampled character waits for others; sqrt(n / 32) times that above 32 streams.",
            "ms",
            0,
            1000,
        ),
    ] = 20.0
    lease_seconds: Annotated[
        float, Rule("Time after which a server that is not heard of has lost its turns to others.", "s", 0.1, 600)
    ] = 5.0
    commit_chars: Annotated[int, Rule("A running turn becomes durable after so many characters.", "", 1, 10**9)] = 4096
    commit_seconds: Annotated[
        float, Rule("A running turn becomes durable after this time; at most half of `lease_seconds`.", "s", 0.01, 300)
    ] = 2.0
    store_patience_seconds: Annotated[
        float, Rule("How long turns go on while the store cannot be reached; then they are UNAVAILABLE.", "s", 0, 3600)
    ] = 10.0
    snapshot_key: Annotated[
        Path | None,
        Rule("File whose bytes sign exported sessions; without it they can be imported until the server stops."),
    ] = None
    engine_threads: Annotated[
        int, Rule("Most threads of one step; auto chooses by the model's size and the cores.", "", 0, 256, default="`auto`")
    ] = 0
    engines: Annotated[int, Rule("Engine processes of one model; streams are spread over them.", "", 1, 256)] = 1
    grace_seconds: Annotated[float, Rule("Time for running streams to end at a stop.", "s", 0, 3600)] = 30.0
    drain_delay_seconds: Annotated[
        float, Rule("How long health says NOT_SERVING before streams are asked to end.", "s", 0, 3600)
    ] = 0.0
    reflection: Annotated[bool, Rule("Tell callers the contract (gRPC reflection).")] = True
    log_format: Annotated[
        str,
        Rule("How the log looks; `auto`: console on a terminal, else json.", choices=("auto", "console", "json")),
    ] = "auto"
    log_level: Annotated[str, Rule("What the log tells.", choices=("debug", "info", "warning", "error"))] = "info"
    tls_certificate: Annotated[
        Path | None, Rule("PEM file of the certificate chain; with `tls_key` it switches TLS on.")
    ] = None
    tls_key: Annotated[Path | None, Rule("PEM file of the certificate's private key.")] = None

    def __post_init__(self) -> None:
        for name, rule in RULES.items():
            value = getattr(self, name)
            # Written so that NaN is outside.
            inside = value in rule.choices if rule.choices else not rule.allowed or rule.low <= value <= rule.high
            if not inside:
                raise _refusal(name, value, rule.allowed)
        _check_address(self.listen)
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
        if (self.tls_certificate is None) != (self.tls_key is None):
            missing = "tls_key" if self.tls_key is None else "tls_certificate"
            raise _refusal(missing, "not set", "a PEM file, because TLS needs a certificate and its key")


_HINTS: Final = get_type_hints(Settings, include_extras=True)
RULES: Final[Mapping[str, Rule]] = {name: hint.__metadata__[0] for name, hint in _HINTS.items()}


def load(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """Return the effective settings: flags before variables before defaults.

    Args:
        flags: text by setting name; None is not given.
        environ: the process's variables; of those that begin with `ELMAN_` every one must be a setting.

    Raises:
        SettingsError: a name is unknown or a value out of range.
    """
    _refuse_unknown(environ)
    values: dict[str, Any] = {}
    for name in RULES:
        text = flags.get(name)
        if text is None:
            text = environ.get(variable(name))
        if text is not None:
            values[name] = _parse(name, _HINTS[name].__origin__, text)
    return Settings(**values)


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def flag(name: str) -> str:
    """Return the command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def to_toml(settings: Settings) -> str:
    """Return every effective value but passwords, as TOML; what is not set stands in a comment."""
    values = {name: getattr(settings, name) for name in RULES} | {"store": _masked(settings.store)}
    lines = [f"# {name} is not set" if value is None else f"{name} = {_toml(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def to_markdown() -> str:
    """Return docs/settings.md."""
    return _HEAD + "".join(_table_row(field) for field in dataclasses.fields(Settings))


_HEAD: Final = """# Settings

Every setting is a flag of `elman-server` and a variable; the flag wins. `elman-server --print-config` shows what is in
force. A value out of range or an unknown `ELMAN_` variable (but the client's `ELMAN_TARGET`) stops the start.
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


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {variable(name) for name in RULES}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known | FOREIGN:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "unset it"
            raise SettingsError(f"{name} is not a setting; {hint} (`elman-server --help` lists all)")


def _parse(name: str, kind: object, text: str) -> object:
    try:
        if kind is bool:
            return _WORDS[text.lower()]
        if kind is int:
            return 0 if text == "auto" and RULES[name].default == "`auto`" else int(text)
        if kind is float:
            return float(text)
    except (KeyError, ValueError):
        allowed = "true or false" if kind is bool else RULES[name].allowed
        raise _refusal(name, text, allowed) from None
    if not text:
        raise _refusal(name, text, RULES[name].allowed or "a value; unset it to take the default")
    return Path(text) if kind in {Path, Path | None} else text


def _check_address(listen: str) -> None:
    match = _ADDRESS.fullmatch(listen)
    if match is None or int(match["port"] or 0) > _MAX_PORT:
        raise _refusal("listen", listen, f"host:port with a port of 0 to {_MAX_PORT}, or unix:/path")


def _refusal(name: str, value: object, allowed: str) -> SettingsError:
    unit = f" {RULES[name].unit}" if RULES[name].unit else ""
    shown = value if value == "not set" else ascii(_masked(str(value))[:100])
    return SettingsError(f"{flag(name)} ({variable(name)}) is {shown}; allowed is {allowed}{unit}")
