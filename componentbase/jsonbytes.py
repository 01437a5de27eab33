"""
Values as JSON bytes, as fast as this machine can: what is written for each report of a device.

With orjson where it is installed: 20 us less for a twin's answer than the standard library, for 0.2 MB of memory
(docs/performance.md). Without it, as on a platform that it has no wheel for, the standard library writes the same
bytes. What is compared by its bytes is apimachinery.objects.canonical's: it sorts, and writes fractions in one way.
`sorted_` has canonical's bytes, for who writes often or at length: a third of the time for a Device, 0.5 ms for 3 MB.

`parsed` reads for who only looks: 3 ms for 3 MB, where the standard library holds the interpreter for 9. `read` is for
who writes again what it read: as quick where there are no fractions, and the same to the last digit.

The home of orjson.
"""

import contextlib
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apimachinery.objects import JSON

LONG_BYTES = 16 << 10  # what is shorter is read in a tenth of a millisecond by the standard library, too
SEARCHED_BYTES = 64 << 10  # to count what is in 3 MB takes 3 ms, and to search for one after the other 0.15
SHALLOW = 500  # brackets that open: orjson goes deeper than the standard library, which others read the same with

# Made once: json.dumps with arguments makes one for each call, a third of the time of a small value.
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def plain(value: object) -> bytes:
    """The standard library's way. Raises ValueError for what JSON cannot hold, TypeError for what is no JSON."""
    return _ENCODER.encode(value).encode()


def _canonical(value: "JSON") -> bytes:
    from apimachinery.objects import canonical  # the broker writes JSON, too, and has no other use for it

    return canonical(value)


def _parsed(data: bytes) -> "JSON":
    value: JSON = json.loads(data, parse_constant=_refuse)
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


try:
    import orjson
except ImportError:
    parsed: "Callable[[bytes], JSON]" = _parsed
    compact: Callable[[object], bytes] = plain
    sorted_: "Callable[[JSON], bytes]" = _canonical
    read: "Callable[[bytes], JSON]" = json.loads
else:
    _dumps = orjson.dumps
    _SORTED = orjson.OPT_SORT_KEYS

    def compact(value: object) -> bytes:
        """No blanks, members in their order, UTF-8. Raises ValueError for what JSON cannot hold, and TypeError."""
        try:
            return _dumps(value)
        except TypeError:
            # It takes less than the standard library does (integers of 64 bits, for one), and says it in other words.
            return plain(value)

    def sorted_(value: "JSON") -> bytes:
        """What `canonical` writes. Raises NotJSON."""
        if not _written_alike((value,)):
            return _canonical(value)
        try:
            return _dumps(value, option=_SORTED)
        except TypeError:
            return _canonical(value)  # as above

    def parsed(data: bytes) -> "JSON":
        """
        The value in these bytes; an integer of more than 64 bits may come as a fraction.

        Raises ValueError for what is no JSON, as NaN, and RecursionError for what is nested too deeply.
        """
        if _is_shallow(data):
            with contextlib.suppress(ValueError):  # it takes less: no half of a surrogate pair, for one
                value: JSON = orjson.loads(data)
                return value
        return _parsed(data)

    def _is_shallow(data: bytes) -> bool:
        """Whether no more than SHALLOW brackets open."""
        if len(data) < SEARCHED_BYTES:
            return data.count(b"[") + data.count(b"{") <= SHALLOW
        left = SHALLOW
        for bracket in (b"[", b"{"):
            at = data.find(bracket)
            while at >= 0:
                left -= 1
                if left < 0:
                    return False
                at = data.find(bracket, at + 1)
        return True

    def read(data: bytes) -> "JSON":
        """What json.loads makes of these bytes. Raises as it does."""
        if len(data) >= LONG_BYTES:
            with contextlib.suppress(ValueError):
                value: JSON = orjson.loads(data)
                # Of an integer of more than 64 bits it makes a fraction; whatever has one is read anew.
                if _written_alike((value,)):
                    return value
        found: JSON = json.loads(data)
        return found

    def _written_alike(values: "Iterable[JSON]") -> bool:
        """Whether there are no fractions in them, which orjson writes in its own way, and null for infinity."""
        for value in values:
            kind = type(value)
            if kind is dict:
                if value and not _written_alike(value.values()):
                    return False
            elif kind is list:
                if not _written_alike(value):
                    return False
            elif kind not in _ALIKE:
                return False
        return True

    _ALIKE = frozenset((str, int, bool, type(None)))
