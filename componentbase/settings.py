"""
How a setting is declared: a dataclass field with its default, its meaning and its limits, of a type from a short list.

The types are str, int, float, bool, Path, Endpoint, Literal, Enum, a dataclass (a section), Optional of any of them,
and list, tuple, dict[str, ...] of them. Reading, overriding and printing are componentbase/config.py.

Invariants
    a text reads as exactly one value of a type, or is refused: no guesses, no octal, no `yes`
"""

import dataclasses
import enum
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeGuard, TypeVar

from componentbase.endpoints import Endpoint

T = TypeVar("T")

REQUIRED: Final[Any] = dataclasses.MISSING
"""The default of a setting() that has none."""

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
_INT_CHARS_MAX = 20  # more than 64 bits need, and a limit before int() goes to work
_FLOAT = re.compile(r"[-+]?[0-9]+(_[0-9]+)*(\.[0-9]*)?([eE][-+]?[0-9]+)?")


def setting(
    default: T,
    doc: str = "",
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    pattern: str | None = None,
    must_exist: bool = False,
) -> T:
    """
    A dataclass field with what the reader must check and the printed file must say.

    doc: one sentence or a few, without a `#`. at_least, at_most: inclusive, for numbers. pattern: a regular expression
    that the whole text must match. must_exist: the path must be there when the configuration is read.
    """
    limits = {"doc": doc, "at_least": at_least, "at_most": at_most, "pattern": pattern, "must_exist": must_exist}
    made: object
    if isinstance(default, list | dict):
        made = dataclasses.field(default_factory=default.copy, metadata=limits)
    else:
        made = dataclasses.field(default=default, metadata=limits)
    return typing.cast(T, made)


def key_of(field_name: str) -> str:
    """The YAML key of a field: camelCase, a trailing _s spelled out."""
    name = re.sub(r"_s$", "_seconds", field_name)
    return re.sub(r"_([a-z0-9])", lambda match: match.group(1).upper(), name)


def is_section(kind: Any) -> TypeGuard[type[Any]]:
    """Whether the type is a block of settings of its own."""
    return kind not in SCALARS and isinstance(kind, type) and dataclasses.is_dataclass(kind)


def fields_of(cls: type[Any]) -> dict[str, tuple[Any, dataclasses.Field[Any]]]:
    """Field name to its resolved type and its declaration, in the order of declaration."""
    hints = typing.get_type_hints(cls)
    return {field.name: (hints[field.name], field) for field in dataclasses.fields(cls) if field.init}


def has_no_default(field: dataclasses.Field[Any]) -> bool:
    """Whether the person has to give a value."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def range_of(limits: Mapping[str, Any]) -> str:
    """The limits in words, such as "1 to 10"; empty without any."""
    low, high = limits.get("at_least"), limits.get("at_most")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"at least {low}"
    return "" if high is None else f"at most {high}"


def meaning_of(field: dataclasses.Field[Any]) -> str:
    """The doc of a field as the tail of an error message."""
    doc = field.metadata.get("doc")
    return f": {doc}" if doc else ""


def choices_of(kind: Any) -> str:
    """The sentence that lists what a Literal or an Enum allows; empty for other types."""
    args = [arg for arg in typing.get_args(kind) if arg is not types.NoneType]
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return choices_of(args[0])
    if typing.get_origin(kind) is Literal:
        return f"One of: {', '.join(map(str, args))}."
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"One of: {', '.join(str(member.value) for member in kind)}."
    return ""


def _read_int(text: str) -> int:
    if not _INT.fullmatch(text) or len(text) > _INT_CHARS_MAX:
        raise ValueError
    return int(text)


def _read_float(text: str) -> float:
    if not _FLOAT.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError
    return float(text)


def _read_bool(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError
    return text == "true"


def _read_path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError
    return Path(text)


SCALARS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    str: ("text", str),
    int: ("a whole number", _read_int),
    float: ("a number", _read_float),
    bool: ("true or false", _read_bool),
    Path: ("a path", _read_path),
    Endpoint: ("HOST:PORT", Endpoint.parse),
}


def scalar_reader(kind: Any) -> Callable[[str], Any]:
    """The function that reads one text, and raises ValueError with a sentence or with nothing to say."""
    assert kind in SCALARS, f"{kind} is no type for a setting"
    return SCALARS[kind][1]


def name_of(kind: Any) -> str:
    """What a value of the type is called in an error message."""
    return SCALARS[kind][0] if kind in SCALARS else "one word"
