"""Calls that read and write text."""

from typing import Any

from elman.v1 import generation_pb2 as pb
from elman_client import _types as types
from elman_client._shared import values
from elman_client._shared.fields import fill, invalid
from elman_client._shared.operation import Operation, operation

_POLICIES = {
    "reject": pb.UnknownCharacters(reject=True),
    "skip": pb.UnknownCharacters(skip=True),
}


def generate(prompt: str, options: types.GenerateOptions, **target: str) -> Operation[types.Event]:
    """Run one turn on ``session=`` or ``model=``; the answer is a stream of events."""
    if unexpected := options.keys() - types.GenerateOptions.__annotations__.keys():
        raise TypeError(f"generate() has no argument {', '.join(sorted(unexpected))}")
    given: dict[str, Any] = {
        **options,
        **target,
        "prompt": prompt,
        "logit_bias": _biases(options.get("logit_bias")),
        "stop_strings": _stop_strings(options.get("stop_strings")),
        "on_abort": _on_abort(options.get("on_abort")),
        "unknown_characters": _policy(options.get("unknown_characters")),
    }
    request = pb.GenerateRequest()
    for part in (request.sampling, request.stopping, request.detail, request):
        fill(part, **{name: given.get(name) for name in part.DESCRIPTOR.fields_by_name})
    return operation(
        "elman.v1.GenerationService/Generate",
        request,
        pb.GenerateResponse,
        values.event,
        session=target.get("session", ""),
    )


def cancel(session: str) -> Operation[types.SessionInfo]:
    """End the running turn and wait until it is committed."""
    request = pb.CancelRequest()
    fill(request, session=session)
    return operation(
        "elman.v1.GenerationService/Cancel",
        request,
        pb.CancelResponse,
        lambda reply: values.session_info(reply.session),
        session=session,
    )


def append(
    session: str,
    text: str,
    *,
    etag: str | None,
    log_probability: bool | None,
    top_n: int | None,
    unknown_characters: types.UnknownPolicy | None,
) -> Operation[types.Appended]:
    """Feed a text and draw nothing."""
    request = pb.AppendRequest()
    fill(request.detail, log_probability=log_probability, top_n=top_n)
    fill(
        request,
        session=session,
        text=text,
        etag=etag,
        unknown_characters=_policy(unknown_characters),
    )
    return operation(
        "elman.v1.GenerationService/Append",
        request,
        pb.AppendResponse,
        values.appended,
        session=session,
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
    policy = _policy(unknown_characters)
    fill(request, text=text, top_n=top_n, read_out=read_out, unknown_characters=policy, **target)
    return operation(
        "elman.v1.GenerationService/Score",
        request,
        pb.ScoreResponse,
        values.score,
        session=target.get("session", ""),
    )


def _biases(biases: Any) -> list[pb.LogitBias] | None:
    if biases is None:
        return None
    messages = [pb.LogitBias() for _ in biases]
    for message, (character, bias) in zip(messages, biases.items(), strict=True):
        fill(message, character=character, bias=bias)
    return messages


def _stop_strings(strings: Any) -> list[str] | None:
    if strings is None:
        return None
    return [strings] if isinstance(strings, str) else list(strings)


def _on_abort(on_abort: types.OnAbort | None) -> int | None:
    if on_abort is None:
        return None
    if on_abort not in tuple(types.OnAbort):
        raise invalid("on_abort", "is OnAbort.KEEP_PARTIAL or OnAbort.ROLLBACK")
    return pb.OnAbort.Value(f"ON_ABORT_{on_abort}")


def _policy(policy: types.UnknownPolicy | None) -> pb.UnknownCharacters | None:
    if policy is None:
        return None
    if isinstance(policy, types.ReplaceWith):
        message = pb.UnknownCharacters()
        fill(message, replace_with=policy.character)
        return message
    if policy not in _POLICIES:
        raise invalid("unknown_characters", 'is "reject", "skip" or ReplaceWith("?")')
    return _POLICIES[policy]
