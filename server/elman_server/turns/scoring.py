"""Scoring: how likely a text is after a state, or which labels it has. It changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elman_server.domain.errors import InvalidFieldError
from elman_server.domain.requests import Detail
from elman_server.engine.job import Job
from elman_server.engine.prefill import read
from elman_server.turns.output import TextDetails
from elman_server.turns.planning import TELLS_LABELS, checked, text_ids

if TYPE_CHECKING:
    from elman_server.domain.requests import ScoreRequest
    from elman_server.domain.state import SessionState
    from elman_server.engine import AnyEngine
    from elman_server.models.registry import ModelInfo


async def score(
    engine: AnyEngine, model: ModelInfo, state: SessionState, position: int, request: ScoreRequest
) -> TextDetails:
    """Return how likely each character of a text is after a state at a position; or its labels."""
    ids = text_ids("text", request.text, model, request.unknown)
    labels = model.labels_of(request.read_out)
    if model.labels and request.top_n:
        raise InvalidFieldError("top_n", f"is not available: {model.resource} {TELLS_LABELS}")
    detail = checked(Detail(not model.labels, request.top_n), ids, model, num_labels=len(labels))
    job = Job(state, position, ids, detail=detail, read_out=request.read_out if labels else None)
    return TextDetails(job, await read(engine, job), model)
