"""The keyword arguments of a generation, stated once for four methods."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from elman_client._types.generation import OnAbort, UnknownPolicy


class GenerateOptions(TypedDict, total=False):
    """The keyword arguments of every ``generate``; what is left out is the server's default.

    The filters apply in this order: ``logit_bias`` and allowed or banned characters,
    ``repetition_penalty``, ``temperature``, ``top_k``, ``top_p``, ``min_p``. What is left is
    renormalized and sampled. ``None`` means the same as leaving an argument out.

    Attributes:
        temperature: Divides the logits; 0 picks the likeliest; default 1.
        top_k: Keep the k likeliest.
        top_p: Keep the fewest likeliest whose probabilities sum to at least this, (0, 1].
        min_p: Keep those at least this times as likely as the likeliest, [0, 1].
        repetition_penalty: Divides positive and multiplies negative logits of recent characters.
        repetition_window: How many last characters the penalty looks at; default 64.
        logit_bias: Added to a character's logit, in nats, -100 to 100.
        allowed_characters: The only ones that may be generated. For a byte-level model each byte is written as one
            character of U+0000 to U+00FF, here, in ``logit_bias`` and in ``banned_characters``: for €,
            ``"€".encode().decode("latin-1")``.
        banned_characters: Never generated.
        seed: Determines the text, together with the position; default: the session's.
        max_chars: Most characters to generate; default: the server's limit.
        stop_strings: The turn ends when the generated text ends with one of them; a single ``str``
            is one of them.
        include_stop: Keep the stop string in the text and in the session.
        request_id: A UUID by which the server recognizes the turn; default: a new one. With a
            session only.
        etag: Fail with :class:`EtagMismatchError` unless the session is still this one.
        on_abort: What a turn that is left early commits; default: the text that you have.
        log_probability: Return each character's log-probability.
        top_n: Return the n likeliest characters at each position, 0 to 20.
        effective: Return what each character was sampled from: the distribution after the filters,
            with its ``top_n`` likeliest, and the uniform number.
        unknown_characters: What to do with characters of the prompt outside the vocabulary.
        chunk_chars: Most characters to join in one chunk; 1: one message a character.
        timeout: Seconds for the whole turn, from the first read; default: the client's.
    """

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    repetition_window: int | None
    logit_bias: Mapping[str, float] | None
    allowed_characters: str | None
    banned_characters: str | None
    seed: int | None
    max_chars: int | None
    stop_strings: str | Sequence[str] | None
    include_stop: bool | None
    request_id: str | None
    etag: str | None
    on_abort: OnAbort | None
    log_probability: bool | None
    top_n: int | None
    effective: bool | None
    unknown_characters: UnknownPolicy | None
    chunk_chars: int | None
    timeout: float | None
