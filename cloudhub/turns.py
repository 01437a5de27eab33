"""
Items of several groups, one of each group in turn: who has ten thousand waits no shorter than who has one.

Pure state: no clock, no I/O.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

G = TypeVar("G", bound=Hashable)
K = TypeVar("K", bound=Hashable)


class Turns(Generic[G, K]):
    """Within a group the items keep their order."""

    def __init__(self) -> None:
        self._groups: OrderedDict[G, dict[K, None]] = OrderedDict()
        """The group whose turn is next first; none is empty."""

    def __len__(self) -> int:
        """Groups that have something."""
        return len(self._groups)

    def put(self, group: G, item: K) -> None:
        """It stands in its group once."""
        self._groups.setdefault(group, {})[item] = None

    def take(self, may: Callable[[G], bool]) -> K | None:
        """The next item of the next group that may have a turn; None where there is none."""
        for group, items in self._groups.items():
            if may(group):
                item = next(iter(items))
                del items[item]
                self._groups.move_to_end(group)
                if not items:
                    del self._groups[group]
                return item
        return None
