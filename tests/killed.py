"""What is killed when its block is left."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Killed(ABC):
    """A process, or what stands for one."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL and see it gone; again does nothing."""
