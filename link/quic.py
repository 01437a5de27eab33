"""
The link over QUIC: the library's sans-I/O connection (link.quiccore) on sockets of our own, and whole messages past it.

Each lane (link.lanes) is a stream of its own, which the edge opens, so that a packet lost of one does not hold up the
others, and so that what is urgent is sent first. Whoever moves to another address, or is given another port by a NAT,
keeps the connection, and whoever has to dial anew resumes its session with a ticket (link.quictickets). There is no
keepalive here (the heartbeat is Peer's) and no early data (docs/why/quic.md).

Invariants
    a connection is heard of when its handshake is done, the other side's certificate is verified and all lanes are open
    what a peer may have kept for it is link.quiccore.CREDIT_BYTES, link.quicsocket.OWN_BYTES, and one message on each
    lane
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration

from componentbase import doorway, pki, tcp
from componentbase.doorway import Leave
from link import quicprobe
from link.errors import LinkClosed, RemoteProtocolError
from link.frames import Lane
from link.lanes import LANES, OPENER, Inbox, framed
from link.peer import DEAD_AFTER, MAX_HEARTBEAT_S
from link.quiccore import CREDIT_BYTES, Connection, lane_of_stream
from link.quicsocket import Address, Socket
from link.quictickets import Slot, Ticket
from link.tags import lane_of
from link.transports import (
    CLOSE_S,
    NODE_PREFIX,
    NODES_ORGANIZATION,
    OPEN_S,
    TURN_MESSAGES,
    TURN_S,
    UNREAD_BYTES,
    UNTRUSTED,
    Receiving,
)

ALPN = "fairlead/1"
IDLE_S = 2 * DEAD_AFTER * MAX_HEARTBEAT_S  # Peer gives up earlier: there is one heartbeat, and this is not it
ACKNOWLEDGE_FROM = 2  # packets at once (RFC 9000, section 13.2.2)
_REASON = 200  # characters of it, for the other side
_VIOLATION = 1  # the code with which a connection ends that broke the rules of lanes
logger = logging.getLogger(__name__)
# The library tells each step of each connection at INFO.
logging.getLogger("quic").setLevel(logging.ERROR)


class Streaming(Receiving, Protocol):
    """Receives messages of lanes; link.pump.Pump is one."""

    @property
    def is_streaming(self) -> bool: ...


Opened = Callable[["Quic"], Streaming]
"""Called when the connection is open; returns who takes the messages."""


class Credentials(NamedTuple):
    """What one end shows, and whom it trusts."""

    configuration: QuicConfiguration
    trusted: pki.Trusted

    @classmethod
    def read(cls, shown: bytes, trusted: bytes, *, is_client: bool) -> "Credentials":
        """shown: a certificate, what stands behind it, and its key. All is PEM. Raises pki.BadCertificate."""
        certificates, key = pki.read_pair(shown)
        configuration = QuicConfiguration(
            alpn_protocols=[ALPN],
            is_client=is_client,
            idle_timeout=IDLE_S,
            max_stream_data=CREDIT_BYTES,
            cadata=trusted,
            certificate=certificates[0],
            certificate_chain=certificates[1:],
            private_key=key,
        )
        return cls(configuration, pki.Trusted(trusted))

    @property
    def shown(self) -> list[pki.Certificate]:
        """Its own first; none where it shows none."""
        own = self.configuration.certificate
        return [] if own is None else [own, *self.configuration.certificate_chain]

    @classmethod
    def of_node(cls, authority: Path, certificate: Path, key: Path) -> "Credentials":
        """From a node's files. Raises LinkClosed."""
        try:
            return cls.read(certificate.read_bytes() + key.read_bytes(), authority.read_bytes(), is_client=True)
        except (OSError, pki.PkiError) as exc:
            raise LinkClosed(f"this node's certificate cannot be used: {exc}") from exc


class LiveCredentials:
    """A hub's, which can be replaced while it listens: each handshake takes what was given last."""

    def __init__(self) -> None:
        self.now: Credentials | None = None

    def replace(self, shown: bytes, trusted_pem: str) -> None:
        """As Credentials.read(); from any thread."""
        self.now = Credentials.read(shown, trusted_pem.encode(), is_client=False)


