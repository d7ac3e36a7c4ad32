"""`POST /v1/score`: how likely a text is, and what read-outs say of it."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from elman_web.dialect.answers import Logprobs, logprobs
from elman_web.dialect.requests import Name, SessionName, Strict
from elman_web.http.caller import Client

router = APIRouter()


class TextToScore(Strict):
    """A text from a model's initial state, or after a session's state, which does not change.

    `logprobs` is how many of the likeliest characters to report; `read_out` is the name of one of the model's.
    """

    text: Annotated[str, Field(min_length=1)]
    model: Name | None = None
    session: SessionName | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    read_out: Name | None = None

    @model_validator(mode="after")
    def _check(self) -> "TextToScore":
        if (self.model is None) == (self.session is None):
            raise ValueError("send model or session")
        return self


class Scored(BaseModel):
    """How likely each character was, in nats, and their sum; `labels` has an entry a character with a read-out."""

    log_probability: float
    num_scored: int
    logprobs: Logprobs
    labels: list[dict[str, float]] | None = None


@router.post("/score")
async def score(body: TextToScore, client: Client) -> Scored:
    """Return how likely a text is."""
    options: dict[str, Any] = {"top_n": body.logprobs or None, "read_out": body.read_out}
    if body.session is not None:
        result = await client.session(body.session).score(body.text, **options)
    else:
        result = await client.score(body.text, model=body.model or "", **options)
    labels = [{label.label: label.log_probability for label in each.labels} for each in result.details]
    return Scored(
        log_probability=result.log_probability,
        num_scored=result.num_scored,
        logprobs=Logprobs(**logprobs(result.details, 0)),
        labels=labels if any(labels) else None,
    )
