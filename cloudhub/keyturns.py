"""
For how many keys a node, or a token, may have certificates asked for in an hour, whoever signs.

Each certificate that somebody is asked for costs him something that stays: an object in the cluster's store for an hour
or a day, a line in its audit. Who may have one, with a new key each time, could fill that with nobody noticing. What is
counted is keys: the same one again is the same request.

Each hub process counts for itself, so a node that asks all of them gets as many times as much.

Invariants
    of one's keys, no more than may are let in while the time given passes
    the key that was let in last comes again for nothing
    the table does not grow beyond its size: who came longest ago is forgotten

Pure: the time is an argument, in seconds of a clock that only goes forward.
"""

from collections import OrderedDict
from typing import NamedTuple

from apimachinery.errors import TooManyRequests

MOST = 12
"""In an hour. A node needs one in months; one whose certificate lives for an hour, two."""
HOUR_S = 3600.0
NODES = 8192
"""Remembered, some 4 MB: to be forgotten takes as many others, which the endpoint's own limit spreads over minutes."""
WAITING_MOST, TOKENS = 1024, 256
"""Requests of one token that come to wait for a person in an hour, and tokens for which that is counted."""


class NotYet(TooManyRequests):
    """It may ask later: another key of this node is waited for, or there are too many."""


class Turn(NamedTuple):
    """Which key was let in last."""

    key: str
    at_s: float


class Turns:
    """Who may ask, and when again."""

    def __init__(self, most: int = MOST, table: int = NODES) -> None:
        """most: keys of one that are let in within a time. table: how many are remembered."""
        self._most = most
        self._table = table
        self._taken: OrderedDict[str, tuple[str, tuple[float, ...]]] = OrderedDict()

    def last(self, whose: str) -> Turn | None:
        key, times = self._taken.get(whose, ("", ()))
        return Turn(key, times[-1]) if times else None

    def wait_s(self, whose: str, now_s: float, within_s: float = HOUR_S) -> float:
        """How long until another key is let in, of so many within that time; 0 where it is now."""
        _, times = self._taken.get(whose, ("", ()))
        return max(0.0, times[0] + within_s - now_s) if len(times) == self._most else 0.0

    def take(self, whose: str, key: str, now_s: float, within_s: float = HOUR_S) -> float:
        """Let a key in, or say for how many seconds it must wait, as wait_s(); 0 where it is let in."""
        last, times = self._taken.get(whose, ("", ()))
        if last == key:
            return 0.0
        if (wait_s := self.wait_s(whose, now_s, within_s)) > 0:
            return wait_s
        self._taken[whose] = (key, (*times[-self._most + 1 :], now_s) if self._most > 1 else (now_s,))
        self._taken.move_to_end(whose)
        if len(self._taken) > self._table:
            self._taken.popitem(last=False)
        return 0.0
