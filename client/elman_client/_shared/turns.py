"""Calls that read and write text."""

from typing import Any
from uuid import uuid4

from elman.v1 import generation_pb2 as pb
from elman.v1 import sampling_pb2
from elman_client import _types as types
from elman_client._shared import values
from elman_client._shared.fields import biases, fill, invalid, strings, wrong_type
from elman_client._shared.leaving import Left
from elman_client._shared.operation import Operation, operation

_POLICIES = {
    "reject": pb.UnknownCharacters(reject=True),
    "skip": pb.UnknownCharacters(skip=True),
}


class Asked:
    """One turn that is requested, on ``session=`` or ``model=``; its answers are streams of events.

    Attributes:
        can_resume: The server keeps the turn, and finds it by its request id.
        known_position: Up to where the caller has its text before anything is read; ``None``: it has nothing.
    """

    known_position: int | None = None

    def __init__(self, prompt: str, options: types.GenerateOptions, **target: str) -> None:
        self._request = request(prompt, options, **target)
        self._session = target.get("session", "")
        self.can_resume = bool(self._session)

    def left(self, position: int | None) -> Left:
        """Return the turn as one that its caller left with the text up to ``position``."""
        if self._request.on_abort == pb.ON_ABORT_ROLLBACK:
            position = None  # nothing of it is kept, wherever it ends
        return Left(self._session, self._request.request_id, position)

    def first(self) -> Operation[tuple[types.Event, ...]]:
        """Begin it."""
        return self._operation("Generate", self._request, pb.GenerateResponse)

    def resumed(self, position: int | None) -> Operation[tuple[types.Event, ...]]:
        """Continue after a position."""
        message = pb.ResumeRequest()
        fill(message, session=self._session, request_id=self._request.request_id, position=position)
        return self._operation("Resume", message, pb.ResumeResponse)

    def again(self, seed: int, *, is_begun: bool) -> Operation[tuple[types.Event, ...]]:
        """Rerun it with the seed that it had; ``is_begun``: some of it is known, and its positions are needed."""
        message = pb.GenerateRequest()
        message.CopyFrom(self._request)
        if not self.can_resume:
            message.sampling.seed = seed
        if is_begun:
            message.chunk_chars = 1  # so that no chunk lies on both sides of a position
        return self._operation("Generate", message, pb.GenerateResponse)

    def _operation(self, method: str, message: Any, reply: type[Any]) -> Operation[tuple[types.Event, ...]]:
        path = f"elman.v1.GenerationService/{method}"
        return operation(path, message, reply, values.events, session=self._session)


class Resumed(Asked):
    """A turn that was begun elsewhere, to continue after a position; ``None``: from its first character."""

    def __init__(self, session: str, request_id: str, position: int | None) -> None:
        super().__init__("", {"request_id": request_id}, session=session)
        self._known = position
        self.known_position = position

    def first(self) -> Operation[tuple[types.Event, ...]]:
        """Continue it."""
        return self.resumed(self._known)

    def resumed(self, position: int | None) -> Operation[tuple[types.Event, ...]]:
        """Continue after a position."""
        return super().resumed(self._known if position is None else position)


def request(prompt: str, options: types.GenerateOptions, **target: str) -> pb.GenerateRequest:
    """Return a turn's message. One on a session has a request id."""
    if unexpected := options.keys() - types.GenerateOptions.__annotations__.keys():
        raise TypeError(f"generate() has no argument {', '.join(sorted(unexpected))}")
    request_id, stop_strings = options.get("request_id"), options.get("stop_strings")
    given: dict[str, Any] = {
        **options,
        **target,
        "prompt": prompt,
        "logit_bias": _biases(options.get("logit_bias")),
        "stop_strings": None if stop_strings is None else strings("stop_strings", stop_strings),
        "on_abort": _on_abort(options.get("on_abort")),
        "unknown_characters": unknown_policy(options.get("unknown_characters")),
        "request_id": str(uuid4()) if request_id is None and "session" in target else request_id,
    }
    message = pb.GenerateRequest()
    for part in (message.sampling, message.stopping, message.detail, message):
        fill(part, **{name: given.get(name) for name in part.DESCRIPTOR.fields_by_name})
    return message


def talk(session: str) -> Operation[tuple[types.Event, ...]]:
    """Run turns on one stream; see ``said`` and ``STOP``."""
    return operation(
        "elman.v1.GenerationService/Chat", pb.ChatRequest(), pb.ChatResponse, values.events, session=session
    )


def said(turn: pb.GenerateRequest) -> bytes:
    """Return the message of a turn in a chat."""
    return pb.ChatRequest(turn=turn).SerializeToString()


STOP = pb.ChatRequest(stop=pb.Stop()).SerializeToString()
"""The message that ends the running turn of a chat."""


def append(
    session: str,
    text: str,
    *,
    etag: str | None,
    request_id: str | None,
    log_probability: bool | None,
    top_n: int | None,
    unknown_characters: types.UnknownPolicy | None,
) -> Operation[types.Appended]:
    """Read a text and generate nothing."""
    request, request_id = pb.AppendRequest(), request_id or str(uuid4())
    fill(request.detail, log_probability=log_probability, top_n=top_n)
    fill(
        request,
        session=session,
        text=text,
        etag=etag,
        request_id=request_id,
        unknown_characters=unknown_policy(unknown_characters),
    )
    return operation(
        "elman.v1.GenerationService/Append",
        request,
        pb.AppendResponse,
        values.appended,
        session=session,
        turn_id=request_id,
    )


def score(
    text: str,
    *,
    top_n: int | None,
    read_out: str | None,
    unknown_characters: types.UnknownPolicy | None,
    **target: str,
) -> Operation[types.Score]:
    """Judge a text on ``session=`` or ``model=``."""
    request = pb.ScoreRequest()
    policy = unknown_policy(unknown_characters)
    fill(request, text=text, top_n=top_n, read_out=read_out, unknown_characters=policy, **target)
    return operation(
        "elman.v1.GenerationService/Score",
        request,
        pb.ScoreResponse,
        values.score,
        session=target.get("session", ""),
    )


def _biases(value: object) -> list[sampling_pb2.LogitBias] | None:
    if value is None:
        return None
    messages = []
    for character, bias in biases("logit_bias", value):
        messages.append(sampling_pb2.LogitBias())
        fill(messages[-1], character=character, bias=bias)
    return messages


def _on_abort(on_abort: types.OnAbort | None) -> int | None:
    if on_abort is None:
        return None
    if not isinstance(on_abort, str):
        raise wrong_type("on_abort", "an OnAbort", on_abort)
    if on_abort not in tuple(types.OnAbort):
        raise invalid("on_abort", "is OnAbort.KEEP_PARTIAL or OnAbort.ROLLBACK")
    return pb.OnAbort.Value(f"ON_ABORT_{on_abort}")


def unknown_policy(policy: types.UnknownPolicy | None) -> pb.UnknownCharacters | None:
    """Return the message of a policy; ``None``: the server's default."""
    if policy is None:
        return None
    if isinstance(policy, types.ReplaceWith):
        message = pb.UnknownCharacters()
        fill(message, replace_with=policy.character)
        return message
    if not isinstance(policy, str):
        raise wrong_type("unknown_characters", 'a str or ReplaceWith("?")', policy)
    if policy not in _POLICIES:
        raise invalid("unknown_characters", 'is "reject", "skip" or ReplaceWith("?")')
    return _POLICIES[policy]
