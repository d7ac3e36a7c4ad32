"""Compare the texts of this machine with those of emulated ones.

    python -m tests.portability --chars 1000000 --machine Haswell

A million characters take QEMU hours of a core. What was compared is printed as it goes, so that it can be stopped, and
continued with other texts: --first-seed 1000.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.portability.aarch64 import EMULATOR
from tests.portability.machines import AARCH64, BUNDLED, X86, compared, has_emulator
from tests.portability.run import NUM_SETTINGS, STEPS

NUM_ROWS = 3 * NUM_SETTINGS

REPORT_BLOCKS = 4


def report(model: Path, machines: Sequence[str], num_steps: int, first_seed: int) -> bool:
    """Print what differs of one model on each machine; return whether nothing does."""
    is_equal = True
    with compared(machines, model, num_steps, NUM_ROWS, first_seed) as comparisons:
        for index, results in enumerate(comparisons, 1):
            is_equal = all(found.num_different == 0 and found.are_bits_equal for found in results)
            if index % REPORT_BLOCKS and index * STEPS < num_steps:
                continue
            for machine, found in zip(machines, results, strict=True):
                bits = "equal" if found.are_bits_equal else "DIFFERENT"
                sys.stdout.write(
                    f"{model.stem} on {machine}: {found.num_different:,} of {found.num_chars:,} characters differ; "
                    f"logits, states, log-probabilities: {bits}\n"
                )
            sys.stdout.flush()
    return is_equal


def main() -> int:
    """Compare, print, and return 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.portability", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, default=sorted(BUNDLED.glob("shakespeare*.onnx")))
    parser.add_argument("--chars", type=int, default=100_000, help="of each model and machine")
    parser.add_argument("--first-seed", type=int, default=0, help=f"of {NUM_ROWS} rows: another part has others")
    parser.add_argument("--machine", action="append", choices=(*X86, AARCH64), help="by default all")
    arguments = parser.parse_args()
    if not (has_emulator() and has_emulator(EMULATOR)):
        sys.exit(f"This needs qemu-x86_64 and {EMULATOR}: apt-get install qemu-user")
    num_steps = -(-arguments.chars // (NUM_ROWS * STEPS)) * STEPS
    machines = arguments.machine or (*X86, AARCH64)
    # All models, even if one differs.
    results = [report(model, machines, num_steps, arguments.first_seed) for model in arguments.models]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
