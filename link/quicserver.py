"""
A hub's end of QUIC: who may come in, and which connection a packet belongs to.

A packet names its connection by a number that we gave out, so that a node is known again from wherever it writes. The
first packet of a connection costs us a handshake, 2 ms of processor, and its sender's address may be anybody's. So what
is one too many is turned away before anything is made for it (componentbase.doorway.Threshold), and where many are at
the door, whoever comes has to show first that it can be reached where it says (Retry: RFC 9000, section 8.1.2).
"""

import asyncio
import os
import socket
from collections.abc import Mapping

from aioquic._buffer import Buffer
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.connection import TRANSPORT_CLOSE_FRAME_CAPACITY
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.retry import QuicRetryTokenHandler

from componentbase.aside import aside
from componentbase.doorway import Limits, Threshold, addresses
from componentbase.endpoints import origin_of
from link.quic import Credentials, LiveCredentials, Opened, Quic
from link.quiccore import LONG_HEADER, RESET_BYTES, TOKEN_BYTES, Connection, reset_token
from link.quicsocket import Address, Socket
from link.quictickets import Tickets
from link.transports import AT_DOOR, MAX_CONNECTIONS

RETRY_FROM = 32  # at the door: beyond, an address must be shown to be its sender's, for one more round trip
RESETS = 2000  # within a second: a fleet that speaks to a hub that has restarted; each takes 20 us
ID_BYTES = QuicConfiguration().connection_id_length
VERSIONS = QuicConfiguration().supported_versions


class Listener:
    """Accepts connections until closed. Made by `listen`."""

    kind = Quic.kind

    def __init__(
        self, credentials: LiveCredentials, opened: Opened, reset_key: bytes, at_door: Limits, max_connections: int
    ) -> None:
        self._reset_key = reset_key
        self._resets_left, self._resets_until = 0, 0.0
        self.connections: set[Quic] = set()
        self._credentials = credentials
        self._tickets, self._tickets_of = Tickets(), credentials.now
        self._opened = opened
        self._threshold = Threshold(at_door)
        self._max_connections = max_connections
        self._is_closing = False
        self._loop = asyncio.get_running_loop()
        self._sockets: list[Socket] = []
        self._routes: dict[bytes, Quic] = {}
        self._retry = QuicRetryTokenHandler()

    def add(self, sock: socket.socket) -> None:
        """One more socket to listen on, bound."""
        self._sockets.append(Socket(sock, self._owner, self._received))

    @property
    def port(self) -> int:
        """The port in use, also where 0 was asked for."""
        return self._sockets[0].port

    @property
    def refusals(self) -> Mapping[str, int]:
        """Handshakes that came to nothing, by componentbase.doorway.REASONS."""
        return self._threshold.refusals

    async def close(self) -> None:
        """Accept no more, end what is open, wait until all is gone."""
        self._is_closing = True
        for connection in list(self.connections):
            connection.close()
        for connection in list(self.connections):
            await connection.lost
        for sock in self._sockets:
            sock.close()

    def _owner(self, data: bytes) -> Quic | None:
        """The link that a packet is for; None where there is none yet, and whatever it is."""
        is_long = bool(data) and data[0] & LONG_HEADER
        number = data[6 : 6 + data[5]] if is_long and len(data) > 5 else data[1 : 1 + ID_BYTES]
        connection = self._routes.get(number)
        return connection if connection is not None and connection.has_begun else None

    def _received(self, sock: Socket, data: bytes, address: Address) -> None:
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=ID_BYTES)
        except ValueError:
            return
        if (connection := self._routes.get(header.destination_cid)) is not None:
            connection.datagram_received(data, address)
        elif header.version is None:
            self._reset(sock, data, header.destination_cid, address)
        elif len(data) < SMALLEST_MAX_DATAGRAM_SIZE or not header.version:
            pass  # it begins nothing
        elif header.version not in VERSIONS:
            sock.send(_negotiation(header), address)
        elif header.packet_type is QuicPacketType.INITIAL:
            self._greet(sock, header, data, address)

    def _greet(self, sock: Socket, header: QuicHeader, data: bytes, address: Address) -> None:
        """Somebody's first packet."""
        first, retried = header.destination_cid, None
        if header.token:
            try:
                first = self._retry.validate_token(
                    address=address, destination_cid=first, token=header.token, now=self._loop.time()
                )
            except ValueError:
                sock.send(_refusal(header, QuicErrorCode.INVALID_TOKEN), address)
                return
            retried = header.destination_cid
        elif len(self._threshold) >= RETRY_FROM:
            sock.send(self._retrial(header, address), address)
            return
        credentials = self._credentials.now
        is_full = self._is_closing or credentials is None or len(self.connections) >= self._max_connections
        leave = self._threshold.enter(origin_of(str(address[0])), self._loop.time(), is_full=is_full)
        if leave is None or credentials is None:
            sock.send(_refusal(header, QuicErrorCode.CONNECTION_REFUSED), address)
            return
        tickets = self._tickets_for(credentials)
        library = Connection(
            credentials.configuration,
            original_destination_connection_id=first,
            retry_source_connection_id=retried,
            reset_key=self._reset_key,
            find=tickets.take,
        )
        connection = Quic(
            library,
            sock,
            credentials.trusted,
            self._opened,
            routes=self._routes,
            leave=leave,
            untrusted=self._not_trusted,
            keep=tickets.add,
        )
        self.connections.add(connection)
        connection.lost.add_done_callback(lambda _: self._lost(connection))
        connection.route(library.host_cid)
        connection.route(header.destination_cid)
        connection.datagram_received(data, address)

    def _lost(self, connection: Quic) -> None:
        self.connections.discard(connection)
        if not connection.has_begun and not self._is_closing:
            self._threshold.refusals[connection.failure] += 1

    def _tickets_for(self, credentials: Credentials) -> Tickets:
        """Those of what the hub shows now, and of whom it trusts: what began before gives into what is forgotten."""
        if credentials is not self._tickets_of:
            self._tickets, self._tickets_of = Tickets(), credentials
        return self._tickets

    def _not_trusted(self, address: Address, reason: str) -> None:
        self._threshold.untrusted(str(address[0]), address[1], reason, self._loop.time())

    def _reset(self, sock: Socket, data: bytes, number: bytes, address: Address) -> None:
        """Somebody goes on with a connection that a process before this one had. Shorter than what came, always."""
        now = self._loop.time()
        if now >= self._resets_until:
            self._resets_left, self._resets_until = RESETS, now + 1.0
        size = min(len(data) - 1, 2 * RESET_BYTES)
        if self._resets_left and size >= RESET_BYTES and self._reset_key:
            self._resets_left -= 1
            noise = bytearray(os.urandom(size - TOKEN_BYTES))
            noise[0] = noise[0] & 0x3F | 0x40  # as any packet of an open connection looks
            sock.send(bytes(noise) + reset_token(self._reset_key, number), address)

    def _retrial(self, header: QuicHeader, address: Address) -> bytes:
        assert header.version is not None, "a first packet has one"
        ours = os.urandom(ID_BYTES)
        token = self._retry.create_token(
            address=address,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=ours,
            now=self._loop.time(),
        )
        return encode_quic_retry(header.version, ours, header.source_cid, header.destination_cid, token)


