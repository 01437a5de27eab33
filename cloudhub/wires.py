"""
How an object goes to a node: in the fewest bytes that this node can make it of, made once for all that hold the same.

A change of an object that a thousand nodes hold is a thousand pushes of the same bytes: which of the three ways is the
shortest (what changed, packed, as it is), and the message it becomes, is found for the first and looked up for the
others. What a node holds is all that it depends on.

Packing a body of 3 MB takes up to a quarter of a second. What is longer than ASIDE_BYTES is packed somewhere else, one
at a time, in turns of the nodes that ask for it (cloudhub.packorders), and goes to no node until it is.

Invariants
    what is looked up is what would be made
    what is kept is of objects as they are: a change or a deletion drops what was made before it
    bytes kept <= max_bytes, but for one entry
    nothing longer than ASIDE_BYTES is packed here, if there is somewhere else
    one at a time is made there, and only what somebody still waits for

Pure state: no clock, no I/O.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import Object
from cloudhub.outbox import DOUBTFUL
from cloudhub.packorders import PackOrders
from cloudhub.patches import Patch, Patches, patch
from cloudhub.wholes import Known, Wholes, packed
from link.frames import LARGE_BYTES, Delta
from link.pushcodec import encode_delta

MAX_BYTES = (
    16 << 20
)  # what is under way to many nodes at a time; what goes to one node is looked up once and is no loss
ASIDE_BYTES = 64 << 10  # packed in 5 ms, a turn of the hub's
MAX_EARLIER = 16  # of what was made somewhere else and may be of a state that has passed: 50 MB at worst
ENTRY_BYTES = 300
KEY_BYTES = 160  # about what a delta takes besides its body
UNPACKING = 16  # times what a Push may cost is what its bodies come to at the node, however well they are packed


class Wire(NamedTuple):
    """One object's change, as it travels. Is a cloudhub.outbox.Sized."""

    data: bytes
    """link.pushcodec.encode_delta's."""
    body_bytes: int
    """Of them, what the object itself takes."""
    cost: int
    is_patch: bool = False
    is_packed: bool = False
    is_large: bool = False
    """It is too large for a push."""
    is_awaited: bool = False
    """It is to be made somewhere else, for those that ask() for it; large until then."""


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

Awaits = Callable[[Node, ObjectKey, ObjectVersion | None], bool]
"""Whether a node that asked for what is made of an object and of what it holds of it still waits for that."""

_AWAITED = Wire(b"", 0, 0, is_large=True, is_awaited=True)


class _Making(NamedTuple):
    """What is being made somewhere else."""

    key: ObjectKey
    held: ObjectVersion | None
    version: ObjectVersion


class Wires:
    """What is told of objects, by what is held of them."""

    def __init__(
        self,
        patches: Patches,
        max_bytes: int = MAX_BYTES,
        *,
        aside: Aside | None = None,
        made: Callable[[ObjectKey], None] = lambda _: None,
        awaits: Awaits = lambda _node, _key, _held: True,
    ) -> None:
        """
        aside: where what takes long is made, one at a time; None for here. made: called when what was awaited is there.
        """
        self._patches = patches
        self._aside = aside
        self._tell = made
        self._earlier: dict[ObjectKey, tuple[ObjectVersion, ObjectVersion | None, Wire]] = {}
        """What was made somewhere else last of an object, which may have changed meanwhile, and of what it was made."""
        self._orders = PackOrders()
        self._awaits = awaits
        self._making: _Making | None = None
        self._is_busy = False
        """Also while what is made is of no use any more."""
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
        self._orders.forget(key)
        if self._making is not None and self._making.key == key:
            self._making = None
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
        is_costly = old is not None or not whole.is_known
        if is_costly and self._aside is not None and len(item.body) > ASIDE_BYTES:
            return _AWAITED
        self.prepared += len(item.body) if is_costly else 0
        return self._keep(item, held, _parts(item.body, old, whole))

    def ask(self, node: Node, item: Object, held: ObjectVersion | None) -> None:
        """
        This node waits for what of() said is awaited.

        In its turn it is made of the state of the object that was asked for last. While a state of it is being made
        nothing is asked for: whoever is told that it is there looks again.
        """
        if self._making is None or self._making[:2] != (item.key, held):
            self._orders.put(node, item, held)
            self._begin()

    def _begin(self) -> None:
        """Have the next one made, if nothing is."""
        if self._is_busy or (order := self._orders.take(self._awaits)) is None:
            return
        assert self._aside is not None, "without it nothing is awaited"
        item, held = order
        self._making, self._is_busy = _Making(item.key, held, item.version), True
        make = partial(_parts, item.body, self._patches.old_body(held, item), self._wholes.known(item))
        self._aside(make, partial(self._came, item, held))

    def _came(self, item: Object, held: ObjectVersion | None, parts: Parts) -> None:
        is_awaited, self._making, self._is_busy = self._making is not None, None, False
        if is_awaited:  # it may have been deleted meanwhile, and made anew
            entry = self._made.get(item.key)
            is_current = entry is None or entry[0] == item.version
            wire = self._keep(item, held, parts) if is_current else self._wire(item, held, parts)
            self._earlier.pop(item.key, None)
            self._earlier[item.key] = (item.version, held, wire)
            while len(self._earlier) > MAX_EARLIER:
                self._earlier.pop(next(iter(self._earlier)))
            self._tell(item.key)
        self._begin()

    def awaited(self, key: ObjectKey, held: ObjectVersion | None) -> ObjectVersion | None:
        """Which state of an object is being made, or waits for that, for nodes that hold this version of it."""
        if self._making is not None and self._making[:2] == (key, held):
            return self._making.version
        return self._orders.state(key, held)

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
    difference = Patch(None, False) if old is None else patch(body, old)
    if difference.is_least:
        return Parts(difference.data, Known(False))
    return Parts(difference.data, whole if whole.is_known else Known(True, packed(body, difference.searching)))


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
