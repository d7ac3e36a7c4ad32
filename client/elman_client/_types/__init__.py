"""The values that the client returns: frozen, typed, and never a protobuf message."""

from elman_client._types.generation import (
    Appended,
    CharacterDetail,
    CharacterProbability,
    Chunk,
    Event,
    Finished,
    FinishReason,
    LabelProbability,
    OnAbort,
    ReplaceWith,
    Score,
    Started,
    UnknownPolicy,
    Usage,
)
from elman_client._types.model import Cell, Encoding, Evaluation, Limits, Model, ReadOut, UnknownCharacter
from elman_client._types.options import GenerateOptions
from elman_client._types.sampling import Sampling
from elman_client._types.session import (
    ForkedFrom,
    ReplayedTurn,
    SessionInfo,
    SessionState,
    Transcript,
    TranscriptTurn,
)

__all__ = [
    "Appended",
    "Cell",
    "CharacterDetail",
    "CharacterProbability",
    "Chunk",
    "Encoding",
    "Evaluation",
    "Event",
    "FinishReason",
    "Finished",
    "ForkedFrom",
    "GenerateOptions",
    "LabelProbability",
    "Limits",
    "Model",
    "OnAbort",
    "ReadOut",
    "ReplaceWith",
    "ReplayedTurn",
    "Sampling",
    "Score",
    "SessionInfo",
    "SessionState",
    "Started",
    "Transcript",
    "TranscriptTurn",
    "UnknownCharacter",
    "UnknownPolicy",
    "Usage",
]
