"""Ten thousand random operations by fifty clients on five hundred sessions, each of which is then as if it were alone.

python -m tests.isolation                                # in memory, with evictions; about a minute
python -m tests.isolation --store sqlite --seed 7 --operations 20000
"""

import argparse
import tempfile
from pathlib import Path

from tests.isolation.trial import MODELS, run
from tests.models import tiny_model


def main() -> None:
    """Run one trial and print what was done and compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--store", choices=("memory", "sqlite"), default="memory")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            tiny_model(Path(folder) / f"{name}.onnx", name, name=name)
        store = "memory:" if arguments.store == "memory" else f"sqlite:{folder}/sessions.db"
        print(run(Path(folder), store, num_operations=arguments.operations, seed=arguments.seed))


main()
