"""aioquic's connection within our bounds: two of them, and the packets between carried by hand."""

import os
import random
from collections.abc import Callable

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived
from aioquic.quic.packet import QuicErrorCode, QuicPacketType, QuicStreamFrame
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.rangeset import RangeSet
from aioquic.tls import Epoch
from hypothesis import given
from hypothesis import strategies as st

from link.frames import Lane
from link.lanes import LANES
from link.pathmtu import BASE_BYTES, LARGEST_BYTES, SIZES, TRIES
from link.quiccore import (
    CREDIT_BYTES,
    HANDSHAKE_BYTES,
    HANDSHAKE_GAP_BYTES,
    HANDSHAKE_PIECES,
    LANE_PIECES,
    LARGER_FROM_BYTES,
    STREAM_STEP,
    Connection,
    Pieces,
    lane_of_stream,
    reset_token,
)
from link.quicrecovery import MIN_PROBE_S
from link.quictickets import Tickets
from tests.harness.quic import RESET_KEY, Certificates
from tests.harness.quicpair import CLIENT, SERVER, Pair, events

FILLED = 1200  # RFC 9000, section 14.1


def lanes_of(events: list[QuicEvent]) -> list[Lane | None]:
    return [lane_of_stream(each.stream_id) for each in events if isinstance(each, StreamDataReceived)]


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture
def pair(certificates: Certificates) -> Pair:
    return Pair(certificates)


def test_a_hub_asks_for_a_certificate_and_gets_what_the_node_has_the_key_of(pair: Pair) -> None:
    assert any(isinstance(each, HandshakeCompleted) for each in pair.events[pair.hub])
    assert [each.subject.rfc4514_string() for each in pair.hub.shown] == ["CN=system:node:n,O=system:nodes"]
    assert len(pair.edge.shown) == 1


def test_a_session_is_resumed_without_certificates_and_an_unknown_ticket_costs_no_round_trip(
    certificates: Certificates,
) -> None:
    tickets, shown = Tickets(), certificates.shown_by()
    full = Pair(certificates, shown=shown, tickets=tickets)
    made, given = full.hub.take_ticket(), full.edge.take_ticket()
    assert made is not None
    assert given is not None
    assert full.edge.take_ticket() is full.hub.take_ticket() is None, "once"
    assert made.session.ticket == given.session.ticket
    assert made.session.resumption_secret == given.session.resumption_secret
    tickets.add("n", made)
    resumed = Pair(certificates, shown=shown, tickets=tickets, former=given)
    unknown = Pair(certificates, shown=shown, tickets=tickets, former=given)
    for pair, is_resumed in ((full, False), (resumed, True), (unknown, False)):
        assert all(each.is_resumed is is_resumed for each in (pair.edge, pair.hub))
        assert pair.edge.is_answered
        assert pair.round_trips == full.round_trips == 1
        assert pair.hub.shown == full.hub.shown != []
        assert pair.edge.shown == full.edge.shown != []
        assert [pair.hub.tls._peer_certificate is None, pair.edge.tls._peer_certificate is None] == [is_resumed] * 2
        assert pair.hub.tls._max_early_data is None
    # First packets are filled; a hub's certificate has room in that, and what a node says when it is done is not one.
    assert full.carried[full.edge][0] == full.carried[full.hub][0] == FILLED
    assert full.carried[full.edge][1] < FILLED
    assert full.carried[full.edge][1] - resumed.carried[resumed.edge][1] > sum(map(len, made.chain))
    assert sum(resumed.carried[resumed.hub]) <= sum(full.carried[full.hub])


