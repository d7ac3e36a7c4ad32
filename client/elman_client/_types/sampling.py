"""How characters are sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from elman_client._types.value import Value


@dataclass(frozen=True)
class Sampling(Value):
    """The parameters that a turn samples with; ``None`` means that the filter is off.

    The filters apply in the order of the fields; see :class:`elman_client.GenerateOptions`.
    """

    logit_bias: Mapping[str, float] = field(hash=False)
    allowed_characters: str
    banned_characters: str
    repetition_penalty: float | None
    repetition_window: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int
