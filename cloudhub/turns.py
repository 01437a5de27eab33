"""
For which of a node's keys a certificate may be asked: so many in an hour, whoever signs.

Each certificate that somebody is asked for costs him something that stays: an object in the cluster's store for an hour
or a day, a line in its audit. Who may have one, with a new key each time, could fill that with nobody noticing. What is
counted is keys: the same one again is the same request.

Each hub process counts for itself, so a node that asks all of them gets as many times as much.

Invariants
    of the keys of one node, MOST are let in at most while the time given passes
    the key that was let in last comes again for nothing
    the table does not grow beyond its size: who came longest ago is forgotten

Pure: the time is an argument, in seconds of a clock that only goes forward.
"""

from collections import OrderedDict
from typing import NamedTuple

from apimachinery.errors import TooManyRequests
from apimachinery.keys import Node

MOST = 12
"""In an hour. A node needs one in months; one whose certificate lives for an hour, two."""
HOUR_S = 3600.0
NODES = 8192
"""Remembered, some 4 MB: to be forgotten takes as many others, which the endpoint's own limit spreads over minutes."""


class NotYet(TooManyRequests):
    """It may ask later: another key of this node is waited for, or too many were asked for."""


class Turn(NamedTuple):
    """Who was let in last, of one node."""

    key: str
    at_s: float


class Turns:
    """Who may ask, and when again."""

    def __init__(self, most: int = MOST, nodes: int = NODES) -> None:
        self._most = most
        self._nodes = nodes
        self._taken: OrderedDict[Node, tuple[str, tuple[float, ...]]] = OrderedDict()

    def last(self, node: Node) -> Turn | None:
        key, times = self._taken.get(node, ("", ()))
        return Turn(key, times[-1]) if times else None

    def take(self, node: Node, key: str, now_s: float, within_s: float = HOUR_S) -> float:
        """Let a key in, or say for how many seconds it must wait; 0 where it is let in. within_s: MOST in that time."""
        last, times = self._taken.get(node, ("", ()))
        if last == key:
            return 0.0
        if len(times) == self._most and (wait_s := times[0] + within_s - now_s) > 0:
            return wait_s
        self._taken[node] = (key, (*times[-self._most + 1 :], now_s))
        self._taken.move_to_end(node)
        if len(self._taken) > self._nodes:
            self._taken.popitem(last=False)
        return 0.0