def test_what_is_urgent_goes_before_what_waits_and_nothing_starves(pair: Pair) -> None:
    """100 KB wait on BULK and the window is full; what is said then goes with the next packet that may go."""
    pair.hub.write(Lane.BULK, bytes(100_000))
    first = pair.sent(pair.hub)
    for lane in (Lane.REPORT, Lane.PUSH, Lane.CONTROL):
        pair.hub.write(lane, bytes(100))
    assert set(lanes_of(pair.deliver(pair.edge, first))) == {Lane.BULK}
    pair.deliver(pair.hub, pair.sent(pair.edge))
    order = lanes_of(pair.deliver(pair.edge, pair.sent(pair.hub)))
    assert order[:3] == [Lane.CONTROL, Lane.PUSH, Lane.REPORT]
    assert set(order[3:]) == {Lane.BULK}
    pair.run(20)
    for _ in range(40):  # PUSH is never done
        pair.hub.write(Lane.PUSH, bytes(60_000))
        pair.hub.write(Lane.BULK, b"wanted")
    came: list[Lane | None] = []
    for _ in range(12):
        came += lanes_of(pair.deliver(pair.edge, pair.sent(pair.hub)))
        pair.deliver(pair.hub, pair.sent(pair.edge))
    assert Lane.BULK in came
    assert came.count(Lane.PUSH) > 4 * came.count(Lane.BULK)
    assert pair.hub.unsent_bytes > 1_000_000


def test_what_a_busy_end_has_not_acknowledged_is_not_sent_again_at_once(pair: Pair) -> None:
    pair.run(5)
    pair.hub.write(Lane.PUSH, b"a push")
    assert len(pair.sent(pair.hub)) == 1
    pair.now += MIN_PROBE_S / 2
    pair.hub.handle_timer(pair.now)
    assert pair.sent(pair.hub) == []
    assert not pair.hub.may_be_lost(pair.now)
    pair.now += MIN_PROBE_S
    pair.hub.get_timer()
    assert pair.hub.may_be_lost(pair.now)
    pair.hub.handle_timer(pair.now)
    assert lanes_of(pair.deliver(pair.edge, pair.sent(pair.hub))) == [Lane.PUSH]


def test_one_packet_is_acknowledged_with_what_is_said_and_two_at_once(pair: Pair) -> None:
    pair.run(5)
    pair.hub.write(Lane.PUSH, b"a push")
    pair.deliver(pair.edge, pair.sent(pair.hub))
    assert pair.edge.may_wait()
    assert pair.edge.packets(pair.now, acknowledge=False) == []
    pair.edge.write(Lane.CONTROL, b"done")
    assert not pair.edge.may_wait()
    assert len(pair.edge.packets(pair.now, acknowledge=False)) == 1
    assert not pair.edge.may_wait(), "that has acknowledged it, and the timer has nothing to wait for"
    for _ in range(2):
        pair.hub.write(Lane.PUSH, b"a push")
        pair.deliver(pair.edge, pair.sent(pair.hub))
    assert len(pair.edge.packets(pair.now, acknowledge=True)) == 1


def test_a_packet_lost_of_one_lane_holds_up_no_other(pair: Pair) -> None:
    pair.hub.write(Lane.BULK, bytes(5_000))
    lost, *rest = pair.sent(pair.hub)
    pair.hub.write(Lane.PUSH, b"a push")
    came = pair.deliver(pair.edge, [*rest, *pair.sent(pair.hub)])
    assert lanes_of(came) == [Lane.PUSH]
    assert lost


@pytest.mark.parametrize(("most", "found"), [(1300, 1200), (1472, 1452), (9000, 8952), (65_507, LARGEST_BYTES)])
def test_packets_become_as_large_as_the_path_carries(pair: Pair, most: int, found: int) -> None:
    pair.hub.write(Lane.BULK, bytes(1_000_000))
    sizes = pair.carry_up_to(most, 200)
    assert pair.hub.unsent_bytes == 0
    assert pair.hub._max_datagram_size == found
    assert sizes.count(found) > 10
    assert [sizes.count(each) for each in SIZES if each > most][:1] in ([TRIES], [])
    # A try that is lost is no sign that the line is full.
    assert pair.hub._recovery.control._congestion_recovery_start_time == 0.0
    assert pair.edge._max_datagram_size == BASE_BYTES, "it has said little"


def test_who_says_little_tries_nothing(pair: Pair) -> None:
    said = 0
    while said < LARGER_FROM_BYTES // 2:
        pair.hub.write(Lane.PUSH, bytes(1000))
        said += 1000
        assert max(pair.carry_up_to(65_507, 1), default=0) <= BASE_BYTES


