"""The engine: one process a model that steps its batch, seen from the front and from within."""

from elman_server.engine.front import Engine, JobStream
from elman_server.engine.link import Configure

__all__ = ["Configure", "Engine", "JobStream"]
