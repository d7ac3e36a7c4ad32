"""What the dialect answers, and the parts of it that whole answers and streams share."""

from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel

from elman_client import CharacterDetail, Finished, FinishReason

_REASONS: Final = {FinishReason.MAX_CHARS: "length", FinishReason.STOP_STRING: "stop"}


class Usage(BaseModel):
    """The work of a request, in characters."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Logprobs(BaseModel):
    """How likely each character was, in nats; the first of a text has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Effective(BaseModel):
    """What a character was sampled from, after temperature and filters.

    The kept characters lie side by side from 0 to 1, and the random number `uniform` falls on the one that was sampled,
    which begins at `below`. `top` are the likeliest of the `num_kept`.
    """

    log_probability: float
    top: dict[str, float]
    num_kept: int
    uniform: float
    below: float


class Choice(BaseModel):
    """One text. `position` is the session's after it."""

    index: int
    text: str
    logprobs: Logprobs | None = None
    effective: list[Effective | None] | None = None
    finish_reason: str | None
    position: int | None = None


class Completion(BaseModel):
    """The answer to a completion. `session` is where to continue, `seed` what gives the same text again."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    system_fingerprint: str | None = None
    session: str | None = None
    seed: int | None = None


class TokenLogprob(BaseModel):
    """A character and how likely it was."""

    token: str
    logprob: float
    bytes: list[int]


class ContentLogprob(TokenLogprob):
    """A character of the answer, and the likeliest ones at its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(BaseModel):
    """One entry a character."""

    content: list[ContentLogprob]


class Message(BaseModel):
    """What the assistant says."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: Message
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None


class ChatCompletion(BaseModel):
    """The answer to a chat. `session` is where to continue, `seed` what gives the same text again."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage | None = None
    system_fingerprint: str | None = None
    session: str | None = None
    seed: int | None = None


def reason(finished: Finished) -> str:
    """Return why a text ended: the dialect's words where it has one."""
    return _REASONS.get(finished.finish_reason, finished.finish_reason.value.lower())


def usage(prompt_chars: int, generated_chars: int) -> dict[str, int]:
    """Return the work that was done."""
    total = prompt_chars + generated_chars
    return {"prompt_tokens": prompt_chars, "completion_tokens": generated_chars, "total_tokens": total}


def logprobs(details: Sequence[CharacterDetail], offset: int) -> dict[str, Any]:
    """Return the details of a completion; `offset` is where in the text they begin."""
    return {
        "tokens": [each.text for each in details],
        "token_logprobs": [each.log_probability for each in details],
        "top_logprobs": [
            {top.text: top.log_probability for top in each.top}
            if each.top or each.log_probability is not None
            else None
            for each in details
        ],
        "text_offset": list(range(offset, offset + len(details))),
    }


def effective(details: Sequence[CharacterDetail]) -> list[dict[str, Any] | None]:
    """Return what each character was sampled from."""
    return [
        each.effective.to_dict() | {"top": {top.text: top.log_probability for top in each.effective.top}}
        if each.effective
        else None
        for each in details
    ]


def chat_logprobs(details: Sequence[CharacterDetail]) -> dict[str, Any]:
    """Return the details of a chat's answer."""
    return {
        "content": [
            _token(each.text, each.log_probability)
            | {"top_logprobs": [_token(top.text, top.log_probability) for top in each.top]}
            for each in details
        ]
    }


def _token(text: str, log_probability: float | None) -> dict[str, Any]:
    # The dialect has no word for "no probability": -9999 is what its own servers send.
    return {
        "token": text,
        "logprob": -9999.0 if log_probability is None else log_probability,
        "bytes": list(text.encode()),
    }
