"""What the dialect's requests may say. Fields that are not here are refused."""

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from elman_client import GenerateOptions, ReplaceWith, UnknownPolicy

MAX_CHOICES: Final = 16
NEW_SESSION: Final = "new"
"""Instead of a session's name: create one. No name is that short."""

Seed = Annotated[int, Field(ge=0, lt=2**64)]
SessionName = Annotated[str, Field(pattern=r"^(sessions/)?[a-z0-9-]{1,63}$")]
Name = Annotated[str, Field(min_length=1, max_length=300)]
# What leaves the text as it is may be sent for fields that are refused otherwise.
_NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "suffix": ("",),
    "response_format": ({"type": "text"},),
    "tools": ([],),
}


class Strict(BaseModel):
    """A request body: no conversions, no unknown fields, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_characters(cls, given: Any) -> Any:
        try:
            json.dumps(given, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("has half of a character, a lone surrogate, which no text may have") from error
        return given


class StreamOptions(Strict):
    """`include_usage`: send one last chunk with the work that was done."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Replacement(Strict):
    """One character of the vocabulary, read in place of each character outside it."""

    replace_with: Annotated[str, Field(min_length=1, max_length=1)]


class Generation(Strict):
    """The fields that completions and chats have in common.

    `session` is the name of a session to continue, or "new" for one that is created; without it, a text starts at the
    model's initial state and nothing is kept. `request_id`, a UUID, names a turn of a session: sent again, the turn is
    delivered again. `seed` determines the text; choice k of `n` has seed + k. `stop` are texts that end a choice; they
    are left out of it.
    """

    model: Name
    session: SessionName | None = None
    request_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: Seed | None = None
    stop: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(max_length=16)] | None = None
    include_stop: bool | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_k: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    repetition_window: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    allowed_characters: str | None = None
    banned_characters: str | None = None
    unknown_characters: Literal["reject", "skip"] | Replacement | None = None
    chunk_chars: Annotated[int, Field(ge=1, lt=2**31)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            name: value
            for name, value in given.items()
            if name in cls.model_fields or not (value is None or value in _NEUTRAL.get(name, ()))
        }

    @model_validator(mode="after")
    def _check(self) -> "Generation":
        if self.session is not None and (self.n or 1) > 1:
            raise ValueError("n above 1 needs a text without a session: fork the session for other continuations")
        if self.request_id is not None and self.session is None:
            raise ValueError("request_id needs a session, which keeps the turn")
        return self

    @property
    def max_chars(self) -> int:
        """Most characters to generate."""
        raise NotImplementedError

    @property
    def top_n(self) -> int | None:
        """Likeliest characters to report at each position; None: no probabilities."""
        raise NotImplementedError

    def options(self, seed: int | None) -> GenerateOptions:
        """Return the arguments of the client's `generate`."""
        policy = self.unknown_characters
        unknown: UnknownPolicy | None = ReplaceWith(policy.replace_with) if isinstance(policy, Replacement) else policy
        return GenerateOptions(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            repetition_window=self.repetition_window,
            logit_bias=self.logit_bias,
            allowed_characters=self.allowed_characters,
            banned_characters=self.banned_characters,
            seed=seed,
            max_chars=self.max_chars,
            stop_strings=self.stop or None,
            include_stop=self.include_stop,
            request_id=self.request_id,
            log_probability=self.top_n is not None or None,
            top_n=self.top_n,
            unknown_characters=unknown,
            chunk_chars=self.chunk_chars,
        )


class CompletionRequest(Generation):
    """A text to continue.

    `prompt` is a text, or several. `max_tokens` counts characters. `logprobs` is how many of the likeliest characters
    to report at each position; `effective` adds what each character was sampled from, after temperature and
    filters, and the random number. `echo` puts the prompt before the text; with `max_tokens` 0 it is only scored.
    """

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)] = ""
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    effective: bool | None = None

    @model_validator(mode="after")
    def _check_completion(self) -> "CompletionRequest":
        if len(self.prompts) * (self.n or 1) > MAX_CHOICES:
            raise ValueError(f"prompts times n is at most {MAX_CHOICES}")
        if self.session is not None and len(self.prompts) > 1:
            raise ValueError("a session reads one prompt at a time")
        if self.max_chars == 0 and not self.echo:
            raise ValueError("max_tokens 0 needs echo, which scores the prompt")
        if self.max_chars == 0 and self.stream:
            raise ValueError("max_tokens 0 generates nothing that could be streamed")
        return self

    @property
    def prompts(self) -> list[str]:
        """The texts, at least one."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def options(self, seed: int | None) -> GenerateOptions:
        """Return the arguments of the client's `generate`."""
        return {**super().options(seed), "effective": self.effective}

    @property
    def max_chars(self) -> int:
        """Most characters to generate; the dialect's default is 16."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def top_n(self) -> int | None:
        """See `logprobs`."""
        return self.logprobs


class TextPart(Strict):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(Strict):
    """One message. `name`, if given, is the speaker in the text that the network reads."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(Generation):
    """A conversation to continue; `docs/web.md` has the template.

    With `session`, the messages before and with the last one of the assistant are in it already, and only what follows
    is read. `name` is who speaks next, `max_tokens` or `max_completion_tokens` count characters.
    """

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)]
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @model_validator(mode="after")
    def _check_chat(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs true")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("max_tokens and max_completion_tokens mean the same: send one")
        return self

    @property
    def max_chars(self) -> int:
        """Most characters to generate; default 1000."""
        return self.max_completion_tokens or self.max_tokens or 1000

    @property
    def top_n(self) -> int | None:
        """See `top_logprobs`."""
        return (self.top_logprobs or 0) if self.logprobs else None
