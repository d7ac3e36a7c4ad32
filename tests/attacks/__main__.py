"""The long form: `python -m tests.attacks [SECONDS [NAME …]]` runs attacks, each on a new server.

`loop, s` is how long the server's loop computed in such a gap, at most. On a machine that others use it says more than
the gap: the attacker and others have the processors meanwhile.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.attacks.attack import attack
from tests.attacks.attacker import ATTACKS
from tests.models import tiny_model
from tests.server_process import ServerProcess

_SETTLE_SECONDS = 5


def main(seconds: float, names: list[str]) -> None:
    """Run the attacks."""
    print("| attack | calls | MB more at most | MB more after 5 s | longest gap, s | loop, s | turns of the canary |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(Path(folder) / "gru.onnx", name="gru")
        for name in names or list(ATTACKS):
            with ServerProcess(model.parent) as process:
                before = process.rss()
                result = attack(process, name, seconds)
                time.sleep(_SETTLE_SECONDS)
                after = (process.rss() - before) / 1e6
            calls = " ".join(f"{status} {count}" for status, count in result.outcomes.items())
            gap = f"{result.longest_gap:.2f} | {result.longest_work:.2f}"
            print(
                f"| {name} | {calls} | {result.peak / 1e6:.0f} | {after:.0f} | {gap} | {result.num_turns} |", flush=True
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if sys.argv[1:] else 10.0, sys.argv[2:])
