"""
What a server of many TLS connections asks of the C library's allocator.

glibc gives blocks of 128 KiB and more pages of their own, which cost nothing until they are touched. But with the first
such block that is freed it raises that limit, and takes later ones from the heap, among what was used before. uvloop
has a buffer of 256 KiB for each TLS connection, of which a node's traffic touches a page or two: with the limit
where it began, a connection with 100 objects takes 50 KB, and 70 KB where it rises (docs/performance.md).
"""

import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h; mallopt(3): setting it ends its being raised
_LARGE_BYTES = 128 << 10


def keep_large_blocks_apart() -> bool:
    """For this process, from now on; returns whether the C library has such a thing. musl has not, and needs none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES))
