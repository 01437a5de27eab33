"""
Samples on their way to a store: the bounded queue they wait in, and how they are written in each format.

Invariants
    a backlog holds at most `limit` points and `max_bytes` of values; beyond that the oldest goes, and is counted
    points leave in the order they came, also after a batch was put back
    what encode_* gives is accepted by its protocol whatever names and values the device has

Pure.
"""

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import urlencode

from apimachinery.devices import PropertyType
from mappers.pushmethod import Target


class Point(NamedTuple):
    """One sample of one property."""

    device: str
    """NAMESPACE/NAME."""
    name: str
    kind: PropertyType
    text: str
    """The value as the twin has it."""
    at_ms: int
    """Since 1970: the device's own time where it gives one."""
    target: Target
    unit: str = ""

    @property
    def size(self) -> int:
        return len(self.text) + 200  # names, the tuple and its numbers, roughly

    def value(self) -> bool | int | float | str:
        """As JSON and databases have it; bytes stay base64."""
        match self.kind:
            case PropertyType.BOOLEAN:
                return self.text == "true"
            case PropertyType.INT:
                return int(self.text)
            case PropertyType.FLOAT | PropertyType.DOUBLE:
                return float(self.text)
            case _:
                return self.text


class PointsRefused(Exception):
    """A store will never take these points; the argument says why."""


class Backlog:
    """What waits for one store."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._points: deque[Point] = deque()
        self._bytes = 0
        self._limit = limit
        self._max_bytes = max_bytes
        self.dropped = 0
        """Points that were lost to the bound."""

    def __len__(self) -> int:
        return len(self._points)

    def add(self, point: Point) -> None:
        self._points.append(point)
        self._bytes += point.size
        self._shrink()

    def take(self, limit: int) -> list[Point]:
        """The oldest, at most `limit`."""
        taken = [self._points.popleft() for _ in range(min(limit, len(self._points)))]
        self._bytes -= sum(point.size for point in taken)
        return taken

    def put_back(self, points: Sequence[Point]) -> None:
        """They could not be written: before all others again, as far as there is room."""
        self._points.extendleft(reversed(points))
        self._bytes += sum(point.size for point in points)
        self._shrink()

    def _shrink(self) -> None:
        while len(self._points) > self._limit or self._bytes > self._max_bytes:
            self._bytes -= self._points.popleft().size
            self.dropped += 1


def encode_form(point: Point) -> bytes:
    """KubeEdge's push by HTTP: `PROPERTY=VALUE&time=...`; the device behind it is ours."""
    return urlencode([(point.name, point.text), ("time", _rfc3339(point.at_ms)), ("device", point.device)]).encode()


def encode_json(point: Point) -> bytes:
    """One sample as a JSON object."""
    value = point.value()
    return json.dumps(
        {"device": point.device, "property": point.name, "value": value, "timestamp": point.at_ms},
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()


def encode_lines(points: Iterable[Point]) -> bytes:
    """
    InfluxDB's line protocol, times in milliseconds.

    The device is a tag unless the Device names its own of that name. After docs.influxdata.com, "Line protocol".
    """
    return "\n".join(map(_line, points)).encode()


def encode_otlp(points: Sequence[Point]) -> bytes:
    """OTLP/HTTP's JSON encoding: a gauge for each property. Values that are no numbers are left out: it knows none."""
    metrics: dict[tuple[str, str], list[dict[str, object]]] = {}
    for point in points:
        value = point.value()
        if isinstance(value, str):
            continue
        namespace, _, name = point.device.partition("/")
        attributes = {"device.namespace": namespace, "device.name": name}
        metrics.setdefault((point.name, point.unit), []).append(
            {
                "timeUnixNano": str(point.at_ms * 1_000_000),  # 64-bit integers are texts in protobuf's JSON
                **({"asDouble": value} if isinstance(value, float) else {"asInt": str(int(value))}),
                "attributes": [{"key": key, "value": {"stringValue": text}} for key, text in attributes.items()],
            }
        )
    scope = {
        "scope": {"name": "fairlead.mapper"},
        "metrics": [
            {"name": name, **({"unit": unit} if unit else {}), "gauge": {"dataPoints": each}}
            for (name, unit), each in metrics.items()
        ],
    }
    return json.dumps({"resourceMetrics": [{"resource": {}, "scopeMetrics": [scope]}]}).encode()


def _line(point: Point) -> str:
    target = point.target
    tags = {"device": point.device, **dict(target.tags)}
    head = [_escaped(target.measurement or point.device.rpartition("/")[2], ", ")]
    head += [f"{_escaped(key, ',= ')}={_escaped(text, ',= ')}" for key, text in sorted(tags.items())]
    return f"{','.join(head)} {_escaped(target.field or point.name, ',= ')}={_field(point.value())} {point.at_ms}"


def _field(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, float):
        assert math.isfinite(value), "a twin has no other floats"
        return repr(value)
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _escaped(text: str, characters: str) -> str:
    # Outside of a text's value neither a line break can be written, nor a backslash that does not escape what follows.
    text = text.translate(_UNWRITABLE)
    return "".join(f"\\{each}" if each in characters else each for each in text) or "_"


_UNWRITABLE = str.maketrans("\n\r\\", "  /")


def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
