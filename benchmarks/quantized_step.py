"""How much faster the int8 step is than the float32 one: the ratio of neighbouring timings, in one run.

Random weights (the speed does not depend on them), one step through IO binding as the server runs it. Each round times
float32 and int8 one after the other, in slices of a few milliseconds, so that a drifting clock affects both. `ratio` is
the median of the rounds' ratios. One thread is timed by its own CPU time, which does not count what other processes
use; several threads are timed by the wall clock, on a quiet machine.

    python -m benchmarks.quantized_step > quantized_step.json
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from elman_export.exporting.cells import GATES, CellGraphs, StepGraphs
from elman_export.exporting.quantized_cells import QuantizedGraphs
from elman_format.metadata import STATES

VOCABULARY_SIZE, EMBEDDING_SIZE = 65, 128
SCALE = 1 / 127  # |h| <= 1
SECONDS = 0.006  # of one slice, about


def random_weights(cell: str, num_layers: int, hidden_size: int) -> dict[str, NDArray[np.float32]]:
    """Weights as a checkpoint names them, uniform in ±1/sqrt(H) as PyTorch starts them."""
    random, rows = np.random.default_rng(0), len(GATES[cell]) * hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (VOCABULARY_SIZE, EMBEDDING_SIZE),
        "output.weight": (VOCABULARY_SIZE, hidden_size),
        "output.bias": (VOCABULARY_SIZE,),
    }
    for layer in range(num_layers):
        shapes[f"layers.{layer}.weight_ih"] = (rows, hidden_size if layer else EMBEDDING_SIZE)
        shapes[f"layers.{layer}.weight_hh"] = (rows, hidden_size)
        shapes[f"layers.{layer}.bias_ih"] = shapes[f"layers.{layer}.bias_hh"] = (rows,)
    bound = hidden_size**-0.5
    return {name: random.uniform(-bound, bound, shape).astype(np.float32) for name, shape in shapes.items()}


class Stepper:
    """Runs steps of one batch on preallocated buffers, with two alternating sets of states."""

    def __init__(self, graphs: CellGraphs, num_states: int, hidden_size: int, num_threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        model = graphs.step().SerializeToString()
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._num_states, self._hidden_size = num_states, hidden_size
        self._clock = time.thread_time if num_threads == 1 else time.perf_counter

    def prepare(self, batch: int) -> None:
        """Allocate and bind."""
        self._chars = np.arange(batch) % VOCABULARY_SIZE
        self._logits = np.zeros((batch, VOCABULARY_SIZE), np.float32)
        self._states = np.zeros((2, self._num_states, batch, self._hidden_size), np.float32)
        self._bindings = [self._bind(batch, parity) for parity in (0, 1)]

    def _bind(self, batch: int, parity: int) -> ort.IOBinding:
        binding = self._session.io_binding()
        binding.bind_input("char", "cpu", 0, np.int64, [batch], self._chars.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, self._logits.shape, self._logits.ctypes.data)
        for index in range(self._num_states):
            before, after = self._states[parity, index], self._states[1 - parity, index]
            binding.bind_input(f"state_{index}", "cpu", 0, np.float32, before.shape, before.ctypes.data)
            binding.bind_output(f"next_state_{index}", "cpu", 0, np.float32, after.shape, after.ctypes.data)
        return binding

    def time(self, num_steps: int) -> float:
        """Return the seconds of one step, the mean of `num_steps`."""
        begin = self._clock()
        for number in range(num_steps):
            self._session.run_with_iobinding(self._bindings[number % 2])
        return (self._clock() - begin) / num_steps


def measure(cell: str, given: argparse.Namespace) -> list[dict[str, object]]:
    """Return one record for each batch size."""
    num_layers, hidden_size, threads = given.layers, given.hidden_size, given.threads
    weights = random_weights(cell, num_layers, hidden_size)
    floats = StepGraphs(cell, weights)
    quantized = QuantizedGraphs(cell, floats.initializers, [SCALE] * num_layers)
    num_states = num_layers * len(STATES[cell])
    steppers = [Stepper(graphs, num_states, hidden_size, threads) for graphs in (floats, quantized)]
    records = []
    for batch in given.batch or [1, 16, 64]:
        for stepper in steppers:
            stepper.prepare(batch)
            stepper.time(4)
        counts = [max(2, round(SECONDS / min(stepper.time(4) for _ in range(5)))) for stepper in steppers]
        times = [
            [stepper.time(count) for stepper, count in zip(steppers, counts, strict=True)] for _ in range(given.rounds)
        ]
        record = {
            "cell": cell,
            "num_layers": num_layers,
            "hidden_size": hidden_size,
            "num_threads": threads,
            "batch": batch,
            "float32_us": round(1e6 * statistics.median(pair[0] for pair in times), 1),
            "int8_us": round(1e6 * statistics.median(pair[1] for pair in times), 1),
            "ratio": round(statistics.median(pair[0] / pair[1] for pair in times), 2),
        }
        print(record, file=sys.stderr, flush=True)
        records.append(record)
    return records


def main() -> None:
    """Print JSON; the records also on stderr, as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", action="append", choices=sorted(GATES), help="lstm and gru unless given")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--batch", type=int, action="append", help="1, 16 and 64 unless given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    records = []
    for cell in given.cell or ["lstm", "gru"]:
        records += measure(cell, given)
    about = {"machine": platform.machine(), "onnxruntime": ort.__version__, "num_cores": os.cpu_count()}
    print(json.dumps({**about, "records": records}, indent=2))


if __name__ == "__main__":
    main()