def test_a_path_that_becomes_narrower_loses_nothing_but_time(pair: Pair) -> None:
    pair.hub.write(Lane.BULK, bytes(1_000_000))
    pair.carry_up_to(65_507, 60)
    assert pair.hub._max_datagram_size == LARGEST_BYTES
    pair.hub.write(Lane.BULK, bytes(1_000_000))
    pair.hub.write(Lane.PUSH, b"a push")
    before = pair.edge.credit.taken
    pair.carry_up_to(1472, 600)
    assert pair.edge.credit.taken - before == 1_000_006
    assert (pair.hub.unsent_bytes, pair.hub._max_datagram_size) == (0, 1452)


def test_on_another_path_both_ends_begin_with_what_any_carries(pair: Pair) -> None:
    """A challenge is filled as all packets are; where it were too large for the new path nobody would ever answer."""
    for sender in (pair.hub, pair.edge):
        sender.write(Lane.REPORT, bytes(600_000))
    pair.carry_up_to(65_507, 100)
    assert pair.hub._max_datagram_size == pair.edge._max_datagram_size == LARGEST_BYTES
    pair.edge.write(Lane.CONTROL, b"I am here now")
    sizes = pair.carry_up_to(1300, 12, ("10.0.0.99", 9))
    assert pair.hub._network_paths[0].addr == ("10.0.0.99", 9)
    assert pair.hub._network_paths[0].is_validated
    assert pair.hub._max_datagram_size == pair.edge._max_datagram_size == BASE_BYTES
    assert max(sizes) <= SIZES[0]


def test_credit_stays_the_same_however_much_came_and_no_gap_is_larger(pair: Pair) -> None:
    """The library would double it each time: after a gigabyte, a packet with a far offset would cost another one."""
    for _ in range(30):
        pair.edge.write(Lane.REPORT, bytes(100_000))
        pair.run(10)
    assert pair.hub.credit.taken > 2 * CREDIT_BYTES
    assert pair.hub.credit.value <= pair.hub.credit.taken + CREDIT_BYTES
    stream = pair.edge._streams[STREAM_STEP * Lane.REPORT]
    far = stream.sender.highest_offset + CREDIT_BYTES + 1
    stream.max_stream_data_remote = pair.edge._remote_max_data = far + 10
    stream.sender.get_frame = lambda *_: QuicStreamFrame(b"x", False, far)  # type: ignore[method-assign]
    stream.sender.buffer_is_empty = False
    pair.deliver(pair.hub, [pair.sent(pair.edge)[0]])
    assert pair.hub.ended == "Over connection data limit"


def test_what_is_not_taken_is_not_credited(pair: Pair) -> None:
    pair.edge.write(Lane.REPORT, bytes(3 * CREDIT_BYTES))
    for _ in range(400):
        pair.carry()
    came = sum(len(each.data) for each in events(pair.hub) if isinstance(each, StreamDataReceived))
    assert CREDIT_BYTES - 1200 < came <= CREDIT_BYTES


@pytest.mark.parametrize("number", [STREAM_STEP * len(LANES), 2], ids=["one lane too many", "one way only"])
def test_no_streams_but_the_lanes(pair: Pair, number: int) -> None:
    pair.edge._remote_max_streams_bidi = pair.edge._remote_max_streams_uni = 100
    pair.edge._remote_max_stream_data_uni = 100
    pair.edge.send_stream_data(number, b"x")
    pair.deliver(pair.hub, pair.sent(pair.edge))
    assert pair.hub.ended == "Too many streams open"


def test_a_lane_that_was_finished_makes_room_for_no_other(pair: Pair) -> None:
    for connection in (pair.edge, pair.hub):
        connection.finish(LANES)
    pair.run(10)
    assert not pair.hub._streams
    pair.edge._remote_max_streams_bidi = 100
    pair.edge.send_stream_data(STREAM_STEP * len(LANES), b"x")
    pair.deliver(pair.hub, pair.sent(pair.edge))
    assert pair.hub.ended == "Too many streams open"


def test_a_stream_is_a_lanes_or_nobodys() -> None:
    assert [lane_of_stream(STREAM_STEP * lane) for lane in LANES] == list(LANES)
    assert [lane_of_stream(number) for number in (1, 2, 3, STREAM_STEP * len(LANES))] == [None] * 4


