"""
The past of a property for people: facts for -o json, and lines that draw them in a terminal.

Times are shown as the machine's clock on the wall has them, so this is no core; nothing else is asked of the outside.
"""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from apimachinery.keys import ObjectKey
from componentbase.errors import CommandError
from componentbase.textplot import Point, plot
from devicetwin.documents import read_documents
from devicetwin.wire import id_of

DAY_MS = 86_400_000
WORDS_SHOWN = 40  # changes of a property whose values are words


def history_facts(
    device: ObjectKey,
    name: str,
    samples: Iterable[tuple[int, str | None]],
    properties: Iterable[str],
    documents: Mapping[str, bytes],
) -> dict[str, object]:
    """
    What is known of a property's past, and its present value from the twin, for -o json and the drawing.

    samples: when, in milliseconds since 1970, and what from then on; None: not known. properties: all of the device
    that have a past. documents: those of the device's twin, at least, as devicetwin.documents writes them.
    """
    present: dict[str, object] | None = None
    known = set(properties)
    if (twin := read_documents(documents).twins.get(id_of(device))) is not None:
        known |= {each for each, what in twin.properties.items() if what.reported}
        if (what := twin.properties.get(name)) is not None and (reported := what.reported) is not None:
            present = {"value": reported.value, "atMs": reported.observed_at_ms, "stale": reported.stale}
    return {
        "namespace": device.namespace,
        "name": device.name,
        "property": name,
        "samples": [list(each) for each in samples],
        "present": present,
        "properties": sorted(known),
    }


def history_lines(facts: Mapping[str, Any], since_ms: int, now_ms: int, columns: int, encoding: str) -> list[str]:
    """
    A drawing where the values are numbers or switches, and the changes where they are words.

    facts: of history_facts, also from JSON. columns: of the terminal; encoding: its own. Raises CommandError with what
    there is instead, where nothing is known of the property.
    """
    device = f"{facts['namespace']}/{facts['name']}"
    samples: list[tuple[int, str | None]] = [(at_ms, value) for at_ms, value in facts["samples"]]
    if not samples and facts["present"] is None:
        known = ", ".join(facts["properties"])
        why = f"; there is something of: {known}" if known else ": the device has reported nothing"
        raise CommandError(f"nothing is known of {facts['property']} of {device}{why}")
    if facts["present"] is not None:
        present = None if facts["present"]["stale"] else facts["present"]["value"]
        if not samples or samples[-1][1] != present:
            samples.append((max(facts["present"]["atMs"], samples[-1][0] if samples else 0), present))
    days = now_ms - since_ms > DAY_MS

    def moment(at_s: float) -> str:
        return time.strftime("%d %b %H:%M" if days else "%H:%M:%S", time.localtime(at_s))

    title = f"{facts['property']} of {device}"
    if facts["present"] is not None:
        title += f": {facts['present']['value']}{', not reported any more' if facts['present']['stale'] else ''}"
    numbers = [_as_number(value) for _, value in samples]
    if any(number is None and value is not None for number, (_, value) in zip(numbers, samples, strict=True)):
        changes = [(at_ms, value) for at_ms, value in samples if at_ms >= since_ms] or samples[-1:]
        dropped = [f"... {len(changes) - WORDS_SHOWN} earlier"] if len(changes) > WORDS_SHOWN else []
        lines = [f"{moment(at_ms / 1000)}  {'(not reported)' if value is None else value}" for at_ms, value in changes]
        return [title, *dropped, *lines[-WORDS_SHOWN:]]
    points = [Point(at_ms / 1000, number) for (at_ms, _), number in zip(samples, numbers, strict=True)]
    mark = "\u2022" if encoding.lower().replace("-", "") == "utf8" else "*"
    drawing = plot(points, since_ms / 1000, now_ms / 1000, moment, width=min(columns, 120) - 12, mark=mark)
    return [title, *(drawing or ["no value is known in this time"])]


def _as_number(value: str | None) -> float | None:
    if value in ("true", "false"):
        return float(value == "true")
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
