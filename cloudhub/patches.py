"""
Bodies told as what changed: a new body compressed with the old one as its dictionary.

A one-field change of a 4 KB object becomes 90 to 230 bytes in 20 µs, whatever the field; it needs no
knowledge of JSON and does not care about lists, on which a merge patch of one of twenty twin values
costs the whole list.

Of each object the last few bodies are remembered, up to a bound over all. Where one is forgotten, or there is any
doubt, the whole body goes; docs/why/deltas.md has the figures and what was refused.

Invariants
    what is kept grows with the objects that there are, and never with how often they change
    bytes of old bodies kept <= max_bytes, but for one entry
    unpack_against(patch, its size, old body) is the new body, bit for bit; the node checks that against the version

Pure state: no clock, no I/O.
"""

from collections import OrderedDict
from typing import NamedTuple

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object
from link.packing import differing, repeats

MAX_BYTES = 64 << 20  # old bodies of 16,000 objects of 4 KB that changed lately; a hub's cache is larger by itself
VERSIONS = 8  # of one object: what a node that is connected was sent last is one of the last two or three
MIN_BODY_BYTES = 200  # below this the frame around it is what costs
WORTH = 0.8  # a patch that saves less is not worth an unpacking on a small machine
SMALL = 8  # a patch this many times smaller than the body is not worth a look at the body packed
ANEW = 32  # less than this part of the body in common saves nothing, and the body packed is for all nodes


class Patches:
    """The differences between versions that were and versions that are. What is made is kept by cloudhub.wires."""

    def __init__(self, max_bytes: int = MAX_BYTES, min_body_bytes: int = MIN_BODY_BYTES) -> None:
        self._max_bytes = max_bytes
        self._min_body_bytes = min_body_bytes
        self._bytes = 0
        self._old: OrderedDict[ObjectKey, dict[ObjectVersion, bytes]] = OrderedDict()
        """By object, the one changed least lately first; of each the oldest first."""

    def __len__(self) -> int:
        """Bytes kept."""
        return self._bytes

    def remember(self, previous: Object) -> None:
        """This body has just been replaced; nodes hold it still."""
        if len(previous.body) < self._min_body_bytes:
            return
        old = self._old.get(previous.key)
        if old is None:
            old = self._old[previous.key] = {}
        else:
            self._old.move_to_end(previous.key)
            self._drop(old, previous.version)  # it has come back, and is the newest of the old ones now
            if len(old) == VERSIONS:
                self._drop(old, next(iter(old)))
        old[previous.version] = previous.body
        self._bytes += len(previous.body)
        while self._bytes > self._max_bytes and (len(self._old) > 1 or len(old) > 1):
            key, oldest = next(iter(self._old.items()))
            self._drop(oldest, next(iter(oldest)))
            if not oldest:
                del self._old[key]

    def forget(self, key: ObjectKey) -> None:
        """The object is deleted: what has its name after it is another one, and no difference to it."""
        self._bytes -= sum(map(len, self._old.pop(key, {}).values()))

    def _drop(self, old: dict[ObjectVersion, bytes], version: ObjectVersion) -> None:
        self._bytes -= len(old.pop(version, b""))

    def old_body(self, held: ObjectVersion | None, item: Object) -> bytes | None:
        """The body that a node holds, where this can be told as what differs from it."""
        if held is None or held.uid != item.version.uid:
            return None
        return self._old.get(item.key, {}).get(held)

    def between(self, held: ObjectVersion | None, item: Object) -> bytes | None:
        """What turns the body that a node holds into this one; None where the whole body should go. O(both sizes)."""
        old = self.old_body(held, item)
        return None if old is None else patch(item.body, old).data


class Patch(NamedTuple):
    """What turns one body into another."""

    data: bytes | None
    """link.packing.pack_against's; None where it saves too little."""
    is_least: bool
    """The new body packed is no smaller, or it does not matter: it need not be looked at."""
    searching: bool | None = None
    """How that body is to be packed, where it is known; as link.packing.pack() has it."""


def patch(body: bytes, old: bytes) -> Patch:
    """
    What turns one body into the other. O(both sizes).

    Where nothing repeats in what differs, either this is packed or the body, whichever is the smaller one: both would
    be the same megabytes twice.
    """
    difference = differing(body, old)
    searching = repeats(difference.rest, difference.dictionary)
    if not searching and len(body) - len(difference.rest) < len(body) // ANEW:
        return Patch(None, False, searching)
    data = difference.packed(searching=searching)
    is_least = not searching or len(data) <= len(body) // SMALL
    return Patch(data if len(data) < WORTH * len(body) else None, is_least)
