"""Compare what is generated, the code of proto/ and docs/settings.md, with what would be generated now.

Exits with 1 and the command that fixes it where they differ. Run by `make check`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from filecmp import cmpfiles
from pathlib import Path

from elman_server.process.settings import to_markdown

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Run the comparison."""
    complaints = []
    if stale := stale_code():
        complaints.append(f"{', '.join(stale)}: not what proto/ says; run `make proto`")
    if (ROOT / "docs/settings.md").read_text() != to_markdown():
        complaints.append("docs/settings.md: not what settings.py says; run `make docs`")
    if complaints:
        sys.exit("\n".join(complaints))


def stale_code() -> list[str]:
    """Return the generated files that differ from fresh ones, or that are too few or too many."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "proto"
        shutil.copytree(ROOT / "proto", fresh, ignore=shutil.ignore_patterns("*_pb2*", "__pycache__"))
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run([fresh / "generate.sh"], check=True, env={**os.environ, "PATH": tools})
        names = {
            path.relative_to(base).as_posix() for base in (ROOT / "proto", fresh) for path in base.rglob("*_pb2*.py*")
        }
        names = {name for name in names if "__pycache__" not in name}
        _, differ, missing = cmpfiles(ROOT / "proto", fresh, names, shallow=False)
    return sorted([*differ, *missing])


if __name__ == "__main__":
    main()
