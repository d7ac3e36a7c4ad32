"""`python -m elman_web.lesson FOLDER` writes the lesson's small models there, for `elman-server --models FOLDER`."""

import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path


def main(folder: Path) -> None:
    """Copy them; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("elman_web.lesson")) as here:
        for artefact in sorted(here.glob("*.onnx")):
            shutil.copy(artefact, folder)
            print(f"wrote {folder / artefact.name}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):  # noqa: PLR2004 - the program and its argument
        sys.exit("usage: python -m elman_web.lesson FOLDER")
    main(Path(sys.argv[1]))
