"""What is taken to be lost over lines that lose, mix up and are narrow: in the connections' own time."""

import heapq
import statistics

import pytest
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace
from aioquic.tls import Epoch

from link.delivery import Delivery
from link.frames import Lane
from link.pathmtu import BASE_BYTES, BLACK_HOLE, PathMtu
from link.quiccore import Connection
from link.quicrecovery import CALM, KEPT, LATE, MOST_MISSING, MOST_PATIENCE, Control, taken_over
from tests.harness.badline import Way
from tests.harness.quic import Certificates
from tests.harness.quicpair import CLIENT, SERVER, Pair, events

RTT_S = 0.04
BYTES = 376_000  # a first sync of 1,000 pods
INSTANT_S = 1e-6  # the library compares sums of times in two ways, which differ in their last digit
MOST_S = 120.0


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


class Flow:
    """A hub that says BYTES to a node over a line that it may share."""

    def __init__(self, certificates: Certificates, down: Way, up: Way, size: int = BYTES) -> None:
        self.pair = Pair(certificates)
        self.ways = {self.pair.hub: down, self.pair.edge: up}
        self.came = 0
        self.size = size
        self.packets = 0
        self.done_at: float | None = None
        self.pair.hub._recovery.control.delivery = Delivery()  # of the handshake's round trips, which were half as long
        self.pair.hub.write(Lane.BULK, bytes(size))

    def received(self, receiver: Connection, data: bytes, now: float) -> None:
        receiver.receive_datagram(data, SERVER if receiver is self.pair.edge else CLIENT, now)
        for event in events(receiver):
            if isinstance(event, StreamDataReceived):
                self.came += len(event.data)
                receiver.credit.taken += len(event.data)
        if self.came == self.size and self.done_at is None:
            self.done_at = now


class Carrying:
    """Flows, and what is between their ends."""

    def __init__(self, *flows: Flow) -> None:
        self._flows = flows
        self._now = 1.0 + max(each.pair.now for each in flows)
        self._on_the_way: list[tuple[float, int, Flow, Connection, bytes]] = []
        self._number = 0

    def run(self, until_s: float = MOST_S) -> float:
        """Until one is done, or for so long; the time that it took."""
        began = self._now
        while self._now - began < until_s and all(each.done_at is None for each in self._flows):
            for flow in self._flows:
                self._send(flow)
            self._move()
        return self._now - began

    def _send(self, flow: Flow) -> None:
        hub, edge = flow.pair.hub, flow.pair.edge
        for sender, receiver in ((hub, edge), (edge, hub)):
            if (due := sender.get_timer()) is not None and due <= self._now:
                sender.handle_timer(self._now)
            for data, _ in sender.packets(self._now, acknowledge=True):
                flow.packets += sender is hub
                for at in flow.ways[sender].offer(len(data), self._now):
                    self._number += 1
                    heapq.heappush(self._on_the_way, (at, self._number, flow, receiver, data))

    def _move(self) -> None:
        timers = [side.get_timer() for flow in self._flows for side in (flow.pair.hub, flow.pair.edge)]
        due_at = min([each for each in timers if each is not None] + [each[0] for each in self._on_the_way[:1]])
        self._now = max(self._now, due_at) + INSTANT_S
        while self._on_the_way and self._on_the_way[0][0] <= self._now:
            _, _, flow, receiver, data = heapq.heappop(self._on_the_way)
            flow.received(receiver, data, self._now)


def way(seed: int, **quality: float | int) -> Way:
    made = Way(seed)
    made.quality.delay_s = RTT_S / 2
    for name, value in quality.items():
        setattr(made.quality, name, value)
    return made


def syncs(certificates: Certificates, runs: int = 5, size: int = BYTES, **quality: float | int) -> tuple[float, Flow]:
    """Seconds in the median, and the last one."""
    flows = [Flow(certificates, way(seed, **quality), way(100 + seed, **quality), size) for seed in range(runs)]
    took = [Carrying(flow).run() for flow in flows]
    assert [each.came for each in flows] == [size] * runs
    return statistics.median(took), flows[-1]


def test_a_good_line_takes_as_few_packets_as_there_are(certificates: Certificates) -> None:
    took, flow = syncs(certificates, 1)
    assert took < 6 * RTT_S
    assert flow.packets < BYTES / BASE_BYTES * 1.05


def test_a_line_that_mixes_packets_up_is_no_slower(certificates: Certificates) -> None:
    """A quarter is 20 ms late. Taken for lost they keep the window at three packets: 4.7 s."""
    took, flow = syncs(certificates, reorder=0.25)
    assert took < 10 * RTT_S
    assert flow.packets < BYTES / BASE_BYTES * 1.15
    assert 1.0 < flow.pair.hub._recovery.patience <= MOST_PATIENCE


