"""
The sockets of the link over QUIC: what has come waits here, by connection, until it has its turn.

All nodes write to one socket of a hub, and a packet costs the hub a hundred times what it costs to read it. So what
there is is read at once and put where it belongs, which takes a look at its header, and each connection has one packet
looked at in turn. Whoever sends more than the hub comes round to loses that himself, as on a line that is full, and the
others do not wait for it. All who have no link yet, or none that we know of, are one of those that take turns.

Invariants
    no more than OWN_BYTES of a connection wait, STRANGE_BYTES of all strangers, ALL_BYTES together, and one packet more
    than that; each counts as BASE_BYTES at least
    a packet of a connection waits for one of each other connection, not for what those have sent
    packets of a connection are looked at in the order in which they came
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from componentbase import udp
from link.pathmtu import BASE_BYTES, LARGEST_BYTES
from link.transports import TURN_S

READS = 1024  # datagrams of one socket, then others have a turn: 4 ms
BUFFER_BYTES = 4 << 20  # of the kernel, for each socket: what does not fit is lost, and sent again
OWN_BYTES = 512 * BASE_BYTES  # of a connection, half of link.quiccore.CREDIT_BYTES; 100 ms of work at most
STRANGE_BYTES = 1024 * BASE_BYTES  # as many packets as may be at the door (link.transports.AT_DOOR)
ALL_BYTES = 8192 * BASE_BYTES  # 10 MB; more stays in the kernel's buffer, or is lost
logger = logging.getLogger(__name__)

Address = tuple[Any, ...]
"""As the family's sockets have it."""
Packet = tuple[bytes, Address]


class Connected(Protocol):
    """What a socket carries for; link.quic.Quic is one."""

    @property
    def remote(self) -> str: ...

    def datagram_received(self, data: bytes, address: Address) -> None: ...

    def transmit(self) -> None: ...


class Own:
    """Packets of one, in order."""

    __slots__ = ("bytes", "packets")

    def __init__(self) -> None:
        self.packets: deque[Packet] = deque()
        self.bytes = 0


class Waiting:
    """Packets, by whom they are for; None is for nobody that is known."""

    __slots__ = ("_by_owner", "bytes")

    def __init__(self) -> None:
        self._by_owner: dict[Connected | None, Own] = {}
        """In the order of turns; nobody is in it for whom nothing waits."""
        self.bytes = 0

    def put(self, owner: Connected | None, packet: Packet) -> None:
        """At the end of what waits for the same; lost where that is too much already."""
        own = self._by_owner.get(owner)
        if own is None:
            own = self._by_owner[owner] = Own()
        if own.bytes < (STRANGE_BYTES if owner is None else OWN_BYTES):
            own.packets.append(packet)
            size = _counted(packet)
            own.bytes += size
            self.bytes += size

    def next(self) -> tuple[Connected | None, Packet] | None:
        """One packet of whoever's turn it is."""
        for owner, own in self._by_owner.items():
            packet = self._first(owner, own)
            if own.packets:
                self._by_owner[owner] = self._by_owner.pop(owner)
            return owner, packet
        return None

    def take(self, owner: Connected) -> Packet | None:
        """The next of one, out of turn."""
        own = self._by_owner.get(owner)
        return None if own is None else self._first(owner, own)

    def _first(self, owner: Connected | None, own: Own) -> Packet:
        packet = own.packets.popleft()
        size = _counted(packet)
        own.bytes -= size
        self.bytes -= size
        if not own.packets:
            del self._by_owner[owner]
        return packet


def _counted(packet: Packet) -> int:
    return max(len(packet[0]), BASE_BYTES)


class Socket:
    """A UDP socket: serves a turn at a time, and has all connections send together when the loop comes by."""

    def __init__(
        self,
        sock: socket.socket,
        owner: Callable[[bytes], Connected | None],
        received: Callable[["Socket", bytes, Address], None] = lambda *_: None,
    ) -> None:
        """owner: whom a packet is for, by its header; cheap. received: takes what is for nobody."""
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._owner = owner
        self._received = received
        self._waiting = Waiting()
        self._is_to_go_on = False
        self._due: set[Connected] = set()
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        udp.uncut(sock)
        self._loop.add_reader(sock, self._read)

    @property
    def port(self) -> int:
        port: int = self._sock.getsockname()[1]
        return port

    def add(self, connection: Connected) -> None:
        """It has something to send, or a timer to set."""
        if not self._due:
            self._loop.call_soon(self._flush)
        self._due.add(connection)

    def send(self, data: bytes, address: Address) -> None:
        """What the kernel does not take is lost, as any packet may be."""
        try:
            self._sock.sendto(data, address)
        except OSError as exc:
            logger.debug("not sent", extra={"remote": address[0], "reason": exc.strerror})

    def look(self, connection: Connected) -> None:
        """Let it have what has come for it now, out of turn, but for no longer than a turn."""
        self._drain()
        ends_at = self._loop.time() + TURN_S
        while (packet := self._waiting.take(connection)) is not None:
            connection.datagram_received(*packet)
            if self._loop.time() > ends_at:
                break
        self._see_to_the_rest()

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._waiting = Waiting()

    def _flush(self) -> None:
        due, self._due = self._due, set()
        for connection in due:
            try:
                connection.transmit()
            except Exception:
                # The others of this batch have been told that they are in it, and would wait for ever.
                logger.exception("not sent", extra={"remote": connection.remote})

    def _read(self) -> None:
        self._drain()
        if not self._is_to_go_on:
            self._serve()

    def _drain(self) -> None:
        """Put what has come where it belongs."""
        for _ in range(READS):
            if self._waiting.bytes >= ALL_BYTES:
                return
            try:
                data, address = self._sock.recvfrom(LARGEST_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                logger.debug("not received", extra={"reason": exc.strerror})
                return
            self._waiting.put(self._owner(data), (data, address))

    def _serve(self) -> None:
        """Have packets looked at, for a turn."""
        ends_at = self._loop.time() + TURN_S
        try:
            while (found := self._waiting.next()) is not None:
                owner, (data, address) = found
                if owner is None:
                    self._received(self, data, address)
                else:
                    owner.datagram_received(data, address)
                if self._loop.time() > ends_at:
                    break
        finally:
            self._see_to_the_rest()

    def _see_to_the_rest(self) -> None:
        """The kernel does not tell us again of what we have read."""
        if self._waiting.bytes and not self._is_to_go_on:
            self._is_to_go_on = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._is_to_go_on = False
        if self._sock.fileno() >= 0:
            self._drain()
            self._serve()
