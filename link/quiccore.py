"""
aioquic's connection, kept within our bounds: without I/O, as the library has it.

The library is a complete QUIC and leaves ten things open, or does them in a way that a hub cannot afford. Each is
mended here in the smallest way there is, by names that are the library's own (its version is pinned, and
tests/test_quiccore.py fails where one of them has changed its meaning):

    clients are not asked for a certificate, nor are the purposes of any looked at
        asked here; verified by componentbase.pki before anybody hears of the connection
    a client that has resumed its session, and so shows none, is waited for until it does; and early data is taken
        asked, and waited for, is who has not resumed; early data ends the connection
    the credit for data doubles as data comes, so that in time a peer may have any amount kept for it
        what may be under way is CREDIT_BYTES beyond what was taken
    a peer may open more streams whenever it has used half of those it may open, each of 2 KB
        one for each lane, and no others
    what comes in pieces is looked for from the first piece on, and of a handshake half a megabyte is kept, or 16
        the pieces and bytes that may wait are bounded, before anything is kept of them; pieces are found by bisection
    what shows a client that its server has restarted is random
        made of a key that outlives the process, so that an edge need not wait until the heartbeat tells it
    a client acknowledges the first packet also when it is done, and such a packet must be filled to 1,200 bytes
        not then: what says that it is done says that, too, and ends those packets
    what may be lost is sent again as soon as a line could tell, and not a hub that is busy; what is late is lost
        not before link.quicrecovery.MIN_PROBE_S, and what comes late teaches patience
    streams take turns
        the more urgent lane goes first, but for every BULK_TURN-th packet
    packets have 1,200 bytes, whatever the path carries
        as many as it does (link.pathmtu), where there is enough to say for that to be worth a try
"""

