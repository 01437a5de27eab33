"""
What a server of many TLS connections asks of the C library's allocator.

glibc gives blocks of 128 KiB and more pages of their own, which cost nothing until they are touched. But with the first
such block that is freed it raises that limit, and takes later ones from the heap, among what was used before. uvloop
has a buffer of 256 KiB for each TLS connection, of which a node's traffic touches a page or two: with the limit
where it began, a connection with 100 objects takes 50 KB, and 70 KB where it rises (docs/performance.md).

Whatever the limit, a block comes from the heap where that has a hole of its size. Connections that end together leave
such holes, whose pages have all been touched; a buffer that comes to lie there has 256 KiB of them, and what was there
before is put at the heap's end. So pages of holes are given back before they are used again: then a
buffer there costs what it would cost apart.
"""

import asyncio
import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h; mallopt(3): setting it ends its being raised
_LARGE_BYTES = 128 << 10
SHARE = 1 / 8  # of the connections: a look for holes takes up to 0.3 ms per MB of heap, a handshake 3 ms
AFTER_S = 0.1  # those that are lost together are gone by then, and few have come back
REST_S = 1.0


def keep_large_blocks_apart() -> bool:
    """For this process, from now on; returns whether the C library has such a thing. musl has not, and needs none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES))


def give_back_holes() -> bool:
    """
    Have the kernel take the pages that nothing lies on; returns whether there were any.

    0.4 ms with a heap of 10 MB. What a free page is needed for next costs a page fault.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(0))


class Tidying:
    """Gives holes back each time that a good part of a process's connections has ended."""

    def __init__(self) -> None:
        self._gone = 0
        """Connections that have ended since the last time."""
        self._due: asyncio.TimerHandle | None = None
        self._rests_until = 0.0

    def one_left(self, of: int) -> None:
        """A connection has ended. of: how many there were, about."""
        self._gone += 1
        if self._due is None and self._gone >= SHARE * of:
            loop = asyncio.get_running_loop()
            self._due = loop.call_at(max(loop.time() + AFTER_S, self._rests_until), self._tidy)

    def close(self) -> None:
        """Nothing will be given back any more."""
        if self._due is not None:
            self._due.cancel()

    def _tidy(self) -> None:
        give_back_holes()
        self._gone, self._due, self._rests_until = 0, None, asyncio.get_running_loop().time() + REST_S
