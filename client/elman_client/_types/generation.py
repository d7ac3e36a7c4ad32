"""What a turn requests and returns."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from elman_client._types.sampling import Sampling
from elman_client._types.session import SessionInfo
from elman_client._types.value import Value


class OnAbort(StrEnum):
    """What a turn that does not reach its end commits."""

    KEEP_PARTIAL = "KEEP_PARTIAL"  # the prompt and the text that the caller has
    ROLLBACK = "ROLLBACK"  # nothing


@dataclass(frozen=True)
class ReplaceWith(Value):
    """Read one character of the vocabulary in place of each character outside it."""

    character: str


UnknownPolicy: TypeAlias = Literal["reject", "skip"] | ReplaceWith
"""What to do with characters outside the vocabulary; the server's default is ``reject``."""


@dataclass(frozen=True)
class Started(Value):
    """The first event of a turn: what it will do.

    Attributes:
        sampling: The effective parameters, seed included.
        max_chars: The effective maximum of characters to generate.
        start_position: The session's position before the prompt.
        prompt_chars: Characters read from the prompt.
        model_digest: SHA-256 of the artefact, 64 hex digits.
    """

    sampling: Sampling
    max_chars: int
    start_position: int
    prompt_chars: int
    model_digest: str


@dataclass(frozen=True)
class CharacterProbability(Value):
    """A candidate and its log-probability in nats."""

    text: str
    log_probability: float


@dataclass(frozen=True)
class LabelProbability(Value):
    """A label of a read-out and its log-probability in nats."""

    label: str
    log_probability: float


@dataclass(frozen=True)
class EffectiveDistribution(Value):
    """What a character was sampled from: after bias, penalty, temperature and filters.

    The kept characters lie side by side on [0, 1), each as wide as its probability: the likeliest
    first if a filter or temperature 0 is set, else in the order of the vocabulary. The sample is the
    one whose part holds the uniform number.

    Attributes:
        log_probability: The sampled character's, in nats.
        top: The likeliest of the kept characters, likeliest first, as many as ``top_n``.
        num_kept: How many characters were kept.
        uniform: The number on [0, 1) that chose it: a function of seed and position.
        below: The probability of all characters before the sampled one.
    """

    log_probability: float
    top: tuple[CharacterProbability, ...]
    num_kept: int
    uniform: float
    below: float


@dataclass(frozen=True)
class CharacterDetail(Value):
    """How likely a character was under softmax(logits), before any filter.

    Attributes:
        text: The character; for byte-level models one byte, shown as U+0000 to U+00FF.
        log_probability: In nats; ``None`` if nothing came before it (position 0), or if the model
            returns labels.
        top: The likeliest characters, likeliest first, if asked for.
        labels: The read-out after this character, in its own order; only ``score`` returns one.
        effective: What the character was sampled from, if asked for.
    """

    text: str
    log_probability: float | None
    top: tuple[CharacterProbability, ...]
    labels: tuple[LabelProbability, ...] = ()
    effective: EffectiveDistribution | None = None


@dataclass(frozen=True)
class Chunk(Value):
    """Text as it is generated.

    Attributes:
        text: One or more characters.
        position: The session's after it.
        details: One a character if asked for.
        committed_position: Up to where the turn is durable, whatever happens to the server; 0
            without a session.
    """

    text: str
    position: int
    details: tuple[CharacterDetail, ...]
    committed_position: int = 0


class FinishReason(StrEnum):
    """Why a turn ended."""

    UNSPECIFIED = "UNSPECIFIED"  # one that this client does not know yet
    MAX_CHARS = "MAX_CHARS"  # max_chars were generated
    STOP_STRING = "STOP_STRING"  # a stop string was generated
    CANCELLED = "CANCELLED"  # someone called cancel
    DEADLINE = "DEADLINE"  # the call's timeout is near
    SERVER_DRAINING = "SERVER_DRAINING"  # the server is shutting down; continue at another one


@dataclass(frozen=True)
class Usage(Value):
    """The work of a turn: characters read from the prompt, and characters generated."""

    prompt_chars: int
    generated_chars: int


@dataclass(frozen=True)
class Finished(Value):
    """The last event of a turn: how it ended and where the session now is.

    Attributes:
        finish_reason: Why it ended.
        usage: What was done.
        position: The session's position, committed.
        etag: The session's etag; empty without a session.
        state_digest: SHA-256 of the recurrent state and the pending character, 64 hex digits.
        stop_string: The one that was generated; empty for other reasons.
    """

    finish_reason: FinishReason
    usage: Usage
    position: int
    etag: str
    state_digest: str
    stop_string: str


Event: TypeAlias = Started | Chunk | Finished
"""One event of a turn."""


@dataclass(frozen=True)
class Appended(Value):
    """The session after a text was fed to it, with one detail a character if asked for."""

    session: SessionInfo
    details: tuple[CharacterDetail, ...]


@dataclass(frozen=True)
class Score(Value):
    """How likely a text was.

    Attributes:
        details: One entry a character.
        log_probability: The sum over the characters that have one, in nats.
        num_scored: Characters in that sum.
    """

    details: tuple[CharacterDetail, ...]
    log_probability: float
    num_scored: int
