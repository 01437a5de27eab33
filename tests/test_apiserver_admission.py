"""What the server makes of a body before it stores it."""

from typing import Any

import pytest

from apimachinery.errors import BadRequest, Invalid
from apimachinery.keys import Resource
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, NODES, PODS, SECRETS, SERVICES
from apiserver.admission import Admission, judge_unknown
from apiserver.builtins import BUILT_IN
from apiserver.definitions import Catalogue, Definition
from apiserver.metadata import Facts

LAMPS = Resource("example.com", "v1", "lamps", "Lamp", True)
SCHEMA = {
    "type": "object",
    "properties": {"spec": {"type": "object", "properties": {"watts": {"type": "integer", "default": 5}}}},
}
LAMP = Definition(LAMPS, schema=SCHEMA, is_custom=True, has_status=True)
CATALOGUE = Catalogue([*BUILT_IN, LAMP])


def admitted(body: dict[str, Any], resource: Resource, *, new: bool = True, validation: str = "") -> dict[str, Any]:
    body = {"metadata": {"name": "a"}} | body
    definition = CATALOGUE.of(resource)
    assert definition is not None
    current = None if new else body
    Admission().admit(body, current, definition, CATALOGUE, Facts("now", "u", "s"), validation)
    return body


def test_a_custom_resource_is_pruned_defaulted_and_judged() -> None:
    assert admitted({"spec": {"x": 1}}, LAMPS)["spec"] == {"watts": 5}
    with pytest.raises(Invalid, match="must be of type integer"):
        admitted({"spec": {"watts": "many"}}, LAMPS)


def test_unknown_fields_are_warned_of_refused_or_ignored() -> None:
    found = ['unknown field "spec.x"']
    assert judge_unknown(found, LAMPS, "") == tuple(found)
    assert judge_unknown(found, LAMPS, "Warn") == tuple(found)
    assert judge_unknown(found, LAMPS, "Ignore") == ()
    assert judge_unknown([], LAMPS, "Strict") == ()
    with pytest.raises(BadRequest, match="cannot be handled as a Lamp: strict decoding error: unknown field"):
        judge_unknown(found, LAMPS, "Strict")


@pytest.mark.parametrize(
    ("resource", "status"),
    [(PODS, {"phase": "Pending"}), (NAMESPACES, {"phase": "Active"}), (NODES, {"mine": 1}), (LAMPS, None)],
)
def test_the_status_of_a_new_object_is_the_servers_but_for_a_node(resource: Resource, status: Any) -> None:
    assert admitted({"status": {"mine": 1}}, resource).get("status") == status


def test_a_status_stays_in_an_update() -> None:
    assert admitted({"status": {"phase": "Running"}}, PODS, new=False)["status"] == {"phase": "Running"}


def test_a_secrets_texts_become_data() -> None:
    made = admitted({"stringData": {"a": "ü"}, "data": {"b": "eA=="}}, SECRETS)
    assert (made["data"], made["type"]) == ({"a": "w7w=", "b": "eA=="}, "Opaque")
    assert "stringData" not in made


@pytest.mark.parametrize(
    "body", [{"data": {"a": "%"}}, {"data": {"a": 5}}, {"data": []}, {"stringData": {"a": 1}}, {"stringData": []}]
)
def test_a_secret_that_is_none_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="cannot be handled as a Secret"):
        admitted(body, SECRETS)


def test_a_namespace_is_labelled_with_its_name() -> None:
    assert admitted({}, NAMESPACES)["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a"}


def test_a_service_has_a_type() -> None:
    assert admitted({"spec": {}}, SERVICES)["spec"] == {"type": "ClusterIP"}


def test_a_bad_definition_is_refused_with_all_causes() -> None:
    with pytest.raises(Invalid) as caught:
        admitted({"spec": {"scope": "Nowhere"}}, CUSTOM_RESOURCE_DEFINITIONS)
    assert {cause.field for cause in caught.value.causes} >= {
        "spec.group",
        "spec.names.plural",
        "spec.scope",
        "spec.versions",
    }


def test_a_new_schema_takes_the_old_ones_place() -> None:
    admission = Admission()
    for default in (1, 2):
        schema = {"type": "object", "properties": {"n": {"type": "integer", "default": default}}}
        body: dict[str, Any] = {"metadata": {"name": "a"}}
        admission.admit(body, None, Definition(LAMPS, schema=schema, is_custom=True), CATALOGUE, Facts("", "", ""), "")
        assert body["n"] == default
