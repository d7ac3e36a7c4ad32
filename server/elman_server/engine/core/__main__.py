"""An engine process: `python -m elman_server.engine.core FD`, started by the front and by nobody else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from elman_server.domain.errors import ArtefactError
from elman_server.engine.core.loop import EngineLoop
from elman_server.engine.core.model_runner import ModelRunner, choose_threads, share_threads
from elman_server.engine.protocol import Configure, EngineLink, Ready, Refused
from elman_server.models.artefact import read_artefact
from elman_server.models.registry import describe

NICENESS: Final = 5  # more than the front's, whose work is short, and waited for by somebody


def main(descriptor: int) -> None:
    """Load the model that the front names, then work until the front is gone."""
    # Ctrl-C and `kill` are for the front: it lets the streams finish and then closes the socket.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    # A front that stops while its engine starts is gone in the middle of this.
    with socket.socket(fileno=descriptor) as sock, contextlib.suppress(EOFError, ConnectionError):
        link = EngineLink(sock)
        (configure,) = link.receive(wait=True)
        assert isinstance(configure, Configure)
        try:
            artefact = read_artefact(Path(configure.path))
            num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            num_threads = configure.num_threads or choose_threads(
                artefact.num_parameters, num_cores // configure.num_engines
            )
            os.nice(NICENESS)  # before it starts threads, which take it over
            share_threads(num_threads)
            model = ModelRunner(artefact, capacity=configure.capacity, num_threads=0)
        except ArtefactError as error:
            message = str(error)
            link.send(Refused(message if configure.path in message else f"{configure.path}: {message}"))
            return
        link.send(Ready(describe(artefact, model.initial_states, model.fingerprint), num_threads))
        EngineLoop(model, artefact.output_size, link, configure.flush_seconds).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
