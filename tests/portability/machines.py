"""The processors on which texts are compared: this one, and those that QEMU emulates."""

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parent.parent.parent
EMULATOR = "qemu-x86_64"
NATIVE = "native"
MACHINES = (NATIVE, "Haswell", "Nehalem")  # as it is; with AVX2 and FMA; with SSE 4.2 alone


class Block(NamedTuple):
    """What a machine computed in some steps.

    Attributes:
        ids: [steps * rows], sampled.
        digest: of all logits, states and log-probabilities up to there.
    """

    ids: NDArray[np.uint16]
    digest: str


def has_emulator() -> bool:
    """Return whether this machine can emulate others."""
    return shutil.which(EMULATOR) is not None


def python(machine: str) -> list[str]:
    """Return the command that starts this Python on a machine."""
    if machine == NATIVE:
        return [sys.executable]
    # By its real path: an emulated Python does not find a virtual environment by itself.
    path = os.pathsep.join([str(ROOT), *sys.path])
    return [EMULATOR, "-cpu", machine, "-E", f"PYTHONPATH={path}", os.path.realpath(sys.executable)]


@contextmanager
def blocks(machine: str, model: Path, num_steps: int, num_rows: int) -> Iterator[Iterator[Block]]:
    """Run `tests.portability.run` on a machine; gives its blocks as they come.

    Raises:
        RuntimeError: from the iterator: the run failed; with what it said.
    """
    command = [*python(machine), "-m", "tests.portability.run", str(model), str(num_steps), str(num_rows)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:

        def read() -> Iterator[Block]:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                ids, digest = line.split()
                yield Block(np.frombuffer(base64.b64decode(ids), np.uint16), digest)
            if process.wait():
                raise RuntimeError(f"{machine}: {process.stderr.read()[-2000:]}")

        try:
            yield read()
        finally:
            process.kill()


class Comparison(NamedTuple):
    """What two machines computed of the same texts.

    Attributes:
        num_chars: compared.
        num_different: of them.
        are_bits_equal: whether all logits, states and log-probabilities are equal too.
    """

    num_chars: int
    num_different: int
    are_bits_equal: bool


def compare(mine: Iterator[Block], other: Iterator[Block], num_blocks: int | None = None) -> Iterator[Comparison]:
    """Compare block by block; gives the result so far after each."""
    num_chars, num_different, are_bits_equal = 0, 0, True
    for one, two in islice(zip(mine, other, strict=True), num_blocks):
        num_chars += len(one.ids)
        num_different += int((one.ids != two.ids).sum())
        are_bits_equal &= one.digest == two.digest
        yield Comparison(num_chars, num_different, are_bits_equal)
