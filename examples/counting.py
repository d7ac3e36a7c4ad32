"""A network that learns to count: n a's and then n b's; trained up to ten, it counts to twenty and further.

    python -m examples.counting write runs/counting.txt
    python -m elman_export train runs/counting.txt --recipe examples/counting.toml -o runs/counting
    python -m elman_export trace runs/counting -o models/counting.onnx
    elman-server --models models

and in a second terminal, which prints twenty b's:

    python -m examples.counting count localhost:50051 20
"""

import random
import sys
from pathlib import Path

from elman_client import Client

MOST, NUM_LINES = 10, 20_000
CONTINUE = 0.7  # the chance of one more a, the same after each: the end of the a's cannot be predicted by counting


def number(chance: random.Random) -> int:
    """Return the number of a's in a line, 1 to MOST; small numbers are more likely."""
    while True:
        n = 1
        while chance.random() < CONTINUE:
            n += 1
        if n <= MOST:
            return n


def write(file: str) -> None:
    """Write lines of a's and as many b's."""
    chance = random.Random(0)
    numbers = [number(chance) for _ in range(NUM_LINES)]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("\n" + "".join("a" * n + "b" * n + "\n" for n in numbers))


def count(client: Client, num_as: int) -> str:
    """Return what the network writes after `num_as` a's until the line ends, with a's banned."""
    turn = client.generate(
        "\n" + "a" * num_as,
        model="counting",
        temperature=0,
        banned_characters="a",
        stop_strings="\n",
        max_chars=2 * num_as + 10,
    )
    return "".join(turn)


def main(command: str, *arguments: str) -> None:
    """Run one of the two commands."""
    if command == "write":
        write(*arguments)
    else:
        target, num_as = arguments
        with Client(target) as client:
            print(count(client, int(num_as)))


if __name__ == "__main__":
    main(*sys.argv[1:])
