"""
When a node's next device may be written, while the cluster changes something else.

A node can always report more than there is time to write. While pods change, its devices are written one at a time, and
after each of them comes a rest of REST times what it took: so one node takes a quarter of one connection to the
apiserver at most, some 25 Devices a second where one takes 10 ms, and less where the apiserver has much to do and each
takes longer. Nodes do not wait for each other here.

A write that has taken YOUNG_S waits for something else than its turn, as for a webhook that hangs. It counts for no
more than that, so one Device whose write hangs holds up no other.

Invariants
    of one node no write begins within YOUNG_S of the one before, nor within its rest
    nobody rests for longer than REST * YOUNG_S

Pure: no clock, no I/O.
"""

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from cloudhub.pace import YOUNG_S

REST = 3

G = TypeVar("G", bound=Hashable)
K = TypeVar("K", bound=Hashable)


class _Last(NamedTuple, Generic[K]):
    """The write of a group that was begun last."""

    item: K
    began: float
    until: float
    """Before that the next one may not begin."""


class Rests(Generic[G, K]):
    """Groups, nodes that is, and what was begun for each."""

    def __init__(self) -> None:
        self._last: dict[G, _Last[K]] = {}

    def begin(self, group: G, item: K, now: float) -> None:
        self._last[group] = _Last(item, now, now + YOUNG_S)

    def end(self, group: G, item: K, now: float) -> None:
        """Harmless for what is not the last one that was begun."""
        last = self._last.get(group)
        if last is not None and last.item == item:
            self._last[group] = last._replace(until=now + REST * min(now - last.began, YOUNG_S))

    def may_begin(self, group: G, now: float) -> bool:
        last = self._last.get(group)
        return last is None or last.until <= now

    def next_deadline(self, now: float) -> float | None:
        """When a group may begin that may not now; None where all may. Forgets those."""
        self._last = {group: last for group, last in self._last.items() if last.until > now}
        return min((last.until for last in self._last.values()), default=None)
