"""
How many writes of devices' statuses are under way at once: as many as leave the loop to others.

A write is some steps of the loop, 1 to 3 ms of processor each, most of it the HTTP client's. What a pod's change waits
for is rounds of the loop, and in each of them every write that is under way may have a step: eight of them made rounds
of 50 ms on two busy cores, and a pod's change took three. So a round that is long leaves one of them; while rounds are
short there come to be more. What is not written is not lost: a later value takes an earlier one's place, and the last
one is written.

Invariants
    1 <= allowed <= most
    a long round leaves one, and from there `most` takes RISE * (most - 1) short ones

Pure: no clock, no I/O.
"""

LONG_S = 0.01  # three steps of writes besides what a round has anyway
RISE = 8


class Pace:
    """Told how long each round of the loop took that was looked at."""

    def __init__(self, most: int) -> None:
        self.allowed = most
        self._most = most
        self._short = 0
        """Rounds since `allowed` was another."""

    def came_round(self, seconds: float) -> None:
        if seconds > LONG_S:
            self.allowed, self._short = 1, 0
        elif self.allowed < self._most:
            self._short += 1
            if self._short == RISE:
                self.allowed, self._short = self.allowed + 1, 0