class Quic:
    """One connection, either end. Is a link.pump.Transport."""

    __slots__ = (
        "__weakref__",
        "_came",
        "_ends",
        "_has_other_ended",
        "_ids",
        "_inbox",
        "_is_open",
        "_is_over_its_turn",
        "_keep",
        "_leave",
        "_library",
        "_loop",
        "_name",
        "_opened",
        "_receiving",
        "_routes",
        "_socket",
        "_ticks_at",
        "_timer",
        "_trusted",
        "_untrusted",
        "failure",
        "identity",
        "key",
        "lost",
    )
    kind = "quic"

    def __init__(
        self,
        library: Connection,
        sock: Socket,
        trusted: pki.Trusted,
        opened: Opened,
        *,
        name: str = "",
        routes: "dict[bytes, Quic] | None" = None,
        leave: Leave = lambda: None,
        untrusted: Callable[[Address, str], None] = lambda _, __: None,
        keep: Callable[[str, Ticket], None] = lambda _, __: None,
    ) -> None:
        """
        name: that the server's certificate must be for; "" at a server. routes: where it is to be found while it lasts,
        by the numbers under which the other side writes to it. leave: it is open, or has ended.
        untrusted: told where the certificate was from that was not taken, and why. keep: given a ticket of a hub or a
        node that was verified, under its identity.
        """
        self.identity = ""
        self.key = ""
        self._library = library
        self._socket = sock
        self._trusted = trusted
        self._name = name
        self._opened = opened
        self._routes = {} if routes is None else routes
        self._ids: set[bytes] = set()
        self._leave: Leave | None = leave
        self._untrusted = untrusted
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._is_open = self._is_over_its_turn = False
        self._has_other_ended = False
        self._receiving: Streaming | None = None
        self._timer: asyncio.TimerHandle | None = None
        """The library's."""
        self._ticks_at = 0.0
        self._came = 0
        """Packets since something was sent."""
        self._ends: asyncio.TimerHandle | None = self._loop.call_later(OPEN_S, self._out_of_time)
        self.failure = doorway.BROKEN
        """Where it never began, why: one of componentbase.doorway.REASONS."""
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Resolves to the reason when the connection is gone."""

    @property
    def remote(self) -> str:
        """Where it is now: that may change."""
        address = self._library.get_peer_address()
        return f"{address[0]}:{address[1]}" if address else "unknown"

    @property
    def has_begun(self) -> bool:
        """Whether it is more than somebody at the door."""
        return self._receiving is not None

    # The pump's side

    def write(self, messages: Sequence[bytes]) -> None:
        if not self._is_open:
            return
        for message in messages:
            self._library.write(lane_of(message), framed(message))
        self._socket.add(self)

    def close(self) -> None:
        if self.lost.done():
            return
        if not self._is_open or self._has_other_ended:
            self._end("connection closed")
            return
        self._is_open = False
        self._library.finish(LANES)
        self._socket.add(self)
        self._set_end(CLOSE_S, "closed")

    # The socket's side

    def connect(self, address: Address) -> None:
        """A client's beginning."""
        self._library.connect(address, self._loop.time())
        self.transmit()

    def datagram_received(self, data: bytes, address: Address) -> None:
        if self.lost.done():
            return
        if self._name and self._library.is_reset(data):
            self._gone("the hub does not know this connection: it has restarted, or another one answers")
            return
        self._came += 1
        try:
            self._library.receive_datagram(data, address, self._loop.time())
            self._handle_events()
        except RemoteProtocolError as exc:
            self.give_up(str(exc))
        except Exception:
            # Whatever the other side could make the library stumble over ends its own connection only.
            logger.exception("QUIC connection failed", extra={"remote": self.remote})
            self.give_up("internal error")
        if self.lost.done():
            return
        if self._came < ACKNOWLEDGE_FROM and self._library.may_wait():
            self._arm()
        else:
            self._socket.add(self)

    def transmit(self) -> None:
        """Send what there is, and set the timer."""
        if self.lost.done():
            return
        try:
            came, self._came = self._came, 0
            for data, address in self._library.packets(self._loop.time(), acknowledge=came >= ACKNOWLEDGE_FROM):
                self._socket.send(data, address)
            self._handle_events()
        except RemoteProtocolError as exc:
            self.give_up(str(exc))
            return
        except Exception:
            logger.exception("QUIC connection failed", extra={"remote": self.remote})
            self._gone("internal error")
            return
        if (ended := self._library.ended) is not None:
            self._gone(f"the hub does not {UNTRUSTED} ({ended})" if self._is_refused else ended)
        elif self._library.unsent_bytes > UNREAD_BYTES:
            self.give_up("the other side does not read")
        else:
            self._arm()

    @property
    def _is_refused(self) -> bool:
        """Whether the other side has ended it over our certificate: its own was taken before."""
        return bool(self._name) and self._is_open and self._library.is_refused

    def give_up(self, reason: str, code: int = _VIOLATION) -> None:
        """End it now, whatever was written."""
        if not self.lost.done():
            self._library.close(code, reason_phrase=reason[:_REASON])
            self._send_last()
            self._gone(reason)

    def _end(self, reason: str) -> None:
        """Both sides have said all that they had to."""
        self._library.close()
        self._send_last()
        self._gone(reason)

    def _send_last(self) -> None:
        try:
            for data, address in self._library.datagrams_to_send(self._loop.time()):
                self._socket.send(data, address)
        except Exception:
            logger.exception("QUIC connection not closed", extra={"remote": self.remote})

    def _arm(self) -> None:
        when, timer = self._library.get_timer(), self._timer
        if timer is not None:
            # One that fires early sets itself anew; that is cheaper than a new one for each packet.
            if when is not None and self._ticks_at <= when:
                return
            timer.cancel()
        self._timer = None
        if when is not None:
            self._timer, self._ticks_at = self._loop.call_at(when, self._tick), when

    def _tick(self) -> None:
        self._timer = None
        if self.lost.done():
            return
        now, when = self._loop.time(), self._library.get_timer()
        if self._library.may_be_lost(now):
            # What would tell that it is not may be here, and only not have been read.
            self._socket.look(self)
            if self.lost.done():
                return
            when = self._library.get_timer()
        if when is not None and when <= now:
            self._library.handle_timer(now)
            self._handle_events()
        self.transmit()

    # What has come

    def route(self, number: bytes) -> None:
        """The other side may write to it under this number, too."""
        self._ids.add(number)
        self._routes[number] = self

    def _handle_events(self) -> None:
        has_data = False
        while (event := self._library.next_event()) is not None:
            match event:
                case events.StreamDataReceived(data, end_stream, number):
                    lane = lane_of_stream(number)
                    if lane is None:
                        raise RemoteProtocolError(f"stream {number} is no lane's")
                    self._inbox.feed(lane, data)
                    has_data = True
                    self._has_other_ended = self._has_other_ended or (end_stream and lane is Lane.CONTROL)
                case events.ConnectionIdIssued(number):
                    self.route(number)
                case events.ConnectionIdRetired(number):
                    self._ids.discard(number)
                    self._routes.pop(number, None)
                case events.HandshakeCompleted():
                    self._verify()
                case events.StreamReset() | events.StopSendingReceived():
                    raise RemoteProtocolError("a lane was reset")
                case _:
                    pass
        if self.lost.done():
            return
        if self._is_open:
            self._keep_ticket()
        if not has_data:
            return
        if not self._name and not self._is_open and self._receiving is None and self._inbox.is_open:
            self._begin()
        if self._receiving is not None:
            if not self._inbox.waiting_bytes:
                self._receiving.bytes_arrived()
            if not self._is_over_its_turn:
                self._take_turn()
        self._library.credit.taken = self._inbox.taken_bytes

    def _verify(self) -> None:
        """Nothing has come yet but the handshake: what comes is looked at after this."""
        chain = self._library.shown
        try:
            shown = self._trusted.server(chain, self._name) if self._name else self._trusted.client(chain)
        except pki.BadCertificate as exc:
            self._refuse(str(exc), is_missing=not chain)
            return
        self.identity = shown.common_name
        if self.identity.startswith(NODE_PREFIX):
            if self._name:
                # A node's certificate for its own API is of the same CA and may name any address.
                self._refuse(f"{self.identity} is a node, not a hub")
                return
            if shown.organizations == (NODES_ORGANIZATION,):
                self.key = shown.key_id
            else:
                self.identity = ""  # of a CA that signs for others, too: a name alone makes nobody a node
        if self._name:
            for lane in LANES:
                self._library.write(lane, OPENER)
            self._begin()

    def _out_of_time(self) -> None:
        self.failure = doorway.TIMEOUT
        self.give_up("no handshake in time")

    def _refuse(self, reason: str, *, is_missing: bool = False) -> None:
        self.failure = doorway.NO_CERTIFICATE if is_missing else doorway.UNTRUSTED
        if not is_missing and (address := self._library.get_peer_address()):
            self._untrusted(address, reason)
        self._library.refuse(reason[:_REASON], is_missing=is_missing)
        self._send_last()
        self._gone(reason)

    def _begin(self) -> None:
        self._is_open = True
        self._clear_end()
        self._left_door()
        self._receiving = self._opened(self)
        self._socket.add(self)
        self._keep_ticket()

    def _keep_ticket(self) -> None:
        """A hub has given its own before this is open, an edge has it after that."""
        ticket = self._library.take_ticket()
        if ticket is not None and (self._name or self.key):
            self._keep(self.identity, ticket)

    def _take_turn(self) -> None:
        """Hand on messages that came, but not so many that the other connections wait for it."""
        inbox, receiving = self._inbox, self._receiving
        assert receiving is not None, "messages come after the handshake"
        self._is_over_its_turn = False
        left, ends_at = TURN_MESSAGES, self._loop.time() + TURN_S
        while (message := inbox.next(receiving.is_streaming)) is not None:
            receiving.message_received(message)
            left -= 1
            if self.lost.done():
                return
            if not left or self._loop.time() > ends_at:
                self._is_over_its_turn = True
                self._loop.call_soon(self._take_next_turn)
                return
        if self._has_other_ended:
            self._end("connection closed")

    def _take_next_turn(self) -> None:
        if not self.lost.done():
            self._take_turn()
            self._library.credit.taken = self._inbox.taken_bytes
            self._socket.add(self)

    # The end

    def _set_end(self, after_s: float, reason: str) -> None:
        self._clear_end()
        self._ends = self._loop.call_later(after_s, self.give_up, reason)

    def _clear_end(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None

    def _left_door(self) -> None:
        if self._leave is not None:
            self._leave()
            self._leave = None

    def _gone(self, reason: str) -> None:
        if self.lost.done():
            return
        self._is_open = False
        self._clear_end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._left_door()
        for number in self._ids:
            self._routes.pop(number, None)
        self.lost.set_result(reason)
        if self._receiving is not None:
            self._receiving.connection_lost(reason)


async def dial(
    host: str,
    port: int,
    credentials: Credentials,
    opened: Opened,
    *,
    found: quicprobe.Found | None = None,
    slot: Slot | None = None,
) -> Quic:
    """
    Connect; returns when the connection is open and `opened` was called.

    found: where a server answered already; else the name is looked up, and where it has several addresses they are
    probed first, for a client of QUIC hears nothing from where nobody listens. slot: has the ticket of the session
    before, if there was one, and gets that of this one.

    Raises LinkClosed with a sentence about what failed: name, address, certificate.
    """
    where = f"{host}:{port}"
    is_open = asyncio.get_running_loop().create_future()

    def opening(connection: Quic) -> Streaming:
        receiving = opened(connection)
        is_open.set_result(None)
        return receiving

    try:
        if found is None:
            addresses = await quicprobe.addresses(host, port)
            found = addresses[0] if len(addresses) == 1 else await quicprobe.probe(host, port)
        if found is None:
            raise LinkClosed(f"nobody answers over QUIC at {where}")
        made = socket.socket(found.family, socket.SOCK_DGRAM)
    except OSError as exc:
        raise LinkClosed(f"cannot connect to {where}: {tcp.why(exc)}") from exc
    # Not connected and not bound to an address: packets leave by whichever way there is at the moment.
    sock = Socket(made, lambda _: connection)
    slot = Slot() if slot is None else slot
    whose = (host, port, *pki.encoded(credentials.shown))
    former = slot.take(whose)
    library = Connection(replace(credentials.configuration, server_name=host), former=former)
    connection = Quic(
        library, sock, credentials.trusted, opening, name=host, keep=lambda _, ticket: slot.put(whose, ticket)
    )
    connection.lost.add_done_callback(lambda _: sock.close())
    try:
        connection.connect(found.address)
        await asyncio.wait([is_open, connection.lost], return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        connection.give_up("not wanted any more")
        raise
    finally:
        if former is not None and not library.is_answered:
            slot.put(whose, former)
    if not is_open.done():
        raise LinkClosed(f"no QUIC connection to {where}: {connection.lost.result()}")
    return connection
