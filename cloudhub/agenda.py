"""
Who is to be looked at when: an ordered set of items with a time each.

An item stands in it once. Setting it again moves it, which leaves the old line in the heap; such lines are
skipped when they surface and swept when they outnumber the live ones, so memory follows the number of items.

Pure state: times are the caller's, on any clock that only moves forward.
"""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SWEEP_AT = 64  # below this many lines, sweeping costs more than it frees


class Agenda(Generic[K]):
    """Items by time; items of one time come in the order they were set."""

    def __init__(self) -> None:
        self._lines: list[tuple[float, int, K]] = []
        self._live: dict[K, tuple[float, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, item: K) -> bool:
        return item in self._live

    def set(self, item: K, at: float) -> None:
        """Look at `item` at that time, and at no other."""
        held = self._live.get(item)
        if held is not None and held[0] == at:
            return
        self._count += 1
        self._live[item] = (at, self._count)
        heapq.heappush(self._lines, (at, self._count, item))
        if len(self._lines) > _SWEEP_AT + 2 * len(self._live):
            self._lines = [(at, count, item) for item, (at, count) in self._live.items()]
            heapq.heapify(self._lines)

    def discard(self, item: K) -> None:
        """Do not look at `item` at all; harmless when it is not there."""
        self._live.pop(item, None)

    def take(self, now: float) -> K | None:
        """The item that has been due for longest, removed; None when nothing is due."""
        self._skip_stale()
        if not self._lines or self._lines[0][0] > now:
            return None
        item = heapq.heappop(self._lines)[2]
        del self._live[item]
        return item

    def next_deadline(self) -> float | None:
        """When take() will give something; None when there is nothing."""
        self._skip_stale()
        return self._lines[0][0] if self._lines else None

    def _skip_stale(self) -> None:
        while self._lines and self._live.get(self._lines[0][2]) != self._lines[0][:2]:
            heapq.heappop(self._lines)
