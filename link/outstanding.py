"""
Reports that are under way, entry by entry: at the edge until the hub has said what became of each, at the hub until it
has said so.

Pushes are acknowledged in their order, for they are committed in it. What is reported is not: each entry is a write of
its own at the apiserver, and one that fails must not hold up the others. So entries have numbers, dense within a
connection and a class, and each number is settled once, in any order.

Invariants
    what is outstanding is within the window, but for the last frame
    a number is settled once, and only one that is outstanding
"""

from collections.abc import Iterable, Sequence

from link.frames import REPORT_WINDOW_BYTES, REPORT_WINDOW_ENTRIES, ReportEntry

ENTRY_BYTES = 16  # of an entry besides its texts, generously


def size_of(entry: ReportEntry) -> int:
    """Bytes that an entry counts for, at both ends."""
    key, field, value = entry
    return len(value) + len(field) + len(key.name) + len(key.namespace) + ENTRY_BYTES


class Outstanding:
    """The entries of one class."""

    __slots__ = ("_bytes", "_sizes", "last")

    def __init__(self) -> None:
        self.last = 0
        """The number of the last entry that there was."""
        self._sizes: dict[int, int] = {}
        self._bytes = 0

    def __contains__(self, number: int) -> bool:
        return number in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def room(self) -> int:
        """Bytes of entries that may follow; whoever has room may send one frame, however large."""
        if len(self._sizes) >= REPORT_WINDOW_ENTRIES:
            return 0
        return max(0, REPORT_WINDOW_BYTES - self._bytes)

    def add(self, entries: Sequence[ReportEntry]) -> int:
        """Number these; the number of the first."""
        first = self.last + 1
        for entry in entries:
            self.last += 1
            size = self._sizes[self.last] = size_of(entry)
            self._bytes += size
        return first

    def settle(self, numbers: Iterable[int]) -> int | None:
        """These are done with, each of them; or none of them, and the first that is not outstanding is returned."""
        done: dict[int, None] = {}
        for number in numbers:
            if number not in self._sizes or number in done:
                return number
            done[number] = None
        for number in done:
            self._bytes -= self._sizes.pop(number)
        return None
