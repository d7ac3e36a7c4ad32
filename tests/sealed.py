"""Run a command in a network of its own, where everything that it sends is seen.

The network has a loopback device and nothing else, and all addresses lead there. What goes to any address but
127.0.0.0/8 and ::1, a question to the name server included, was meant for the outside.
"""

import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

_NAME_SERVER = "192.0.2.53"
_END = "192.0.2.99"  # a packet to it says that the command is over
_ALL_PROTOCOLS = 3
_NAMESPACES = ["unshare", "--map-root-user", "--net", "--mount"]
_SET_UP = [
    "ip link set lo up",
    "ip route add local 0.0.0.0/0 dev lo",
    "ip -6 route add local ::/0 dev lo",
    "mount --bind {resolv} /etc/resolv.conf",
]


@dataclass(frozen=True)
class Sealed:
    """What a sealed command gave.

    Attributes:
        addresses: outside addresses that it sent to, sorted.
        files: what it left in its home directory, sorted.
    """

    returncode: int
    output: str
    addresses: list[str]
    files: list[str]


def is_possible() -> bool:
    """Whether this machine lets us make such a network."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    return subprocess.run([*_NAMESPACES, "ip", "link"], capture_output=True, check=False).returncode == 0


def run(folder: Path, *command: str | Path, **environ: str) -> Sealed:
    """Run a command sealed; its home directory is an empty one in `folder`."""
    home, report = folder / "home", folder / "report.json"
    home.mkdir()
    (folder / "resolv.conf").write_text(f"nameserver {_NAME_SERVER}\noptions timeout:1 attempts:1\n")
    done = subprocess.run(
        [*_NAMESPACES, sys.executable, __file__, folder, *command],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    addresses = json.loads(report.read_text()) if report.exists() else []
    files = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
    return Sealed(done.returncode, done.stdout, addresses, files)


def _main(folder: Path, command: list[str]) -> int:
    """What runs inside."""
    for line in _SET_UP:
        subprocess.run(line.format(resolv=folder / "resolv.conf").split(), check=True)
    addresses: set[str] = set()
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS))
    thread = threading.Thread(target=_sniff, args=(sniffer, addresses))
    thread.start()
    returncode = subprocess.run(command, check=False).returncode
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"", (_END, 9))
    thread.join()
    (folder / "report.json").write_text(json.dumps(sorted(addresses)))
    return returncode


def _sniff(sniffer: socket.socket, addresses: set[str]) -> None:
    while True:
        packet = sniffer.recv(65536)
        address = ipaddress.ip_address(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])
        if str(address) == _END:
            return
        if not address.is_loopback:
            addresses.add(str(address))


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), sys.argv[2:]))
