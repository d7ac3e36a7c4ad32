"""A reserve on the disk: it is given back while something is deleted from a file on a full disk."""

from __future__ import annotations

import contextlib
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# SQLite writes a deletion to its log, which has 4 MB before it is copied into the file; the file may grow by as much.
RESERVE_BYTES: Final = 6 << 20
_BLOCK_BYTES: Final = 1 << 16
_PART: Final = 8  # at most that part of what is free


class Reserve:
    """A file of zeros.

    Args:
        path: of the file; it may be there from an earlier process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._take()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """While entered its space is free; afterwards it has as much of it again as there is."""
        self._path.unlink(missing_ok=True)
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            self._path.touch(mode=0o600)
        with contextlib.suppress(OSError), self._path.open("ab", buffering=0) as file:
            disk = os.statvfs(self._path)
            size = min(RESERVE_BYTES, file.tell() + disk.f_bavail * disk.f_frsize // _PART)
            while file.tell() < size:
                file.write(bytes(_BLOCK_BYTES))
