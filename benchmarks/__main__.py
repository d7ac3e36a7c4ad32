"""All benchmarks, one after another: `python -m benchmarks`, or `make bench`. Takes less than 10 minutes.

Prints one table and writes it as JSON. Ratios are compared with benchmarks/baseline.json, what a machine like
benchmarks/baseline.json's found before; `--write-baseline` replaces it.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Final

from benchmarks.measure import BASELINE, ROUNDS, Table, finish

NAMES: Final = (
    "streaming",
    "server_cpu",
    "against_naive",
    "first_character",
    "long_prompt",
    "between_characters",
    "prefill",
    "open_streams",
    "idle_sessions",
    "flat_in_time",
    "cold_start",
)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="alternating rounds (default %(default)s)")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"), help="default: %(default)s")
    parser.add_argument("--write-baseline", action="store_true", help="compare later runs with this one")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    table = Table()
    for name in options.names:
        begin = time.perf_counter()
        import_module(f"benchmarks.{name}").run(table, options.rounds)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    options.json.parent.mkdir(exist_ok=True)
    finish(table, BASELINE if options.write_baseline else options.json)


if __name__ == "__main__":
    main()
