"""Plans: requests checked against their model, as what the engine is to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.events import Started
from elman_server.domain.requests import MAX_TOP_N, Detail, check_text, check_top_n
from elman_server.engine.job import Job
from elman_server.sessions.records import Parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elman_server.domain.requests import GenerateRequest
    from elman_server.domain.vocabulary import Unknown
    from elman_server.models.registry import ModelInfo
    from elman_server.turns.running_turn import RunningTurn

TELLS_LABELS: Final = "returns labels instead of characters; call Score"
MAX_WINDOW: Final = 1024
WINDOW_BYTES: Final = 32_768
MAX_DETAILS: Final = 200_000  # candidates in one answer: about 4 MB


@dataclass(slots=True)
class Plan:
    """What the engine is to do, and how that is reported.

    Attributes:
        known: a position up to where the reader has the text already.
        sampled: ids that were sampled and delivered before.
    """

    model: ModelInfo
    job: Job
    parameters: Parameters
    started: tuple[Started, ...]
    etag: str = ""
    known: int = 0
    sampled: tuple[int, ...] = ()

    @property
    def is_windowed(self) -> bool:
        """Whether the engine may have to wait for the reader."""
        return self.job.max_chars > self.job.window


def parameters_of(request: GenerateRequest, model: ModelInfo, turn: RunningTurn, seed: int) -> Parameters:
    """Check a request and plan its prompt; return the parameters of its turn.

    Args:
        request: what the caller asks for.
        model: of the session.
        turn: takes the prompt.
        seed: unless the request brings one.

    Raises:
        InvalidFieldError: something is out of range; names the field.
    """
    if model.labels:
        raise InvalidFieldError("target", f"generates no text: {model.resource} {TELLS_LABELS}")
    check_text("prompt", request.prompt, model.limits, empty=True)
    prompt = model.vocabulary.encode(request.prompt, "prompt", request.unknown)
    if not prompt and not turn.start:
        raise InvalidFieldError("prompt", "is empty and nothing was read before; send at least one character")
    check_top_n("detail.top_n", request.detail.top_n, MAX_TOP_N)
    sampling = request.sampling.resolve(model.vocabulary, seed)
    max_chars, _ = request.stopping.resolve(model.vocabulary, model.limits)
    turn.plan(prompt)
    return Parameters(
        fingerprint=model.fingerprint,
        request_id=request.request_id,
        request=request.digest() if request.request_id else b"",
        sampling=request.sampling.seeded(sampling.seed),
        max_chars=max_chars,
        stop_strings=request.stopping.stop_strings,
        include_stop=request.stopping.include_stop,
        rollback=request.rollback,
        log_probability=request.detail.log_probability,
        top_n=request.detail.top_n,
        chunk_chars=request.chunk_chars,
        effective=request.detail.effective,
        symbols=symbols_at(turn.start, model),
    )


def symbols_at(start: int, model: ModelInfo) -> tuple[str, ...] | None:
    """Return the symbols that a turn stores which begins at a position: the first turn of a session does."""
    return None if start else model.vocabulary.characters or ()


def job_of(parameters: Parameters, turn: RunningTurn, model: ModelInfo, recent: Sequence[int]) -> Job:
    """Return what the engine has to do of a turn from where it is durable; `recent` is the text before."""
    assert parameters.sampling is not None
    return Job(
        state=turn.progress.start,
        position=turn.durable,
        prompt=turn.progress.prompt,
        max_chars=parameters.max_chars - max(0, turn.durable - turn.prompt_end),
        sampling=parameters.sampling.resolve(model.vocabulary, 0),
        recent=list(recent),
        stops=[model.vocabulary.encode(stop, "stopping.stop_strings") for stop in parameters.stop_strings],
        include_stop=parameters.include_stop,
        detail=parameters.detail,
        window=_window_of(parameters.detail),
    )


def _window_of(detail: Detail) -> int:
    """Return how many characters the engine may be ahead of the reader: of details a few kilobytes."""
    return (
        min(MAX_WINDOW, WINDOW_BYTES // ((1 + detail.effective) * (48 + 14 * detail.top_n))) if detail else MAX_WINDOW
    )


def started(start: int, prompt_end: int, model: ModelInfo, parameters: Parameters) -> Started:
    """Return the first event of a turn."""
    assert parameters.sampling is not None
    return Started(
        sampling=parameters.sampling.effective(),
        max_chars=parameters.max_chars,
        start_position=start,
        prompt_chars=prompt_end - start,
        model_digest=model.digest,
    )


def text_ids(name: str, text: str, model: ModelInfo, unknown: Unknown) -> list[int]:
    """Return the ids of a text that must not be empty, nor too long; raises InvalidFieldError."""
    check_text(name, text, model.limits, empty=False)
    ids = model.vocabulary.encode(text, name, unknown)
    if not ids:
        raise InvalidFieldError(name, "holds no character of the vocabulary; send at least one")
    return ids


def checked(detail: Detail, ids: list[int], model: ModelInfo, *, num_labels: int = 0) -> Detail:
    """Refuse a request for more details of a text than one answer can carry."""
    if detail.effective:
        raise InvalidFieldError("detail.effective", "is about characters that are sampled; ask for it in a Generate")
    check_top_n("top_n", detail.top_n, len(model.vocabulary) - len(model.vocabulary.specials))
    if (detail or num_labels) and len(ids) * (1 + detail.top_n + num_labels) > MAX_DETAILS:
        raise InvalidFieldError("text", f"asks for more than {MAX_DETAILS} candidates in one answer; send it in pieces")
    return detail
