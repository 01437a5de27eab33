"""
A property's value between the two worlds: a Python value in a driver, a string in the twin.

Invariants
    from_text(kind, to_text(kind, value)) == value
    to_text gives only what PropertyModel.problem_with accepts as a value of that type
"""

import base64
import math
import struct
from typing import assert_never

from apimachinery.devices import INT64, PropertyModel, PropertyType
from mappers.words import Value

_LARGEST_SINGLE = (2 - 2**-23) * 2.0**127


def to_text(kind: PropertyType, value: Value) -> str:
    """Raises ValueError with a sentence when the value is not of this type: the driver and the model disagree."""
    match kind:
        case PropertyType.BOOLEAN:
            if isinstance(value, bool):
                return "true" if value else "false"
        case PropertyType.INT:
            if isinstance(value, int) and not isinstance(value, bool) and value in INT64:
                return str(value)
        case PropertyType.FLOAT | PropertyType.DOUBLE:
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                return repr(float(value))
        case PropertyType.STRING | PropertyType.STREAM:
            if isinstance(value, str):
                return value
        case PropertyType.BYTES:
            if isinstance(value, bytes):
                return base64.b64encode(value).decode()
        case _:
            assert_never(kind)
    raise ValueError(f"the driver read {type(value).__name__} {_short(value)}, the model says {kind}")


def from_text(kind: PropertyType, text: str) -> Value:
    """The value for a driver. The text must have passed PropertyModel.problem_with; ValueError otherwise."""
    match kind:
        case PropertyType.BOOLEAN:
            return text == "true"
        case PropertyType.INT:
            return int(text)
        case PropertyType.FLOAT | PropertyType.DOUBLE:
            return float(text)
        case PropertyType.STRING | PropertyType.STREAM:
            return text
        case PropertyType.BYTES:
            return base64.b64decode(text, validate=True)
        case _:
            assert_never(kind)


def shortest_single(number: float) -> float:
    """
    The number with the fewest digits that is the same in single precision: 21.3 and not 21.299999237060547.

    number: one that single precision holds. A desired "21.3" would otherwise never be what the device reports.
    """
    for digits in (6, 7, 8):
        short = float(f"{number:.{digits}g}")
        if abs(short) <= _LARGEST_SINGLE and struct.pack(">f", short) == struct.pack(">f", number):
            return short
    return number


def has_moved(model: PropertyModel, before: str, after: str, dead_band: float) -> bool:
    """Whether a reading differs enough from the last one reported. Both texts came from to_text or problem_with."""
    if before == after:
        return False
    if model.type in (PropertyType.INT, PropertyType.FLOAT, PropertyType.DOUBLE):
        distance = abs(float(after) - float(before))
        return distance > dead_band if dead_band else distance > 0
    return True


def _short(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
