"""
What aioquic takes to be lost, and how it slows down for that: for lines that mix packets up, or lose them.

The library has what RFC 9002 says: a packet is lost when one that was sent three later has arrived, or after 9/8 of a
round trip, and then the window is halved. On a line that holds back every fourth packet those are lost by that, and on
one that loses every twentieth the window is halved in each second round trip, though nothing is full.

So what comes late is told from what does not come, as the kernel's TCP does it (RACK, RFC 8985): once something did,
only time counts, and as much of it as that took; and where all has come that a window was cut for, it is as wide as
before (as Linux undoes it). And a window is cut to what the path has just delivered (link.delivery), if that is more
than half of it, and by an eighth at least. On a line that is full and has a queue to speak of, that is what fits
without; where packets vanish at random it is nearly all. Where the queue is short, who halves his window gets less of
the line than we do. A peer that says of what it lost that it came is believed: a node gains the hub's line by that.

    recovery = taken_over(connection's own, mtu)

Invariants
    no more than MOST_MISSING packets of a connection are remembered, none from before its window was last cut, nor of
    another path
    nothing is waited for longer than MOST_PATIENCE round trips, once something has arrived that was sent later
    a cut leaves half of a window at least, and KEPT of it at most
    a window is given back only where nothing of what it was cut for is missing, and only once, and soon
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple, cast

from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace

from link.delivery import Delivery
from link.pathmtu import PathMtu

MIN_PROBE_S = 0.2  # Linux' least RTO
MOST_MISSING = 64  # 10 KB; where more than these are lost at once, nobody asks whether they are only late
LATE = 4.0  # round trips, and MIN_PROBE_S at least: what comes later than that after it was sent tells nothing any more
KEPT = 7 / 8  # of a window that is cut, at most
MARGIN = 9 / 8  # of what a packet took, for the next one (RFC 9002, section 6.1.2)
MOST_PATIENCE = 2.0  # round trips: RFC 8985 allows one beyond the first
CALM = 16  # times that a window was cut and nothing of it came late: then the order counts again, as at first


class _Missing(NamedTuple):
    """A packet that was taken to be lost."""

    sent_at: float
    size: int


class _Window(NamedTuple):
    """What a window was before it was cut."""

    size: int
    threshold: int | None


class Control(RenoCongestionControl):
    """Notes which packets a path carries; one that was only a try, or was made for another path, slows down nothing."""

    mtu: PathMtu
    delivery: Delivery
    cuts: int
    """How often the window was cut."""
    before: _Window | None
    """The last time, while it can be given back."""

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        super().on_packet_sent(packet=packet)
        self.delivery.sent(packet.packet_number)

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        super().on_rtt_measurement(now=now, rtt=rtt)
        self.delivery.measured(rtt, now)

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        super().on_packet_acked(now=now, packet=packet)
        self.delivery.arrived(packet.packet_number, packet.sent_bytes, _sent_at(packet), now)
        self.mtu.carried(packet.sent_bytes)

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        super().on_packets_expired(packets=packets)
        self._are_gone(packets)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        meant, tried = list[QuicSentPacket](), list[QuicSentPacket]()
        for each in packets:
            (meant if self.is_meant(each) else tried).append(each)
        if meant:
            before, since = _Window(self.congestion_window, self.ssthresh), self._congestion_recovery_start_time
            super().on_packets_lost(now=now, packets=meant)
            if self._congestion_recovery_start_time != since:
                window = max(self.congestion_window, min(int(KEPT * before.size), self.delivery.carries))
                self.congestion_window = self.ssthresh = window
                self.before = before
                self.cuts += 1
            self._are_gone(meant)
        self.on_packets_expired(packets=tried)

    def _are_gone(self, packets: Iterable[QuicSentPacket]) -> None:
        for each in packets:
            self.delivery.gone(each.packet_number)
            self.mtu.lost(each.sent_bytes)

    def on_persistent_congestion(self) -> None:
        super().on_persistent_congestion()
        self.before = None

    def is_meant(self, packet: QuicSentPacket) -> bool:
        """Whether it is no larger than what the path is known to carry."""
        return packet.sent_bytes <= self.mtu.size

    def give_back(self) -> None:
        """Nothing was lost: be as before."""
        if self.before is not None:
            self.congestion_window = max(self.congestion_window, self.before.size)
            self.ssthresh, self._congestion_recovery_start_time, self.before = self.before.threshold, 0.0, None


class Recovery(QuicPacketRecovery):
    """
    Takes what is late for late; and waits MIN_PROBE_S at least before it sends again what nobody spoke of, as TCP does.

    On a fast line the library waits 30 ms, and a hub of 100 nodes needs longer to come round to an acknowledgement:
    then all is sent twice, which takes it twice as long.
    """

    patience: float
    """Round trips that a packet has, once it is known that some are late; 0.0 before: three that are ahead tell."""
    _calm: int
    _missing: dict[int, _Missing]
    """By number, what was lost since the window was cut, and has not come."""

    @property
    def control(self) -> Control:
        return cast(Control, self._cc)

    def get_probe_timeout(self, *, include_max_ack_delay: bool = True) -> float:
        return max(super().get_probe_timeout(include_max_ack_delay=include_max_ack_delay), MIN_PROBE_S)

    def on_ack_received(self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace) -> None:
        if self._missing and space.is_application_data:
            self._look_for_late(ack_rangeset, now)
        super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)

    def moved(self) -> None:
        """What is sent from now on goes another way, of which nothing is known."""
        self.patience, self._calm = 0.0, 0
        self._forget()
        self.control.delivery = Delivery()

    def _forget(self) -> None:
        self._missing.clear()
        self.control.before = None

    def _look_for_late(self, arrived: RangeSet, now: float) -> None:
        if next(reversed(self._missing.values())).sent_at < now - max(LATE * self._round_trip, MIN_PROBE_S):
            self._forget()
            return
        numbers = sorted(self._missing)
        took = 0.0
        for each in arrived:
            for number in numbers[bisect_left(numbers, each.start) : bisect_left(numbers, each.stop)]:
                late = self._missing.pop(number)
                self.control.mtu.carried(late.size)
                took = max(took, now - late.sent_at)
        if not took:
            return
        self.patience = min(MOST_PATIENCE, max(self.patience, MARGIN, MARGIN * took / self._round_trip))
        self._calm = 0
        if not self._missing:
            self.control.give_back()
            self._pacer.update_rate(congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed)

    @property
    def _round_trip(self) -> float:
        return max(self._rtt_latest, self._rtt_smoothed) or self._rtt_initial

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        if not self.patience or not space.is_application_data:
            super()._detect_loss(now=now, space=space)
            return
        given_s = self.patience * self._round_trip
        lost = []
        space.loss_time = None
        for number, packet in space.sent_packets.items():
            if number > space.largest_acked_packet:
                break
            lost_at = _sent_at(packet) + given_s
            if lost_at > now:
                space.loss_time = lost_at
                break  # they are in the order in which they were sent
            lost.append(packet)
        meant = [each for each in lost if self.control.is_meant(each)]
        is_persistent = self._in_persistent_congestion(packets=meant)
        self._on_packets_lost(now=now, packets=lost, persistent_congestion=is_persistent, space=space)

    def _on_packets_lost(
        self,
        *,
        congestion_event: bool = True,
        now: float,
        packets: Iterable[QuicSentPacket],
        persistent_congestion: bool = False,
        space: QuicPacketSpace,
    ) -> None:
        packets, cuts = list(packets), self.control.cuts
        meant = [each for each in packets if each.in_flight and self.control.is_meant(each)]
        super()._on_packets_lost(
            congestion_event=congestion_event,
            now=now,
            packets=packets,
            persistent_congestion=persistent_congestion,
            space=space,
        )
        if not congestion_event or not meant or not space.is_application_data:
            return
        if self.control.cuts != cuts:
            self._missing.clear()
            self._calm += 1
            if self._calm >= CALM:
                self.patience = 0.0
        self._missing.update((each.packet_number, _Missing(_sent_at(each), each.sent_bytes)) for each in meant)
        if len(self._missing) > MOST_MISSING:
            self._forget()


def taken_over(recovery: QuicPacketRecovery, mtu: PathMtu) -> Recovery:
    """A connection's recovery, as one of ours from now on. mtu: told what arrives."""
    recovery.__class__ = Recovery
    ours = cast(Recovery, recovery)
    ours.patience, ours._calm, ours._missing = 0.0, 0, {}
    ours._cc.__class__ = Control
    control = ours.control
    control.mtu, control.delivery, control.cuts, control.before = mtu, Delivery(), 0, None
    return ours


def _sent_at(packet: QuicSentPacket) -> float:
    assert packet.sent_time is not None, "it was sent"
    return packet.sent_time
