"""A way over the network that can be cut, without being root."""

import contextlib
import socket
import struct
import threading
from typing import Final

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends RST
_BLOCK: Final = 1 << 16


class Proxy:
    """Passes TCP connections on to a port of loopback.

    Attributes:
        port: where it listens itself.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._passes = threading.Event()
        self._passes.set()
        self._swallowed: list[threading.Event] = []
        self._refuses = self._is_closed = False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Break every connection and stop listening."""
        self._is_closed = True
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
        self._listener.close()
        self.reset()
        for passes in (*self._swallowed, self._passes):
            passes.set()

    def hold(self) -> None:
        """Let nothing through, as if a cable were pulled: what is sent meanwhile arrives when it is healed."""
        self._passes.clear()

    def swallow(self) -> None:
        """Let nothing more through on the connections of now, without a word to either end; new ones pass."""
        self._swallowed.append(self._passes)
        self._passes.clear()
        self._passes = threading.Event()
        self._passes.set()

    def reset(self) -> None:
        """Break every connection, and each that is made until it is healed."""
        with self._lock:
            self._refuses = True
            sockets = list(self._sockets)
        for each in sockets:
            _break(each)

    def heal(self) -> None:
        """Let everything through."""
        self._refuses = False
        self._passes.set()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        """Pass one connection on, both ways, until either end has closed it."""
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            _break(near)
            return
        with self._lock:
            self._sockets |= {near, far}
            refuses = self._refuses
            passes = self._passes
        if refuses:
            _break(near)
            _break(far)
        back = threading.Thread(target=self._pump, args=(far, near, passes), daemon=True)
        back.start()
        self._pump(near, far, passes)
        back.join()
        with self._lock:
            self._sockets -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket, passes: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_BLOCK):
                passes.wait()
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
