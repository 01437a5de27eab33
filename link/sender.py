"""
The sending half of a numbered stream: what was sent, what was acknowledged, how much may be under way.

Both ends have one: the hub for what it pushes, the edge for what it reports. It knows numbers and
sizes, never contents; whoever sends keeps what each number meant.

A window of fixed size is either small for a long line or large for a slow one: 256 KiB fill a round trip of
200 ms at 10 Mbit/s, and take 2 s at 1 Mbit/s. What matters is how long something urgent waits behind it. So a
window that was full and yet passed within PROMPT_S may grow, up to `growth` times its size, and is small again
with the first frame that takes SLOW_S.

Invariants
    0 <= acked <= sent, and every number in (acked, sent] has a size
    the frames under way are within `window_frames` and growth * `window_bytes`, but for the last one, which may
    go where any room is left, so that a frame larger than the window is not stuck for ever
"""

from link.errors import RemoteProtocolError
from link.frames import WINDOW_BYTES, WINDOW_FRAMES

PROMPT_S = 0.5  # doubled, such a window passes within a second
SLOW_S = 1.0


class Sender:
    """Finishes never; lives as long as its connection."""

    # A connection has three of these and three receivers: with slots, and lists for deques, 1.2 KB instead of 6.
    __slots__ = (
        "_flights",
        "_least_bytes",
        "_most_bytes",
        "_window_bytes",
        "_window_frames",
        "acked",
        "bytes_under_way",
        "sent",
    )

    def __init__(
        self, seq: int = 0, window_frames: int = WINDOW_FRAMES, window_bytes: int = WINDOW_BYTES, growth: int = 1
    ) -> None:
        """seq: the number before the first to be sent. growth: times `window_bytes` that the window may grow to."""
        self.acked = seq
        self.sent = seq
        self.bytes_under_way = 0
        self._flights: list[tuple[int, float]] = []
        """Size of each frame under way, and when it was sent."""
        self._window_frames = window_frames
        self._least_bytes = self._window_bytes = window_bytes
        self._most_bytes = growth * window_bytes

    def room(self) -> int:
        """How many bytes may be sent now; 0 when the window is full."""
        if not self._flights:
            return self._window_bytes
        if len(self._flights) >= self._window_frames:
            return 0
        return max(0, self._window_bytes - self.bytes_under_way)

    def send(self, size: int, now: float) -> int:
        """Number a frame of `size` bytes; returns its number."""
        self.sent += 1
        self._flights.append((size, now))
        self.bytes_under_way += size
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
        flights, was_under_way = self._flights, self.bytes_under_way
        sent_at = flights[count - 1][1]
        settled = was_under_way if count == len(flights) else sum(size for size, _ in flights[:count])
        del flights[:count]
        self.bytes_under_way -= settled
        self.acked = seq
        if now - sent_at >= SLOW_S:
            self._window_bytes = self._least_bytes
        elif now - sent_at <= PROMPT_S and was_under_way > self._window_bytes // 2:
            self._window_bytes = min(self._window_bytes + settled, self._most_bytes)
        return count
