"""The small models of the page's panels Meaning and Programs, from examples/: train, trace, fit their read-outs.

python -m scripts.lesson_models            writes web/elman_web/lesson/*.onnx; about two minutes of one core
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "web/elman_web/lesson"
EXPORT = ("-m", "elman_export")


def commands(runs: Path) -> dict[str, list[tuple[str, ...]]]:
    """The Python commands that make each model; the file is `runs/NAME/models/NAME.onnx`."""
    read_outs = {"phrases": ("sentiment", "sentiment"), "sentences": ("tags", "tags")}
    found = {name: _with_read_out(runs / name, name, *source) for name, source in read_outs.items()}
    counting, quotes = runs / "counting", runs / "quotes"
    found["counting"] = [
        ("-m", "examples.counting", "write", f"{counting}/corpus.txt"),
        (*EXPORT, "train", f"{counting}/corpus.txt", "--recipe", "examples/counting.toml", "-o", f"{counting}/run"),
        (*EXPORT, "trace", f"{counting}/run", "-o", f"{counting}/models/counting.onnx"),
    ]
    labels = ("--vocab", "examples/quotes.vocabulary.json", "--labels", "examples/quotes.labels.json")
    found["quotes"] = [
        (*EXPORT, "trace", "--module", "examples.quotes:build", *labels, "-o", f"{quotes}/models/quotes.onnx")
    ]
    return found


def _with_read_out(folder: Path, name: str, example: str, read_out: str) -> list[tuple[str, ...]]:
    model = f"{folder}/models/{name}.onnx"
    return [
        ("-m", f"examples.{example}", str(folder)),
        (*EXPORT, "train", f"{folder}/corpus.txt", "--recipe", "examples/sentiment.toml", "-o", f"{folder}/run"),
        (*EXPORT, "trace", f"{folder}/run", "-o", model),
        (*EXPORT, "probe", model, f"{folder}/labelled.jsonl", "--name", read_out),
    ]


def main() -> None:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, steps in commands(Path(folder)).items():
            Path(folder, name, "models").mkdir(parents=True)
            for step in steps:
                subprocess.run([sys.executable, *step], cwd=ROOT, check=True)
            shutil.copy(f"{folder}/{name}/models/{name}.onnx", FOLDER)


if __name__ == "__main__":
    main()
