"""
How large the packets may be that a path carries: found by trying, and given up where large ones vanish (RFC 8899).

Nobody on the way tells a sender of UDP what passes, or tells it in a message that a firewall drops. So a packet of the
next size is sent that has nothing in it, and if it is acknowledged, what follows may be as large. What is lost of a
size that had passed is lost for many reasons, and is no sign by itself; several in a row, and none as large that
arrives, are: the way has changed to one that is narrower. Then all begins anew, with what every way carries that QUIC
is for.

    mtu = PathMtu()
    if (size := mtu.due(now)) is not None:
        mtu.trying(size)    # and send one; of each packet that is sent comes one day carried() or lost()

Invariants
    of sizes above `size` one packet at most is under way that counts
    a size is used only after one of it arrived, on this path
"""

BASE_BYTES = 1200
"""Of UDP's payload, which every path carries that QUIC is for (RFC 9000, section 14)."""
SIZES = (1352, 1452, 8952, 16_336)
"""
What is tried, in order: an IPv6 packet, whose header is the longer one, fills with it an MTU of 1,400 (a mobile line, a
tunnel), 1,500 (Ethernet), 9,000 (a data centre's), and 16,384, beyond which a frame's length does not fit (aioquic
writes it in two bytes).
"""
LARGEST_BYTES = SIZES[-1]
TRIES = 3  # of a size, before it is believed that it does not pass (RFC 8899, MAX_PROBES)
AGAIN_S = 600.0  # then; a way may become wider (RFC 8899, PMTU_RAISE_TIMER)
BLACK_HOLE = 4  # large packets lost one after the other, and none as large that arrived between


class PathMtu:
    """What is known of one path."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """It is another path now."""
        self.size = BASE_BYTES
        """Of packets now."""
        self._trying: int | None = None
        """The size of the one that is under way."""
        self._left = TRIES
        self._again_at = 0.0
        self._vanished = 0
        """Large ones in a row."""
        self._smallest = 0
        """Of those: that a smaller one passes says nothing of them."""

    def due(self, now: float) -> int | None:
        """
        The size that is to be tried now, if any: whoever sends one says so with trying().

        now: in seconds, by whichever clock it is always asked.
        """
        if self._trying is not None or self._vanished or self.size == LARGEST_BYTES:
            return None
        if not self._left:
            if not self._again_at:
                self._again_at = now + AGAIN_S
            if now < self._again_at:
                return None
            self._again_at, self._left = 0.0, TRIES
        return next(each for each in SIZES if each > self.size)

    def trying(self, size: int) -> None:
        """One of this size is under way."""
        self._trying = size

    def carried(self, size: int) -> None:
        """A packet of this size arrived."""
        if size >= self._smallest:
            self._vanished = 0
        if size == self._trying:
            self.size, self._trying, self._left = size, None, TRIES

    def lost(self, size: int) -> None:
        """A packet of this size did not arrive, or not in time."""
        if size == self._trying:
            self._trying = None
            self._left -= 1
        elif BASE_BYTES < size <= self.size:
            self._smallest = min(size, self._smallest) if self._vanished else size
            self._vanished += 1
            if self._vanished == BLACK_HOLE:
                self.restart()
