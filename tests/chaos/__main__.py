"""The long form: `python -m tests.chaos --rounds 20`; the report of each scenario is a line of JSON."""

import asyncio
import random
import tempfile
from pathlib import Path

import click

from tests.chaos.cluster import Cluster
from tests.chaos.load import MANY_STREAMS
from tests.chaos.scenarios import SCENARIOS, num_turns, run, undisturbed
from tests.models import tiny_model

_BY_NAME = {scenario.__name__: scenario for scenario in SCENARIOS}


@click.command(
    epilog="""\b
Examples:
  python -m tests.chaos --rounds 20
  python -m tests.chaos kill_replicas cut_network --seed 7"""
)
@click.argument("names", nargs=-1, type=click.Choice(list(_BY_NAME)))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 1000), help="How often faults are made.")
@click.option(
    "--streams", default=MANY_STREAMS, show_default=True, type=click.IntRange(4, 1000), help="Readers at the same time."
)
@click.option("--seed", type=int, help="Chooses the replicas; default: another one every time.")
def main(names: tuple[str, ...], rounds: int, streams: int, seed: int | None) -> None:
    """Break a cluster in every way, or in those that are named, and compare every character."""
    with tempfile.TemporaryDirectory() as folder:
        models, files = Path(folder) / "models", Path(folder) / "cluster"
        models.mkdir()
        files.mkdir()
        tiny_model(models / "gru.onnx", "gru", hidden_size=256, name="gru")
        expected = asyncio.run(undisturbed(models, num_turns(rounds), streams))
        with Cluster(models, files) as cluster:
            for name in names or _BY_NAME:
                chosen = random.randrange(1 << 32) if seed is None else seed
                asyncio.run(run(_BY_NAME[name], cluster, expected, num_streams=streams, seed=chosen, num_rounds=rounds))


if __name__ == "__main__":
    main()