import hmac
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import replace

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import K_MINIMUM_WINDOW
from aioquic.quic.connection import (
    END_STATES,
    Limit,
    NetworkAddress,
    QuicConnection,
    QuicConnectionError,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.stream import QuicStream
from aioquic.tls import AlertDescription, AlertIllegalParameter, Context, Epoch, SessionTicket, State

from componentbase.pki import Certificate, decoded
from link.frames import Lane
from link.lanes import LANES
from link.pathmtu import PathMtu
from link.quicrecovery import taken_over
from link.quictickets import Ticket

CREDIT_BYTES = 1 << 20  # at 200 ms round trip 5 MB/s; of what a Peer may have under way it is the largest window
HANDSHAKE_PIECES = 128  # of the handshake, that wait for one between: twelve packets may be under way at first
HANDSHAKE_GAP_BYTES = 32 << 10  # beyond what came of it in order: twice what is sent before anything is acknowledged
HANDSHAKE_BYTES = 64 << 10  # of one message of TLS; a chain of four certificates is 4 KB
LANE_PIECES = 1000  # of one lane: of 1 MB in packets of 1,200 bytes every other one is lost, and as much again
ACK_DELAY_S = 0.02  # of a single packet, for something may be said meanwhile; 25 ms is what peers are told to expect
CREDIT_STEP_BYTES = CREDIT_BYTES // 4
LARGER_FROM_BYTES = 64 << 10  # sent on a path; an edge that says less in an hour gains nothing by what a try costs
BULK_TURN = (
    24  # looks at the queue, of which a packet takes three: every eighth packet begins with what is least urgent
)
STREAM_STEP = 4
"""Between the numbers of two streams that a client opens for both directions (RFC 9000, section 2.1)."""


TOKEN_BYTES = 16  # of a stateless reset (RFC 9000, section 10.3)
RESET_BYTES = 5 + TOKEN_BYTES  # the least that a packet has which says so
LONG_HEADER = 0x80
_ALERTS = 256  # numbers of QUIC's errors that stand for those of TLS (RFC 9001, section 4.8)


class Credit(Limit):
    """How much a peer may send: CREDIT_BYTES beyond `taken`."""

    taken = 0
    _value = 0

    @property
    def value(self) -> int:
        return self._value

    @value.setter
    def value(self, _: int) -> None:
        # The library would double it. A step at a time, for each is a frame to be sent.
        allowed = self.taken + CREDIT_BYTES
        if allowed - self._value >= CREDIT_STEP_BYTES:
            self._value = allowed


class Fixed(Limit):
    """How many streams a peer may open, ever."""

    _value: int | None = None

    @property
    def value(self) -> int:
        return self._value or 0

    @value.setter
    def value(self, wished: int) -> None:
        if self._value is None:
            self._value = wished


class Pieces(RangeSet):
    """
    What came of a stream beyond a gap; a piece finds its place by bisection.

    The library compares it with all that are before it: a packet has room for 270 frames of one byte.
    """

    def add(self, start: int, stop: int | None = None) -> None:
        pieces: list[range] = self._RangeSet__ranges  # type: ignore[attr-defined]
        stop = start + 1 if stop is None else stop
        at = end = bisect_left(pieces, start, key=_stop)
        while end < len(pieces) and pieces[end].start <= stop:
            end += 1
        if end > at:
            start, stop = min(start, pieces[at].start), max(stop, pieces[end - 1].stop)
        pieces[at:end] = (range(start, stop),)


class Tls(Context):
    """Asks each client for its certificate that does not resume a session, and takes and gives no early data."""

    @property
    def _request_client_certificate(self) -> bool:  # type: ignore[override]
        """The library looks whether to ask, and then whether to wait, after it has seen that the ticket is right."""
        return not self._is_client and not self._session_resumed

    @property
    def early_data_accepted(self) -> bool:
        return False

    @early_data_accepted.setter
    def early_data_accepted(self, is_accepted: bool) -> None:
        # Before there is a key to read it with. No ticket of ours allows it, so nobody means well who has some.
        if is_accepted:
            raise AlertIllegalParameter("early data is not taken")


class Connection(QuicConnection):
    """One connection, either end."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
        reset_key: bytes = b"",
        find: Callable[[bytes], Ticket | None] | None = None,
        former: Ticket | None = None,
    ) -> None:
        """
        The first two are a server's, of the packet that asked for the connection. reset_key: of a server that can tell
        clients that it has forgotten them. find: a ticket of this number, once, of a server that gives tickets.
        former: a client's ticket, for the server that the configuration names.
        """
        self._reset_key = reset_key
        self._find = find
        self._former = former
        self._given: SessionTicket | None = None
        self._queue: list[QuicStream] = []
        self._looks = 0
        if former is not None:
            configuration = replace(configuration, session_ticket=former.session)
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
            session_ticket_fetcher=None if find is None else self._found,
            session_ticket_handler=self._was_given if configuration.is_client or find is not None else None,
        )
        self._local_max_data = self.credit = Credit(QuicFrameType.MAX_DATA, "max_data", CREDIT_BYTES)
        self._mark_ids()
        self._mtu = PathMtu()
        self._recovery = taken_over(self._loss, self._mtu)
        self._path: QuicNetworkPath | None = None
        """The one that it is of."""
        self._ack_delay = ACK_DELAY_S
        lanes = 0 if self._is_client else len(LANES)
        self._local_max_streams_bidi = Fixed(QuicFrameType.MAX_STREAMS_BIDI, "max_streams_bidi", lanes)
        self._local_max_streams_uni = Fixed(QuicFrameType.MAX_STREAMS_UNI, "max_streams_uni", 0)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls.__class__ = Tls
        self.tls._max_early_data = None
        for stream in self._crypto_streams.values():
            stream.receiver._ranges.__class__ = Pieces

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        receiver = self._crypto_streams[context.epoch].receiver
        at = buf.tell()
        end = buf.pull_uint_var() + buf.pull_uint_var()
        buf.seek(at)
        if end - receiver.starting_offset() > HANDSHAKE_GAP_BYTES:
            raise _too_much(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type)
        super()._handle_crypto_frame(context, frame_type, buf)
        if len(receiver._ranges) > HANDSHAKE_PIECES or len(self.tls._receive_buffer) > HANDSHAKE_BYTES:
            raise _too_much(QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type)

    def _write_handshake(self, builder: QuicPacketBuilder, epoch: Epoch, now: float) -> None:
        # "A client MUST discard Initial keys when it first sends a Handshake packet" (RFC 9001, section 4.9.1), which
        # is about to be written, and a server when it gets that: nobody would miss the acknowledgement.
        if epoch is not Epoch.INITIAL or not self._is_client or not self._handshake_complete:
            super()._write_handshake(builder, epoch, now)

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        at = buf.tell()
        number = buf.pull_uint_var()
        buf.seek(at)
        super()._handle_stream_frame(context, frame_type, buf)
        if (stream := self._streams.get(number)) is not None:
            stream.receiver._ranges.__class__ = Pieces
            if len(stream.receiver._ranges) > LANE_PIECES:
                raise _too_much(QuicErrorCode.INTERNAL_ERROR, frame_type)

    def _replenish_connection_ids(self) -> None:
        super()._replenish_connection_ids()
        self._mark_ids()

    def _mark_ids(self) -> None:
        """The library has random tokens, which nobody knows after a restart."""
        if self._reset_key:
            for each in self._host_cids:
                each.stateless_reset_token = reset_token(self._reset_key, each.cid)

    def is_reset(self, data: bytes) -> bool:
        """Whether by this packet the other side says that it does not know the connection (RFC 9000, 10.3.1)."""
        if len(data) < RESET_BYTES or data[0] & LONG_HEADER:
            return False
        token = data[-TOKEN_BYTES:]
        return any(each.stateless_reset_token == token for each in (self._peer_cid, *self._peer_cid_available))

    @property
    def _streams_queue(self) -> list[QuicStream]:
        """In the order in which streams have a say in the next packet."""
        self._looks += 1
        self._queue.sort(key=_number, reverse=self._looks % BULK_TURN < 3)
        return self._queue

    @_streams_queue.setter
    def _streams_queue(self, streams: list[QuicStream]) -> None:
        self._queue = streams

    @property
    def shown(self) -> list[Certificate]:
        """
        The certificates that the other side showed, its own first, and has the key of; not verified otherwise.

        Where the session was resumed it showed them in the one before, or in that before it.
        """
        if self.is_resumed:
            return [] if self._former is None else decoded(self._former.chain)
        own = self.tls._peer_certificate
        return [] if own is None else [own, *self.tls._peer_certificate_chain]

    @property
    def is_resumed(self) -> bool:
        """Whether the other side has shown by a ticket's secret who it is."""
        return self.tls.session_resumed

    @property
    def is_answered(self) -> bool:
        """Whether a client's server has begun its part of the handshake, and so has seen what ticket there was."""
        return self.tls.state is not State.CLIENT_EXPECT_SERVER_HELLO

    def take_ticket(self) -> Ticket | None:
        """What a later session may be resumed by, once; only to be asked when what was shown is verified."""
        given, self._given = self._given, None
        if given is None:
            return None
        if self.is_resumed and self._former is not None:
            return self._former.followed(given)
        return Ticket.of(given, self.shown)

    def _found(self, number: bytes) -> SessionTicket | None:
        assert self._find is not None, "else nobody asks"
        self._former = self._find(number)
        return None if self._former is None else self._former.session

    def _was_given(self, session: SessionTicket) -> None:
        """At a server when it has given it, which is before anybody has looked at what was shown."""
        self._given = session

    @property
    def unsent_bytes(self) -> int:
        """What was written and is not acknowledged."""
        return sum(stream.sender._buffer_stop - stream.sender._buffer_start for stream in self._streams.values())

    @property
    def ended(self) -> str | None:
        """Why it is over, whoever ended it; None while it is not. The library tells only once nothing can come late."""
        event = self._close_event
        if event is None:
            return None
        if event.reason_phrase or not event.error_code:
            return event.reason_phrase or "connection closed"
        alert = event.error_code - QuicErrorCode.CRYPTO_ERROR
        return f"TLS alert {alert}" if 0 <= alert < _ALERTS else f"QUIC error {event.error_code:#x}"

    @property
    def is_refused(self) -> bool:
        """Whether it is over because of a certificate, as refuse() has it."""
        alert = QuicErrorCode.CRYPTO_ERROR + int(AlertDescription.bad_certificate)
        return self._close_event is not None and self._close_event.error_code == alert

    def may_wait(self) -> bool:
        """
        Whether nothing is to be sent before the library's timer fires, which is soon: something came that need not be
        acknowledged at once. To look for what there is to send costs as much as to send it.
        """
        space = self._spaces.get(Epoch.ONE_RTT)
        return (
            self._handshake_confirmed
            and space is not None
            and space.ack_at is not None
            and self._network_paths[0].is_validated
            and all(each.sender.buffer_is_empty for each in self._queue)
        )

    def may_be_lost(self, now: float) -> bool:
        """Whether something would be sent again now."""
        return self._loss_at is not None and self._loss_at <= now

    def packets(self, now: float, *, acknowledge: bool) -> list[tuple[bytes, NetworkAddress]]:
        """
        What is to be sent now, and where. acknowledge: also what need not be acknowledged yet.

        The library acknowledges in a packet of its own 1 ms after something came, whatever it has sent meanwhile: of a
        push and its acknowledgement that was every third packet.
        """
        space = self._spaces.get(Epoch.ONE_RTT)
        if space is not None and space.ack_at is not None and space.ack_at > now:
            has_more = any(not each.sender.buffer_is_empty for each in self._queue)
            space.ack_at = now if acknowledge or has_more else space.ack_at
        self._see_to_size()
        return self.datagrams_to_send(now) + self._larger(now)

    # How large packets may be

    def _handle_path_challenge_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        # To a client its path looks as before; the server says by this that it does not.
        super()._handle_path_challenge_frame(context, frame_type, buf)
        self._moved()

    def _moved(self) -> None:
        self._mtu.restart()
        self._recovery.moved()

    def _see_to_size(self) -> None:
        """Have packets as large as the path carries, before any are made."""
        path = self._network_paths[0]
        if path is not self._path:
            # A challenge to it is filled as all packets are, and must not be as large as on the one before.
            self._path = path
            self._moved()
        size = self._mtu.size
        if size != self._max_datagram_size:
            control = self._recovery.control
            self._max_datagram_size = self._loss._pacer._max_datagram_size = control._max_datagram_size = size
            control.congestion_window = max(control.congestion_window, K_MINIMUM_WINDOW * size)

    def _larger(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """A packet that is only to show that the path carries it, if it is time for one."""
        path = self._network_paths[0]
        if (
            path.bytes_sent < LARGER_FROM_BYTES
            or not path.is_validated
            or not self._handshake_confirmed
            or self._state in END_STATES
            or (size := self._mtu.due(now)) is None
            or size > self._loss.congestion_window - self._loss.bytes_in_flight
        ):
            return []
        assert self._version is not None, "the handshake is confirmed"
        builder = QuicPacketBuilder(
            host_cid=self.host_cid,
            is_client=self._is_client,
            max_datagram_size=size,
            packet_number=self._packet_number,
            peer_cid=self._peer_cid.cid,
            spin_bit=self._spin_bit,
            version=self._version,
        )
        builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[Epoch.ONE_RTT])
        builder.start_frame(QuicFrameType.PING).push_bytes(bytes(builder.remaining_flight_space))
        self._mtu.trying(size)
        return self._flush_builder(builder=builder, network_path=path, peer_cid=self._peer_cid.cid, now=now)

    def write(self, lane: Lane, data: bytes) -> None:
        """On a lane that is open, or opens by this where we are the client."""
        self.send_stream_data(STREAM_STEP * lane, data)

    def finish(self, lanes: Iterable[Lane]) -> None:
        """Nothing more will be written on these."""
        for lane in lanes:
            self.send_stream_data(STREAM_STEP * lane, b"", end_stream=True)

    def refuse(self, reason: str, *, is_missing: bool = False) -> None:
        """End a handshake, or what came of it, over the certificate that was shown, or was not."""
        alert = AlertDescription.certificate_required if is_missing else AlertDescription.bad_certificate
        self.close(QuicErrorCode.CRYPTO_ERROR + int(alert), QuicFrameType.CRYPTO, reason)


def reset_token(key: bytes, number: bytes) -> bytes:
    """What shows that whoever gave out this number of a connection says that it is over."""
    return hmac.digest(key, number, "sha256")[:TOKEN_BYTES]


def lane_of_stream(number: int) -> Lane | None:
    """None for a stream that is no lane's."""
    lane, rest = divmod(number, STREAM_STEP)
    return LANES[lane] if not rest and lane < len(LANES) else None


def _too_much(code: QuicErrorCode, frame_type: int) -> QuicConnectionError:
    return QuicConnectionError(code, frame_type, "too much waits for what is missing")


def _stop(piece: range) -> int:
    return piece.stop


def _number(stream: QuicStream) -> int:
    return stream.stream_id or 0
