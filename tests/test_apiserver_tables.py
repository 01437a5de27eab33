"""Tables of custom resources: typed cells, what rows carry, the later tables of a watch."""

import json
from typing import Any

from apimachinery.keys import Resource
from apimachinery.resources import CONFIG_MAPS, LEASES
from apiserver.definitions import Column, Definition
from apiserver.requests import Accepted, ApiRequest, Form, Verb
from apiserver.tables import metadata_of, table_of

LAMPS = Resource("example.com", "v1", "lamps", "Lamp", True)
NOW = 1_800_000_000.0
BODY = {
    "apiVersion": "example.com/v1",
    "kind": "Lamp",
    "metadata": {"name": "l1", "creationTimestamp": "2027-01-15T08:00:00Z"},
    "spec": {"watts": 5, "on": True, "ratio": 0.5, "tags": ["a", "b"], "text": "7"},
}


def columns(*pairs: tuple[str, str]) -> tuple[Column, ...]:
    return tuple(Column(path.strip("."), kind, path) for kind, path in pairs)


def table(definition: Definition, *, include: str = "Metadata", version: str = "v1", with_columns: bool = True) -> Any:
    asked = ApiRequest(
        verb=Verb.LIST, resource=definition.resource, accepted=Accepted(Form.TABLE, version), include_object=include
    )
    made = table_of([BODY], definition, asked, {"resourceVersion": "7"}, now=NOW, with_columns=with_columns)
    return json.loads(made)


def test_cells_have_their_columns_types() -> None:
    definition = Definition(
        LAMPS,
        columns=columns(
            ("integer", ".spec.watts"),
            ("integer", ".spec.text"),
            ("number", ".spec.ratio"),
            ("boolean", ".spec.on"),
            ("string", ".spec.tags"),
            ("string", ".spec.tags[*]"),
            ("string", ".spec.watts"),
            ("date", ".metadata.creationTimestamp"),
            ("string", ".spec.nothing"),
        ),
    )
    made = table(definition)
    assert made["rows"][0]["cells"] == ["l1", 5, None, 0.5, True, '["a","b"]', "a b", "5", "0s", None]
    assert [column["name"] for column in made["columnDefinitions"]][:2] == ["Name", "spec.watts"]
    assert (made["kind"], made["apiVersion"], made["metadata"]) == ("Table", "meta.k8s.io/v1", {"resourceVersion": "7"})


def test_a_kind_without_columns_shows_name_and_age() -> None:
    assert table(Definition(LAMPS))["rows"][0]["cells"] == ["l1", "0s"]


def test_built_in_kinds_have_columns_of_their_own() -> None:
    assert [column["name"] for column in table(Definition(LEASES))["columnDefinitions"]] == ["Name", "Holder", "Age"]
    assert len(table(Definition(CONFIG_MAPS))["rows"][0]["cells"]) == 3


def test_rows_carry_what_was_asked_for() -> None:
    rows = [table(Definition(LAMPS), include=include)["rows"][0] for include in ("None", "Metadata", "Object")]
    assert "object" not in rows[0]
    assert rows[1]["object"]["kind"] == "PartialObjectMetadata"
    assert rows[1]["object"]["metadata"] == BODY["metadata"]
    assert rows[2]["object"] == BODY


def test_later_tables_of_a_watch_leave_the_columns_out() -> None:
    assert table(Definition(LAMPS), with_columns=False)["columnDefinitions"] == []


def test_the_old_version_is_told_as_such() -> None:
    assert table(Definition(LAMPS), version="v1beta1")["apiVersion"] == "meta.k8s.io/v1beta1"


def test_metadata_alone() -> None:
    made = json.loads(metadata_of(BODY, "v1"))
    assert made == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": BODY["metadata"]}
