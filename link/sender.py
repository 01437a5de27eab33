"""
The sending half of a numbered stream: what was sent, what was acknowledged, how much may be under way.

It knows numbers and sizes, never contents; whoever sends keeps what each number meant. A stream may be of several
classes, which share its numbers and have a window each: what is under way of one takes no room from the other.

A window of fixed size is either small for a long line or large for a slow one: 256 KiB fill a round trip of
200 ms at 10 Mbit/s, and take 2 s at 1 Mbit/s. What matters is how long something urgent waits behind it. So a
window that was full and yet passed promptly may grow, up to `growth` times its size, and is small again with the first
frame that takes twice as long. What counts is how much longer a frame takes than the quickest did, for that is what it
waited (as in LEDBAT, RFC 6817): a long line is not a slow one.

Invariants
    0 <= acked <= sent, and every number in (acked, sent] has a size
    the frames under way of a class are within its window's `frames` and growth * `bytes`, but for the last one, which
    may go where any room is left, so that a frame larger than the window is not stuck for ever
"""

from link.errors import RemoteProtocolError
from link.frames import Allowance


class Window:
    """How much of one class is under way, and may be."""

    # A connection has four of these: with slots, and no deques, 1.5 KB with all that belongs to them instead of 6.
    __slots__ = ("_allowance", "_bytes", "_quickest_s", "_size", "under_way", "under_way_bytes")

    def __init__(self, allowance: Allowance) -> None:
        self.under_way = 0
        self.under_way_bytes = 0
        self._allowance = allowance
        self._size = allowance.bytes
        self._quickest_s = float("inf")

    def room(self) -> int:
        """How many bytes may be sent now; 0 when the window is full."""
        if not self.under_way:
            return self._size
        if self.under_way >= self._allowance.frames:
            return 0
        return max(0, self._size - self.under_way_bytes)

    def settle(self, count: int, size: int, took_s: float) -> None:
        """So many frames, of so many bytes together, have arrived. took_s: since the last of them was sent."""
        was_under_way = self.under_way_bytes
        self.under_way -= count
        self.under_way_bytes -= size
        if took_s < self._quickest_s:
            self._quickest_s = took_s
        waited_s, allowance = took_s - self._quickest_s, self._allowance
        if waited_s >= 2.0 * allowance.prompt_s:
            self._size = allowance.bytes
        elif waited_s <= allowance.prompt_s and was_under_way > self._size // 2:
            self._size = min(self._size + size, allowance.most_bytes)


class Sender:
    """Finishes never; lives as long as its connection."""

    __slots__ = ("_flights", "_windows", "acked", "sent")

    def __init__(self, seq: int, *allowances: Allowance) -> None:
        """seq: the number before the first to be sent. allowances: of each class."""
        self.acked = seq
        self.sent = seq
        self._windows = tuple(map(Window, allowances))
        self._flights: list[tuple[int, float, Window]] = []
        """Size of each frame under way, when it was sent, and in which window it is."""

    @property
    def bytes_under_way(self) -> int:
        return sum(window.under_way_bytes for window in self._windows)

    def room(self, place: int = 0) -> int:
        """How many bytes may be sent now of the class at this place; 0 when its window is full."""
        return self._windows[place].room()

    def send(self, size: int, now: float, place: int = 0) -> int:
        """Number a frame of `size` bytes; returns its number."""
        self.sent += 1
        window = self._windows[place]
        window.under_way += 1
        window.under_way_bytes += size
        self._flights.append((size, now, window))
        return self.sent

    def acknowledge(self, seq: int, now: float) -> int:
        """
        Everything up to `seq` has arrived; returns how many frames that settles.

        Acknowledging again what is acknowledged is harmless. Raises RemoteProtocolError for a number
        that was never sent or lies before what was acknowledged.
        """
        if not self.acked <= seq <= self.sent:
            raise RemoteProtocolError(f"ack of {seq}, but {self.acked} is acknowledged and {self.sent} sent")
        count = seq - self.acked
        if not count:
            return 0
        flights = self._flights
        self.acked = seq
        if count == 1:
            size, sent_at, window = flights.pop(0)
            window.settle(1, size, now - sent_at)
            return 1
        settled, self._flights = flights[:count], flights[count:]
        for window in self._windows:
            mine = [flight for flight in settled if flight[2] is window]
            if mine:
                window.settle(len(mine), sum(flight[0] for flight in mine), now - mine[-1][1])
        return count
