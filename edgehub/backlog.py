"""
Which rows of the durable outbox are to be reported next, of one class and in one session.

Rows go up in their order, once, and are deleted when the hub has settled them. What the hub hands back, because the
apiserver takes others but not this, stays in the outbox and is postponed, longer each time: by its object and field, so
that a later value of the same does not take its place in the window at once.

Invariants
    a row that is under way is not sent again; one that is neither under way nor postponed is sent, or comes with read()
    what is postponed is at most what the outbox has, and is looked at again after at most MAX_S

Pure state: no clock, no I/O. The shell is edgehub/connector.py.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from apimachinery.keys import ObjectKey
from link.frames import ReportEntry

LEAST_S = 2.0  # a hub has tried three times by then, in about as long
MAX_S = 60.0
FORGET_S = 60.0  # after it was due: the row of what was not sent again by then is gone from the outbox
LOOK_S = 1.0  # between two looks: each reads all that is postponed

Name = tuple[ObjectKey, str]
Row = tuple[int, ReportEntry]


class _Postponed(NamedTuple):
    until: float
    times: int


class Backlog:
    """Lives as long as its session, for the next hub may have no trouble with it."""

    def __init__(self) -> None:
        self.after = 0
        """Rows after this one are to be read."""
        self.is_read = False
        """Whether there are none, as far as is known here; whoever puts one sets it back."""
        self._under_way: dict[int, Name] = {}
        self._postponed: dict[Name, _Postponed] = {}
        self._first_left: int | None = None
        """The first row that was passed over, or came back."""
        self._due = float("inf")
        """When the first of those is to be sent."""
        self._looked_at = float("-inf")

    def choose(self, rows: Sequence[Row], now: float) -> list[Row]:
        """Those of the rows just read that are to be sent; they count as read, and as under way."""
        chosen = []
        self.is_read = not rows
        for number, entry in rows:
            self.after = number
            if number in self._under_way:
                continue
            name = (entry.key, entry.field)
            postponed = self._postponed.get(name)
            if postponed is not None and postponed.until > now:
                self._leave(number, postponed.until)
                continue
            self._under_way[number] = name
            chosen.append((number, entry))
        return chosen

    def settle(self, rows: Sequence[int]) -> None:
        """The cloud has these, or never will."""
        for row in rows:
            self._postponed.pop(self._under_way.pop(row), None)

    def hand_back(self, rows: Sequence[int], now: float, jitter: Callable[[], float]) -> None:
        """These are to be sent again, later, and not all at once. jitter: gives numbers uniform in [0, 1)."""
        for row in rows:
            name = self._under_way.pop(row)
            times = self._postponed[name].times + 1 if name in self._postponed else 0
            delay_s = min(MAX_S, LEAST_S * 2.0 ** min(times, 16)) * (1 + jitter()) / 2
            self._postponed[name] = _Postponed(now + delay_s, times)
            self._leave(row, now + delay_s)

    def next_look(self) -> float | None:
        """When look() has something to do; None as long as nothing is left behind."""
        return None if self._first_left is None else max(self._due, self._looked_at + LOOK_S)

    def look(self, now: float) -> None:
        """Go back to what was left behind, where something of it is due."""
        due = self.next_look()
        if due is None or now < due:
            return
        assert self._first_left is not None, "else nothing is due"
        self.after, self.is_read = min(self.after, self._first_left - 1), False
        self._first_left, self._due, self._looked_at = None, float("inf"), now
        if any(postponed.until < now - FORGET_S for postponed in self._postponed.values()):
            sent = set(self._under_way.values())
            self._postponed = {
                name: postponed
                for name, postponed in self._postponed.items()
                if postponed.until >= now - FORGET_S or name in sent
            }

    def _leave(self, row: int, until: float) -> None:
        self._first_left = row if self._first_left is None else min(row, self._first_left)
        self._due = min(self._due, until)
