"""
OPC UA's values and ours: what a node holds as a value of the model's type, and back into the node's own type.

OPC UA has 25 built-in types (Part 6, 5.1.2), a DeviceModel seven. Each is named here by its word in the standard, so
that nothing need be imported to convert them.

Invariants
    from_node() never raises; what has no counterpart comes out as it is, and the runtime says that the types disagree
    to_node() gives a value that the node's type can hold exactly (a Guid as text), or raises WriteRefused

Pure. The driver is mappers/opcua.py.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from datetime import datetime

from apimachinery.devices import PropertyType
from mappers.values import shortest_single
from mappers.words import Value, WriteRefused

INTEGERS: Mapping[str, range] = {
    "SByte": range(-(2**7), 2**7),
    "Byte": range(2**8),
    "Int16": range(-(2**15), 2**15),
    "UInt16": range(2**16),
    "Int32": range(-(2**31), 2**31),
    "UInt32": range(2**32),
    "Int64": range(-(2**63), 2**63),
    "UInt64": range(2**64),
}
_GUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_TEXTS = ("String", "LocalizedText", "XmlElement")


def from_node(kind: PropertyType, type_: str, value: object) -> Value | None:
    """A node's value as the model's type has it; None where there is none. type_: the word of the standard."""
    if isinstance(value, list | tuple):
        return _from_array(kind, type_, value)
    match value:
        case None:
            return None
        case bool():
            return value if kind is PropertyType.BOOLEAN else int(value)
        case int():
            return int(value)  # an enumeration is an int of a class of its own
        case float():
            if not math.isfinite(value):
                return None
            return shortest_single(value) if type_ == "Float" else value
        case str() | bytes():
            return value
        case datetime():
            return value.isoformat()
    text = getattr(value, "Text", None)  # LocalizedText
    return text if isinstance(text, str) else str(value)


def _from_array(kind: PropertyType, type_: str, value: list[object] | tuple[object, ...]) -> Value | None:
    items = [from_node(kind, type_, each) for each in value]
    if kind not in (PropertyType.STRING, PropertyType.STREAM) or any(isinstance(each, bytes) for each in items):
        return str(items)  # the runtime says that this is no number
    return json.dumps(items, ensure_ascii=False, separators=(",", ":"))


def to_node(name: str, type_: str, value: Value) -> object:
    """A value to write to a node of this type. Raises WriteRefused; name: of the property, for the complaint."""
    if type_ == "Boolean" and value in (0, 1):
        return bool(value)
    if (limits := INTEGERS.get(type_)) is not None and isinstance(value, int | float) and value == int(value):
        if int(value) not in limits:
            raise WriteRefused(f"{name}: {value} does not fit into the node's type {type_}")
        return int(value)
    if type_ == "Double" and isinstance(value, int | float):
        return float(value)
    if type_ == "Float" and isinstance(value, int | float):
        return _single(name, float(value))
    if type_ in _TEXTS and isinstance(value, str):
        return value
    if type_ == "ByteString" and isinstance(value, bytes):
        return value
    if isinstance(value, str):
        if type_ == "DateTime":
            try:
                return datetime.fromisoformat(value)
            except ValueError:
                raise WriteRefused(f"{name}: {value!r} is no DateTime, such as 2027-01-31T12:00:00+00:00") from None
        if type_ == "Guid":
            if not _GUID.fullmatch(value):
                raise WriteRefused(f"{name}: {value!r} is no Guid, 32 hexadecimal digits with hyphens between")
            return value
    raise WriteRefused(f"{name}: {value!r} cannot be written to a node of type {type_}")


def _single(name: str, value: float) -> float:
    try:
        held = shortest_single(struct.unpack(">f", struct.pack(">f", value))[0])
    except OverflowError:
        raise WriteRefused(f"{name}: {value:g} does not fit into the node's type Float") from None
    if held != value:
        raise WriteRefused(f"{name}: the node's type Float cannot hold {value!r}; the nearest it can hold is {held!r}")
    return value
