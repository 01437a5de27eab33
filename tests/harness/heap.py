"""A hole in this process's heap, as connections leave it that end together."""

import ctypes
import re
from pathlib import Path
from types import TracebackType
from typing import Self

BLOCK_BYTES = 64 << 10  # below what glibc gives pages of their own
BLOCKS = 128

_libc = ctypes.CDLL(None)
_libc.malloc.restype, _libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
_libc.free.restype, _libc.free.argtypes = None, [ctypes.c_void_p]


class Hole:
    """Free memory whose pages have been touched, with something behind it while the block lasts."""

    kb = BLOCKS * BLOCK_BYTES // 1024

    def __enter__(self) -> Self:
        blocks = [_libc.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
        self._behind = [_libc.malloc(BLOCK_BYTES) for _ in range(2)]
        for block in blocks:
            ctypes.memset(block, 1, BLOCK_BYTES)
        for block in blocks:
            _libc.free(block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for block in self._behind:
            _libc.free(block)


def anonymous_kb() -> int:
    """Of this process."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, "Linux says it"
    return int(found[1])
