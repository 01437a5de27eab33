"""
Virtual time: a queue of things to happen, in the order of their times and of their making.

SimClock is the world's own time. A MachineClock is what one process takes for time: it started at any number
and runs a little fast or slow, and its wall clock jumps. Both serve as link.pump.Clock, so that the very pump
that runs under asyncio runs here.
"""

import heapq
import itertools
from collections.abc import Callable

WALL_MS = 1_700_000_000_000
"""Where every wall clock starts: some day in 2023."""


class SimTimer:
    """What call_at gives."""

    __slots__ = ("_when", "callback")

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
        self.enqueue(when, timer)
        return timer

    def call_later(self, delay: float, callback: Callable[[], None]) -> SimTimer:
        return self.call_at(self._now + delay, callback)

    def enqueue(self, when: float, timer: SimTimer) -> None:
        """Let a timer, whatever it takes for its time, go off at `when` of this clock."""
        heapq.heappush(self._queue, (max(when, self._now), next(self._order), timer))

    def run_until(self, when: float) -> None:
        """Let everything happen that is due by `when`."""
        while self._queue and self._queue[0][0] <= when:
            self._now, _, timer = heapq.heappop(self._queue)
            if timer.callback is not None:
                callback, timer.callback = timer.callback, None
                callback()
        self._now = max(self._now, when)

    def run_for(self, duration: float) -> None:
        self.run_until(self._now + duration)


class MachineClock:
    """One machine's idea of time, from its start on."""

    def __init__(self, world: SimClock, *, start: float, rate: float, wall_ahead_ms: int) -> None:
        """start: what it shows now. rate: its seconds per true second. wall_ahead_ms: how wrong its wall clock is."""
        self._world = world
        self._began = world.time()
        self._start = start
        self._rate = rate
        self.wall_ahead_ms = wall_ahead_ms

    def time(self) -> float:
        return self._start + (self._world.time() - self._began) * self._rate

    def call_at(self, when: float, callback: Callable[[], None], /) -> SimTimer:
        timer = SimTimer(when, callback)
        # A microsecond late, so that rounding never makes a deadline go off before its time.
        self._world.enqueue(self._began + (when - self._start) / self._rate + 1e-6, timer)
        return timer

    def wall_ms(self) -> int:
        """Milliseconds since 1970, by this machine."""
        return WALL_MS + self.wall_ahead_ms + int((self._world.time() - self._began) * self._rate * 1000)