class Stranger:
    """Shows no certificate, and may write from a forged address: says what it likes in first packets."""

    def __init__(self, certificates: Certificates) -> None:
        assert certificates.hub.now is not None
        self._number = 0
        self._to, self._own = os.urandom(8), os.urandom(8)
        self.hub = Connection(certificates.hub.now.configuration, original_destination_connection_id=self._to)

    def say(self, payload: bytes) -> None:
        crypto = CryptoPair()
        crypto.setup_initial(cid=self._to, is_client=True, version=1)
        builder = QuicPacketBuilder(
            host_cid=self._own,
            is_client=True,
            max_datagram_size=1200,
            packet_number=self._number,
            peer_cid=self._to,
            version=1,
        )
        builder.start_packet(QuicPacketType.INITIAL, crypto)
        builder.start_frame(payload[0], capacity=len(payload)).push_bytes(payload[1:])
        self._number += 1
        self.hub.receive_datagram(builder.flush()[0][0], CLIENT, 0.001 * self._number)

    @property
    def kept_bytes(self) -> int:
        return len(self.hub.tls._receive_buffer) + sum(
            len(each.receiver._buffer) for each in self.hub._crypto_streams.values()
        )


def crypto_frame(offset: int, data: bytes = b"x") -> bytes:
    return b"\x06" + encode_uint_var(offset) + encode_uint_var(len(data)) + data


def lane_frame(offset: int) -> bytes:
    return b"\x0e" + encode_uint_var(STREAM_STEP * Lane.REPORT) + encode_uint_var(offset) + b"\x01x"


def with_gaps(frame: Callable[[int], bytes], first: int) -> tuple[bytes, int]:
    """A packet full of frames of one byte, each beyond another gap; and where the next goes on."""
    payload = b""
    while len(payload) < 1100:
        payload += frame(first)
        first += 2
    return payload, first


def test_a_handshake_full_of_gaps_ends_before_it_costs_anything(certificates: Certificates) -> None:
    stranger = Stranger(certificates)
    payload, _ = with_gaps(crypto_frame, 2)
    stranger.say(payload)
    assert stranger.hub.ended == "too much waits for what is missing"
    assert stranger.hub._close_event is not None
    assert stranger.hub._close_event.error_code == QuicErrorCode.CRYPTO_BUFFER_EXCEEDED
    assert len(stranger.hub._crypto_streams[Epoch.INITIAL].receiver._ranges) == HANDSHAKE_PIECES + 1


def test_a_handshake_with_a_far_offset_makes_nothing(certificates: Certificates) -> None:
    for offset in (524_000, HANDSHAKE_GAP_BYTES):
        stranger = Stranger(certificates)
        stranger.say(crypto_frame(offset))
        assert stranger.hub.ended is not None
        assert stranger.kept_bytes == 0
    stranger = Stranger(certificates)
    stranger.say(crypto_frame(HANDSHAKE_GAP_BYTES - 1))
    assert stranger.hub.ended is None


def test_a_message_of_tls_that_is_announced_as_16_mb_is_not_collected(certificates: Certificates) -> None:
    stranger = Stranger(certificates)
    at, kept = 0, 0
    for data in (b"\x01\xff\xff\xff", *(bytes(1100),) * 100):
        stranger.say(crypto_frame(at, data))
        at += len(data)
        kept = max(kept, stranger.kept_bytes)
        if stranger.hub.ended is not None:
            break
    assert stranger.hub.ended == "too much waits for what is missing"
    assert kept <= HANDSHAKE_BYTES + 1100


@pytest.mark.parametrize("seed", range(4))
def test_a_long_chain_passes_over_a_line_that_loses_and_mixes(certificates: Certificates, seed: int) -> None:
    """A chain as long as the library can say one; a fifth of all packets is lost, and they come in any order."""
    assert certificates.hub.now is not None
    rng, now = random.Random(seed), 0.0
    node = certificates.node().configuration
    node.server_name = "127.0.0.1"
    assert node.certificate is not None
    node.certificate_chain = [node.certificate] * 14
    edge = Connection(node)
    hub = Connection(
        certificates.hub.now.configuration,
        original_destination_connection_id=edge.original_destination_connection_id,
    )
    edge.connect(SERVER, now)
    done: set[Connection] = set()
    for _ in range(400):
        for sender, receiver in ((edge, hub), (hub, edge)):
            if not sender._network_paths:
                continue  # it has heard of nobody yet
            packets = [data for data, _ in sender.datagrams_to_send(now)]
            rng.shuffle(packets)
            for packet in packets:
                if rng.random() > 0.2:
                    receiver.receive_datagram(packet, SERVER if receiver is edge else CLIENT, now)
            assert sender.ended is None
            if any(isinstance(each, HandshakeCompleted) for each in events(sender)):
                done.add(sender)
            if (at := sender.get_timer()) is not None and at <= now:
                sender.handle_timer(now)
        now += 0.05
        if len(done) == 2:
            break
    assert done == {edge, hub}
    assert len(hub.shown) == 15


