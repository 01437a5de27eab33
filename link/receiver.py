"""
The receiving half of a numbered stream: takes numbers without gaps, says what may be acknowledged.

It holds the sender to its windows: a peer that sends on without waiting for acks would otherwise decide
how much memory its frames take here.

Invariants
    0 <= acked <= received
    numbers arrive dense: the one after n is n + 1
    what is received but not acknowledged is within the windows together, but for one frame of each
"""

from link.errors import LocalProtocolError, RemoteProtocolError
from link.frames import Allowance


class Receiver:
    """Finishes never; lives as long as its connection."""

    __slots__ = ("_bytes", "_classes", "_most_bytes", "_most_frames", "_sizes", "acked", "received")

    def __init__(self, seq: int, *allowances: Allowance) -> None:
        """seq: the number before the first to be received. allowances: the sender's."""
        self.received = seq
        self.acked = seq
        self._sizes: list[int] = []
        self._bytes = 0
        self._classes = len(allowances)
        self._most_frames = sum(allowance.frames for allowance in allowances)
        self._most_bytes = sum(allowance.most_bytes for allowance in allowances)

    def receive(self, seq: int, size: int) -> None:
        """Raises RemoteProtocolError when `seq` is not next or the window is overrun; the state is then untouched."""
        if seq != self.received + 1:
            raise RemoteProtocolError(f"expected number {self.received + 1}, got {seq}")
        sizes = self._sizes
        # Whoever has room left may send one frame, however large: link.sender cannot know its size before it is made.
        if sizes and (
            len(sizes) >= self._most_frames
            or (
                self._bytes >= self._most_bytes
                and (self._classes == 1 or sum(sorted(sizes)[: 1 - self._classes]) >= self._most_bytes)
            )
        ):
            raise RemoteProtocolError(f"number {seq} overruns the window: {len(sizes)} frames are not acknowledged")
        self.received = seq
        sizes.append(size)
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
