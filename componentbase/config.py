"""
Configuration as frozen dataclasses, written as YAML that a person can edit without a manual.

A field is declared once, with its default, its meaning and its limits; from that come the reader, the error messages
and the printed file. What is wrong is refused with the file, the line and, for a misspelled word, the right spelling:
a setting that is silently ignored is found out on the worst day.

Invariants
    parse(type(x), dump(x)) == x
    no value reaches a dataclass unchecked: not from a file, not from a flag (override)
    YAML's surprises stay out: `no` is not false, 010 is not 8, a key stands once, tags construct nothing

Keys are the field names in camelCase, as Kubernetes spells its own, a trailing _s written out: retry_after_s is
retryAfterSeconds.
"""

import dataclasses
import difflib
import enum
import inspect
import json
import math
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml

from componentbase.endpoints import Endpoint
from componentbase.errors import CommandError
from componentbase.settings import (
    REQUIRED,
    choices_of,
    fields_of,
    has_no_default,
    is_section,
    key_of,
    meaning_of,
    name_of,
    range_of,
    scalar_reader,
    setting,
)

__all__ = ["REQUIRED", "ConfigError", "dump", "key_of", "load", "override", "parse", "setting"]

T = TypeVar("T")

FILE_BYTES_MAX = 1 << 20  # a configuration is written by hand; whatever is larger is the wrong file
_STANDARD_TAG = "tag:yaml.org,2002:"
_NULL_TAG = _STANDARD_TAG + "null"
_STR_TAG = _STANDARD_TAG + "str"
_TAGS = frozenset({"null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge", "value"})
_PLAIN = re.compile(r"[A-Za-z0-9/._]([A-Za-z0-9/._:+-]*[A-Za-z0-9/._+-])?")  # needs no quotes, also inside brackets
_COMMENT_WIDTH = 110


class ConfigError(CommandError):
    """The configuration cannot be used as it is; the text is for the person who wrote it."""

    def __init__(self, source: str, line: int | None, message: str) -> None:
        super().__init__(source, line, message)
        self.source = source
        self.line = line
        """Counted from 1; None where there is no line, as for a flag."""
        self.message = message

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{where}: {self.message}"


def load(cls: type[T], path: str | Path) -> T:
    """Read a file into cls. Relative paths in it are taken from the directory it lies in. Raises ConfigError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise ConfigError(str(path), None, f"cannot be read: {exc.strerror}") from exc
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError(str(path), line, "is not UTF-8 text") from exc
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(str(path), None, f"is larger than {FILE_BYTES_MAX} bytes: is it the right file?")
    return parse(cls, text, str(path), base=path.parent)


def parse(cls: type[T], text: str, source: str, base: Path | None = None) -> T:
    """
    Read YAML into cls; an empty text is all defaults. source stands in front of errors, base of relative paths.

    Raises ConfigError.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else None
        raise ConfigError(source, line, f"is not YAML: {exc.problem or exc.context}") from exc
    except yaml.YAMLError as exc:  # a character that YAML does not allow: it has a position but no mark
        position = getattr(exc, "position", None)
        line = text.count("\n", 0, position) + 1 if isinstance(position, int) else None
        raise ConfigError(source, line, "is not YAML: a character that must not stand there") from exc
    except RecursionError:
        raise ConfigError(source, None, "is nested too deeply") from None
    if node is None:
        node = _compose("null")
    return typing.cast(T, _Reader(source, base, with_lines=True).dataclass(cls, node, ""))


def override(config: T, values: Mapping[str, object], source: str = "command line") -> T:
    """
    A copy with other values at dotted paths of field names or YAML keys: {"mqtt.url": "embedded"}.

    A value is of the field's type, or text that is read as the file would be. None means that the flag was not given
    and changes nothing. Raises ConfigError, which names the path in place of a line.
    """
    reader = _Reader(source, base=None, with_lines=False)
    for path, value in values.items():
        if value is not None:
            config = _override_one(config, path.split("."), value, reader, "")
    return config


def dump(config: object) -> str:
    """The whole configuration as YAML, every field with its meaning in a comment above it."""
    title = _comment(_first_paragraph(type(config)), "")
    lines = [*title, ""] if title else []
    _dump_dataclass(config, "", lines)
    return "\n".join(lines).strip("\n") + "\n"


# ---- reading


