"""The engine: one process or some a model that step their batches, seen from the front and from within."""

from elman_server.engine.front import Engine, JobStream
from elman_server.engine.link import Configure
from elman_server.engine.pool import EnginePool

AnyEngine = Engine | EnginePool

__all__ = ["AnyEngine", "Configure", "Engine", "EnginePool", "JobStream"]
