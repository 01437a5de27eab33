"""
What a path carries in a round trip, by what arrives: for whoever has to tell a line that loses from one that is full.

While a packet is on its way and its acknowledgement on the way back, others arrive. How many, by the time that took, is
what the path delivers; the most of the last round trips is taken, for what is lost at random makes some of them look
worse. Times the shortest round trip it is what fits without a queue: a line that is full has a queue, and who takes up
no more than this has none there (as TCP Westwood+ and BBR have it).

    delivery.sent(7)
    delivery.arrived(7, 1200, sent_at, now)
    delivery.carries

Invariants
    what is kept is as much as packets are under way
    of a rate nothing is known after 2 * ROUNDS of the shortest round trips

Pure: time is an argument.
"""

import math

ROUNDS = 2  # round trips, twice: a line that narrows is believed after four of them at most
LEAST_S = 1e-6  # that anything takes


class Delivery:
    """Of one path."""

    def __init__(self) -> None:
        self._bytes = 0
        """That arrived, ever."""
        self._before: dict[int, int] = {}
        """What that was when a packet was sent, by its number."""
        self._round_trip_s = math.inf
        """The shortest."""
        self._rate = self._rate_before = 0.0
        """Bytes a second: the most in this while, and in the one before."""
        self._turns_at = 0.0

    def sent(self, number: int) -> None:
        self._before[number] = self._bytes

    def gone(self, number: int) -> None:
        """It is lost, or nobody waits for it any more."""
        self._before.pop(number, None)

    def measured(self, round_trip_s: float) -> None:
        self._round_trip_s = min(self._round_trip_s, max(round_trip_s, LEAST_S))

    def arrived(self, number: int, size: int, sent_at: float, now: float) -> None:
        """What was sent under this number did, which is known now."""
        self._bytes += size
        others = self._bytes - self._before.pop(number, self._bytes)
        if now >= self._turns_at:
            self._rate, self._rate_before = 0.0, self._rate
            self._turns_at = now + ROUNDS * min(self._round_trip_s, 1.0)
        self._rate = max(self._rate, others / max(now - sent_at, LEAST_S))

    @property
    def carries(self) -> int:
        """Bytes in a round trip; 0 where nothing is known."""
        rate = max(self._rate, self._rate_before)
        return int(rate * self._round_trip_s) if self._round_trip_s < math.inf else 0
