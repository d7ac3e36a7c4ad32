"""The worker in this process, at the other end of its socket: how it cuts prompts beside rows."""

import socket
import threading
from collections.abc import Iterator
from typing import BinaryIO

import msgspec
import numpy as np
import pytest

from elman_server.domain.sampling import Sampling
from elman_server.engine.core import scheduler
from elman_server.engine.core.loop import EngineLoop
from elman_server.engine.core.model_runner import ModelRunner
from elman_server.engine.core.scheduler import MAX_CHUNK_POSITIONS, MIN_CHUNK_POSITIONS
from elman_server.engine.job import Job, Output
from elman_server.engine.protocol import EngineLink, OpenJob, Outputs, frame
from elman_server.models.artefact import read_artefact
from tests.models import CHARACTERS

PROMPT_CHARS = 300
SIZE = len(CHARACTERS)
ROW, PROMPT = 0, 1


@pytest.mark.parametrize(("seconds", "most"), [(0.0, MIN_CHUNK_POSITIONS), (60.0, MAX_CHUNK_POSITIONS)])
def test_prompts_are_read_in_pieces_by_the_clock(models, monkeypatch, seconds, most):
    """Beside a row pieces grow and shrink with the time that they take, within bounds, and the text is the same."""
    monkeypatch.setattr(scheduler, "CHUNK_SECONDS", seconds)
    pieces, text = _run(ModelRunner(read_artefact(models / "lstm.onnx"), capacity=8, num_threads=1))
    _, expected = _run(ModelRunner(read_artefact(models / "lstm.onnx"), capacity=8, num_threads=1), has_row=False)

    assert (sum(pieces), max(pieces)) == (PROMPT_CHARS - 1, most)
    assert text == expected


def _run(model: ModelRunner, *, has_row: bool = True) -> tuple[list[int], list[int]]:
    """Read a prompt and continue, beside a row or alone; return the sizes of the pieces and what was sampled."""
    pieces: list[int] = []
    read = model.read

    def noted(chars, states):
        pieces.append(len(chars))
        return read(chars, states)

    model.read = noted  # type: ignore[method-assign]
    prompt = np.random.default_rng(0).integers(0, 5, PROMPT_CHARS).tolist()
    endless = Job(model.initial, 0, [1], max_chars=10**6, sampling=Sampling(seed=1), window=10**6)
    reading = Job(model.initial, 0, prompt, max_chars=20, sampling=Sampling(seed=3))
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as stream:
        thread = threading.Thread(target=EngineLoop(model, SIZE, EngineLink(theirs), 0.02).run)
        thread.start()
        if has_row:
            ours.sendall(frame(OpenJob(ROW, endless)))
            next(_outputs(stream))
        ours.sendall(frame(OpenJob(PROMPT, reading)))
        sampled = []
        for output in _outputs(stream):
            sampled += output.ids if output.stream == PROMPT else []
            if output.stream == PROMPT and output.finished is not None:
                break
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()
    return pieces, sampled


def _outputs(stream: BinaryIO) -> Iterator[Output]:
    while True:
        body = stream.read(int.from_bytes(stream.read(4), "little"))
        yield from msgspec.msgpack.decode(body, type=Outputs).outputs
