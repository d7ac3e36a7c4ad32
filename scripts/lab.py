"""The lab: the bundled models, one that counts and one whose meaning is read out, a server of them, and the page.

The two are trained the first time, which takes a minute of one core, and kept under build/lab. Run by `make lab`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUNDLED = ROOT / "server/elman_server/bundled"
LAB = ROOT / "build/lab"
MODELS = LAB / "models"
SERVER, PAGE = "127.0.0.1:50051", "127.0.0.1:8080"


def main() -> None:
    """Train what is missing, then serve until Ctrl-C."""
    make_models()
    store = f"sqlite:{LAB / 'sessions.db'}"
    server = [sys.executable, "-m", "elman_server", "--listen", SERVER, "--models", str(MODELS), "--store", store]
    page = [sys.executable, "-m", "elman_web", "--target", SERVER, "--listen", PAGE]
    with subprocess.Popen(server) as serving, subprocess.Popen(page) as showing:
        print(f"the page is at http://{PAGE}; Ctrl-C ends it", flush=True)
        try:
            while serving.poll() is None and showing.poll() is None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            pass
        finally:
            for process in (showing, serving):
                process.terminate()


def make_models() -> None:
    """Train and trace the two small models, unless that was done before."""
    MODELS.mkdir(parents=True, exist_ok=True)
    for path in BUNDLED.glob("*.onnx"):
        if not (MODELS / path.name).exists():
            shutil.copy(path, MODELS)
    counting = MODELS / "counting.onnx"
    if not counting.exists():
        corpus, run = LAB / "counting.txt", LAB / "counting"
        _python("examples.counting", "write", corpus)
        _python("elman_export", "train", corpus, "--recipe", "examples/counting.toml", "-o", run)
        _trace(run, counting)
    phrases = MODELS / "phrases.onnx"
    if not phrases.exists():
        data, run, unread = LAB / "sentiment", LAB / "sentiment/run", LAB / "phrases.onnx"
        _python("examples.sentiment", data)
        _python("elman_export", "train", data / "corpus.txt", "-o", run, "--recipe", "examples/sentiment.toml")
        _trace(run, unread)
        _python("elman_export", "probe", unread, data / "labelled.jsonl", "--name", "sentiment")
        unread.replace(phrases)


def _trace(run: Path, artefact: Path) -> None:
    traced = artefact.with_suffix(".part.onnx")
    _python("elman_export", "trace", run, "-o", traced, "--name", artefact.stem)
    traced.replace(artefact)


def _python(module: str, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
