"""
The vocabulary of devices: what a model says of a property, and what a report about one looks like.

Hub and edge both judge values against the model (the hub to set a condition, the edge to refuse a
write to the device), so the rule is here, once. The types and their texts are those of the
`devices.kubeedge.io/v1beta1` DeviceModel; every value travels as a string.
"""

import base64
import binascii
import enum
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.objects import JSON

INT64 = range(-(2**63), 2**63)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
MAX_VALUE_BYTES = 16 * 1024  # KubeEdge allows 512; JSON documents are longer, and what is larger is a ConfigMap


class PropertyType(enum.StrEnum):
    """`type` of a DeviceModel property."""

    INT = "INT"
    FLOAT = "FLOAT"
    DOUBLE = "DOUBLE"
    STRING = "STRING"
    BOOLEAN = "BOOLEAN"
    BYTES = "BYTES"
    STREAM = "STREAM"


class PropertyModel(NamedTuple):
    """What a DeviceModel says of one property."""

    name: str
    type: PropertyType
    writable: bool
    minimum: str
    maximum: str
    unit: str

    def problem_with(self, value: str) -> str | None:
        """
        Why `value` cannot be this property's value, as a sentence; None when it can.

        Being read-only is no matter of the value: ask `writable`.
        """
        if len(value.encode()) > MAX_VALUE_BYTES:
            return f"{self.name}: the value is longer than {MAX_VALUE_BYTES} bytes"
        match self.type:
            case PropertyType.INT:
                if not _INTEGER.fullmatch(value) or int(value) not in INT64:
                    return f'{self.name}: "{_short(value)}" is not an integer'
                return self._out_of_range(int(value))
            case PropertyType.FLOAT | PropertyType.DOUBLE:
                if not _NUMBER.fullmatch(value) or not math.isfinite(float(value)):
                    return f'{self.name}: "{_short(value)}" is not a number'
                return self._out_of_range(float(value))
            case PropertyType.BOOLEAN:
                return None if value in ("true", "false") else f'{self.name}: "{_short(value)}" is not true or false'
            case PropertyType.BYTES:
                try:
                    base64.b64decode(value, validate=True)
                except (binascii.Error, ValueError):
                    return f'{self.name}: "{_short(value)}" is not base64'
                return None
            case PropertyType.STRING | PropertyType.STREAM:
                return None

    def problem_with_unit(self, unit: str) -> str | None:
        """Why a value given in `unit` is none of this property's, as a sentence; None when it is, or neither says."""
        if not unit or not self.unit or unit == self.unit:
            return None
        return f'{self.name}: the value is in "{_short(unit)}", the model\'s unit is "{_short(self.unit)}"'

    def contradiction(self) -> str | None:
        """Why no value at all can be this property's, as a sentence; None when some can."""
        low, high = _bound(self.minimum), _bound(self.maximum)
        if low is None or high is None or low <= high:
            return None
        return f"{self.name}: the model's minimum of {self.minimum} is above its maximum of {self.maximum}"

    def _out_of_range(self, number: float) -> str | None:
        if (low := _bound(self.minimum)) is not None and number < low:
            return f"{self.name}: {number:g} is below the model's minimum of {self.minimum}"
        if (high := _bound(self.maximum)) is not None and number > high:
            return f"{self.name}: {number:g} is above the model's maximum of {self.maximum}"
        return None


def same_value(kind: PropertyType | None, one: str, other: str) -> bool:
    """Whether two texts mean one value: "21" and "21.0" are the same FLOAT, but not the same STRING."""
    if one == other:
        return True
    if kind in (PropertyType.INT, PropertyType.FLOAT, PropertyType.DOUBLE):
        return bool(_NUMBER.fullmatch(one) and _NUMBER.fullmatch(other)) and float(one) == float(other)
    return False


def is_met(kind: PropertyType | None, wish: str, version: int, value: str | None, answers: int | None) -> bool:
    """
    Whether a reading meets a wish of that version.

    answers: the version that the reading says it answers. It is believed only for that wish or an older one: the value
    of a late answer may by chance be what is wanted now. None: it does not say, and is judged by its value.
    """
    return value is not None and (answers is None or answers >= version) and same_value(kind, wish, value)


