"""One principal asks for a hundred times its share: what that costs the others.

Three principals keep some turns running each. A fourth keeps as many as each of them in one half of a round, and a
hundred times that in the other: the same turns, or turns of ten characters, which cost the front process most, or turns
behind long prompts. There are as many rows as turns in the first half.
"""

from __future__ import annotations

import hashlib
import secrets
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Final

from benchmarks.artefacts import models
from benchmarks.processes import cpu_seconds, elman_server, load_client

if TYPE_CHECKING:
    from benchmarks.measure import Table
    from benchmarks.processes import Load, Server

MODEL: Final = "b"
OTHERS: Final = 3
SHARE: Final = 2  # turns of each principal, and rows
FLOOD: Final = 100
SECONDS: Final = 4.0
TURN: Final = {"chars": 60, "prompt_chars": 1}
KINDS: Final[dict[str, dict[str, int]]] = {
    "the same turns": TURN,
    "short turns": {"chars": 10, "prompt_chars": 1},
    "long prompts": {"chars": 10, "prompt_chars": 1000},
}
STEADY: Final = {
    "the same turns": SHARE * FLOOD // 2,
    "short turns": SHARE * FLOOD,
    "long prompts": SHARE * FLOOD // 10,
}


def run(table: Table, rounds: int) -> None:
    """Add what the others keep of their characters, and how much longer their first character takes."""
    tokens = [secrets.token_hex(32) for _ in range(OTHERS + 1)]
    with NamedTemporaryFile("w", suffix=".toml") as access:
        for number, token in enumerate(tokens):
            digest = hashlib.sha256(token.encode()).hexdigest()
            access.write(f'[principals.number-{number}]\ntokens = ["{digest}"]\n')
        access.flush()
        flags = ("--access", access.name, "--max-batch", str((OTHERS + 1) * SHARE))
        with load_client() as load, load_client() as flood, elman_server(models(MODEL), *flags) as server:
            for _ in table.rounds(rounds):
                for kind, turn in KINDS.items():
                    fair, flooded = (
                        _others(load, flood, server, tokens, turn | {"streams": SHARE * times, "steady": steady})
                        for times, steady in ((1, 1), (FLOOD, STEADY[kind]))
                    )
                    name = f"others beside {FLOOD} shares of {kind}"
                    table.add(f"{name}, characters", "ratio", flooded["rate"] / fair["rate"], at_least=0.9)
                    table.add(f"{name}, characters a CPU second", "ratio", flooded["by_cpu"] / fair["by_cpu"])
                    table.add(f"{name}, first character", "ratio", flooded["first"] / fair["first"], at_most=2)


def _others(load: Load, flood: Load, server: Server, tokens: list[str], turn: dict[str, int]) -> dict[str, float]:
    """Return what the others see beside the fourth's turns: characters, by the server's CPU time as well."""
    common = {"address": server.address, "model": MODEL}
    load(**common, **TURN, mode="begin", tokens=tokens[:-1], streams=SHARE, steady=1)
    flood(**common, **turn, mode="begin", tokens=tokens[-1:])
    before = _spent(server)
    seen = load(**common, mode="look", seconds=SECONDS)
    by_cpu = seen["num_chars"] / (_spent(server) - before)
    for each in (load, flood):
        each(**common, mode="end")
    if not seen["first"]:
        raise RuntimeError(f"no turn of the others began in {SECONDS} seconds")
    return {"rate": seen["rate"], "first": seen["first"], "by_cpu": by_cpu}


def _spent(server: Server) -> float:
    return sum(cpu_seconds(pid) for pid in server.pids)
