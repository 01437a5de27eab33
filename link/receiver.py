"""
The receiving half of a numbered stream: takes numbers without gaps, says what may be acknowledged.

It holds the sender to the window: a peer that sends on without waiting for acks would otherwise decide
how much memory its frames take here.

Invariants
    0 <= acked <= received
    numbers arrive dense: the one after n is n + 1
    what is received but not acknowledged is within the window, but for the last frame
"""

from link.errors import LocalProtocolError, RemoteProtocolError
from link.frames import WINDOW_BYTES, WINDOW_FRAMES


class Receiver:
    """Finishes never; lives as long as its connection."""

    __slots__ = ("_bytes", "_sizes", "_window_bytes", "_window_frames", "acked", "received")

    def __init__(
        self, seq: int = 0, window_frames: int = WINDOW_FRAMES, window_bytes: int = WINDOW_BYTES, growth: int = 1
    ) -> None:
        """seq: the number before the first to be received. growth: times `window_bytes` that the sender may grow to."""
        self.received = seq
        self.acked = seq
        self._sizes: list[int] = []
        self._bytes = 0
        self._window_frames = window_frames
        self._window_bytes = growth * window_bytes

    def receive(self, seq: int, size: int) -> None:
        """Raises RemoteProtocolError when `seq` is not next or the window is overrun; the state is then untouched."""
        if seq != self.received + 1:
            raise RemoteProtocolError(f"expected number {self.received + 1}, got {seq}")
        # Whoever has room left may send one frame, however large: link.sender cannot know its size before it is made.
        if self._sizes and (len(self._sizes) >= self._window_frames or self._bytes >= self._window_bytes):
            raise RemoteProtocolError(
                f"number {seq} overruns the window: {len(self._sizes)} frames are not acknowledged"
            )
        self.received = seq
        self._sizes.append(size)
        self._bytes += size

    def acknowledge(self, seq: int) -> None:
        """
        Note that an ack of `seq` goes out.

        Raises LocalProtocolError for what has not been received: nothing may be acknowledged before it is
        durable, and nothing is durable that never came.
        """
        if not self.acked <= seq <= self.received:
            raise LocalProtocolError(f"cannot acknowledge {seq}: {self.received} received, {self.acked} acknowledged")
        count = seq - self.acked
        self._bytes -= sum(self._sizes[:count])
        del self._sizes[:count]
        self.acked = seq