def property_models(model: Mapping[str, JSON]) -> dict[str, PropertyModel]:
    """The properties of a DeviceModel's body. What the schema would have refused is left out."""
    found: dict[str, PropertyModel] = {}
    spec = model.get("spec")
    entries = spec.get("properties") if isinstance(spec, Mapping) else None
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            continue
        try:
            kind = PropertyType(str(entry.get("type") or "STRING").upper())
        except ValueError:
            continue
        found[entry["name"]] = PropertyModel(
            name=entry["name"],
            type=kind,
            writable=entry.get("accessMode") != "ReadOnly",
            minimum=str(entry.get("minimum") or ""),
            maximum=str(entry.get("maximum") or ""),
            unit=str(entry.get("unit") or ""),
        )
    return found


class PropertyReport(NamedTuple):
    """What an edge reports of one property: the value, and what became of the wish it knew."""

    value: str | None
    """The last reading; None when the device has not said anything yet."""
    value_type: str
    """The mapper's word for the type, for example "int"; "" when it gave none."""
    observed_at_ms: int
    """When the edge took the reading in, in milliseconds since 1970 on the edge's clock."""
    desired: str | None
    """The desired value the edge knew when it reported; None when there was none."""
    problem: str
    """Why the desired value was not passed to the device, or why the device does not take it; "" for neither."""
    device_at_ms: int | None = None
    """When the device took the reading, in ms since 1970 by its own or its mapper's clock; None: not said."""
    desired_at_ms: int | None = None
    """When the edge learned of the desired value, in milliseconds since 1970 on the edge's clock."""
    desired_version: int = 0
    """The number of the desired value, which only grows within a twin; 0: there is none, or the edge does not say."""
    answers: int | None = None
    """The desired version that the reading answers, by the mapper's word; None when the mapper does not say."""
    generation: int = 0
    """The Device's metadata.generation that the edge had applied when it said this; 0: not said."""
    origin: str = ""
    """Who set the desired value: "" the cloud, "edge" somebody at the edge."""
    stale: bool = False
    """Whether nobody has reported the property for so long that `value` need not be true any more."""

    def to_json(self) -> dict[str, JSON]:
        """What is not said is left out."""
        out: dict[str, JSON] = {"observedAt": self.observed_at_ms}
        for name, something in (
            ("value", self.value),
            ("desired", self.desired),
            ("deviceAt", self.device_at_ms),
            ("desiredAt", self.desired_at_ms),
            ("answers", self.answers),
        ):
            if something is not None:
                out[name] = something
        for name, something in (
            ("type", self.value_type),
            ("problem", self.problem),
            ("desiredVersion", self.desired_version),
            ("generation", self.generation),
            ("origin", self.origin),
            ("stale", self.stale),
        ):
            if something:
                out[name] = something
        return out

    @classmethod
    def from_json(cls, value: JSON) -> "PropertyReport":
        """Raises ValueError with what is wrong; the sender is a peer, so every field is checked."""
        if not isinstance(value, Mapping):
            raise ValueError("a property report must be an object")  # noqa: TRY004 - the caller refuses on ValueError
        observed_at = _count(value, "observedAt")
        if observed_at is None:
            raise ValueError("observedAt must be an integer")
        stale = value.get("stale", False)
        if not isinstance(stale, bool):
            raise ValueError("stale must be true or false")  # noqa: TRY004
        return cls(
            value=_words(value, "value"),
            value_type=_words(value, "type") or "",
            observed_at_ms=observed_at,
            desired=_words(value, "desired"),
            problem=_words(value, "problem") or "",
            device_at_ms=_count(value, "deviceAt"),
            desired_at_ms=_count(value, "desiredAt"),
            desired_version=_count(value, "desiredVersion") or 0,
            answers=_count(value, "answers"),
            generation=_count(value, "generation") or 0,
            origin=_words(value, "origin") or "",
            stale=stale,
        )


PROPERTY_FIELD = "property/"
"""A report's field for one property is this plus the property's name."""
STATE_FIELD = "state"
"""
A report's field for a device's own state: {"state": "online"}, with "lastOnlineTime" (RFC 3339) and "problem" (what a
person should know of the device as a whole, in a sentence) where there is one.
"""
NODE_INFO_FIELD = "nodeInfo"
"""A report's field for what the edge says of its machine; the target is the Node."""


def _words(value: Mapping[str, JSON], name: str) -> str | None:
    text = value.get(name)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{name} must be a string")
    if text is not None and len(text.encode()) > MAX_VALUE_BYTES:
        raise ValueError(f"{name} is longer than {MAX_VALUE_BYTES} bytes")
    return text


def _count(value: Mapping[str, JSON], name: str) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if not isinstance(number, int) or isinstance(number, bool) or number not in INT64 or number < 0:
        raise ValueError(f"{name} must be an integer of at most 63 bits")
    return number


def _bound(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _short(text: str) -> str:
    return text if len(text) <= 64 else text[:61] + "..."
