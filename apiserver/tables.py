"""
Objects as `kubectl get` shows them: a meta.k8s.io Table with columns made on the server.

Custom resources bring their columns along; the built-in kinds' are in `apiserver.columns`.

Pure: the time is an argument.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from apimachinery.objects import JSON
from apiserver import columns, jsonpath
from apiserver.columns import Cells, age
from apiserver.definitions import Column, Definition
from apiserver.requests import ApiRequest


def table_of(
    values: Iterable[Mapping[str, JSON]],
    definition: Definition,
    asked: ApiRequest,
    metadata: Mapping[str, JSON],
    *,
    now: float,
    with_columns: bool = True,
) -> bytes:
    """
    The Table of some bodies, as JSON.

    metadata: the table's own (resourceVersion, continue). now: seconds since 1970, for ages.
    with_columns: False for the later events of a watch, which the client reads by the first one's columns.
    """
    shown = columns.BUILT_IN.get((definition.resource.group, definition.resource.plural))
    if shown is None:
        shown = columns.Layout(_custom_columns(definition), _custom_cells(definition))
    table = {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{asked.accepted.version}",
        "metadata": metadata,
        "columnDefinitions": [_column(column) for column in shown.columns] if with_columns else [],
        "rows": [
            {"cells": shown.cells(value, now), "object": _included(value, asked)}
            if asked.include_object != "None"
            else {"cells": shown.cells(value, now)}
            for value in values
        ],
    }
    return json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()


def metadata_of(value: Mapping[str, JSON], version: str) -> bytes:
    """The body reduced to its metadata, as JSON. version: of meta.k8s.io."""
    return json.dumps(_partial(value, version), separators=(",", ":"), ensure_ascii=False).encode()


def _included(value: Mapping[str, JSON], asked: ApiRequest) -> Mapping[str, JSON]:
    return value if asked.include_object == "Object" else _partial(value, asked.accepted.version)


def _partial(value: Mapping[str, JSON], version: str) -> dict[str, JSON]:
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": value.get("metadata") or {},
    }


def _column(column: Column) -> dict[str, JSON]:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _custom_columns(definition: Definition) -> Sequence[Column]:
    own = definition.columns or (columns.AGE,)
    return (columns.NAME, *own)


def _custom_cells(definition: Definition) -> Cells:
    own = definition.columns or (columns.AGE,)

    def cells(value: Mapping[str, JSON], now: float) -> list[JSON]:
        return [columns.name_of(value), *(_cell(value, column, now) for column in own)]

    return cells


def _cell(value: Mapping[str, JSON], column: Column, now: float) -> JSON:
    """One cell, in the column's type; None, which kubectl leaves empty, where there is no such value."""
    found = jsonpath.find(value, column.json_path)
    if not found or found == [None]:
        return None
    first = found[0]
    match column.type:
        case "integer":
            return first if isinstance(first, int) and not isinstance(first, bool) else None
        case "number":
            return first if isinstance(first, int | float) and not isinstance(first, bool) else None
        case "boolean":
            return first if isinstance(first, bool) else None
        case "date":
            return age(first, now)
    return " ".join(_text(item) for item in found)


def _text(value: JSON) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
