"""
What a path carries in a round trip, by what arrives: for whoever has to tell a line that loses from one that is full.

While a packet is on its way and its acknowledgement on the way back, others arrive. How many, by the time that took, is
what the path delivers; the most of the last round trips is taken, for what is lost at random makes some of them look
worse. Times the shortest round trip it is what fits without a queue: on a line that is full much of what is under way
waits in one (as TCP Westwood+ and BBR have it). Where the queue is short it says little less than what is under way.

    delivery.sent(7)
    delivery.arrived(7, 1200, sent_at, now)
    delivery.measured(0.04, now)
    delivery.carries

Invariants
    what is kept is as much as packets are under way
    no rate counts that is older than 2 * ROUNDS of the shortest round trips, nor a round trip older than 2 * SHORTEST_S

Pure: time is an argument.
"""

import math

ROUNDS = 2  # round trips, twice: a line that narrows is believed after four of them at most
SHORTEST_S = 10.0  # half of what the shortest round trip counts for: a way may become longer (BBR has ten seconds)
LEAST_S = 1e-6  # that anything takes


class Delivery:
    """Of one path."""

    def __init__(self) -> None:
        self._bytes = 0
        """That arrived, ever."""
        self._before: dict[int, int] = {}
        """What that was when a packet was sent, by its number."""
        self._round_trips = (math.inf, math.inf)
        """The shortest in the while before, and in this one."""
        self._grows_at = 0.0
        """When the next while begins."""
        self._rates = (0.0, 0.0)
        """Bytes a second: the most in the while before, and in this one, which are shorter."""
        self._turns_at = 0.0

    def sent(self, number: int) -> None:
        self._before[number] = self._bytes

    def gone(self, number: int) -> None:
        """It is lost, or nobody waits for it any more."""
        self._before.pop(number, None)

    def measured(self, round_trip_s: float, now: float) -> None:
        (before, shortest), self._grows_at = _turned(self._round_trips, self._grows_at, SHORTEST_S, now, math.inf)
        self._round_trips = before, min(shortest, max(round_trip_s, LEAST_S))

    def arrived(self, number: int, size: int, sent_at: float, now: float) -> None:
        """What was sent under this number did, which is known now."""
        self._bytes += size
        others = self._bytes - self._before.pop(number, self._bytes)
        while_s = ROUNDS * min(self._round_trip_s, 1.0)
        (before, most), self._turns_at = _turned(self._rates, self._turns_at, while_s, now, 0.0)
        self._rates = before, max(most, others / max(now - sent_at, LEAST_S))

    @property
    def _round_trip_s(self) -> float:
        return min(self._round_trips)

    @property
    def carries(self) -> int:
        """Bytes in a round trip; 0 where nothing is known."""
        return int(max(self._rates) * self._round_trip_s) if self._round_trip_s < math.inf else 0


def _turned(
    pair: tuple[float, float], ends_at: float, while_s: float, now: float, nothing: float
) -> tuple[tuple[float, float], float]:
    """What is known of the while before and of this one, and when this one ends."""
    if now < ends_at:
        return pair, ends_at
    return (pair[1] if now < ends_at + while_s else nothing, nothing), now + while_s
