"""An engine process: `python -m elman_server.engine.core FD PID`, started by the server alone; PID is the server's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from elman_server.domain.errors import ArtefactError
from elman_server.engine.core.loop import EngineLoop
from elman_server.engine.core.model_runner import (
    ModelRunner,
    ThreadsError,
    choose_threads,
    limit_threads,
    share_threads,
)
from elman_server.engine.protocol import Configure, EngineLink, Ready, Refused
from elman_server.models.artefact import read_artefact
from elman_server.models.registry import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elman_server.models.artefact import Artefact

NICENESS: Final = 5  # above the server's, whose work is short and awaited
LOAD_FACTOR: Final = 16  # times the file: read, parsed, with a prefill graph, packed for the processor
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS: Final = 38


def main(descriptor: int, parent: int) -> None:
    """Load the model that the server names, then work until the server is down."""
    # These are for the server: it lets the streams finish and then closes the socket.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    _die_with(parent)
    # A server that stops while its engine starts may exit during this.
    with socket.socket(fileno=descriptor) as sock, contextlib.suppress(EOFError, ConnectionError):
        link = EngineLink(sock)
        (configure,) = link.receive(wait=True)
        assert isinstance(configure, Configure)
        try:
            with _limited_memory(configure):
                artefact = read_artefact(Path(configure.path))
                num_threads = _share_threads(artefact, configure)
                model = ModelRunner(artefact, capacity=configure.capacity, num_threads=num_threads, shares_threads=True)
        except ArtefactError as error:
            message = str(error)
            message = message if configure.path in message else f"{configure.path}: {message}"
            link.send(Refused(message, has_too_many_threads=isinstance(error, ThreadsError)))
            return
        description = describe(artefact, model.initial_states, model.fingerprint)
        link.send(Ready(description, model.num_threads, model.limited_by, model.layout.spacing))
        specials = list(artefact.vocabulary.specials.values())
        EngineLoop(model, artefact.output_size, link, configure.flush_seconds, specials).run()


def _die_with(parent: int) -> None:
    """Let the system kill this process when the server dies, even within a call that never returns."""
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)  # whatever a model's file makes of this process
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            sys.exit(1)


@contextlib.contextmanager
def _limited_memory(configure: Configure) -> Iterator[None]:
    """While entered the process gets no more memory than a sound model needs; raises ArtefactError past it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    size = Path(configure.path).stat().st_size if Path(configure.path).is_file() else 0
    limit = configure.load_bytes + LOAD_FACTOR * size
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit if soft == resource.RLIM_INFINITY else min(soft, limit), hard))
        yield
    except ArtefactError:
        raise
    except Exception as error:
        # Memory ends anywhere: in Python, NumPy or onnxruntime, whose exceptions are private.
        if not isinstance(error, MemoryError) and "alloc" not in str(error):
            raise
        raise ArtefactError(f"needs more than {limit >> 20} MiB of memory to be loaded, which is refused") from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _share_threads(artefact: Artefact, configure: Configure) -> int:
    """Let the model's graphs share threads; return how many were asked for."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_threads = configure.num_threads or choose_threads(artefact.num_parameters, num_cores // configure.num_engines)
    os.nice(NICENESS)  # before it starts threads, which inherit it
    share_threads(limit_threads(artefact, num_threads)[0])
    return num_threads


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]))
    except Exception:  # noqa: BLE001  the server logs it: one write, one event
        os.write(sys.stderr.fileno(), traceback.format_exc().encode())
        sys.exit(1)
