"""
Request bodies in YAML, read into what they would be in JSON.

Kubernetes reads YAML by way of JSON, so what JSON does not have is not here either: a date is a text, every key is
a text. PyYAML's safe loader does the reading, its C half where it is installed.

Invariants
    what comes out is JSON: objects with texts for names, lists, texts, finite numbers, true, false, null
    a body that refers to one part from many places is not blown up beyond MAX_NODES

Imported by the first body in YAML only.
"""

import math
from collections.abc import Mapping

import yaml

from apimachinery.errors import BadRequest
from apimachinery.objects import JSON

MAX_NODES = 1 << 20  # 3 MiB of YAML without aliases cannot have more of any use
MAX_DEPTH = 200


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that takes dates for texts and notes repeated keys."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[JSON, JSON]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    self.repeated.append(f'line {key.start_mark.line + 1}: key "{key.value}" already set in map')
                seen.add(key.value)
        found: dict[JSON, JSON] = super().construct_mapping(node, deep)
        return found


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(data: bytes) -> tuple[JSON, list[str]]:
    """
    The value of the one document in a body, and a sentence for each key that is repeated.

    Raises BadRequest for what is no YAML, or has no JSON.
    """
    loader = None
    try:
        _check_depth(data)
        loader = _Loader(data)
        value = loader.get_single_data()
        return _Reader().json(value, 0), loader.repeated
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as exc:
        raise BadRequest(f"error decoding YAML: {' '.join(str(exc).split())[:500]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _check_depth(data: bytes) -> None:
    """The C loader recurses without looking where its stack ends; its parser does not."""
    depth = 0
    for event in yaml.parse(data, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


class _Reader:
    """A walk with a budget."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def json(self, value: object, depth: int) -> JSON:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise ValueError(f"the document has more than {MAX_NODES} values, or is nested more than {MAX_DEPTH} deep")
        match value:
            case None | bool() | int() | str():
                return value
            case float() if math.isfinite(value):
                return value
            case list():
                return [self.json(below, depth + 1) for below in value]
            case Mapping():
                return {_name(name): self.json(below, depth + 1) for name, below in value.items()}
        raise ValueError(f"{str(value)[:80]!r} is no value that JSON has")


def _name(key: object) -> str:
    match key:
        case str():
            return key
        case bool():
            return "true" if key else "false"
        case int() | float():
            return str(key)
    raise ValueError("a key of an object must be a text")
