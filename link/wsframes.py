"""
The frames of an open websocket that matter: whole binary messages, cut out of what arrives and put before what is sent.

Everything else (the handshake, pings, closes, fragments, whatever is wrong) is the `websockets` library's, to which it
is handed frame by frame. Of a push and its acknowledgement the library's general parser took 14 us of the 52 that a hub
spends on them in Python; this takes 3 (docs/performance.md).

Invariants
    what is handed to the library and what is not together are what arrived, in order, cut between frames
    nothing is kept that is longer than one frame under the limit and what the last feed() brought

After RFC 6455, section 5.2. Pure.
"""

import struct

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # the library's own, in C where it has one

_FIN_BINARY = 0x82
_MASKED = 0x80
_U16 = struct.Struct("!BBH")
_U64 = struct.Struct("!BBQ")


def framed(message: bytes) -> bytes:
    """A message of a server's, as it is written."""
    size = len(message)
    if 126 <= size < 1 << 16:  # as nearly every push; written out, for a call is a tenth of what it costs
        return _U16.pack(_FIN_BINARY, 126, size) + message
    return _header(size, 0) + message


def masked(message: bytes, mask: bytes) -> bytes:
    """A message of a client's, as it is written. mask: four bytes that nobody can foretell (RFC 6455, 10.3)."""
    return _header(len(message), _MASKED) + mask + apply_mask(message, mask)


def _header(size: int, bit: int) -> bytes:
    if size < 126:
        return bytes((_FIN_BINARY, bit | size))
    if size < 1 << 16:
        return _U16.pack(_FIN_BINARY, bit | 126, size)
    return _U64.pack(_FIN_BINARY, bit | 127, size)


class Cutter:
    """Cuts what arrives into frames: feed() what came, then next() until it gives None."""

    __slots__ = ("_at", "_data", "_gives_up", "_mask_bytes", "_most")

    def __init__(self, must_mask: bool, most: int) -> None:
        """must_mask: whether the other side must mask, as clients do. most: bytes of a message."""
        self._data: bytes | bytearray = b""
        """Bytes where what came ends with a frame, as it mostly does; a frame that is gathered is not copied anew."""
        self._at = 0
        self._mask_bytes = 4 if must_mask else 0
        self._most = most
        self._gives_up = False

    def whole(self, data: bytes) -> bytes | None:
        """
        The message, where what came is one under 64 KiB and nothing else; None where it is to be fed.

        So pushes and acknowledgements come, mostly: 1.5 us less than cutting them out.
        """
        if self._at != len(self._data) or len(data) < 6 or data[0] != _FIN_BINARY or self._gives_up:
            return None
        second, start = data[1], 2
        size = second & 127
        if size == 126:
            size, start = data[2] << 8 | data[3], 4
        elif size == 127:
            return None
        mask = self._mask_bytes
        if start + mask + size != len(data) or size > self._most or (second & _MASKED != 0) is not (mask != 0):
            return None
        return apply_mask(data[start + 4 :], data[start : start + 4]) if mask else data[start:]

    def feed(self, data: bytes) -> None:
        if self._at == len(self._data):
            self._data = data
        else:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            del self._data[: self._at]
            self._data += data
        self._at = 0

    def next(self, plain: bool) -> tuple[bool, bytes] | None:
        """
        The next frame: (True, the message) or (False, bytes for the library); None if more must come.

        plain: whether a whole binary message may be taken here; not in the middle of a fragmented one.
        """
        data, at = self._data, self._at
        left = len(data) - at
        if self._gives_up:
            self._at = len(data)
            return (False, bytes(data[at:])) if left else None
        if left < 2:
            return None
        first, second = data[at], data[at + 1]
        size, start = second & 127, at + 2
        if size == 126:
            start += 2
            size = int.from_bytes(data[at + 2 : start])
        elif size == 127:
            start += 8
            size = int.from_bytes(data[at + 2 : start])
        if size > self._most or (second & _MASKED != 0) is not (self._mask_bytes != 0):
            # It will end the connection, with the right words.
            self._gives_up = True
            return self.next(plain)
        start += self._mask_bytes
        end = start + size
        if end > len(data):
            return None
        self._at = end
        if first != _FIN_BINARY or not plain:
            return False, bytes(data[at:end])
        if self._mask_bytes:
            return True, apply_mask(data[start:end], data[start - 4 : start])
        return True, bytes(data[start:end])
