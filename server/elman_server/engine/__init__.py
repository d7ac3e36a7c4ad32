"""The engine: one or more processes per model that step their batches; `core` is what runs in them."""

from elman_server.engine.client import Engine, JobStream
from elman_server.engine.fleet import Fleet
from elman_server.engine.pool import EnginePool
from elman_server.engine.protocol import Configure

AnyEngine = Engine | EnginePool

__all__ = ["AnyEngine", "Configure", "Engine", "EnginePool", "Fleet", "JobStream"]
