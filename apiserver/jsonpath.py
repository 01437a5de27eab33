"""
The JSONPath that printer columns may use: fields, quoted fields, indices, [*] and equality filters.

    .spec.nodeName   .metadata.labels['a.b/c']   .items[0]   .list[*].name   .conditions[?(@.type=="Ready")].status

Invariants
    compile_path raises ValueError for what it does not know; find never raises, whatever the value

Pure. The subset is that of k8s.io/client-go/util/jsonpath which additionalPrinterColumns document.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from apimachinery.objects import JSON

_STEP = re.compile(
    r"""
      \.(?P<field>(?:\\.|[^.\[\]\\\s])+)
    | \[(?:(?P<index>-?[0-9]{1,9}) | (?P<all>\*) | '(?P<single>[^']*)' | "(?P<double>[^"]*)")\]
    | \[\?\(\s*@(?P<path>(?:\.[^.\[\]=!<>\s]+)+)\s*(?P<operator>==|!=)\s*
        (?:'(?P<text1>[^']*)' | "(?P<text2>[^"]*)" | (?P<literal>true|false|-?[0-9.]+))\s*\)\]
    """,
    re.VERBOSE,
)

Step = Callable[[JSON], Iterator[JSON]]


@lru_cache(maxsize=512)
def compile_path(path: str) -> Sequence[Step]:
    """The steps of a path, with or without braces around it. Raises ValueError, which shows where it fails."""
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    text = text.removeprefix("$")
    if text and text[0] not in ".[":
        text = "." + text
    steps: list[Step] = []
    place = 0
    while place < len(text):
        found = _STEP.match(text, place)
        if found is None:
            raise ValueError(f'cannot read the path "{path[:100]}" from "{text[place : place + 20]}" on')
        steps.append(_step(found))
        place = found.end()
    return tuple(steps)


def find(value: JSON, path: str) -> list[JSON]:
    """All values at the path; [] where there is none, and for a path that cannot be read."""
    try:
        steps = compile_path(path)
    except ValueError:
        return []
    found = [value]
    for step in steps:
        found = [below for above in found for below in step(above)]
    return found


def _step(found: re.Match[str]) -> Step:
    if (index := found["index"]) is not None:
        return lambda value: _at(value, int(index))
    if found["all"] is not None or found["field"] == "*":
        return _every
    if (path := found["path"]) is not None:
        wanted = next(text for text in (found["text1"], found["text2"], found["literal"]) if text is not None)
        equal = found["operator"] == "=="
        return lambda value: (item for item in _every(value) if (_text(item, path) == wanted) is equal)
    name = next(text for text in (found["single"], found["double"], found["field"]) if text is not None)
    if found["field"] is not None:
        name = re.sub(r"\\(.)", r"\1", name)
    return lambda value: _member(value, name)


def _member(value: JSON, name: str) -> Iterator[JSON]:
    if isinstance(value, dict) and name in value:
        yield value[name]


def _at(value: JSON, index: int) -> Iterator[JSON]:
    if isinstance(value, list) and -len(value) <= index < len(value):
        yield value[index]


def _every(value: JSON) -> Iterator[JSON]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _text(value: JSON, path: str) -> str | None:
    for name in path.lstrip(".").split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)
