"""One attack on one server, and what others saw of it."""

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Final

from tests.attacks.canary import Canary
from tests.server_process import ServerProcess

_LOOK_SECONDS: Final = 0.05
_PATIENCE: Final = 300


@dataclass(frozen=True)
class Result:
    """What an attack did.

    Attributes:
        outcomes: of its calls, by status or as the attack counts them.
        peak: resident memory of the server beyond what it had before, bytes, at most.
        after: the same some seconds later.
        longest_gap: of the canary, seconds.
        longest_work: of the server's loop within such a gap, seconds of a processor.
        num_turns: of the canary; all gave their text.
    """

    outcomes: dict[str, int]
    peak: int
    after: int
    longest_gap: float
    longest_work: float
    num_turns: int


def attack(process: ServerProcess, name: str, seconds: float) -> Result:
    """Run an attack beside a canary."""
    is_over, peak = threading.Event(), [0]

    def look() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            peak[0] = max(peak[0], process.rss())

    with Canary(process.address, work=process.loop_seconds) as canary:
        before = process.rss()
        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        command = [sys.executable, "-m", "tests.attacks.attacker", name, process.address, str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
        is_over.set()
        watcher.join()
    assert done.returncode == 0, done.stderr
    assert process.health() == "SERVING"
    return Result(
        json.loads(done.stdout),
        peak=max(0, peak[0] - before),
        after=process.rss() - before,
        longest_gap=canary.longest_gap,
        longest_work=canary.longest_work,
        num_turns=canary.num_turns,
    )
