"""
What waits to be packed somewhere else, for whom, and what is next: one of each node's in turn.

There is one packer, and a body of 3 MB takes it up to a quarter of a second. In the order in which they came, one
node's fifty such bodies would hold up another's single one for some ten seconds, and one that changes all the time
would stand in the line in every state that it ever had.

Invariants
    a place, an object and what is held of it, waits once, however many nodes ask for it, in the state asked for last
    a node has one place of an object at most: what it asks for takes the place of what it asked for before
    whoever asks is served after at most one of each other node's that waits then, whatever these ask for later
    what nobody waits for any more is not given out

Pure state: no clock, no I/O. cloudhub.wires asks for what is next when the packer is free.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import Object


class Order(NamedTuple):
    """One object, to be made into what goes to nodes that hold this version of it, or None of it."""

    item: Object
    held: ObjectVersion | None


class _Waiting:
    """A place, and who asked for it, the first of them first."""

    __slots__ = ("item", "nodes")

    def __init__(self, item: Object) -> None:
        self.item = item
        self.nodes: dict[Node, None] = {}


class PackOrders:
    """Those of one hub."""

    def __init__(self) -> None:
        self._turns: OrderedDict[Node, dict[ObjectKey, ObjectVersion | None]] = OrderedDict()
        """What each node asked for, the oldest first; the node whose turn is next first, and none without anything."""
        self._waiting: dict[ObjectKey, dict[ObjectVersion | None, _Waiting]] = {}
        """By object and what is held of it; neither is there without anybody who asked."""
        self._served: Node | None = None
        """Whose turn was the last: it stands at the end when the next one is looked for, behind who came meanwhile."""

    def __len__(self) -> int:
        """Places."""
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Order]:
        """All that wait, in no order."""
        return (Order(each.item, held) for places in self._waiting.values() for held, each in places.items())

    def put(self, node: Node, item: Object, held: ObjectVersion | None) -> None:
        """
        The node waits for this state of an object, made of what it holds.

        Where it has asked for another of the object before, this one has that one's turn.
        """
        key = item.key
        asked = self._turns.setdefault(node, {})
        if key in asked and asked[key] != held:
            self._leave(node, key, asked[key])
        asked[key] = held
        places = self._waiting.setdefault(key, {})
        waiting = places.get(held)
        if waiting is None:
            waiting = places[held] = _Waiting(item)
        waiting.item = item
        waiting.nodes[node] = None

    def state(self, key: ObjectKey, held: ObjectVersion | None) -> ObjectVersion | None:
        """In which version an object waits to be made of what is held; None where it does not."""
        waiting = self._waiting.get(key, {}).get(held)
        return None if waiting is None else waiting.item.version

    def take(self, awaits: Callable[[Node, ObjectKey, ObjectVersion | None], bool]) -> Order | None:
        """
        What is to be made next, which does not wait any more then; None where there is nothing.

        awaits: whether a node that asked for this still waits for it. Where it does not that costs it no turn.
        """
        if self._served is not None and self._served in self._turns:
            self._turns.move_to_end(self._served)
        self._served = None
        while self._turns:
            node, asked = next(iter(self._turns.items()))
            key, held = next(iter(asked.items()))
            if awaits(node, key, held):
                order = Order(self._waiting[key][held].item, held)
                self._served = node
                for each in list(self._waiting[key][held].nodes):
                    self._withdraw(each, key)
                return order
            self._withdraw(node, key)
        return None

    def forget(self, key: ObjectKey) -> None:
        """The object is gone; nobody waits for it in any state."""
        for waiting in list(self._waiting.get(key, {}).values()):
            for node in list(waiting.nodes):
                self._withdraw(node, key)

    def _withdraw(self, node: Node, key: ObjectKey) -> None:
        asked = self._turns[node]
        self._leave(node, key, asked.pop(key))
        if not asked:
            del self._turns[node]

    def _leave(self, node: Node, key: ObjectKey, held: ObjectVersion | None) -> None:
        places = self._waiting[key]
        del places[held].nodes[node]
        if not places[held].nodes:
            del places[held]
            if not places:
                del self._waiting[key]
