"""
What a message of msgpack would become, counted before any of it is made.

Four MiB of empty arrays are four million lists, a quarter of a GiB and ten seconds for whoever unpacks them; an array
that says it is long is given room before its elements come. So the heads of arrays are read first, which costs
0.1 us for each element, and nothing is unpacked that is nested deeper, or has more elements, than a frame can have.

Pure.
"""

from link.errors import RemoteProtocolError


def _width(first: int) -> int:
    """Bytes of what begins with this one, where that says it; 0 otherwise."""
    if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
        return 1
    if 0xA0 <= first < 0xC0:
        return 1 + (first & 0x1F)
    return {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}.get(first, 0)


_WIDTHS = tuple(map(_width, range(256)))
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""How many bytes say how long the bytes, or the text, are."""
_COUNTS = {0xDC: 2, 0xDD: 4}
"""How many bytes say how many elements the array has."""


def check(data: bytes | bytearray, what: str, *, deep: int, elements: int) -> None:
    """
    Raises RemoteProtocolError where arrays are nested deeper than `deep`, or have more than `elements` in all.

    Also where there is a map or an extension, which no frame has. What is wrong otherwise is the unpacker's to say.
    O(elements): bytes and texts are stepped over.
    """
    at, end, left, room = 0, len(data), 1, elements
    outer: list[int] = []
    while True:
        while not left:
            if not outer:
                return
            left = outer.pop()
        if at >= end:
            return  # cut short, which the unpacker sees, too
        left -= 1
        first = data[at]
        if width := _WIDTHS[first]:
            at += width
            continue
        if size := _LENGTHS.get(first):
            at += 1 + size + int.from_bytes(data[at + 1 : at + 1 + size])
            continue
        if 0x90 <= first <= 0x9F:
            count = first & 0x0F
            at += 1
        elif size := _COUNTS.get(first):
            count = int.from_bytes(data[at + 1 : at + 1 + size])
            at += 1 + size
        else:
            raise RemoteProtocolError(
                f"not a {what}, which must be an array of values and arrays: byte {at} is {first:#x}"
            )
        room -= count
        outer.append(left)
        left = count
        if len(outer) > deep:
            raise RemoteProtocolError(f"not a {what}: arrays are nested deeper than {deep}")
        if room < 0:
            raise RemoteProtocolError(f"not a {what}: it has more than {elements} elements")
