"""The naive server: the first thing that one writes, written well. A thread a stream, batch 1, one message a character.

`python -m benchmarks.naive_server MODEL` serves Generate of elman.v1, so that one load client measures both servers. A
session is an entry of a dictionary, made by its first turn; it is not protected from two turns at once.
"""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import onnxruntime as ort

import elman_server  # noqa: F401  switches onnxruntime's telemetry off
from elman.v1.generation_pb2 import Chunk, GenerateRequest, GenerateResponse
from elman.v1.generation_pb2_grpc import GenerationServiceServicer, add_GenerationServiceServicer_to_server
from elman_server.models.artefact import read_artefact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from elman_server.domain.vocabulary import Vocabulary

    Feeds = dict[str, NDArray[Any]]

THREADS = 256


class NaiveService(GenerationServiceServicer):
    """Runs the model once for every character of every stream."""

    def __init__(self, session: ort.InferenceSession, vocabulary: Vocabulary) -> None:
        self._session = session
        self._vocabulary = vocabulary
        self._outputs = [output.name for output in session.get_outputs()]
        self._shapes = {state.name: (1, *state.shape[1:]) for state in session.get_inputs()[1:]}
        self._sessions: dict[str, tuple[Feeds, int]] = {}

    def Generate(  # noqa: N802  named by the contract
        self, request: GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[GenerateResponse]:
        """Read the prompt, then sample a character and send it, again and again."""
        random = np.random.default_rng(request.sampling.seed)
        ids = self._vocabulary.encode(request.prompt, "prompt")
        if request.session in self._sessions:
            feeds, pending = self._sessions[request.session]
            ids = [pending, *ids]
        else:
            feeds = {name: np.zeros(shape, np.float32) for name, shape in self._shapes.items()}
        for character in ids[:-1]:
            self._step(feeds, character)
        character = ids[-1]
        for position in range(len(ids) + 1, len(ids) + 1 + request.stopping.max_chars):
            character = sample(self._step(feeds, character), request.sampling, random)
            if not context.is_active():
                return
            yield GenerateResponse(chunk=Chunk(text=self._vocabulary.symbol(character), position=position))
        if request.session:
            self._sessions[request.session] = feeds, character

    def _step(self, feeds: Feeds, character: int) -> NDArray[np.float32]:
        """Read one character; put the next states into the feeds and return the logits, [V]."""
        feeds["char"] = np.array([character], np.int64)
        logits, *states = self._session.run(self._outputs, feeds)
        feeds.update(zip(self._shapes, states, strict=True))
        row: NDArray[np.float32] = logits[0]
        return row


def sample(logits: NDArray[np.float32], sampling: Any, random: np.random.Generator) -> int:
    """Sample by temperature, top_k and top_p, as every tutorial does it."""
    order = np.argsort(-logits)[: sampling.top_k or None]
    weights = np.exp((logits[order] - logits[order[0]]) / sampling.temperature)
    mass = weights.cumsum()
    last = np.searchsorted(mass, (sampling.top_p or 1) * mass[-1])
    return int(order[np.searchsorted(mass, random.random() * mass[last], side="right")])


def main(path: Path) -> None:
    """Serve until SIGTERM."""
    artefact = read_artefact(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # many streams share the cores; more threads a step made it slower
    session = ort.InferenceSession(artefact.step, options, providers=["CPUExecutionProvider"])
    server = grpc.server(ThreadPoolExecutor(THREADS))
    service = NaiveService(session, artefact.vocabulary)  # type: ignore[abstract]  # the others: UNIMPLEMENTED
    add_GenerationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"serving 1 model on 127.0.0.1:{port}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: server.stop(0))
    server.wait_for_termination()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
