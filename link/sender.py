"""
The sending half of a numbered stream: what was sent, what was acknowledged, how much may be under way.

Both ends have one: the hub for what it pushes, the edge for what it reports. It knows numbers and
sizes, never contents; whoever sends keeps what each number meant.

Invariants
    0 <= acked <= sent, and every number in (acked, sent] has a size
    the frames under way are within `window_frames` and `window_bytes`, but for one frame that may
    always go, so that a frame larger than the window is not stuck for ever
"""

from collections import deque

from link.errors import RemoteProtocolError
from link.frames import WINDOW_BYTES, WINDOW_FRAMES


class Sender:
    """Finishes never; lives as long as its connection."""

    def __init__(self, seq: int = 0, window_frames: int = WINDOW_FRAMES, window_bytes: int = WINDOW_BYTES) -> None:
        """seq: the number before the first to be sent."""
        self.acked = seq
        self.sent = seq
        self.bytes_under_way = 0
        self._sizes: deque[int] = deque()
        self._window_frames = window_frames
        self._window_bytes = window_bytes

    def room(self) -> int:
        """How many bytes may be sent now; 0 when the window is full."""
        if not self._sizes:
            return self._window_bytes
        if len(self._sizes) >= self._window_frames:
            return 0
        return max(0, self._window_bytes - self.bytes_under_way)

    def send(self, size: int) -> int:
        """Number a frame of `size` bytes; returns its number."""
        self.sent += 1
        self._sizes.append(size)
        self.bytes_under_way += size
        return self.sent

    def acknowledge(self, seq: int) -> int:
        """
        Everything up to `seq` has arrived; returns how many frames that settles.

        Acknowledging again what is acknowledged is harmless. Raises RemoteProtocolError for a number
        that was never sent or lies before what was acknowledged.
        """
        if not self.acked <= seq <= self.sent:
            raise RemoteProtocolError(f"ack of {seq}, but {self.acked} is acknowledged and {self.sent} sent")
        count = seq - self.acked
        for _ in range(count):
            self.bytes_under_way -= self._sizes.popleft()
        self.acked = seq
        return count
