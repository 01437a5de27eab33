"""
A TCP forwarder that counts: between the edge and the hub, it sees what the link really costs.

It counts the bytes of the TCP streams, TLS and websocket included, IP and TCP headers not. One thread for each
direction, so that it adds as little delay as can be; where delay is measured, it adds about 0.1 ms, which is left in.
"""

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Forwarder:
    """Forwards connections to a port of loopback, and counts both ways."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._carried = [0, 0]
        self._sockets: list[socket.socket] = []

    @property
    def carried(self) -> int:
        """Bytes both ways since it began."""
        return sum(self._carried)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="forwarder", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                edge, _ = self._listener.accept()
                hub = socket.create_connection(("127.0.0.1", self._target))
                for each in (edge, hub):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [edge, hub]
                threading.Thread(target=self._copy, args=(edge, hub, 0), name="up", daemon=True).start()
                threading.Thread(target=self._copy, args=(hub, edge, 1), name="down", daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, direction: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._carried[direction] += len(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
