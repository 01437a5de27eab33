"""
Large deltas on their way, in parts: what a hub still has to send of one, and what an edge has of it.

A delta that is longer than LARGE_BYTES does not go in a Push, for everything behind it would wait until all of it has
passed. It goes ahead in Parts, which share a window with other bulk (link.exchange), and when the edge has taken all of
them a Push names the transfer. So a Push is always small, and the order of commits is the order of pushes.

A transfer is nothing but bytes on their way: it is of one connection, it promises nothing, and when it is lost or
dropped nothing has happened.

Invariants
    an edge holds at most MAX_TRANSFERS, of MAX_TRANSFERS_BYTES together or a single one, as their first parts declare;
    what was claimed counts until it is committed
    what claim() and hand_over() give is what the hub put into the parts, whole
    each is claimed once or dropped once

Pure state: no clock, no I/O.
"""

from typing import NamedTuple

from link.errors import RemoteProtocolError
from link.frames import CHUNK_BYTES, MAX_TRANSFERS, MAX_TRANSFERS_BYTES, Part


class Departing:
    """One delta, as a hub sends it. Of the bytes, which other nodes' transfers share, nothing is copied but a part."""

    __slots__ = ("_body", "_offset", "number")

    def __init__(self, number: int, body: bytes) -> None:
        self.number = number
        self._body = memoryview(body)
        self._offset = 0

    @property
    def size(self) -> int:
        return len(self._body)

    @property
    def is_sent(self) -> bool:
        """Whether there is no further part."""
        return self._offset >= len(self._body)

    def next(self) -> Part:
        """The next part, which counts as sent."""
        assert not self.is_sent, "is_sent is asked first"
        end = self._offset + CHUNK_BYTES
        part = Part(self.number, len(self._body), bytes(self._body[self._offset : end]))
        self._offset = end
        return part


class _Held(NamedTuple):
    size: int
    body: bytearray | None
    """None once it was handed over."""

    @property
    def is_whole(self) -> bool:
        return self.body is None or len(self.body) == self.size


class Arriving:
    """What an edge has of transfers that no push has named yet."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._claimed: list[tuple[int, int]] = []
        """Number of the Push and bytes, of what is not committed."""
        self._last = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, number: int) -> bool:
        return number in self._held

    @property
    def size(self) -> int:
        """Bytes of them when they are complete."""
        return sum(held.size for held in self._held.values())

    def take(self, part: Part) -> None:
        """Raises RemoteProtocolError where the hub begins too much, goes on beyond what it declared, or repeats."""
        number, size, body = part
        if not size:
            self._held.pop(number, None)
            return
        held = self._held.get(number)
        if held is None:
            if number <= self._last:
                raise RemoteProtocolError(f"transfer {number} goes on, but it is over")
            count, together = len(self._held) + len(self._claimed), self.size + sum(each for _, each in self._claimed)
            if count >= MAX_TRANSFERS or (count and together + size > MAX_TRANSFERS_BYTES):
                raise RemoteProtocolError(f"transfer {number} of {size} bytes is one too many")
            held = _Held(size, bytearray())
        if size != held.size or not body or held.body is None or len(held.body) + len(body) > size:
            raise RemoteProtocolError(f"transfer {number} is not as it was declared")
        self._held[number] = held
        self._last = max(self._last, number)
        held.body.extend(body)

    def hand_over(self, number: int) -> bytearray | None:
        """
        The bytes of a transfer that is whole, as the caller's from now on; claim() has none of it then.

        None where parts are missing. It is to be claimed or dropped as any other, and takes its room until then.
        """
        held = self._held.get(number)
        if held is None or not held.is_whole:
            return None
        self._held[number] = held._replace(body=None)
        return held.body

    def claim(self, number: int, seq: int) -> bytes:
        """The whole of a transfer that Push `seq` names. Raises RemoteProtocolError where there is no such."""
        held = self._held.get(number)
        if held is None or not held.is_whole:
            raise RemoteProtocolError(f"transfer {number} is not complete")
        del self._held[number]
        self._claimed.append((seq, held.size))
        return bytes(held.body or b"")

    def committed(self, seq: int) -> None:
        """What pushes up to this one named takes no memory any more."""
        if self._claimed:
            self._claimed = [claimed for claimed in self._claimed if claimed[0] > seq]
