"""A Python for 64-bit Arm: Debian's, unpacked into a folder, with the wheels that a step and the sampler need."""

import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

EMULATOR = "qemu-aarch64"
FOLDER = Path(__file__).parent / ".aarch64"  # git ignores it; remove it to download again
ROOT, SITE = FOLDER / "root", FOLDER / "site"
PYTHON = ROOT / "usr/bin/python3.11"
_DEBIAN = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6"),
    *("libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libssl3", "zlib1g"),
)
_WHEELS = ("numpy", "onnxruntime", "msgspec", "structlog")
_PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")
# QEMU before 8.1 shows the processors of the machine it runs on, in which onnxruntime finds no Arm and crashes.
_CPUINFO = """\
processor\t: 0
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""


@cache
def folder() -> Path:
    """Return the folder with all that; downloads 50 MB from Debian and PyPI if it is not complete.

    Raises:
        subprocess.CalledProcessError, OSError: something could not be had.
    """
    complete = FOLDER / "complete"
    if not complete.exists():
        _unpack_debian()
        _install_wheels()
        (ROOT / "proc").mkdir(exist_ok=True)
        (ROOT / "proc/cpuinfo").write_text(_CPUINFO, encoding="ascii")
        complete.touch()
    return FOLDER


def _unpack_debian() -> None:
    """Download and unpack packages for Arm, with lists of their own: nothing is installed here, apt stays as it is."""
    packages, lists = FOLDER / "debian", FOLDER / "apt/lists"
    for needed in (packages, lists / "partial", FOLDER / "apt/archives/partial"):
        needed.mkdir(parents=True, exist_ok=True)
    own = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State::Lists": lists,
        "Dir::State::status": "/dev/null",
        "Dir::Cache": FOLDER / "apt",
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "--quiet=2", *(f"-o{key}={value}" for key, value in own.items())]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *_DEBIAN], cwd=packages, check=True)
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, ROOT], check=True)


def _install_wheels() -> None:
    """Install the wheels of the versions that run here."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--upgrade"]
    target = ["--target", str(SITE), "--python-version=3.11", "--implementation=cp"]
    platforms = [f"--platform={name}_aarch64" for name in _PLATFORMS]
    subprocess.run([*pip, *target, *platforms, *(f"{name}=={version(name)}" for name in _WHEELS)], check=True)
