"""
How an object goes to a node: in the fewest bytes that this node can make it of, made once for all that hold the same.

A change of an object that a thousand nodes hold is a thousand pushes of the same bytes: which of the three ways is the
shortest (what changed, packed, as it is), and the message it becomes, is found for the first and looked up for the
others. What a node holds is all that it depends on.

Invariants
    what is looked up is what would be made
    bytes kept <= max_bytes, but for one entry

Pure state: no clock, no I/O.
"""

from collections import OrderedDict
from typing import NamedTuple

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object
from cloudhub.outbox import DOUBTFUL
from cloudhub.patches import Patches
from cloudhub.wholes import Wholes
from link.codec import encode_delta
from link.frames import LARGE_BYTES, Delta

MAX_BYTES = (
    16 << 20
)  # what is under way to many nodes at a time; what goes to one node is looked up once and is no loss
ENTRY_BYTES = 300
KEY_BYTES = 160  # about what a delta takes besides its body
UNPACKING = 16  # times what a Push may cost is what its bodies come to at the node, however well they are packed
PATCH_WORTH = 8  # a difference this many times smaller than the body is not worth a look at the body packed


class Wire(NamedTuple):
    """One object's change, as it travels. Is a cloudhub.outbox.Sized."""

    data: bytes
    """link.codec.encode_delta's."""
    body_bytes: int
    """Of them, what the object itself takes."""
    cost: int
    is_patch: bool = False
    is_packed: bool = False

    @property
    def is_large(self) -> bool:
        return len(self.data) > LARGE_BYTES


class Wires:
    """What is told of objects, by what is held of them."""

    def __init__(self, patches: Patches, max_bytes: int = MAX_BYTES) -> None:
        self._patches = patches
        self._wholes = Wholes()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._made: OrderedDict[tuple[ObjectKey, ObjectVersion | None], tuple[ObjectVersion, Wire]] = OrderedDict()
        # What goes to all nodes is looked up a thousand times in a row.
        self._last_item: Object | None = None
        self._last_held: ObjectVersion | None = None
        self._last = Wire(b"", 0, 0)

    def __len__(self) -> int:
        """Bytes kept."""
        return self._bytes

    def replaced(self, previous: Object) -> None:
        """This state has just been replaced; nodes hold it still."""
        self._patches.remember(previous)

    def of(self, item: Object, held: ObjectVersion | None) -> Wire:
        """For a node that holds this version of it, or None of it."""
        if item is self._last_item and held == self._last_held:
            return self._last
        self._last = self._of(item, held)
        self._last_item, self._last_held = item, held
        return self._last

    def _of(self, item: Object, held: ObjectVersion | None) -> Wire:
        place = (item.key, held)
        found = self._made.get(place)
        if found is not None and found[0] == item.version:
            return found[1]
        wire = self._wire(item, held)
        if found is not None:
            self._bytes -= ENTRY_BYTES + len(found[1].data)
        self._made[place] = (item.version, wire)
        self._bytes += ENTRY_BYTES + len(wire.data)
        while self._bytes > self._max_bytes and len(self._made) > 1:
            _, (_, oldest) = self._made.popitem(last=False)
            self._bytes -= ENTRY_BYTES + len(oldest.data)
        return wire

    def _wire(self, item: Object, held: ObjectVersion | None) -> Wire:
        delta = self._delta(item, held)
        is_patch = bool(delta.base)
        cost = max(KEY_BYTES + len(delta.body), delta.whole_size // UNPACKING)
        return Wire(encode_delta(delta), len(delta.body), cost, is_patch, bool(delta.size) and not is_patch)

    def _delta(self, item: Object, held: ObjectVersion | None) -> Delta:
        plain = Delta(item.key, item.version, item.body)
        if held == DOUBTFUL:
            return plain  # something went wrong with what was sent before: nothing to be unpacked this time
        size = len(item.body)
        patch = self._patches.between(held, item)
        if patch is not None and held is not None:
            told = Delta(item.key, item.version, patch, held.revision, size)
            if len(patch) <= size // PATCH_WORTH:
                return told
        else:
            told = plain
        packed = self._wholes.packed(item)
        if packed is not None and len(packed) < len(told.body):
            return Delta(item.key, item.version, packed, size=size)
        return told


def removal(key: ObjectKey) -> Wire:
    """That the object is not the node's any more."""
    return Wire(encode_delta(Delta(key, None, b"")), 0, 0)
