"""A network that learns to count: brackets, matched deeper and longer than in anything that it was trained on.

    python -m examples.brackets write runs/brackets.txt
    python -m elman_export train runs/brackets.txt --recipe examples/brackets.toml -o runs/brackets
    python -m elman_export trace runs/brackets -o models/brackets.onnx
    elman-server --models models

and in a second terminal, to close 20 brackets that no text of the training had:

    python -m examples.brackets close localhost:50051 "(((((((((((((((((((("
"""

import random
import sys
from itertools import accumulate
from pathlib import Path

from elman_client import Client

DEEPEST, LONGEST, NUM_WORDS = 10, 40, 12_000  # what is trained on


def word(chance: random.Random, num_pairs: int) -> str:
    """Return brackets that match and end where the first is closed, (()()) and not ()()."""
    steps = ["(", ")"] * (num_pairs - 1)
    chance.shuffle(steps)
    depths = [0, *accumulate(1 if step == "(" else -1 for step in steps)]
    lowest = depths.index(min(depths))  # turned to begin there, no bracket is closed that was not opened
    return "(" + "".join(steps[lowest:] + steps[:lowest]) + ")"


def depth(text: str) -> int:
    """Return how many brackets are open where most are."""
    return max(accumulate(1 if bracket == "(" else -1 for bracket in text))


def write(file: str) -> None:
    """Write words, one a line."""
    chance = random.Random(0)
    words = (word(chance, chance.randint(1, LONGEST // 2)) for _ in range(NUM_WORDS))
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("\n" + "".join(f"{word}\n" for word in words if depth(word) <= DEEPEST))


def close(client: Client, opened: str) -> str:
    """Return what the network writes until it ends the line, when it may open no more."""
    turn = client.generate(
        f"\n{opened}", model="brackets", temperature=0, banned_characters="(", stop_strings="\n", max_chars=200
    )
    return "".join(turn)


def main(command: str, *arguments: str) -> None:
    """Run one of the two commands."""
    if command == "write":
        write(*arguments)
    else:
        target, opened = arguments
        with Client(target) as client:
            print(opened + close(client, opened))


if __name__ == "__main__":
    main(*sys.argv[1:])
