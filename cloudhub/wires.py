"""
How an object goes to a node: in the fewest bytes that this node can make it of, made once for all that hold the same.

A change of an object that a thousand nodes hold is a thousand pushes of the same bytes: which of the three ways is the
shortest (what changed, packed, as it is), and the message it becomes, is found for the first and looked up for the
others. What a node holds is all that it depends on.

Packing a body of 3 MB takes a third of a second. What is longer than ASIDE_BYTES is packed somewhere else, and goes to
no node until it is.

Invariants
    what is looked up is what would be made
    what is kept is of objects as they are: a change or a deletion drops what was made before it
    bytes kept <= max_bytes, but for one entry
    nothing longer than ASIDE_BYTES is packed here, if there is somewhere else

Pure state: no clock, no I/O.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object
from cloudhub.outbox import DOUBTFUL
from cloudhub.patches import Patches, patch
from cloudhub.wholes import Known, Wholes, packed
from link.codec import encode_delta
from link.frames import LARGE_BYTES, Delta

MAX_BYTES = (
    16 << 20
)  # what is under way to many nodes at a time; what goes to one node is looked up once and is no loss
ASIDE_BYTES = 64 << 10  # packed in 5 ms, a turn of the hub's
MAX_EARLIER = 16  # of what was made somewhere else and may be of a state that has passed: 50 MB at worst
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
    is_large: bool = False
    """It is too large for a push."""
    is_awaited: bool = False
    """It is being made somewhere else, and is to be asked for again; large until then."""


class Parts(NamedTuple):
    """What takes long to make of an object."""

    patch: bytes | None
    """What it differs by from what is held; None where there is no such, or it saves too little."""
    whole: Known
    """The body packed, where it was needed."""


AS_IT_IS = Parts(None, Known(False))
"""Nothing but the body, as it is."""

Aside = Callable[[Callable[[], Parts], Callable[[Parts], None]], None]
"""Have a function called somewhere else, and what it gives handed to another here, later and never from here."""

_AWAITED = Wire(b"", 0, 0, is_large=True, is_awaited=True)


class Wires:
    """What is told of objects, by what is held of them."""

    def __init__(
        self,
        patches: Patches,
        max_bytes: int = MAX_BYTES,
        *,
        aside: Aside | None = None,
        made: Callable[[ObjectKey], None] = lambda _: None,
    ) -> None:
        """aside: where what takes long is made; None for here. made: called when what was awaited is there."""
        self._patches = patches
        self._aside = aside
        self._tell = made
        self._earlier: dict[ObjectKey, tuple[ObjectVersion, ObjectVersion | None, Wire]] = {}
        """What was made somewhere else last of an object, which may have changed meanwhile, and of what it was made."""
        self._awaited: dict[tuple[ObjectKey, ObjectVersion | None], ObjectVersion] = {}
        self._wholes = Wholes()
        self.prepared = 0
        """Bytes that were compared or packed here, and not somewhere else; it only grows."""
        self._max_bytes = max_bytes
        self._bytes = 0
        self._made: OrderedDict[ObjectKey, tuple[ObjectVersion, dict[ObjectVersion | None, Wire]]] = OrderedDict()
        """By object: its version, and wires by what is held of it. First the one that was changed least lately."""
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
        self._drop(previous.key)

    def deleted(self, key: ObjectKey) -> None:
        """The object is gone."""
        self._patches.forget(key)
        self._wholes.forget(key)
        self._earlier.pop(key, None)
        for place in [place for place in self._awaited if place[0] == key]:
            del self._awaited[place]
        self._drop(key)
        if self._last_item is not None and self._last_item.key == key:
            self._last_item = None

    def of(self, item: Object, held: ObjectVersion | None) -> Wire:
        """For a node that holds this version of it, or None of it."""
        if item is self._last_item and held == self._last_held:
            return self._last
        wire = self._of(item, held)
        if not wire.is_awaited:
            self._last, self._last_item, self._last_held = wire, item, held
        return wire

    def _of(self, item: Object, held: ObjectVersion | None) -> Wire:
        entry = self._made.get(item.key)
        if entry is not None:
            if entry[0] != item.version:
                self._drop(item.key)
            elif (found := entry[1].get(held)) is not None:
                return found
        if held == DOUBTFUL:
            return self._keep(item, held, AS_IT_IS)
        old, whole = self._patches.old_body(held, item), self._wholes.known(item)
        make = partial(_parts, item.body, old, whole)
        if self._aside is None or len(item.body) <= ASIDE_BYTES:
            if old is not None or not whole.is_known:
                self.prepared += len(item.body)
            return self._keep(item, held, make())
        place = (item.key, held)
        if place not in self._awaited:
            self._awaited[place] = item.version
            self._aside(make, partial(self._came, item, held))
        return _AWAITED

    def _came(self, item: Object, held: ObjectVersion | None, parts: Parts) -> None:
        if self._awaited.get((item.key, held)) != item.version:
            return  # it was deleted meanwhile, and perhaps made anew
        del self._awaited[item.key, held]
        entry = self._made.get(item.key)
        if entry is None or entry[0] == item.version:
            self._keep(item, held, parts)
        self._earlier[item.key] = (item.version, held, self._wire(item, held, parts))
        while len(self._earlier) > MAX_EARLIER:
            self._earlier.pop(next(iter(self._earlier)))
        self._tell(item.key)

    def awaited(self, key: ObjectKey, held: ObjectVersion | None) -> ObjectVersion | None:
        """Which state of an object is being made for nodes that hold this version of it."""
        return self._awaited.get((key, held))

    def made(self, key: ObjectKey, version: ObjectVersion | None, held: ObjectVersion | None) -> Wire | None:
        """What was made somewhere else of this state of an object, which it may have left, if it was the last."""
        found = self._earlier.get(key)
        return None if found is None or found[:2] != (version, held) else found[2]

    def _keep(self, item: Object, held: ObjectVersion | None, parts: Parts) -> Wire:
        if parts.whole.is_known:
            self._wholes.keep(item, parts.whole.data)
        wire = self._wire(item, held, parts)
        size = ENTRY_BYTES + len(wire.data)
        while self._made and self._bytes + size > self._max_bytes:
            self._drop(next(iter(self._made)))
        self._made.setdefault(item.key, (item.version, {}))[1][held] = wire
        self._bytes += size
        return wire

    def _drop(self, key: ObjectKey) -> None:
        entry = self._made.pop(key, None)
        if entry is not None:
            self._bytes -= sum(ENTRY_BYTES + len(wire.data) for wire in entry[1].values())

    def _wire(self, item: Object, held: ObjectVersion | None, parts: Parts) -> Wire:
        delta = _delta(item, held, parts)
        is_patch = bool(delta.base)
        cost = max(KEY_BYTES + len(delta.body), delta.whole_size // UNPACKING)
        data = encode_delta(delta)
        is_packed = bool(delta.size) and not is_patch
        return Wire(data, len(delta.body), cost, is_patch, is_packed, len(data) > LARGE_BYTES)


def _parts(body: bytes, old: bytes | None, whole: Known) -> Parts:
    """What may be needed of a body, given the one that is held and what is known of it packed. O(both sizes)."""
    difference = None if old is None else patch(body, old)
    if difference is not None and len(difference) <= len(body) // PATCH_WORTH:
        return Parts(difference, Known(False))
    return Parts(difference, whole if whole.is_known else Known(True, packed(body)))


def _delta(item: Object, held: ObjectVersion | None, parts: Parts) -> Delta:
    plain, size = Delta(item.key, item.version, item.body), len(item.body)
    if held == DOUBTFUL:
        return plain  # something went wrong with what was sent before: nothing to be unpacked this time
    told = plain
    if parts.patch is not None and held is not None:
        told = Delta(item.key, item.version, parts.patch, held.revision, size)
    whole = parts.whole.data
    if whole is not None and len(whole) < len(told.body):
        return Delta(item.key, item.version, whole, size=size)
    return told


def removal(key: ObjectKey) -> Wire:
    """That the object is not the node's any more."""
    return Wire(encode_delta(Delta(key, None, b"")), 0, 0)
