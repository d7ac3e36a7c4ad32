"""A model of bytes on Greek, Japanese and emoji; its text arrives character by character, never broken.

    python -m examples.utf8_bytes write runs/utf8.txt
    python -m elman_export train runs/utf8.txt --bytes --recipe examples/utf8_bytes.toml -o runs/utf8
    python -m elman_export trace runs/utf8 -o models/utf8.onnx
    elman-server --models models

and in a second terminal, 200 bytes by turns of 7, which often end within a character:

    python -m examples.utf8_bytes stream localhost:50051
"""

import random
import sys
from pathlib import Path

from elman_client import Client

SENTENCES = (
    "Ἐν ἀρχῇ ἦν ὁ λόγος.",
    "Πάντα ῥεῖ.",
    "いろはにほへと ちりぬるを。",
    "春はあけぼの。",
    "🌊🌊🌊 → 🏖️!",
    "ça va? 😀",
)


def write(file: str, num_sentences: str = "3000") -> None:
    """Write the sentences in random order, one a line."""
    chance = random.Random(0)
    lines = [chance.choice(SENTENCES) + "\n" for _ in range(int(num_sentences))]
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_bytes("".join(lines).encode())


def stream(target: str, num_bytes: str = "200", turn_bytes: str = "7") -> None:
    """Generate in short turns on one session, one message for each character, and print the text as it arrives."""
    with Client(target) as client:
        session = client.create_session("utf8", seed=1)
        session.append("\n")
        for _ in range(0, int(num_bytes), int(turn_bytes)):
            for text in session.generate(temperature=0.5, max_chars=int(turn_bytes), chunk_chars=1):
                print(text, end="", flush=True)


def main(command: str, *arguments: str) -> None:
    """Run one of the two commands."""
    if command == "write":
        write(*arguments)
    else:
        stream(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
