"""Runs benchmarks: `python -m benchmarks` runs all of them, as `make bench` does, in less than 10 minutes.

Prints one table and writes it as JSON. Ratios within the run, and memory, are compared with benchmarks/baseline.json:
if one is worse than before, the exit status is 1. Servers listen on free ports of loopback; Ctrl-C stops everything.

    python -m benchmarks streaming-c prefill   # two of them
    python -m benchmarks --write-baseline      # compare later runs with this one; plot docs/benchmarks.svg
    python -m benchmarks --plot                # plot it from the baseline, without a run
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import baseline
from benchmarks.measure import ROUNDS, Table, show

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES: Final = (
    "streaming-a",
    "streaming-b",
    "streaming-c",
    "streaming-c-int8",
    "against_naive",
    "turns",
    "first_character",
    "fairness",
    "observed",
    "long_prompt",
    "between_characters",
    "prefill",
    "watching",
    "engines",
    "threads",
    "open_streams",
    "idle_sessions",
    "flat_in_time",
    "cold_start",
)
QUIET_LOAD: Final = 0.5  # runnable processes of others


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="alternating rounds (default %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"), help="default: %(default)s")
    parser.add_argument(
        "--write-baseline",
        action="store_true",
        help="later runs are compared with this one; other benchmarks keep their figures",
    )
    parser.add_argument("--plot", action="store_true", help="plot the baseline; run nothing")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"unknown benchmark: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if options.plot:
        return _plot()
    for number in (signal.SIGTERM, signal.SIGINT):  # as Ctrl-C: stop what was started; a shell's `&` would ignore it
        signal.signal(number, signal.default_int_handler)
    try:
        table = _run(options.names or NAMES, options.rounds)
    except KeyboardInterrupt:
        show("")
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    table.write(options.json)
    return _compare(table, is_new=options.write_baseline)


def _run(names: Sequence[str], rounds: int) -> Table:
    if (load := os.getloadavg()[0]) > QUIET_LOAD:
        print(f"the machine is busy (load {load:.1f}): ratios are too low and vary", file=sys.stderr)
    table = Table()
    for name in names:
        table.begin(name)
        begin = time.perf_counter()
        module, _, model = name.partition("-")
        import_module(f"benchmarks.{module}").run(table, rounds, *filter(None, [model]))
        show("")
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return table


def _compare(table: Table, *, is_new: bool) -> int:
    """Print the table and what is worse than before; return the exit status."""
    before = baseline.compared()
    print(table.text(before))
    found = baseline.worse(table, before)
    if is_new:
        baseline.update(table)
        _plot()
        return 0
    if found:
        print(f"\nWORSE than {baseline.PATH.name}, by more than {baseline.TOLERANCE:.0%} and in every round:")
        print("\n".join(f"  {line}" for line in found))
        print("Run them again with nothing else on the machine. --write-baseline accepts them.")
    return 1 if found else 0


def _plot() -> int:
    """Plot the picture of the baseline; return the exit status."""
    from benchmarks.plots import plot  # noqa: PLC0415  matplotlib takes a second

    try:
        print(f"wrote {plot(baseline.read())}")
    except KeyError as error:
        print(f"no picture yet: the baseline lacks {error}; run more benchmarks with --write-baseline", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
