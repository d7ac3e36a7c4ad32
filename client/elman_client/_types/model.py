"""A served model and what it can read."""

from dataclasses import dataclass
from enum import StrEnum

from elman_client._types.value import Value


class Cell(StrEnum):
    """The kind of recurrent step."""

    UNSPECIFIED = "UNSPECIFIED"  # one that this client does not know yet
    ELMAN = "ELMAN"  # h' = tanh(W_xh x + W_hh h + b)
    GRU = "GRU"
    LSTM = "LSTM"
    OTHER = "OTHER"  # any other step with a state of fixed size


@dataclass(frozen=True)
class Evaluation(Value):
    """One measurement of a model's loss.

    Attributes:
        corpus_sha256: Digest of the text, 64 hex digits.
        protocol: How the text was read, such as ``streaming``.
        nats_per_character: Mean negative log-likelihood.
        standard_error: Of that mean, in nats; 0 if unknown.
        num_characters: Characters scored.
    """

    corpus_sha256: str
    protocol: str
    nats_per_character: float
    standard_error: float
    num_characters: int


@dataclass(frozen=True)
class Limits(Value):
    """The largest requests that the server takes for a model.

    Attributes:
        max_prompt_chars: Longest prompt or text of one request, in the model's characters.
        max_chars: Most characters that one generation may ask for.
        max_stop_strings: Most stop strings of one generation.
        max_stop_string_chars: Longest stop string, in characters.
    """

    max_prompt_chars: int
    max_chars: int
    max_stop_strings: int
    max_stop_string_chars: int


@dataclass(frozen=True)
class ReadOut(Value):
    """A linear read-out of a model's states, which returns labels after every character.

    Attributes:
        name: What ``score`` takes.
        labels: What it returns, in this order.
        accuracy: On held-out characters, 0 to 1; 0 if unknown.
        num_held_out: How many those were; 0 if unknown.
    """

    name: str
    labels: tuple[str, ...]
    accuracy: float
    num_held_out: int


@dataclass(frozen=True)
class Model(Value):
    """A served artefact.

    Attributes:
        name: ``models/{model}``.
        version: The artefact's own version.
        cell: The kind of recurrent step.
        num_layers: Stacked layers; 0 where it has no meaning.
        hidden_size: Units of h in a layer; 0 where it has no meaning.
        vocabulary: The characters that the model reads and writes, in id order; empty if
            ``byte_level``.
        byte_level: The model reads and writes UTF-8 bytes; one of its characters is one byte.
        state_bytes: Size of a session's recurrent state.
        digest: SHA-256 of the artefact, 64 hex digits.
        num_parameters: Trained weights; 0 if unknown.
        evaluations: The records that the artefact carries.
        limits: The largest requests that the server takes.
        fingerprint: Names the arithmetic: equal digest, seed and fingerprint give equal text.
        labels: What it returns for every character that it reads, instead of the next character; empty: it
            generates text.
        read_outs: What ``score`` can read from its states.
        initial_states: What ``create_session`` may start from; ``default`` is the first.
        specials: Names and ids of symbols that stand for no text, such as ``<pad>``: none is ever generated.
    """

    name: str
    version: str
    cell: Cell
    num_layers: int
    hidden_size: int
    vocabulary: str
    byte_level: bool
    state_bytes: int
    digest: str
    num_parameters: int
    evaluations: tuple[Evaluation, ...]
    limits: Limits
    fingerprint: str
    labels: tuple[str, ...] = ()
    read_outs: tuple[ReadOut, ...] = ()
    initial_states: tuple[str, ...] = ("default",)
    specials: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class UnknownCharacter(Value):
    """A character outside a model's vocabulary; ``index`` counts code points from 0."""

    character: str
    index: int


@dataclass(frozen=True)
class Encoding(Value):
    """A text in a model's ids.

    Attributes:
        ids: The ids of the known characters, in order.
        unknown_characters: The characters outside the vocabulary, at most the first 100.
    """

    ids: tuple[int, ...]
    unknown_characters: tuple[UnknownCharacter, ...]
