"""The lab: a server of the bundled models and of the lesson's small ones, and the page. Run by `make lab`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUNDLED = ROOT / "server/elman_server/bundled"
LESSON = ROOT / "web/elman_web/lesson"
LAB = ROOT / "build/lab"
MODELS = LAB / "models"
SERVER, PAGE = "127.0.0.1:50051", "127.0.0.1:8080"


def main() -> None:
    """Serve until Ctrl-C."""
    copy_models()
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


def copy_models() -> None:
    """Put the bundled models and the lesson's into one folder."""
    MODELS.mkdir(parents=True, exist_ok=True)
    for path in (*BUNDLED.glob("*.onnx"), *LESSON.glob("*.onnx")):
        shutil.copy(path, MODELS)


if __name__ == "__main__":
    main()
