"""
What the event loop has done in the store's thread: handed over together, answered together.

A call costs the loop more on its way to a thread and back than most of what the store does: a pool of threads makes a
future, a lock and a wake-up for each way, 30 us alone. Here what is put while the thread is at work is taken by it
without a wake-up, and what it has to tell while the loop is busy is told in one.

What is urgent goes first, but for the share of the thread's time that is the others'.

Invariants
    calls of one class are done in the order in which they were put
    what a call tells the loop (tell) comes there before its outcome does
    what had not begun when its caller was cancelled never does
    after close() nothing is left undone that was put before it, and the thread ends
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

FAIR = 4  # devices get a quarter of the thread's time at least, while there are both
MOST_OWED_S = 1.0  # that what is urgent may be ahead of its three quarters, or behind

T = TypeVar("T")
Outcome = TypeVar("Outcome")


class Turns:
    """What waits for the thread: what is urgent first, but for the time that is the others'."""

    def __init__(self) -> None:
        self._urgent: deque[Callable[[], None]] = deque()
        self._other: deque[Callable[[], None]] = deque()
        self._owed_s = MOST_OWED_S
        """How much of the time is still what is urgent's, of what was shared; below zero it has had more."""
        self._is_others = False
        """Whether what was taken last is not urgent."""

    def __len__(self) -> int:
        return len(self._urgent) + len(self._other)

    def put(self, call: Callable[[], None], *, urgent: bool) -> None:
        (self._urgent if urgent else self._other).append(call)

    def take(self) -> Callable[[], None]:
        """The next. There must be one."""
        self._is_others = not self._urgent or (bool(self._other) and self._owed_s < 0)
        return (self._other if self._is_others else self._urgent).popleft()

    def took(self, seconds: float) -> None:
        """What was taken last took so long. Nobody is charged for time that the other did not want."""
        if self._is_others:
            self._owed_s = min(MOST_OWED_S, self._owed_s + (FAIR - 1) * seconds)
        elif self._other:
            self._owed_s = max(-MOST_OWED_S, self._owed_s - seconds)


class Handover:
    """A thread, and the way to it and back for the loop that made it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # of all below, each time for less than the loop would notice
        self._turns = Turns()
        self._is_working = False
        """Whether the thread looks for more before it sleeps."""
        self._last: Callable[[], None] | None = None
        """What is done when nothing is left, and not yet."""
        self._is_over = False
        """Whether it is: the thread's own."""
        self._told: deque[Callable[[], None]] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    async def do(self, work: Callable[[], T], *, urgent: bool = True) -> T:
        """What the work returns or raises."""
        done: asyncio.Future[T] = self._loop.create_future()
        with self._lock:
            self._turns.put(lambda: self._do(work, done), urgent=urgent)
            is_asleep, self._is_working = not self._is_working, True
        if is_asleep:
            self._wake.put(None)
        return await done

    async def close(self, work: Callable[[], T]) -> T:
        """As do(), after all else; then the thread ends. It must not be cancelled, nor anything be put after it."""
        done: asyncio.Future[T] = self._loop.create_future()
        with self._lock:
            self._last = lambda: self._do(work, done)
        self._wake.put(None)
        return await done

    def end(self) -> None:
        """As close() with nothing to be done, and without waiting. Harmless where the thread has ended."""
        with self._lock:
            self._last = lambda: None
        self._wake.put(None)

    def tell(self, call: Callable[[], None]) -> None:
        """Have the loop call this. For the work, in the thread."""
        with self._lock:
            is_first = not self._told
            self._told.append(call)
        if is_first:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        with self._lock:
            told, self._told = self._told, deque()
        for call in told:
            self._loop.call_soon(call)

    # In the thread

    def _serve(self) -> None:
        while True:
            self._wake.get()
            while (call := self._next()) is not None:
                began = time.perf_counter()
                call()
                del call  # it has what was asked for and what came of it
                self._turns.took(time.perf_counter() - began)
            if self._is_over:
                return

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if self._turns:
                return self._turns.take()
            # Looked for with the lock held, or what is put just before close() might come after it.
            last, self._last = self._last, None
            self._is_working, self._is_over = last is not None, self._is_over or last is not None
            return last

    def _do(self, work: Callable[[], T], done: "asyncio.Future[T]") -> None:
        if done.cancelled():
            return
        try:
            result = work()
        except BaseException as exc:  # for the caller, whatever it is
            self.tell(partial(_settle, done, done.set_exception, exc))
        else:
            self.tell(partial(_settle, done, done.set_result, result))


def _settle(done: asyncio.Future[T], settle: Callable[[Outcome], None], outcome: Outcome) -> None:
    """In the loop. Whoever waited may be gone."""
    if not done.done():
        settle(outcome)
