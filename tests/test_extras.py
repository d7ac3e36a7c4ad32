"""What the commands say where the libraries of their extra are not installed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "missing", "arguments", "message"),
    [
        ("elman_server", "uvloop", ["--help"], "uvloop is not installed; run: pip install 'elman[server]'"),
        ("elman_server", "msgspec", ["-h"], "msgspec is not installed; run: pip install 'elman[server]'"),
        ("elman_web", "fastapi", ["-h"], "fastapi is not installed; run: pip install 'elman[web]'"),
        ("elman_export", "onnx", ["inspect", "x.onnx"], "onnx is not installed; run: pip install 'elman[export]'"),
        ("elman_export", "torch", ["train", "x.txt", "-o", "x"], "torch is not installed; run: pip install"),
    ],
)
def test_a_missing_library_is_a_sentence(module, missing, arguments, message):
    """One line says which extra brings it; no traceback."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {arguments!r}\n"
        f"from {module}.__main__ import main; main()"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert message in done.stderr


def test_the_exporter_helps_without_its_libraries():
    """`elman-export --help` needs none of them."""
    program = (
        "import sys; sys.modules['onnx'] = sys.modules['numpy'] = None\n"
        "from elman_export.__main__ import main; main(['-h'])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, "quantize" in done.stdout) == (0, True)
