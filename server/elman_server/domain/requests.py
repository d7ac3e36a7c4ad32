"""Requests: what callers ask for, as text. `resolve` checks a request against a model and converts it to ids."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from elman_server.domain.errors import InvalidFieldError, ValueRangeError
from elman_server.domain.owner import key_of
from elman_server.domain.sampling import Sampling
from elman_server.domain.vocabulary import REJECT, Unknown, Vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping

_Number = TypeVar("_Number", int, float)

MAX_TOP_K: Final = 1_000_000
MAX_PENALTY: Final = 100.0
MAX_WINDOW: Final = 1024
MAX_BIAS: Final = 100.0
MAX_TOP_N: Final = 20
MAX_BIASES: Final = 1024
MAX_LISTED_CHARS: Final = 4096  # allowed or banned: the parameters of every turn are stored


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest requests that the server accepts for a model."""

    max_prompt_chars: int = 100_000
    max_chars: int = 100_000
    max_stop_strings: int = 16
    max_stop_string_chars: int = 256


@dataclass(frozen=True, slots=True)
class Detail:
    """How much to return for each character: its log-probability, and the `top_n` likeliest characters.

    Attributes:
        effective: also what it was sampled from; of sampled characters only.
    """

    log_probability: bool = False
    top_n: int = 0
    effective: bool = False

    def __bool__(self) -> bool:
        return self.log_probability or self.top_n > 0 or self.effective


class SamplingRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sampling as the caller wrote it; None is unset. Ranges as in `elman.v1.Sampling`."""

    logit_bias: tuple[tuple[str, float], ...] = ()
    allowed_characters: str = ""
    banned_characters: str = ""
    repetition_penalty: float | None = None
    repetition_window: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None

    def resolve(self, vocabulary: Vocabulary, default_seed: int) -> Sampling:
        """Return the effective parameters.

        Raises:
            InvalidFieldError: a value is out of range or a character unknown; names the field.
        """
        _number("sampling.repetition_penalty", self.repetition_penalty, 1 / MAX_PENALTY, MAX_PENALTY)
        _number("sampling.repetition_window", self.repetition_window, 1, MAX_WINDOW)
        _number("sampling.temperature", self.temperature, 0, math.inf)
        _number("sampling.top_k", self.top_k, 1, MAX_TOP_K)
        _number("sampling.top_p", self.top_p, 0, 1, open_below=True)
        _number("sampling.min_p", self.min_p, 0, 1)
        default = Sampling(seed=default_seed if self.seed is None else self.seed)
        return Sampling(
            seed=default.seed,
            bias=self._bias(vocabulary),
            repetition_penalty=_or(self.repetition_penalty, default.repetition_penalty),
            repetition_window=_or(self.repetition_window, default.repetition_window),
            temperature=_or(self.temperature, default.temperature),
            top_k=_or(self.top_k, default.top_k),
            top_p=_or(self.top_p, default.top_p),
            min_p=_or(self.min_p, default.min_p),
        )

    def effective(self) -> SamplingRequest:
        """Return what the caller gets to see: every number that has an effect is set."""
        default = Sampling(seed=0)
        return msgspec.structs.replace(
            self,
            repetition_penalty=_or(self.repetition_penalty, default.repetition_penalty),
            repetition_window=_or(self.repetition_window, default.repetition_window),
            temperature=_or(self.temperature, default.temperature),
            top_p=_or(self.top_p, default.top_p),
            min_p=_or(self.min_p, default.min_p),
        )

    def seeded(self, seed: int) -> SamplingRequest:
        """Return the same with a seed."""
        return msgspec.structs.replace(self, seed=seed)

    def _bias(self, vocabulary: Vocabulary) -> tuple[tuple[int, float], ...]:
        if len(self.logit_bias) > MAX_BIASES:
            raise InvalidFieldError(
                "sampling.logit_bias", f"has {len(self.logit_bias)} entries; at most {MAX_BIASES} are allowed"
            )
        bias: dict[int, float] = {}
        for index, (character, nats) in enumerate(self.logit_bias):
            where = f"sampling.logit_bias[{index}]"
            _number(f"{where}.bias", nats, -MAX_BIAS, MAX_BIAS)
            key = vocabulary.id_of(character, f"{where}.character")
            if key in bias:
                raise InvalidFieldError(
                    f"{where}.character", f"{character!a} already has a bias; give one entry for each character"
                )
            bias[key] = nats
        bias.update(dict.fromkeys(self._banned(vocabulary), -math.inf))
        return tuple(sorted(bias.items()))

    def _banned(self, vocabulary: Vocabulary) -> set[int]:
        if self.allowed_characters and self.banned_characters:
            raise InvalidFieldError(
                "sampling.banned_characters", "cannot be combined with allowed_characters; set one of them"
            )
        for name in ("allowed_characters", "banned_characters"):
            if len(characters := getattr(self, name)) > MAX_LISTED_CHARS:
                raise InvalidFieldError(
                    f"sampling.{name}", f"has {len(characters)} characters; at most {MAX_LISTED_CHARS} are allowed"
                )
        every = set(range(len(vocabulary)))
        if self.allowed_characters:
            name = "sampling.allowed_characters"
            return every - {vocabulary.id_of(character, name) for character in self.allowed_characters}
        name = "sampling.banned_characters"
        banned = {vocabulary.id_of(character, name) for character in self.banned_characters}
        banned.update(vocabulary.specials.values())
        if banned == every:
            raise InvalidFieldError(name, "bans the whole vocabulary; allow at least one character")
        return banned


@dataclass(frozen=True, slots=True)
class StoppingRequest:
    """When a turn ends, as the caller wrote it; None is unset."""

    max_chars: int | None = None
    stop_strings: tuple[str, ...] = ()
    include_stop: bool = False

    def resolve(self, vocabulary: Vocabulary, limits: Limits) -> tuple[int, list[list[int]]]:
        """Return the most characters to generate and the ids of the stop strings; raises InvalidFieldError."""
        _number("stopping.max_chars", self.max_chars, 1, limits.max_chars)
        if len(self.stop_strings) > limits.max_stop_strings:
            raise InvalidFieldError(
                "stopping.stop_strings",
                f"has {len(self.stop_strings)} entries; at most {limits.max_stop_strings} are allowed",
            )
        stops = []
        for index, stop in enumerate(self.stop_strings):
            name = f"stopping.stop_strings[{index}]"
            if not 0 < len(stop) <= limits.max_stop_string_chars:
                raise InvalidFieldError(
                    name, f"has {len(stop)} characters; 1 to {limits.max_stop_string_chars} are allowed"
                )
            stops.append(vocabulary.encode(stop, name))
        return _or(self.max_chars, limits.max_chars), stops


@dataclass(frozen=True, slots=True)
class Target:
    """Where the state comes from: a session's id or, from its beginning, a model's name; `version`: only that one."""

    session: str | None = None
    model: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One turn that generates text.

    Attributes:
        time_left: seconds until the call's deadline, None if it has none.
        request_id: 16 bytes, by which the server recognizes the same request sent again; empty: none.
    """

    target: Target
    prompt: str = ""
    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    stopping: StoppingRequest = field(default_factory=StoppingRequest)
    etag: str = ""
    rollback: bool = False
    detail: Detail = field(default_factory=Detail)
    unknown: Unknown = REJECT
    chunk_chars: int = 0
    time_left: float | None = None
    request_id: bytes = b""

    def digest(self) -> bytes:
        """Return 16 bytes that differ for requests that ask for different turns."""
        return digest_of(_given(replace(self, target=Target(), chunk_chars=0, time_left=None)))


@dataclass(frozen=True, slots=True)
class StopRequest:
    """The end of the turn that a chat runs; `position`: up to where it is kept, None: all that was delivered."""

    position: int | None = None


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """A turn to continue.

    Attributes:
        position: the session's position after the last character that the caller has; None: it has none.
    """

    session: str
    request_id: bytes
    position: int | None = None
    time_left: float | None = None


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """One turn that reads a text and generates nothing."""

    session: str
    text: str
    etag: str = ""
    detail: Detail = field(default_factory=Detail)
    unknown: Unknown = REJECT
    request_id: bytes = b""

    def digest(self) -> bytes:
        """Return 16 bytes that differ for requests that ask for different turns."""
        return digest_of(_given(replace(self, session="")))


