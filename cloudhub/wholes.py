"""
Bodies that go whole, packed once per version and shared by all nodes.

A node's first sync and every new object go whole. Packing takes longer than all else a hub does to send an
object, so what came of it is kept: one entry per object, made when the first node asks, the one least lately
asked for forgotten first. Forgetting costs another packing and nothing else.

Invariants
    bytes kept <= max_bytes, but for one entry
    unpack(packed(item), len(item.body)) == item.body

Pure state: no clock, no I/O.
"""

from collections import OrderedDict
from typing import NamedTuple

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object
from link.packing import pack

MAX_BYTES = 32 << 20  # about 30,000 pods of 4 KB; the cache holds four times as much of them
ENTRY_BYTES = 250  # what an entry takes besides its bytes: a tuple, a node of the ordered dict, its place in a table
MIN_BODY_BYTES = 64
WORTH = 0.8  # what saves less is not worth an unpacking on a small machine; base64 saves a quarter


class Wholes:
    """The packed bodies of objects as they are now."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._made: OrderedDict[ObjectKey, tuple[ObjectVersion, bytes | None]] = OrderedDict()

    def __len__(self) -> int:
        """Bytes kept."""
        return self._bytes

    def packed(self, item: Object) -> bytes | None:
        """The body as link.packing packs it; None where it should go as it is."""
        found = self.known(item)
        if not found.is_known:
            found = Known(True, packed(item.body))
            self.keep(item, found.data)
        return found.data

    def known(self, item: Object) -> "Known":
        """What was made of it."""
        made = self._made.get(item.key)
        if made is None or made[0] != item.version:
            return Known(False)
        self._made.move_to_end(item.key)
        return Known(True, made[1])

    def keep(self, item: Object, data: bytes | None) -> None:
        """What packed() gave for its body."""
        if (made := self._made.pop(item.key, None)) is not None:
            self._bytes -= _cost(made[1])
        self._made[item.key] = (item.version, data)
        self._bytes += _cost(data)
        while self._bytes > self._max_bytes and len(self._made) > 1:
            _, (_, oldest) = self._made.popitem(last=False)
            self._bytes -= _cost(oldest)

    def forget(self, key: ObjectKey) -> None:
        """The object is deleted."""
        made = self._made.pop(key, None)
        if made is not None:
            self._bytes -= _cost(made[1])


class Known(NamedTuple):
    """Whether a body was packed, and what came of it."""

    is_known: bool
    data: bytes | None = None


def packed(body: bytes, searching: bool | None = None) -> bytes | None:
    """The body as link.packing.pack() packs it; None where that saves too little."""
    if len(body) < MIN_BODY_BYTES:
        return None
    data = pack(body, searching=searching)
    return data if len(data) < WORTH * len(body) else None


def _cost(data: bytes | None) -> int:
    return ENTRY_BYTES + len(data or b"")
