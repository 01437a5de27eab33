"""
Values as JSON bytes, as fast as this machine can: what is written for each report of a device.

With orjson where it is installed: 20 us less for a twin's answer than the standard library, for 0.2 MB of memory
(docs/performance.md). Without it, as on a platform that it has no wheel for, the standard library writes the same
bytes. What is compared by its bytes is apimachinery.objects.canonical's: it sorts, and writes fractions in one way.
Long texts are written alike by both: `sorted_` has canonical's bytes, 3 MB of text in 0.5 ms instead of 8.

The home of orjson.
"""

import json
from collections.abc import Callable, Iterable

from apimachinery.objects import JSON, NotJSON, canonical

LONG = 16 << 10  # characters; below it the standard library's time is less than what looking for texts costs

# Made once: json.dumps with arguments makes one for each call, a third of the time of a small value.
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def plain(value: object) -> bytes:
    """The standard library's way. Raises ValueError for what JSON cannot hold, TypeError for what is no JSON."""
    return _ENCODER.encode(value).encode()


try:
    import orjson
except ImportError:
    compact: Callable[[object], bytes] = plain
else:
    _dumps = orjson.dumps

    def compact(value: object) -> bytes:
        """No blanks, members in their order, UTF-8. Raises ValueError for what JSON cannot hold, and TypeError."""
        try:
            return _dumps(value)
        except TypeError:
            # It takes less than the standard library does (integers of 64 bits, for one), and says it in other words.
            return plain(value)


def sorted_(value: JSON) -> bytes:
    """What `canonical` writes, in a tenth of its time where most of it is long texts. Raises NotJSON."""
    if not _has_long_text((value,)):
        return canonical(value)
    # What leads to a long text is written here, all beside it by canonical.
    match value:
        case dict():
            fields = (canonical(name) + b":" + sorted_(below) for name, below in sorted(value.items()))
            return b"{%s}" % b",".join(fields)
        case list():
            return b"[%s]" % b",".join(map(sorted_, value))
    try:
        return compact(value)
    except ValueError as exc:
        raise NotJSON(str(exc)) from None


def _has_long_text(values: Iterable[JSON]) -> bool:
    for value in values:
        kind = type(value)
        if kind is str:
            if len(value) >= LONG:
                return True
        elif (kind is dict and _has_long_text(value.values())) or (kind is list and _has_long_text(value)):
            return True
    return False