@pytest.mark.parametrize(("loss", "most_s"), [(0.05, 1.5), (0.2, 4.0)])
def test_a_line_that_loses_at_random_is_not_taken_for_a_full_one(
    certificates: Certificates, loss: float, most_s: float
) -> None:
    """With a window that is halved each time it was 2.2 and 10.7 s."""
    took, flow = syncs(certificates, loss=loss)
    assert took < most_s
    assert flow.packets < BYTES / BASE_BYTES * (1.25 + loss)


def test_lost_and_mixed_up_at_once(certificates: Certificates) -> None:
    assert syncs(certificates, loss=0.05, reorder=0.25)[0] < 2.5


@pytest.mark.parametrize(
    ("rate", "queue_bytes", "size"), [(1_000_000, 64 << 10, 400_000), (10_000_000, 16 << 10, 3_000_000)]
)
def test_a_narrow_line_is_full_and_little_is_dropped(
    certificates: Certificates, rate: int, queue_bytes: int, size: int
) -> None:
    took, flow = syncs(certificates, 1, size, rate=rate, queue_bytes=queue_bytes)
    assert took < 1.2 * size * 8 / rate
    assert flow.ways[flow.pair.hub].counts.dropped < 0.05 * flow.packets


@pytest.mark.parametrize(("queue_bytes", "most"), [(100_000, 2.0), (32_000, 2.0), (8_000, 4.0)])
def test_who_shares_a_line_with_one_that_halves_its_window_leaves_it_some(
    certificates: Certificates, queue_bytes: int, most: float
) -> None:
    """The line holds 50 KB beside its queue."""
    down, up = way(1, rate=10_000_000, queue_bytes=queue_bytes), way(2)
    ours, plain = Flow(certificates, down, up, 20_000_000), Flow(certificates, down, up, 20_000_000)
    plain.pair.hub._recovery.control.__class__ = Halving
    Carrying(ours, plain).run(6.0)
    assert ours.came + plain.came > 0.85 * 10_000_000 / 8 * 6
    assert 1 / 2 < ours.came / plain.came < most


def test_a_line_that_becomes_narrow_is_believed(certificates: Certificates) -> None:
    """From 20 to 2 Mbit/s: what was delivered before counts for four round trips at most."""
    down = way(1, rate=20_000_000, queue_bytes=50_000)
    flow = Flow(certificates, down, way(2), 10_000_000)
    line = Carrying(flow)
    line.run(2.0)
    assert flow.came > 0.8 * 2.0 * 20_000_000 / 8
    down.quality.rate = 2_000_000
    line.run(1.0)
    dropped, packets, came = down.counts.dropped, flow.packets, flow.came
    line.run(4.0)
    assert down.counts.dropped - dropped < 0.05 * (flow.packets - packets)
    assert flow.came - came > 0.8 * 4.0 * 2_000_000 / 8


class Halving(Control):
    """As the library's own does it."""

    def on_packets_lost(self, *, now: float, packets: object) -> None:
        RenoCongestionControl.on_packets_lost(self, now=now, packets=packets)  # type: ignore[arg-type]


# By hand


class Bench:
    """A recovery of which every packet is told what becomes of it."""

    def __init__(self) -> None:
        plain = QuicPacketRecovery(
            congestion_control_algorithm="reno",
            initial_rtt=0.1,
            max_datagram_size=BASE_BYTES,
            peer_completed_address_validation=True,
            send_probe=lambda: None,
        )
        self.mtu = PathMtu()
        self.recovery = taken_over(plain, self.mtu)
        self.control = self.recovery.control
        self.space = QuicPacketSpace(is_application_data=True)
        self.recovery.spaces = [self.space]
        self.number = 0

    def send(self, now: float, count: int = 1, size: int = BASE_BYTES) -> None:
        for _ in range(count):
            packet = QuicSentPacket(Epoch.ONE_RTT, True, True, False, self.number, QuicPacketType.ONE_RTT, now, size)
            self.recovery.on_packet_sent(packet=packet, space=self.space)
            self.number += 1

    def acknowledge(self, now: float, *ranges: tuple[int, int]) -> None:
        """From, to, without the last."""
        told = RangeSet([range(*each) for each in ranges])
        self.recovery.on_ack_received(ack_rangeset=told, ack_delay=0.0, now=now, space=self.space)