def test_a_lane_or_a_late_handshake_full_of_gaps_ends_its_connection(certificates: Certificates) -> None:
    pair = Pair(certificates)
    pair.run(2)
    at = pair.edge._streams[STREAM_STEP * Lane.REPORT].sender.highest_offset + 2
    packets = 0
    while pair.hub.ended is None:
        payload, at = with_gaps(lane_frame, at)
        pair.deliver(pair.hub, [pair.forged(payload)])
        packets += 1
    assert pair.hub.ended == "too much waits for what is missing"
    assert packets <= LANE_PIECES // 150
    pair = Pair(certificates)
    payload, _ = with_gaps(crypto_frame, 4000)
    pair.deliver(pair.hub, [pair.forged(payload)])
    assert pair.hub.ended == "too much waits for what is missing"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=40))
def test_pieces_are_kept_as_the_library_keeps_them(added: list[tuple[int, int]]) -> None:
    ours, theirs = Pieces(), RangeSet()
    for start, size in added:
        for each in (ours, theirs):
            each.add(start, start + size)
    assert list(ours) == list(theirs)


def test_a_forgotten_connection_is_told_by_what_its_number_gives(pair: Pair) -> None:
    told = b"\x40" + bytes(20) + reset_token(RESET_KEY, pair.hub.host_cid)
    assert pair.edge.is_reset(told)
    assert not pair.edge.is_reset(told[:-1] + bytes(1))
    assert not pair.edge.is_reset(b"\xc0" + told[1:])
    assert not pair.edge.is_reset(reset_token(RESET_KEY, pair.hub.host_cid))
    # Every number that was given out since tells as well.
    spare = pair.edge._peer_cid_available[-1]
    assert pair.edge.is_reset(bytes(30) + reset_token(RESET_KEY, spare.cid))


def test_no_frames_that_a_node_can_make_break_anything_but_its_own_connection(certificates: Certificates) -> None:
    """Frames of every kind, changed at random, in packets that are as they should be: a node that means ill."""
    rng = random.Random(11)
    pair = Pair(certificates)
    well_formed = [
        *(bytes((kind,)) + bytes(rng.randrange(128) for _ in range(40)) for kind in (*range(0x1F), 0x30, 0x31)),
        b"\x0a\x00\x05\x00\x00\x00\x01\x90",
        b"\x0e\x08\xbf\xff\xff\xff\x04\x00\x00\x00\x00",
        b"\x18\x09\x00\x08" + bytes(24),
        b"\x02\x7f\xff\x00\x3f\x3f",
    ]
    for _ in range(90):
        payload = bytearray(rng.choice(well_formed) + rng.choice((b"", rng.choice(well_formed))))
        for _ in range(rng.randrange(4)):
            payload[rng.randrange(len(payload))] = rng.randrange(256)
        pair.deliver(pair.hub, [pair.forged(bytes(payload))])
        assert len(pair.hub._streams) <= len(LANES)
        assert sum(len(each.receiver._buffer) for each in pair.hub._streams.values()) <= CREDIT_BYTES
        if pair.hub.ended is not None:
            pair = Pair(certificates)


def test_who_is_refused_is_told_why(certificates: Certificates) -> None:
    pair = Pair(certificates)
    pair.hub.refuse("not you", is_missing=True)
    pair.deliver(pair.edge, pair.sent(pair.hub))
    assert pair.edge.ended == "not you"
    pair.edge.handle_timer(pair.now + 100)
    ended = [each for each in events(pair.edge) if isinstance(each, ConnectionTerminated)]
    assert ended[0].error_code == QuicErrorCode.CRYPTO_ERROR + 116
