"""
What comes in parts: looked at, unpacked and checked while pushes go on, before the Push that names it is there.

Some 25 ms of processor go into 3 MiB before they can be committed. Done when the Push is there they would hold up
whatever was pushed after it, and done by the loop everything on the node. A hub names a transfer once it is Taken. So a
transfer that is whole is handed to somebody with a thread, and no Taken is said until it is back.

One at a time, from there until it is committed: parts may be packed to a hundredth of what they unpack to, and that is
memory. Another that comes whole meanwhile is said to be Taken as it is, and is unfolded by who commits it.

Invariants
    no Taken is said of the last part of a transfer that was handed over, nor of what came after it, until it is back
    at most one is unfolded, or on its way to be, and not committed

Pure state: no clock, no I/O, no thread. The shell is edgehub/connector.py.
"""

from link.errors import RemoteProtocolError
from link.frames import Delta, Part
from link.pushcodec import decode_delta
from link.transfers import Arriving


class Arrivals:
    """Of one connection."""

    def __init__(self, *, hands_over: bool) -> None:
        """hands_over: whether somebody asks next() and answers with unfolded(); else all is as it came."""
        self._hands_over = hands_over
        self._arriving = Arriving()
        self._next: bytearray | None = None
        self._number = 0
        """Of the one that was handed over and is not committed; 0: none is."""
        self._seq = 0
        """Of the Push that named it; 0: none has."""
        self._made: Delta | RemoteProtocolError | None = None
        self.is_busy = False
        """Whether one is away: no Taken is to be said."""

    def take(self, part: Part) -> bool:
        """Returns whether there is something for next(). Raises RemoteProtocolError."""
        self._arriving.take(part)
        if self._number and self._made is not None and not self._seq and self._number not in self._arriving:
            self._forget()
        if not self._hands_over or self._number or (body := self._arriving.hand_over(part.number)) is None:
            return False
        self._number, self._next, self.is_busy = part.number, body, True
        return True

    def next(self) -> bytearray | None:
        """The bytes of a transfer, whose delta is to be told to unfolded(). The caller may clear them."""
        body, self._next = self._next, None
        return body

    def unfolded(self, made: Delta | RemoteProtocolError) -> None:
        """What next() gave has come to this."""
        self.is_busy = False
        self._made = made
        if self._number not in self._arriving:  # the hub has dropped it meanwhile
            self._forget()

    def claim(self, number: int, seq: int) -> Delta:
        """What Push `seq` names. Raises RemoteProtocolError."""
        body = self._arriving.claim(number, seq)
        if number != self._number:
            return decode_delta(body)
        made, self._made, self._seq = self._made, None, seq
        if made is None:
            raise RemoteProtocolError(f"transfer {number} is named, but it is not Taken")
        if isinstance(made, RemoteProtocolError):
            raise made
        return made

    def committed(self, seq: int) -> None:
        """What pushes up to this one named takes no memory any more."""
        self._arriving.committed(seq)
        if 0 < self._seq <= seq:
            self._forget()

    def _forget(self) -> None:
        self._number, self._seq, self._made = 0, 0, None
