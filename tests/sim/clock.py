"""
Virtual time: a queue of things to happen, in the order of their times and of their making.

Serves as link.pump.Clock, so that the very pump that runs under asyncio runs here.
"""

import heapq
import itertools
from collections.abc import Callable


class SimTimer:
    """What call_at gives."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self._when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None

    def when(self) -> float:
        return self._when


class SimClock:
    """Time moves only from one thing that happens to the next."""

    def __init__(self) -> None:
        self._now = 0.0
        self._order = itertools.count()
        self._queue: list[tuple[float, int, SimTimer]] = []

    def time(self) -> float:
        return self._now

    def call_at(self, when: float, callback: Callable[[], None], /) -> SimTimer:
        timer = SimTimer(when, callback)
        heapq.heappush(self._queue, (max(when, self._now), next(self._order), timer))
        return timer

    def call_later(self, delay: float, callback: Callable[[], None]) -> SimTimer:
        return self.call_at(self._now + delay, callback)

    def run_until(self, when: float) -> None:
        """Let everything happen that is due by `when`."""
        while self._queue and self._queue[0][0] <= when:
            self._now, _, timer = heapq.heappop(self._queue)
            if timer.callback is not None:
                callback, timer.callback = timer.callback, None
                callback()
        self._now = max(self._now, when)
