"""
Messages on several streams: cut from what came on each, and handed on in an order that the peers understand.

A transport with streams (link.quic) gives each lane (link.frames.Lane) one. On a stream a message is its length in four
bytes, big endian, and itself; an empty one opens the stream and is nothing else. What one stream lost does not hold up
the others, so their messages overtake each other on the way. Handed on is CONTROL before the others, and nothing of
them before the handshake is over: a Push may come before the Welcome that it follows, and a Report before the last
part of the inventory.

Invariants
    the length is checked before anything of it is kept: over MAX_FRAME_BYTES is a RemoteProtocolError
    messages of one lane come out as they came in
    no more than MAX_WAITING wait to be handed on: one more is a RemoteProtocolError
    what waits, and what of a message has come before it may be handed on, is not taken: the other side has to pause
    a message on another lane than its own is a RemoteProtocolError

Pure: no I/O, no clock.
"""

from collections import deque

from link.errors import RemoteProtocolError
from link.fields import MAX_FRAME_BYTES
from link.frames import Lane
from link.tags import lane_of

LENGTH_BYTES = 4
LANES = tuple(Lane)
MAX_WAITING = 8192  # messages; all windows of a peer together are of fewer, and the smallest takes us 50 bytes
OPENER = bytes(LENGTH_BYTES)
"""An empty message: the edge says one on each lane, for a stream is there once something came on it."""


def framed(message: bytes) -> bytes:
    """As it stands on a stream."""
    return len(message).to_bytes(LENGTH_BYTES) + message


class Inbox:
    """What came on the lanes of one connection and was not handed on yet."""

    __slots__ = ("_count", "_held_back", "_opened", "_partial", "_total", "_waiting", "waiting_bytes")

    def __init__(self) -> None:
        self._partial: list[bytearray] = [bytearray() for _ in LANES]
        """The beginning of a message, of each lane."""
        self._waiting: list[deque[bytes]] = [deque() for _ in LANES]
        self._opened = 0
        self._count = self._total = 0
        self._held_back = LANES[Lane.CONTROL + 1 :]
        """The lanes of which nothing is handed on before the handshake is over; none afterwards."""
        self.waiting_bytes = 0
        """Of whole messages and their lengths; whoever hands on late lets this grow, and has the other side pause."""

    @property
    def is_open(self) -> bool:
        """Whether something came on every lane."""
        return self._opened == (1 << len(LANES)) - 1

    @property
    def taken_bytes(self) -> int:
        """All that came, but for what waits."""
        return self._total - self.waiting_bytes - sum(len(self._partial[lane]) for lane in self._held_back)

    def feed(self, lane: Lane, data: bytes) -> None:
        """Bytes have come on a lane. Raises RemoteProtocolError."""
        partial, waiting = self._partial[lane], self._waiting[lane]
        self._opened |= 1 << lane
        self._total += len(data)
        partial += data
        at, end = 0, len(partial)
        while end - at >= LENGTH_BYTES:
            size = int.from_bytes(partial[at : at + LENGTH_BYTES])
            if size > MAX_FRAME_BYTES:
                raise RemoteProtocolError(f"a frame of {size} bytes is over {MAX_FRAME_BYTES}")
            if end - at < LENGTH_BYTES + size:
                break
            at += LENGTH_BYTES
            if size:
                message = bytes(partial[at : at + size])
                if lane_of(message) is not lane:
                    raise RemoteProtocolError(f"a frame of lane {lane_of(message).name} came on {lane.name}")
                if self._count >= MAX_WAITING:
                    raise RemoteProtocolError(f"over {MAX_WAITING} frames wait")
                waiting.append(message)
                self._count += 1
                self.waiting_bytes += LENGTH_BYTES + size
                at += size
        if at:
            del partial[:at]

    def next(self, is_streaming: bool) -> bytes | None:
        """The message to hand on now; None where there is none yet. is_streaming: whether the handshake is over."""
        if is_streaming:
            self._held_back = ()
        if not self._count:
            return None
        for waiting in self._waiting if is_streaming else self._waiting[: Lane.CONTROL + 1]:
            if waiting:
                message = waiting.popleft()
                self._count -= 1
                self.waiting_bytes -= LENGTH_BYTES + len(message)
                return message
        return None
