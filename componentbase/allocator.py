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
from collections.abc import Mapping

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h; mallopt(3)
_LARGE_BYTES = 128 << 10
_LARGEST_BYTES = 32 << 20  # what the limit may be at most
SHARE = 1 / 8  # of the connections: a look for holes takes up to 0.3 ms per MB of heap, a handshake 3 ms
AFTER_S = 0.1  # those that are lost together are gone by then, and few have come back
REST_S = 1.0


def keep_large_blocks_apart() -> bool:
    """For this process, from now on; returns whether the C library has such a thing. musl has not, and needs none."""
    return _set({_M_MMAP_THRESHOLD: _LARGE_BYTES})  # setting it ends its being raised


def use_large_blocks_again() -> bool:
    """
    The other way round: what took megabytes is kept for the next that does, up to 32 MiB. Returns as above.

    New pages cost more than what is done with them where a machine is virtual: a copy of 3 MB takes 1.9 ms with them,
    and 0.1 without. One heap for all threads, or each would keep its own.
    """
    return _set({_M_MMAP_THRESHOLD: _LARGEST_BYTES, _M_TRIM_THRESHOLD: _LARGEST_BYTES, _M_ARENA_MAX: 1})


def _set(options: Mapping[int, int]) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in options.items())


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
