"""A network trained only to predict the next character, and a probe that reads word classes from its state.

Sentences are composed of articles, adjectives, nouns, verbs and prepositions: "The cat sat on the mat." Some words are
a noun in one place and a verb in another ("The old play slept.", "A dog play."): only the state distinguishes them. The
label of a character is the class of the last whole word; within a word there is none. From the root:

    python -m examples.tags runs/tags
    python -m elman_export train runs/tags/corpus.txt -o runs/tags/run --recipe examples/sentiment.toml
    python -m elman_export trace runs/tags/run -o runs/tags/models/tags.onnx
    python -m elman_export probe runs/tags/models/tags.onnx runs/tags/labelled.jsonl --name tags
    elman-server --models runs/tags/models
    echo -n "The cat sat on the mat." | elman score - --read-out tags
"""

import json
import random
import sys
from pathlib import Path

WORDS = {
    "DET": ("the", "a", "my", "every", "that"),
    "ADJ": ("old", "small", "black", "happy", "quiet"),
    "NOUN": ("cat", "dog", "king", "mat", "tree", "child", "play", "watch", "light", "walk"),
    "VERB": ("sat", "ran", "slept", "saw", "found", "liked", "play", "watch", "light", "walk"),
    "PREP": ("on", "near", "under", "with"),
}
Sentence = list[tuple[str, str]]


def sentence(dice: random.Random) -> Sentence:
    """Return the words of a random sentence, each with its class."""
    words = [*_thing(dice), _word(dice, "VERB")]
    if dice.random() < 0.7:
        words += [_word(dice, "PREP")] * (dice.random() < 0.5) + _thing(dice)
    if dice.random() < 0.2:
        words += [_word(dice, "PREP"), *_thing(dice)]
    return words


def _thing(dice: random.Random) -> Sentence:
    return [_word(dice, "DET"), *([_word(dice, "ADJ")] if dice.random() < 0.4 else []), _word(dice, "NOUN")]


def _word(dice: random.Random, name: str) -> tuple[str, str]:
    return dice.choice(WORDS[name]), name


def labelled(words: Sentence) -> tuple[str, list[str | None]]:
    """Return the text of a sentence, and for each character the class of the last whole word; None within a word."""
    text, labels = "", list[str | None]()
    for word, name in words:
        gap = " " if text else ""
        text += gap + (word if text else word.capitalize())
        labels += [*labels[-1:], *[None] * (len(word) - 1), name]
    return text + ".", [*labels, labels[-1]]


def write(folder: Path, num_lines: int = 5000, num_labelled: int = 400, seed: int = 0) -> None:
    """Write `corpus.txt` to train on, and `labelled.jsonl` with other sentences for the probe."""
    dice = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    lines = (f"{labelled(sentence(dice))[0]}\n" for _ in range(num_lines))
    (folder / "corpus.txt").write_text("".join(lines), encoding="utf-8")
    entries = (labelled(sentence(dice)) for _ in range(num_labelled))
    texts = (json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in entries)
    (folder / "labelled.jsonl").write_text("".join(texts), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
