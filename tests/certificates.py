"""Certificates and tokens as `scripts/certificates.sh` makes them."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.services import need

SCRIPT = Path(__file__).parent.parent / "scripts/certificates.sh"


def make_certificates(folder: Path, *hosts: str, **variables: str) -> Path:
    """Run the script; return the folder."""
    need("openssl", is_there=shutil.which("openssl") is not None)
    subprocess.run(["sh", SCRIPT, folder, *hosts], check=True, capture_output=True, env={**os.environ, **variables})
    return folder


def token_digest(token: str) -> str:
    """Return a token as the file of principals has it."""
    return hashlib.sha256(token.encode()).hexdigest()


def replace_file(path: Path, text: str) -> None:
    """Write a file in one step, as an operator who changes it under a running server should."""
    draft = path.with_suffix(".new")
    draft.write_text(text)
    draft.replace(path)
