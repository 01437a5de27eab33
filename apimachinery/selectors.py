"""
Label and field selectors: the query language of list and watch.

Syntax and meaning are those of k8s.io/apimachinery/pkg/labels and pkg/fields, so that what kubectl's
-l and --field-selector accept is accepted here, and what they refuse is refused with a BadRequest.
"""

import enum
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from apimachinery.errors import BadRequest

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")
_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUALITY = re.compile(r"(?P<key>[^=!\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^=!\s]*)")
_COMPARE = re.compile(r"(?P<key>[^<>\s]+)\s*(?P<operator>[<>])\s*(?P<value>-?\d+)")


class Operator(enum.StrEnum):
    """How a requirement compares."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    NOT_EXISTS = "!"
    GREATER = "gt"
    LESS = "lt"


class Requirement(NamedTuple):
    """One condition on one label."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                # apimachinery: a label that is absent satisfies `notin` and `!=`.
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.NOT_EXISTS:
                return value is None
            case Operator.GREATER | Operator.LESS:
                try:
                    number = int(value) if value is not None else None
                except ValueError:
                    return False
                if number is None:
                    return False
                bound = int(self.values[0])
                return number > bound if self.operator is Operator.GREATER else number < bound


class LabelSelector(NamedTuple):
    """All requirements must hold; an empty selector selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


class FieldSelector(NamedTuple):
    """Equality conditions on fields, as (path, value, wanted) triples; `wanted` is False for !=."""

    terms: tuple[tuple[str, str, bool], ...] = ()

    def matches(self, value_at: Callable[[str], str]) -> bool:
        """value_at: gives the text of a field for its dotted path, "" where it is absent."""
        return all((value_at(path) == value) is wanted for path, value, wanted in self.terms)


EVERYTHING = LabelSelector()
ALL_FIELDS = FieldSelector()


def parse_labels(text: str) -> LabelSelector:
    """
    The selector that `-l text` means, for example "app=web,tier in (a, b),!legacy".

    Raises BadRequest that names the part that is wrong.
    """
    return LabelSelector(tuple(_requirement(part, text) for part in _split(text)))


def _requirement(part: str, text: str) -> Requirement:
    if found := _SET.fullmatch(part):
        values = tuple(value.strip() for value in found["values"].split(","))
        operator = Operator.IN if found["operator"] == "in" else Operator.NOT_IN
        return _checked(Requirement(found["key"], operator, values), text)
    if found := _EQUALITY.fullmatch(part):
        operator = Operator.NOT_IN if found["operator"] == "!=" else Operator.IN
        return _checked(Requirement(found["key"], operator, (found["value"],)), text)
    if found := _COMPARE.fullmatch(part):
        operator = Operator.GREATER if found["operator"] == ">" else Operator.LESS
        return _checked(Requirement(found["key"], operator, (found["value"],)), text)
    if part.startswith("!"):
        return _checked(Requirement(part[1:].strip(), Operator.NOT_EXISTS), text)
    return _checked(Requirement(part, Operator.EXISTS), text)


def _checked(requirement: Requirement, text: str) -> Requirement:
    if not _KEY.fullmatch(requirement.key):
        raise BadRequest(f'unable to parse label selector "{text}": invalid label key "{requirement.key}"')
    for value in requirement.values:
        if requirement.operator in (Operator.IN, Operator.NOT_IN) and not _VALUE.fullmatch(value):
            raise BadRequest(f'unable to parse label selector "{text}": invalid label value "{value}"')
    return requirement


def _split(text: str) -> list[str]:
    """Commas separate requirements, except inside the parentheses of a set."""
    parts: list[str] = []
    depth = start = 0
    for place, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
        if depth not in (0, 1):
            raise BadRequest(f'unable to parse label selector "{text}": unbalanced parentheses')
    if depth:
        raise BadRequest(f'unable to parse label selector "{text}": unbalanced parentheses')
    last = text[start:].strip()
    if not parts and not last:
        return []
    parts.append(last)
    if "" in parts:
        raise BadRequest(f'unable to parse label selector "{text}": empty requirement')
    return parts


def parse_fields(text: str) -> FieldSelector:
    """
    The selector that `--field-selector text` means, for example "metadata.name=a,spec.nodeName!=b".

    Raises BadRequest. Which fields a resource supports is the server's decision, not the parser's.
    """
    terms: list[tuple[str, str, bool]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"(?P<path>[A-Za-z][A-Za-z0-9_.\-]*)\s*(?P<operator>==|=|!=)\s*(?P<value>[^=]*)", part)
        if found is None:
            raise BadRequest(f'unable to parse field selector "{text}": cannot read "{part}"')
        terms.append((found["path"], found["value"].strip(), found["operator"] != "!="))
    return FieldSelector(tuple(terms))