class _Reader:
    """Walks YAML nodes and types together. Nodes, not values, because only nodes know their lines."""

    def __init__(self, source: str, base: Path | None, *, with_lines: bool) -> None:
        self.source = source
        self.base = base
        self.with_lines = with_lines

    def refuse(self, node: yaml.Node, path: str, message: str) -> NoReturn:
        line = node.start_mark.line + 1 if self.with_lines else None
        raise ConfigError(self.source, line, f"{path}: {message}" if path else message)

    def value(self, kind: Any, node: yaml.Node, path: str, limits: Mapping[str, Any]) -> Any:
        if node.tag.removeprefix(_STANDARD_TAG) not in _TAGS:
            self.refuse(node, path, f"the tag {node.tag} is not allowed")
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            if node.tag == _NULL_TAG:
                return None
            (kind,) = (arg for arg in args if arg is not types.NoneType)
            return self.value(kind, node, path, limits)
        if is_section(kind):
            return self.dataclass(kind, node, path)
        if origin in (list, tuple, Sequence):
            return self.sequence(origin, args[0], node, path, limits)
        if origin in (dict, Mapping):
            return self.mapping(args[1], node, path, limits)
        text = self.scalar(kind, node, path)
        if origin is Literal:
            return self.choice({str(arg): arg for arg in args}, text, node, path)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return self.choice({str(member.value): member for member in kind}, text, node, path)
        return self.plain(kind, text, node, path, limits)

    def dataclass(self, cls: type[Any], node: yaml.Node, path: str) -> Any:
        fields = fields_of(cls)
        by_key = {key_of(name): name for name in fields}
        values: dict[str, Any] = {}
        for key, key_node, value_node in self.pairs(node, path):
            if key not in by_key:
                self.refuse(key_node, path, f'unknown key "{key}"{_suggestion(key, by_key, cls)}')
            name = by_key[key]
            kind, field = fields[name]
            values[name] = self.value(kind, value_node, _join(path, key), field.metadata)
        for key, name in by_key.items():
            if name not in values and has_no_default(fields[name][1]):
                self.refuse(node, path, f'missing key "{key}"{meaning_of(fields[name][1])}')
            default = fields[name][1].default
            if name not in values and self.base is not None and isinstance(default, Path):
                values[name] = self.base / default  # as if it had been written there
        return self.build(cls, values, node, path)

    def build(self, cls: type[Any], values: dict[str, Any], node: yaml.Node, path: str) -> Any:
        try:
            return cls(**values)
        except ValueError as exc:  # what __post_init__ says about fields that do not go together
            self.refuse(node, path, str(exc))

    def pairs(self, node: yaml.Node, path: str) -> Iterable[tuple[str, yaml.Node, yaml.Node]]:
        if node.tag == _NULL_TAG:  # a key with everything under it commented out
            return
        if not isinstance(node, yaml.MappingNode):
            self.refuse(node, path, f"expected keys and values, got {_told(node)}")
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.refuse(key_node, path, "a key must be a word")
            key = key_node.value
            if key in seen:
                self.refuse(key_node, path, f'the key "{key}" stands here twice, first in line {seen[key]}')
            seen[key] = key_node.start_mark.line + 1
            yield key, key_node, value_node

    def sequence(self, origin: Any, item: Any, node: yaml.Node, path: str, limits: Mapping[str, Any]) -> Any:
        if node.tag == _NULL_TAG:
            nodes = []
        elif isinstance(node, yaml.SequenceNode):
            nodes = node.value
        else:
            self.refuse(node, path, f"expected a list, got {_told(node)}")
        values = [self.value(item, child, f"{path}[{index}]", limits) for index, child in enumerate(nodes)]
        return values if origin is list else tuple(values)

    def mapping(self, item: Any, node: yaml.Node, path: str, limits: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: self.value(item, child, _join(path, key), limits) for key, _key_node, child in self.pairs(node, path)
        }

    def scalar(self, kind: Any, node: yaml.Node, path: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag == _NULL_TAG:
            self.refuse(node, path, f"expected {name_of(kind)}, got {_told(node)}")
        return str(node.value)

    def choice(self, choices: Mapping[str, Any], text: str, node: yaml.Node, path: str) -> Any:
        if text not in choices:
            self.refuse(node, path, f'"{text}" is none of {", ".join(choices)}{_did_you_mean(text, choices)}')
        return choices[text]

    def plain(self, kind: Any, text: str, node: yaml.Node, path: str, limits: Mapping[str, Any]) -> Any:
        try:
            value = scalar_reader(kind)(text)
        except ValueError as exc:
            self.refuse(node, path, str(exc) or f'expected {name_of(kind)}, got "{text}"')
        if kind is str:
            self.check_text(text, node, path, limits)
        elif kind is Path:
            value = self.place(value, node, path, limits)
        elif kind in (int, float):
            low, high = limits.get("at_least"), limits.get("at_most")
            if (low is not None and value < low) or (high is not None and value > high):
                self.refuse(node, path, f"{text} is out of range: {range_of(limits)}")
        return value

    def check_text(self, text: str, node: yaml.Node, path: str, limits: Mapping[str, Any]) -> None:
        resolved = node.tag.removeprefix(_STANDARD_TAG)
        if resolved in ("bool", "int", "float"):
            self.refuse(node, path, f'expected text, and YAML reads {text} as {resolved}: write "{text}" in quotes')
        pattern = limits.get("pattern")
        if pattern is not None and not re.fullmatch(pattern, text):
            self.refuse(node, path, f'"{text}" does not match {pattern}')

    def place(self, value: Path, node: yaml.Node, path: str, limits: Mapping[str, Any]) -> Path:
        try:
            value = value.expanduser()
        except RuntimeError:
            self.refuse(node, path, f'there is no home directory for "{value}"')
        if self.base is not None and not value.is_absolute():
            value = self.base / value
        if limits.get("must_exist") and not value.exists():
            self.refuse(node, path, f"{value} does not exist")
        return value


def _told(node: yaml.Node) -> str:
    """What stands there, in words for an error."""
    if isinstance(node, yaml.MappingNode):
        return "keys and values"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if node.tag == _NULL_TAG:
        return "nothing"
    return f'"{node.value}"'


def _suggestion(key: str, known: Mapping[str, str], cls: type[Any]) -> str:
    for right, name in known.items():
        if key.replace("-", "_").lower() in (name, right.lower(), key_of(name).lower()):
            return f', did you mean "{right}"?'
    for parent, (kind, _field) in fields_of(cls).items():
        if is_section(kind) and key in map(key_of, fields_of(kind)):
            return f': it belongs under "{key_of(parent)}"'
    return _did_you_mean(key, known) or f"; known are {', '.join(sorted(known))}"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f', did you mean "{close[0]}"?' if close else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


# ---- overriding


def _override_one(config: T, path: list[str], value: object, reader: _Reader, at: str) -> T:
    fields = fields_of(type(config))
    by_name = {name: name for name in fields} | {key_of(name): name for name in fields}
    if path[0] not in by_name:
        keys = {key_of(name): name for name in fields}
        raise ConfigError(reader.source, None, f'unknown setting "{_join(at, path[0])}"{_did_you_mean(path[0], keys)}')
    name = by_name[path[0]]
    kind, field = fields[name]
    here = _join(at, key_of(name))
    if len(path) > 1:
        if not is_section(kind):
            raise ConfigError(reader.source, None, f'unknown setting "{_join(here, path[1])}": {here} is one value')
        changed: Any = _override_one(getattr(config, name), path[1:], value, reader, here)
    else:
        text = json.dumps(_tree(value))  # JSON is YAML with every text in quotes
        node = yaml.ScalarNode(_STR_TAG, value) if isinstance(value, str) else _compose(text)
        changed = reader.value(kind, node, here, field.metadata)
    try:
        return typing.cast(T, dataclasses.replace(typing.cast(Any, config), **{name: changed}))
    except ValueError as exc:
        raise ConfigError(reader.source, None, f"{here}: {exc}") from exc


def _tree(value: object) -> object:
    """The value as nothing but what JSON has."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path | Endpoint):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {key_of(name): _tree(getattr(value, name)) for name in fields_of(type(value))}
    if isinstance(value, Mapping):
        return {str(key): _tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tree(item) for item in value]
    return value


# ---- printing


def _dump_dataclass(config: object, indent: str, lines: list[str]) -> None:
    for name, (kind, field) in fields_of(type(config)).items():
        value = getattr(config, name)
        doc = field.metadata.get("doc") or (_first_paragraph(kind) if is_section(kind) else "")
        says = [doc, range_of(field.metadata) and f"({range_of(field.metadata)})", choices_of(kind)]
        lines += _comment(" ".join(part for part in says if part), indent)
        if is_section(kind):
            lines.append(f"{indent}{key_of(name)}:")
            _dump_dataclass(value, indent + "  ", lines)
        else:
            lines += _dump_value(key_of(name), _tree(value), indent)
        lines.append("")
    lines.pop()  # the blank line belongs between settings, not after them


def _dump_value(key: str, tree: object, indent: str) -> list[str]:
    if isinstance(tree, list) and tree:
        return [f"{indent}{key}:", *(f"{indent}  - {_flow(item)}" for item in tree)]
    if isinstance(tree, dict) and tree:
        return [f"{indent}{key}:", *(f"{indent}  {_flow(name)}: {_flow(item)}" for name, item in tree.items())]
    return [f"{indent}{key}: {_flow(tree)}"]


def _flow(tree: object) -> str:
    """A value on one line, texts without quotes where YAML reads them as the same text."""
    match tree:
        case dict():
            return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in tree.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, tree)) + "]"
        case str() if _PLAIN.fullmatch(tree) and _resolves_to_text(tree):
            return tree
        case str():
            quoted: str = yaml.safe_dump(tree, default_style='"', allow_unicode=True, width=math.inf)
            return quoted.rstrip("\n")
        case _:
            return json.dumps(tree)


def _resolves_to_text(text: str) -> bool:
    return _compose(text).tag == _STR_TAG


def _compose(text: str) -> yaml.Node:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert node is not None, "an empty text is no node"
    return node


def _comment(text: str, indent: str) -> list[str]:
    prefix = f"{indent}# "
    return [prefix + line for line in textwrap.wrap(text, _COMMENT_WIDTH - len(prefix))]


def _first_paragraph(cls: type[Any]) -> str:
    doc = inspect.cleandoc(cls.__doc__ or "")
    if doc.startswith(f"{cls.__name__}("):  # what @dataclass writes where nobody did
        return ""
    return " ".join(doc.partition("\n\n")[0].split())
