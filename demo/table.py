"""
What the demo shows: nodes, devices and processes as lines of text.

It is made from the API's answers alone, the same that kubectl would show, so that what a person sees here
is what the system knows and not what the demo knows. Values come from devices and from whoever may
edit them, and are printed on a terminal: whatever is not printable is replaced.

Pure: bodies and the time go in, lines come out.
"""

import datetime
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from apimachinery.devices import PropertyModel, property_models
from apimachinery.objects import JSON, lookup

MAX_VALUE_WIDTH = 24
_GAP = "  "  # the demo's own devices fit into 80 columns so


class Process(NamedTuple):
    """One child of the demo, as the table shows it."""

    name: str
    state: str
    """For example "running" or "restarting"; a word or two."""


class Snapshot(NamedTuple):
    """What the API said last."""

    nodes: Sequence[Mapping[str, JSON]]
    devices: Sequence[Mapping[str, JSON]]
    models: Sequence[Mapping[str, JSON]]


def lines(snapshot: Snapshot, processes: Sequence[Process], now: datetime.datetime) -> list[str]:
    """The picture, without line breaks or escapes; blank lines between its three parts."""
    out = ["   ".join(f"{process.name} {process.state}" for process in processes), ""]
    out += _columns([("NODE", "LINK", "SINCE", "AGE"), *(_node_row(node, now) for node in snapshot.nodes)])
    if not snapshot.nodes:
        out.append("(no node yet)")
    out.append("")
    models = {_place(model): property_models(model) for model in snapshot.models}
    rows = [row for device in snapshot.devices for row in _device_rows(device, models, now)]
    out += _columns([("DEVICE", "NODE", "STATE", "PROPERTY", "DESIRED", "", "REPORTED", "AGE"), *rows])
    if not rows:
        out.append("(no device)")
    return out


def age(seconds: float) -> str:
    """A duration as kubectl writes it, in its coarsest sensible unit; "now" for what the clocks put in the future."""
    whole = int(seconds)
    if whole < 0:
        return "now"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def printable(text: str, width: int = MAX_VALUE_WIDTH) -> str:
    """The text with whatever could move a cursor replaced, cut to `width` characters; "-" for an empty one."""
    clean = "".join(char if char.isprintable() else "�" for char in text[: width + 1])
    if len(clean) > width:
        clean = clean[: width - 1] + "…"
    return clean or "-"


def cut(line: str, width: int) -> str:
    """
    At most `width` terminal columns of a line, so that no line wraps and the picture stays in its place.

    A cell that does not fit is left out as a whole: half a number is another one.
    """
    used = 0
    for index, char in enumerate(line):
        used += _cells(char)
        if used > width:
            whole, gap, _ = line[:index].rpartition(_GAP)
            return whole.rstrip() if gap else line[:index]
    return line


def _node_row(node: Mapping[str, JSON], now: datetime.datetime) -> tuple[str, ...]:
    ready = _condition(node, "Ready")
    link = {"True": "connected", "False": "down", "Unknown": "lost"}.get(str(ready.get("status")), "never connected")
    since = _age_of(ready.get("lastTransitionTime"), now)
    return (printable(_name(node)), link, since, _age_of(lookup(node, "metadata.creationTimestamp"), now))


def _device_rows(
    device: Mapping[str, JSON], models: Mapping[str, Mapping[str, PropertyModel]], now: datetime.datetime
) -> list[tuple[str, ...]]:
    namespace = lookup(device, "metadata.namespace") or ""
    model = models.get(f"{namespace}/{lookup(device, 'spec.deviceModelRef.name')}", {})
    reported = {_text(twin.get("propertyName")): twin for twin in _mappings(lookup(device, "status.twins"))}
    name = _name(device) if namespace == "default" else f"{namespace}/{_name(device)}"
    head = (
        printable(name),
        printable(_text(lookup(device, "spec.nodeName"))),
        printable(_text(lookup(device, "status.state"))),
    )
    rows = []
    for prop in _mappings(lookup(device, "spec.properties")):
        known = model.get(_text(prop.get("name")))
        rows.append(head + _property_cells(prop, reported.get(_text(prop.get("name")), {}), known, now))
        head = ("", "", "")
    return rows or [(*head, "-", "-", "", "-", "-")]


def _property_cells(
    prop: Mapping[str, JSON], twin: Mapping[str, JSON], known: PropertyModel | None, now: datetime.datetime
) -> tuple[str, ...]:
    desired, value = lookup(prop, "desired.value"), lookup(twin, "reported.value")
    unit = f" {printable(known.unit, 8)}" if known and known.unit else ""
    stamp = _text(lookup(twin, "reported.metadata.timestamp"))
    seen = age(now.timestamp() - int(stamp) / 1000) if stamp.isascii() and stamp.isdigit() else "-"
    mark = _mark(desired, twin) if isinstance(desired, str) and desired else ""
    return (
        printable(_text(prop.get("name"))),
        printable(desired) if isinstance(desired, str) else "-",
        mark,
        printable(value) + unit if isinstance(value, str) and value else "-",
        seen,
    )


def _mark(desired: str, twin: Mapping[str, JSON]) -> str:
    if lookup(twin, "desired.value") != desired:
        return "pending"  # what the status says is of the value before
    told = {"synced": "in step", "rejected": "refused"}.get(_text(twin.get("sync")), "pending")
    return told + (", stale" if lookup(twin, "reported.metadata.stale") == "true" else "")


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        _GAP.join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _width(text: str) -> int:
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _condition(value: Mapping[str, JSON], kind: str) -> Mapping[str, JSON]:
    return next((found for found in _mappings(lookup(value, "status.conditions")) if found.get("type") == kind), {})


def _mappings(value: JSON) -> list[Mapping[str, JSON]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _age_of(stamp: JSON, now: datetime.datetime) -> str:
    try:
        return age((now - datetime.datetime.fromisoformat(stamp)).total_seconds())
    except (TypeError, ValueError):
        return "-"


def _name(value: Mapping[str, JSON]) -> str:
    return _text(lookup(value, "metadata.name"))


def _place(value: Mapping[str, JSON]) -> str:
    return f"{lookup(value, 'metadata.namespace') or ''}/{_name(value)}"


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else ""
