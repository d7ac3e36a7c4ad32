"""The engine: one process or some a model that step their batches, seen from the front and from within."""

from elman_server.engine.client import Engine, JobStream
from elman_server.engine.pool import EnginePool
from elman_server.engine.protocol import Configure

AnyEngine = Engine | EnginePool

__all__ = ["AnyEngine", "Configure", "Engine", "EnginePool", "JobStream"]
