"""A NAT: packets of one client go to a server from a port of ours, which can be changed at any time."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

MOST_BYTES = 1 << 16  # of a datagram


class Nat:
    """Between a client, which sends to `port`, and a server on loopback. Made by nat()."""

    def __init__(self, server_port: int) -> None:
        self.server = ("127.0.0.1", server_port)
        """Where it is; another process may have come there."""
        self._loop = asyncio.get_running_loop()
        self._client: Any = None
        self._inner = self._socket(self._from_client)
        self._outer = self._socket(self._from_server)
        self.port: int = self._inner.getsockname()[1]
        self.is_blocked = False
        """Whether nothing gets through."""
        self.lets_in: Callable[[bytes], bool] = lambda _: True
        """Of the client's packets."""
        self.delay_s = 0.0
        """Each way."""

    def _socket(self, read: Any) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        self._loop.add_reader(sock, read)
        return sock

    @property
    def outer_port(self) -> int:
        """Whence the server sees the client's packets come."""
        port: int = self._outer.getsockname()[1]
        return port

    def rebind(self) -> None:
        """Forget the port and take another: what is sent to the old one is lost."""
        self._close(self._outer)
        self._outer = self._socket(self._from_server)

    def close(self) -> None:
        for sock in (self._inner, self._outer):
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock)
        sock.close()

    def _from_client(self) -> None:
        data, self._client = self._inner.recvfrom(MOST_BYTES)
        if not self.is_blocked and self.lets_in(data):
            self._later(self._outer, data, self.server)

    def _from_server(self) -> None:
        data, _ = self._outer.recvfrom(MOST_BYTES)
        if not self.is_blocked and self._client is not None:
            self._later(self._inner, data, self._client)

    def _later(self, sock: socket.socket, data: bytes, address: Any) -> None:
        if self.delay_s:
            self._loop.call_later(self.delay_s, lambda: sock.fileno() >= 0 and sock.sendto(data, address))
        else:
            sock.sendto(data, address)


@asynccontextmanager
async def nat(server_port: int) -> AsyncIterator[Nat]:
    """Closed at the end."""
    made = Nat(server_port)
    try:
        yield made
    finally:
        made.close()
