"""Compare the texts of this machine with those of emulated ones.

    python -m tests.portability --chars 1000000 --machine Haswell

A million characters take QEMU hours of a core. What was compared is printed as it goes, so that it can be stopped.
"""

import argparse
import sys
from pathlib import Path

from tests.portability.machines import MACHINES, NATIVE, ROOT, Comparison, blocks, compare, has_emulator
from tests.portability.run import NUM_SETTINGS, STEPS

NUM_ROWS = 3 * NUM_SETTINGS
BUNDLED = ROOT / "server/elman_server/bundled"
REPORT_BLOCKS = 20


def report(model: Path, machine: str, num_steps: int) -> bool:
    """Print what differs of one model on one machine; return whether nothing does."""
    found = Comparison(0, 0, are_bits_equal=True)
    with blocks(NATIVE, model, num_steps, NUM_ROWS) as mine, blocks(machine, model, num_steps, NUM_ROWS) as other:
        for index, found in enumerate(compare(mine, other), 1):
            if index % REPORT_BLOCKS == 0 or index * STEPS == num_steps:
                bits = "equal" if found.are_bits_equal else "DIFFERENT"
                sys.stdout.write(
                    f"{model.stem} on {machine}: {found.num_different:,} of {found.num_chars:,} characters differ; "
                    f"logits, states, log-probabilities: {bits}\n"
                )
                sys.stdout.flush()
    return found.num_different == 0 and found.are_bits_equal


def main() -> int:
    """Compare, print, and return 1 if anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.portability", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, default=sorted(BUNDLED.glob("shakespeare*.onnx")))
    parser.add_argument("--chars", type=int, default=100_000, help="of each model and machine")
    parser.add_argument("--machine", action="append", choices=MACHINES[1:], help="by default all")
    arguments = parser.parse_args()
    if not has_emulator():
        sys.exit("This needs qemu-x86_64: apt-get install qemu-user")
    num_steps = -(-arguments.chars // (NUM_ROWS * STEPS)) * STEPS
    is_equal = True
    for model in arguments.models:
        for machine in arguments.machine or MACHINES[1:]:
            is_equal &= report(model, machine, num_steps)
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