def _negotiation(header: QuicHeader) -> bytes:
    return encode_quic_version_negotiation(
        source_cid=header.destination_cid, destination_cid=header.source_cid, supported_versions=VERSIONS
    )


def _refusal(header: QuicHeader, code: QuicErrorCode) -> bytes:
    """The end of a connection of which nothing was made."""
    assert header.version is not None, "a first packet has one"
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=False, version=header.version)
    builder = QuicPacketBuilder(
        host_cid=header.destination_cid,
        is_client=False,
        max_datagram_size=SMALLEST_MAX_DATAGRAM_SIZE,
        peer_cid=header.source_cid,
        version=header.version,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=TRANSPORT_CLOSE_FRAME_CAPACITY)
    for field in (code, QuicFrameType.PADDING, 0):  # which frame is to blame: none; how long the reason is
        frame.push_uint_var(field)
    datagrams, _ = builder.flush()
    return datagrams[0]


async def listen(
    host: str,
    port: int,
    credentials: LiveCredentials,
    opened: Opened,
    *,
    reset_key: bytes = b"",
    at_door: Limits = AT_DOOR,
    max_connections: int = MAX_CONNECTIONS,
) -> Listener:
    """
    Serve the link over QUIC at HOST:PORT; 0 picks a free port. Raises OSError where the port is taken.

    reset_key: known to the process that will listen here next, and to no other that listens at the same time: by it
    nodes are told that their connection is forgotten.
    """
    listener = Listener(credentials, opened, reset_key, at_door, max_connections)
    made: list[socket.socket] = []
    try:
        for family, address in await aside(lambda: list(addresses(host, port)), f"resolve[{host}]"):
            # With port 0 the first address decides which port it is.
            chosen = port or (made[0].getsockname()[1] if made else 0)
            made.append(socket.socket(family, socket.SOCK_DGRAM))
            if family == socket.AF_INET6:
                made[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made[-1].bind((address[0], chosen, *address[2:]))
    except OSError:
        for each in made:
            each.close()
        raise
    for each in made:
        listener.add(each)
    return listener
