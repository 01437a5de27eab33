"""
How many writes of devices' statuses are under way at once: as many as leave the loop to others.

A write is some steps of the loop, 1 to 3 ms of processor each, most of it the HTTP client's. What a pod's change waits
for is rounds of the loop, and in each of them every write that is under way may have a step: eight of them made rounds
of 50 ms on two busy cores, and a pod's change took three. So a round that is long leaves one of them; while rounds are
short there come to be more. What is not written is not lost: a later value takes an earlier one's place, and the last
one is written.

A write that waits for the apiserver costs the loop nothing. After YOUNG_S it counts as one that does: one Device whose
write hangs holds up no other.

Invariants
    1 <= allowed <= most, and no more than `most` are under way
    of those that are younger than YOUNG_S no more are begun than are allowed
    a long round leaves one, and from there `most` takes RISE * (most - 1) short ones

Pure: no clock, no I/O.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

LONG_S = 0.01  # three steps of writes besides what a round has anyway
RISE = 8
YOUNG_S = 0.1  # an apiserver takes 5 to 50 ms

K = TypeVar("K", bound=Hashable)


class Pace(Generic[K]):
    """Told how long each round of the loop took that was looked at, and what is under way; K names it."""

    def __init__(self, most: int) -> None:
        self.allowed = most
        self._most = most
        self._short = 0
        """Rounds since `allowed` was another."""
        self._began: dict[K, float] = {}
        """When each that is under way was begun, oldest first."""

    def came_round(self, seconds: float) -> None:
        if seconds > LONG_S:
            self.allowed, self._short = 1, 0
        elif self.allowed < self._most:
            self._short += 1
            if self._short == RISE:
                self.allowed, self._short = self.allowed + 1, 0

    def begin(self, what: K, now: float) -> None:
        self._began[what] = now

    def end(self, what: K) -> None:
        """Harmless for what was not begun here."""
        self._began.pop(what, None)

    def has_room(self, now: float) -> bool:
        """Whether another one may begin."""
        return len(self._began) < self._most and len(self._young(now)) < self.allowed

    def next_room(self, now: float) -> float | None:
        """When there is room though none of them has ended; None where there is room now, or will not be."""
        if len(self._began) >= self._most or self.has_room(now):
            return None
        return self._young(now)[-self.allowed] + YOUNG_S

    def _young(self, now: float) -> list[float]:
        """When those were begun that count as work for the loop."""
        return [at for at in self._began.values() if at > now - YOUNG_S]
