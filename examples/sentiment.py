"""A network trained only to predict the next character, and a probe that reads the sentiment from its state.

Phrases are composed of adjectives, intensifiers and reversals: "The movie was not very good, but then lovely!"
Each line of the corpus ends in a face, so predicting the line requires following the phrase. The label of each
character is the sentiment of the phrase so far: neutral, negative or positive. Within "terrible" and "terribly" there
is no label: only the last letter decides. From the root:

    python -m examples.sentiment runs/sentiment
    python -m elman_export train runs/sentiment/corpus.txt -o runs/sentiment/run --recipe examples/sentiment.toml
    python -m elman_export trace runs/sentiment/run -o runs/sentiment/models/phrases.onnx
    python -m elman_export probe runs/sentiment/models/phrases.onnx runs/sentiment/labelled.jsonl --name sentiment
    elman-server --models runs/sentiment/models
    echo -n "The movie was terrible, no, terribly good!" | elman score - --read-out sentiment
"""

import json
import random
import sys
from pathlib import Path

SUBJECTS = ("The movie", "The book", "The play", "The song")
VERBS = ("was", "is", "seemed")
ADJECTIVES = {
    "positive": ("good", "great", "lovely"),
    "negative": ("bad", "terrible", "awful"),
    "neutral": ("long", "short", "new"),
}
INTENSIFIERS = ("very", "really", "terribly", "awfully")
REVERSALS = ("not", "never")
TURNS = (", no,", ", but then")
UNDECIDED = {*INTENSIFIERS, *(word for words in ADJECTIVES.values() for word in words)}
FACES = {"positive": ":)", "negative": ":(", "neutral": ":|"}
OPPOSITE = {"positive": "negative", "negative": "positive", "neutral": "neutral"}


Labels = list[str | None]


def phrase(dice: random.Random) -> tuple[str, Labels]:
    """Return a random phrase with one label for each character, or None within adjectives and intensifiers."""
    words = [(dice.choice(SUBJECTS), "neutral"), (dice.choice(VERBS), "neutral")]
    _clause(dice, words)
    if dice.random() < 0.4:
        words.append((dice.choice(TURNS), words[-1][1]))
        _clause(dice, words)
    words.append((dice.choice(".!"), words[-1][1]))
    text, labels, before = "", Labels(), "neutral"
    for word, sentiment in words:
        gap = "" if word[0] in ",.!" or not text else " "
        text += gap + word
        within = None if word in UNDECIDED else before
        labels += [before] * len(gap) + [within] * (len(word) - 1) + [sentiment]
        before = sentiment
    return text, labels


def _clause(dice: random.Random, words: list[tuple[str, str]]) -> None:
    """Add words, each with the sentiment of the phrase after it: only the adjective changes that."""
    before, sentiment = words[-1][1], dice.choice(list(ADJECTIVES))
    adjective = dice.choice(ADJECTIVES[sentiment])
    if dice.random() < 0.3:
        words.append((dice.choice(REVERSALS), before))
        sentiment = OPPOSITE[sentiment]
    if dice.random() < 0.4:
        words.append((dice.choice(INTENSIFIERS), before))
    words.append((adjective, sentiment))


def write(folder: Path, num_lines: int = 4000, num_labelled: int = 300, seed: int = 0) -> None:
    """Write `corpus.txt` to train on, and `labelled.jsonl` with other phrases for the probe."""
    dice = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    phrases = [phrase(dice) for _ in range(num_lines)]
    lines = (f"{text} {FACES[str(labels[-1])]}\n" for text, labels in phrases)
    (folder / "corpus.txt").write_text("".join(lines), encoding="utf-8")
    labelled = [phrase(dice) for _ in range(num_labelled)]
    entries = (json.dumps({"text": text, "labels": labels}) + "\n" for text, labels in labelled)
    (folder / "labelled.jsonl").write_text("".join(entries), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
