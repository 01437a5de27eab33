"""
Whether a QUIC server answers at an address, for one small packet and without a QUIC library.

Whoever does not speak the version of a packet's header must say which ones it does (RFC 9000, section 6.1), and says so
without making anything of a connection. So a packet of a version that nobody has is a question that every QUIC server
answers and no other: not a firewall that drops UDP, nor a machine where nobody listens. The first does not show at
once: the way may only be long, so a question stays open for as long as its asker likes (`Probe`).
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from componentbase import udp
from componentbase.aside import aside
from link.pathmtu import BASE_BYTES

PROBE_VERSION = 0x1A2A3A4A  # of those that are kept free to be refused (RFC 9000, section 15)
TRIES = 2
TRY_S = 0.45  # two tries within a second
_ID_BYTES = 8
_LONG_HEADER = 0xC0


class Found(NamedTuple):
    """Where a QUIC server answered."""

    family: int
    address: tuple[Any, ...]
    """As getaddrinfo has it."""


def question(ours: bytes, theirs: bytes) -> bytes:
    """A packet from a connection that has these numbers."""
    head = b"".join(
        (
            bytes((_LONG_HEADER,)),
            PROBE_VERSION.to_bytes(4),
            bytes((len(theirs),)),
            theirs,
            bytes((len(ours),)),
            ours,
        )
    )
    return head.ljust(BASE_BYTES, b"\0")


def answers(data: bytes, ours: bytes, theirs: bytes) -> bool:
    """Whether this is a QUIC server's answer to that very packet."""
    head = b"".join((bytes(4), bytes((len(ours),)), ours, bytes((len(theirs),)), theirs))
    return bool(data) and data[0] & 0x80 != 0 and data[1:].startswith(head)


async def addresses(host: str, port: int) -> list[Found]:
    """Of a name, in the system's order. Raises OSError."""
    found = await aside(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM), f"resolve[{host}]")
    return [Found(family, address) for family, _, _, _, address in found]


class Probe:
    """One question, asked at all addresses of a name; close() it. Made by ask()."""

    def __init__(self, found: list[Found], tries: int, try_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._ours, self._theirs = os.urandom(_ID_BYTES), os.urandom(_ID_BYTES)
        self._asked_at = self._loop.time()
        self._sockets: dict[socket.socket, Found] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.round_trip_s = 0.0
        """Until the answer came, or more than it takes where the first question was lost."""
        self.answered: asyncio.Future[Found | None] = self._loop.create_future()
        """Resolves to the first address where a QUIC server answered; None where nobody listens at any."""
        for each in found:
            sock = socket.socket(each.family, socket.SOCK_DGRAM)
            sock.setblocking(False)
            udp.uncut(sock)
            self._sockets[sock] = each
            self._loop.add_reader(sock, self._read, sock)
            try:
                # Connected, so that the kernel tells us where nobody listens, and takes nothing from anybody else.
                sock.connect(each.address)
            except OSError:
                self._drop(sock)
        self._ask(tries, try_s)

    async def within(self, seconds: float) -> bool:
        """Whether that is known now, or before the time is over."""
        await asyncio.wait([self.answered], timeout=seconds)
        return self.answered.done()

    def close_after(self, seconds: float) -> None:
        """Listen for an answer a while longer, and ask no more."""
        self._set_timer(seconds, self.close)

    def close(self) -> None:
        """Nobody waits for the answer any more."""
        if self._timer is not None:
            self._timer.cancel()
        for sock in list(self._sockets):
            self._drop(sock)
        self.answered.cancel()

    def _ask(self, left: int, try_s: float) -> None:
        for sock in list(self._sockets):
            try:
                sock.send(question(self._ours, self._theirs))
            except BlockingIOError:
                continue
            except OSError:
                self._drop(sock)
        if not self._sockets:
            self._answer(None)
        elif left > 1:
            self._set_timer(try_s, self._ask, left - 1, try_s)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(BASE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(sock)
            if not self._sockets:
                self._answer(None)
            return
        if answers(data, self._ours, self._theirs):
            self._answer(self._sockets[sock])

    def _answer(self, found: Found | None) -> None:
        if not self.answered.done():
            self.round_trip_s = self._loop.time() - self._asked_at
            self.answered.set_result(found)
        self.close()

    def _drop(self, sock: socket.socket) -> None:
        del self._sockets[sock]
        self._loop.remove_reader(sock)
        sock.close()

    def _set_timer(self, seconds: float, call: Callable[..., None], *arguments: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, call, *arguments)


async def ask(host: str, port: int, tries: int = TRIES, try_s: float = TRY_S) -> Probe:
    """Ask at all addresses of the name, up to `tries` times, every `try_s`. Raises OSError."""
    return Probe(await addresses(host, port), tries, try_s)


async def probe(host: str, port: int, tries: int = TRIES, try_s: float = TRY_S) -> Found | None:
    """The first address of the name where a QUIC server answers, within `tries` times `try_s`. Raises OSError."""
    asked = await ask(host, port, tries, try_s)
    try:
        return asked.answered.result() if await asked.within(tries * try_s) else None
    finally:
        asked.close()
