"""
How much the join endpoint does for whom: a token bucket per address and one for all, in a table of bounded size.

A request is let in where both buckets have enough for it, and then costs both; one that turns out to be a guess costs
more, after the fact. "Token" is the bucket's word for a unit; here it is called a unit, for join tokens are near.

Invariants
    a request that is not let in costs nothing and leaves no trace, so that one address cannot use up what all share
    an address that is forgotten to make room has a full bucket by then: forgetting gives nobody anything
    a bucket never owes more than it can hold

Pure: the time is an argument, in seconds of a clock that only goes forward.
"""

from collections import OrderedDict
from typing import NamedTuple


class Rate(NamedTuple):
    """What one bucket holds and how fast it fills."""

    per_s: float
    burst: float
    """Units it holds when full, which it is at first."""

    @property
    def refill_s(self) -> float:
        """How long it takes from owing all it can to being full."""
        return 2 * self.burst / self.per_s


class Bucket:
    """One bucket: how full it was, and when."""

    __slots__ = ("_as_of_s", "_level", "_rate")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self._rate = rate
        self._level = rate.burst
        self._as_of_s = now_s

    def wait_s(self, units: float, now_s: float) -> float:
        """How long until it has this many units; 0 when it has them."""
        return max(0.0, units - self._at(now_s)) / self._rate.per_s

    def charge(self, units: float, now_s: float) -> None:
        self._level = max(self._at(now_s) - units, -self._rate.burst)
        self._as_of_s = now_s

    def _at(self, now_s: float) -> float:
        return min(self._rate.burst, self._level + (now_s - self._as_of_s) * self._rate.per_s)


class Buckets:
    """Who may ask, and when again."""

    def __init__(self, each: Rate, overall: Rate, table: int, now_s: float = 0.0) -> None:
        """
        each: for one origin. overall: for all together. table: how many origins are remembered.

        ValueError where the table is too small for what the overall bucket lets in: then forgetting would forgive.
        """
        if table < overall.burst + overall.per_s * each.refill_s:
            raise ValueError("the table must hold whoever can be let in while a bucket fills")
        self._each = each
        self._table = table
        self._overall = Bucket(overall, now_s)
        self._origins: OrderedDict[str, Bucket] = OrderedDict()  # who was let in longest ago comes first

    def __len__(self) -> int:
        return len(self._origins)

    def enter(self, origin: str, now_s: float) -> float:
        """Let a request of one unit in, or say for how many seconds it must wait; 0 where it is let in."""
        bucket = self._origins.get(origin)
        wait_s = max(self._overall.wait_s(1, now_s), 0.0 if bucket is None else bucket.wait_s(1, now_s))
        if wait_s > 0:
            return wait_s
        if bucket is None:
            bucket = self._origins[origin] = Bucket(self._each, now_s)
        self._origins.move_to_end(origin)
        if len(self._origins) > self._table:
            self._origins.popitem(last=False)
        bucket.charge(1, now_s)
        self._overall.charge(1, now_s)
        return 0.0

    def charge(self, origin: str, each: float, overall: float, now_s: float) -> None:
        """Make a request that was let in dearer: so many more units of its origin's bucket, and of everybody's."""
        if (bucket := self._origins.get(origin)) is not None:
            self._origins.move_to_end(origin)
            bucket.charge(each, now_s)
        self._overall.charge(overall, now_s)