@dataclass(frozen=True, slots=True)
class Creation:
    """A request that makes sessions, as the server recognizes it when it is sent again.

    Attributes:
        request_id: 16 bytes; empty: it is not recognized.
        digest: of the request; empty without a request id.
        index: which of the sessions that it makes.
        owner: whose they are.
    """

    request_id: bytes = b""
    digest: bytes = b""
    index: int = 0
    owner: str = ""

    def part(self, index: int) -> Creation:
        """Return the creation of one of several sessions."""
        return replace(self, index=index)

    def key(self, session_id: str = "") -> str:
        """Return the session's key; without an id it is a new one, or always the same one for the same request id."""
        if session_id:
            return key_of(self.owner, session_id)
        if not self.request_id:
            return key_of(self.owner, str(uuid.uuid4()))
        return key_of(self.owner, str(uuid.uuid5(uuid.UUID(bytes=self.request_id), str(self.index))))


ANONYMOUS: Final = Creation()  # of a request without an id, where nobody is known


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """A text to score; the session does not change. `read_out`: a probe's name; "": the model's own output."""

    target: Target
    text: str
    top_n: int = 0
    unknown: Unknown = REJECT
    read_out: str = ""


def check_text(name: str, text: str, limits: Limits, *, empty: bool) -> None:
    """Refuse a prompt or text that is too long, or empty although it must not be."""
    if len(text) > limits.max_prompt_chars:
        raise InvalidFieldError(
            name, f"has {len(text)} characters; at most {limits.max_prompt_chars} are allowed; send it in pieces"
        )
    if not text and not empty:
        raise InvalidFieldError(name, "is empty; send at least one character")


def check_top_n(name: str, value: int, largest: int) -> None:
    """Refuse a number of likeliest characters that is out of range."""
    _number(name, value, 0, largest)


def digest_of(given: Mapping[str, Any]) -> bytes:
    """Return 16 bytes that differ for requests in which other values are given, by name.

    Servers of two versions compare requests. So what is not given must not be in the digest: a field that the contract
    gains then changes no digest until it is used.
    """
    return hashlib.sha256(msgspec.msgpack.encode(given, order="sorted")).digest()[:16]


def _given(value: object) -> Any:
    """Return the fields of a request that differ from their defaults, by name."""
    defaults = _DEFAULTS.get(type(value))
    if defaults is None:
        return value
    given = {name: getattr(value, name) for name in defaults}
    # Not by equality alone: 0 and False are equal.
    changed = [name for name, v in given.items() if (v, type(v)) != (defaults[name], type(defaults[name]))]
    return {name: _given(given[name]) for name in changed}


def _defaults_of(kind: type[Any]) -> Mapping[str, Any]:
    if issubclass(kind, msgspec.Struct):
        return dict(zip(kind.__struct_fields__, kind.__struct_defaults__, strict=True))
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(kind)
    }


_DEFAULTS: Final[Mapping[type[Any], Mapping[str, Any]]] = {
    kind: _defaults_of(kind)
    for kind in (GenerateRequest, AppendRequest, Target, SamplingRequest, StoppingRequest, Detail, Unknown)
}


def _or(value: _Number | None, default: _Number) -> _Number:
    return default if value is None else value


def _number(name: str, value: float | None, low: float, high: float, *, open_below: bool = False) -> None:
    if value is None:
        return
    inside = (low < value if open_below else low <= value) and value <= high and math.isfinite(value)
    if not inside:
        above = "above" if open_below else "from"
        most = f" to {high:.15g}" if math.isfinite(high) else ", finite"
        raise ValueRangeError(name, value, f"{low:.15g}", f"{high:.15g}", f"{above} {low:.15g}{most}")
