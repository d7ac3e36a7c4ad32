"""The bundled models, from their recipes: train, trace, quantize, evaluate, and the card of them all.

    python -m scripts.models tinyshakespeare.txt                every model, then docs/models.md
    python -m scripts.models tinyshakespeare.txt elman-128      one of them, then docs/models.md

Trained networks are kept in runs/ and not trained again; an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "server/elman_server/bundled"
RUNS = ROOT / "runs"
CARD = ROOT / "docs/models.md"
VERSION = "2-int8"  # 1-int8 was of arithmetic that differed from machine to machine


@dataclass(frozen=True)
class Bundled:
    """A model that ships.

    Attributes:
        name: Of the model, its file and its run.
        recipe: As `train --recipe` takes it; by default of the same name.
    """

    name: str
    recipe: str = ""


BUNDLED = (
    Bundled("shakespeare"),
    Bundled("shakespeare-gru"),
    Bundled("elman-256"),
    Bundled("elman-128"),
)


def commands(model: Bundled, corpus: str, run: Path) -> list[list[str]]:
    """The exporter's commands that make a model: `run/traced/NAME.onnx`, of which the last is `run/NAME.onnx`."""
    traced, final = str(run / "traced" / f"{model.name}.onnx"), str(run / f"{model.name}.onnx")
    names = ["--name", model.name, "--model-version", VERSION, "--overwrite"]
    return [
        ["train", corpus, "--recipe", model.recipe or model.name, "-o", str(run)],
        ["trace", str(run), "-o", traced, "--overwrite"],
        ["quantize", traced, "--calibrate", corpus, "-o", final, *names],
        ["evaluate", final, corpus],
    ]


def build(model: Bundled, corpus: str, runs: Path, folder: Path) -> None:
    """Make one model; its file appears in the folder when it is complete."""
    run = runs / model.name
    (run / "traced").mkdir(parents=True, exist_ok=True)
    for command in commands(model, corpus, run):
        export(*command)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{model.name}.tmp"
    shutil.copyfile(run / f"{model.name}.onnx", temporary)
    temporary.replace(folder / f"{model.name}.onnx")


def export(*arguments: str) -> None:
    """Run the exporter; end with its exit status if it fails.

    The exporter handles Ctrl-C: `train` needs time to save.
    """
    print("\n$ elman-export", *arguments, flush=True)
    process = subprocess.Popen([sys.executable, "-m", "elman_export", *arguments])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = process.wait()
    signal.signal(signal.SIGINT, before)
    if code:
        sys.exit(code)


def main(arguments: list[str]) -> None:
    """Make all models, or those that are named, and then the card."""
    corpus, names = arguments[0] if arguments else "", arguments[1:] or [model.name for model in BUNDLED]
    if not Path(corpus).is_file():
        sys.exit("Say which text: make models CORPUS=tinyshakespeare.txt")
    if unknown := sorted({*names} - {model.name for model in BUNDLED}):
        sys.exit(f"There is no bundled model {', '.join(unknown)}: add it to BUNDLED in {os.path.relpath(__file__)}.")
    for model in BUNDLED:
        if model.name in names:
            build(model, corpus, RUNS, FOLDER)
    export("card", str(FOLDER), "-o", str(CARD), "--text", corpus)


if __name__ == "__main__":
    main(sys.argv[1:])
