"""A proxy on loopback: who uses it can be counted, and what it sends be held back."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Proxy:
    """Passes on what clients send to a server, and what it answers.

    Parameters
    ----------
    server_port : int
        Where the server listens.
    on_packet : callable
        Called with the number of each packet of a client before it is passed on; until it
        returns, the packet is on its way, even if the client dies.
    """

    def __init__(self, server_port: int, on_packet: Callable[[int], object]) -> None:
        self._server_port = server_port
        self._on_packet = on_packet
        self._n_packets = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._run(self._accept)

    def close(self) -> None:
        """Take no more connections; wait until those that there are have ended."""
        with contextlib.suppress(OSError):  # else the thread that waits would go on to wait
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        for one in self._sockets:
            one.close()

    def _run(self, function: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=function, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += [client, server]
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._run(self._pass_on, client, server, self._count)
            self._run(self._pass_on, server, client, lambda: None)

    def _count(self) -> None:
        with self._lock:
            self._n_packets += 1
            number = self._n_packets
        self._on_packet(number)

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket, before: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):  # one of them has gone
            while data := one.recv(1 << 16):
                before()
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
