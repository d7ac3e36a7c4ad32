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
from pathlib import Path

from elman_client import Client

DEEPEST, LONGEST, NUM_WORDS = 10, 40, 40_000  # what is trained on


def word(chance: random.Random, deepest: int, longest: int) -> str:
    """Return brackets that match and end where the first is closed: (()()), not ()()."""
    while True:
        text, depth = "(", 1
        while 0 < depth <= deepest and len(text) < longest:
            text += chance.choice("()")
            depth += 1 if text[-1] == "(" else -1
        if depth == 0:
            return text


def write(file: str) -> None:
    """Write words, one a line."""
    chance = random.Random(0)
    words = [word(chance, DEEPEST, LONGEST) + "\n" for _ in range(NUM_WORDS)]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("\n" + "".join(words))


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