def test_what_was_only_late_gives_the_window_back_and_teaches_patience() -> None:
    bench = Bench()
    bench.send(1.0, 10)
    bench.acknowledge(1.04, (1, 10))
    before = bench.control.congestion_window
    assert (bench.control.cuts, bench.space.sent_packets) == (1, {})
    assert bench.control.ssthresh is not None
    bench.acknowledge(1.06, (0, 10))
    assert bench.control.congestion_window >= before
    assert [bench.control.ssthresh, bench.control.before] == [None, None]
    assert bench.recovery.patience == pytest.approx(1.5 * 9 / 8)
    bench.send(1.1, 10)
    bench.acknowledge(1.14, (11, 20))
    assert (bench.control.cuts, list(bench.space.sent_packets)) == (1, [10]), "three that are ahead tell nothing now"
    assert bench.recovery.get_loss_detection_time(amplification_limited=False) == pytest.approx(1.1675)
    bench.recovery.on_loss_detection_timeout(now=1.17)
    assert (bench.control.cuts, bench.space.sent_packets) == (2, {})


def test_one_that_does_not_come_keeps_the_window_cut() -> None:
    bench = Bench()
    bench.send(1.0, 10)
    bench.acknowledge(1.04, (2, 10))
    window = bench.control.congestion_window
    bench.acknowledge(1.06, (1, 10))
    assert (bench.control.cuts, bench.control.congestion_window) == (1, window)
    assert bench.control.before is not None
    assert bench.recovery.patience > 1


def test_a_line_that_is_calm_again_is_taken_at_its_order_again() -> None:
    bench = Bench()
    bench.recovery.patience = 1.5
    now = 0.0
    for _ in range(CALM):
        assert bench.recovery.patience
        first, now = bench.number, now + 1.0
        bench.send(now, 5)
        bench.acknowledge(now + 0.04, (first + 1, first + 5))
        bench.recovery.on_loss_detection_timeout(now=now + 0.5)
    assert (bench.control.cuts, bench.recovery.patience) == (CALM, 0.0)


def test_what_is_remembered_is_bounded_and_a_window_that_lost_more_stays_cut() -> None:
    bench = Bench()
    bench.send(1.0, 2 * MOST_MISSING)
    bench.acknowledge(1.04, (MOST_MISSING + 10, 2 * MOST_MISSING))
    window = bench.control.congestion_window
    assert (bench.recovery._missing, bench.control.before) == ({}, None)
    bench.acknowledge(1.06, (0, 2 * MOST_MISSING))
    assert bench.control.congestion_window == window


def test_a_cut_leaves_half_at_least_and_some_is_always_cut() -> None:
    for delivered, expected in ((0.0, 0.5), (0.8, 0.8), (5.0, KEPT)):
        bench = Bench()
        bench.send(1.0, 10)
        window = bench.control.congestion_window
        bench.control.delivery._rates = (0.0, delivered * window / 0.04)
        bench.control.delivery.measured(0.04, 1.0)
        bench.control.on_packets_lost(now=1.04, packets=list(bench.space.sent_packets.values())[:1])
        assert bench.control.congestion_window == bench.control.ssthresh == pytest.approx(expected * window, abs=1)


def test_large_packets_that_are_only_late_are_no_black_hole() -> None:
    bench = Bench()
    bench.mtu.size = 8952
    for turn in range(BLACK_HOLE + 2):
        first, now = bench.number, 1.0 + turn
        bench.send(now, 1, 8952)
        bench.send(now, 4)
        bench.acknowledge(now + 0.04, (first + 1, first + 5))
        bench.recovery.on_loss_detection_timeout(now=now + 0.1)
        bench.acknowledge(now + 0.15, (first, first + 5))
    assert bench.mtu.size == 8952


def test_what_comes_much_too_late_gives_nothing_back() -> None:
    bench = Bench()
    bench.send(1.0, 10)
    bench.acknowledge(1.04, (1, 10))
    window = bench.control.congestion_window
    bench.acknowledge(1.04 + LATE * 0.1 + 0.01, (0, 10))
    assert (bench.control.congestion_window, bench.recovery.patience, bench.recovery._missing) == (window, 0.0, {})
    assert bench.control.before is None


def test_on_another_path_nothing_is_known() -> None:
    bench = Bench()
    bench.send(1.0, 10)
    bench.acknowledge(1.04, (2, 10))
    bench.acknowledge(1.05, (1, 10))
    window = bench.control.congestion_window
    assert bench.recovery.patience
    bench.recovery.moved()
    assert bench.control.delivery.carries == 0
    bench.acknowledge(1.06, (0, 10))
    assert (bench.control.congestion_window, bench.recovery.patience) == (window, 0.0)
