"""Client of Elman servers: sessions that keep a recurrent network's state, and text that streams from them.

::

    from elman_client import Client

    with Client("localhost:50051") as client:
        session = client.create_session(model="shakespeare")
        for text in session.generate("ROMEO:", temperature=0.8, max_chars=200):
            print(text, end="", flush=True)

``AsyncClient`` reads the same, with ``async`` and ``await``. Every error is an ``ElmanError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elman_client._aio import AsyncChat, AsyncClient, AsyncGeneration, AsyncSession
    from elman_client._errors import (
        AlreadyExistsError,
        CallCancelledError,
        CharacterNotInVocabularyError,
        DataLossError,
        DeadlineExceededError,
        ElmanError,
        ErrorDetails,
        EtagMismatchError,
        FailedPreconditionError,
        FieldViolation,
        InternalError,
        InvalidArgumentError,
        LeaseLostError,
        ModelNotFoundError,
        NotFoundError,
        OutOfRangeError,
        PermissionDeniedError,
        ResourceExhaustedError,
        SessionBusyError,
        SessionEvictedError,
        SessionExpiredError,
        SessionNotFoundError,
        TurnNotFoundError,
        UnauthenticatedError,
        UnavailableError,
        UnimplementedError,
    )
    from elman_client._sync import Chat, Client, Generation, Session
    from elman_client._types import (
        Appended,
        CandidateStep,
        Cell,
        CharacterDetail,
        CharacterProbability,
        Chunk,
        EffectiveDistribution,
        Encoding,
        Evaluation,
        Event,
        ExplainedStep,
        Finished,
        FinishReason,
        ForkedFrom,
        FoundUnit,
        FoundUnits,
        GateStep,
        GateWeights,
        GenerateOptions,
        LabelProbability,
        LayerStep,
        Limits,
        Matrix,
        Model,
        OnAbort,
        ReadOut,
        ReplaceWith,
        ReplayedTurn,
        Sampling,
        Score,
        SessionInfo,
        SessionState,
        Signal,
        SignalInfo,
        Started,
        StateChunk,
        StateDescription,
        TextProperty,
        Transcript,
        TranscriptTurn,
        UnitChange,
        UnitContribution,
        Units,
        UnitValues,
        UnknownCharacter,
        UnknownPolicy,
        Usage,
        Weights,
    )

__all__ = [
    "AlreadyExistsError",
    "Appended",
    "AsyncChat",
    "AsyncClient",
    "AsyncGeneration",
    "AsyncSession",
    "CallCancelledError",
    "CandidateStep",
    "Cell",
    "CharacterDetail",
    "CharacterNotInVocabularyError",
    "CharacterProbability",
    "Chat",
    "Chunk",
    "Client",
    "DataLossError",
    "DeadlineExceededError",
    "EffectiveDistribution",
    "ElmanError",
    "Encoding",
    "ErrorDetails",
    "EtagMismatchError",
    "Evaluation",
    "Event",
    "ExplainedStep",
    "FailedPreconditionError",
    "FieldViolation",
    "FinishReason",
    "Finished",
    "ForkedFrom",
    "FoundUnit",
    "FoundUnits",
    "GateStep",
    "GateWeights",
    "GenerateOptions",
    "Generation",
    "InternalError",
    "InvalidArgumentError",
    "LabelProbability",
    "LayerStep",
    "LeaseLostError",
    "Limits",
    "Matrix",
    "Model",
    "ModelNotFoundError",
    "NotFoundError",
    "OnAbort",
    "OutOfRangeError",
    "PermissionDeniedError",
    "ReadOut",
    "ReplaceWith",
    "ReplayedTurn",
    "ResourceExhaustedError",
    "Sampling",
    "Score",
    "Session",
    "SessionBusyError",
    "SessionEvictedError",
    "SessionExpiredError",
    "SessionInfo",
    "SessionNotFoundError",
    "SessionState",
    "Signal",
    "SignalInfo",
    "Started",
    "StateChunk",
    "StateDescription",
    "TextProperty",
    "Transcript",
    "TranscriptTurn",
    "TurnNotFoundError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "UnitChange",
    "UnitContribution",
    "UnitValues",
    "Units",
    "UnknownCharacter",
    "UnknownPolicy",
    "Usage",
    "Weights",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: gRPC costs a tenth of a second."""
    if name in __all__:
        for home in ("_types", "_errors", "_sync", "_aio"):  # the light ones first
            module = import_module(f"elman_client.{home}")
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module 'elman_client' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
