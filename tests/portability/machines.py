"""The processors on which texts are compared: this one, and those that QEMU emulates."""

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import tee
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests.portability import aarch64

ROOT = Path(__file__).parent.parent.parent
BUNDLED = ROOT / "server/elman_server/bundled"
EMULATOR = "qemu-x86_64"
NATIVE = "native"
X86 = ("Haswell", "Nehalem")  # with AVX2 and FMA; with SSE 4.2 alone
AARCH64 = "aarch64"


class Block(NamedTuple):
    """What a machine computed in some steps.

    Attributes:
        ids: [steps * rows], sampled.
        digest: of all logits, states and log-probabilities up to there.
    """

    ids: NDArray[np.uint16]
    digest: str


def has_emulator(name: str = EMULATOR) -> bool:
    """Return whether this machine can emulate others."""
    return shutil.which(name) is not None


def python(machine: str) -> list[str]:
    """Return the command that starts Python on a machine: this one, or on Arm one of its own."""
    if machine == NATIVE:
        return [sys.executable]
    if machine == AARCH64:
        folder = aarch64.folder()
        own = [path for path in sys.path if Path(path).is_relative_to(ROOT) and "site-packages" not in path]
        emulator, executable = [aarch64.EMULATOR, "-L", str(aarch64.ROOT)], aarch64.PYTHON
        path = [str(ROOT), *own, str(folder / "site")]
    else:
        # By its real path: an emulated Python does not find a virtual environment by itself.
        emulator, executable = [EMULATOR, "-cpu", machine], Path(sys.executable).resolve()
        path = [str(ROOT), *sys.path]
    # Without OpenBLAS's threads, which nothing needs: QEMU has crashed on a busy machine with them.
    variables = ("-E", f"PYTHONPATH={os.pathsep.join(path)}", "-E", "OPENBLAS_NUM_THREADS=1")
    return [*emulator, *variables, str(executable)]


@contextmanager
def blocks(machine: str, model: Path, num_steps: int, num_rows: int, first_seed: int = 0) -> Iterator[Iterator[Block]]:
    """Run `tests.portability.run` on a machine; gives its blocks as they come.

    Raises:
        RuntimeError: from the iterator: the run failed; with what it said.
    """
    numbers = map(str, (num_steps, num_rows, first_seed))
    command = [*python(machine), "-m", "tests.portability.run", str(model), *numbers]
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


def compare(mine: Iterator[Block], other: Iterator[Block]) -> Iterator[Comparison]:
    """Compare block by block; gives the result so far after each."""
    num_chars, num_different, are_bits_equal = 0, 0, True
    for one, two in zip(mine, other, strict=True):
        num_chars += len(one.ids)
        num_different += int((one.ids != two.ids).sum())
        are_bits_equal &= one.digest == two.digest
        yield Comparison(num_chars, num_different, are_bits_equal)


@contextmanager
def compared(
    machines: Sequence[str], model: Path, num_steps: int, num_rows: int, first_seed: int = 0
) -> Iterator[Iterator[tuple[Comparison, ...]]]:
    """Run a model here and on other machines, all at once; gives the results after each block, one a machine."""
    with ExitStack() as stack:
        mine, *others = (
            stack.enter_context(blocks(machine, model, num_steps, num_rows, first_seed))
            for machine in (NATIVE, *machines)
        )
        yield zip(*map(compare, tee(mine, len(others)), others), strict=True)
