"""CustomResourceDefinitions as objects: which are refused and why, and when one is established."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from apimachinery.objects import JSON
from apiserver.builtins import BUILT_IN
from apiserver.crds import causes_of, change_causes, establish, fill_in, is_established, unknown_fields
from apiserver.definitions import Catalogue, from_crd

NOW, LATER = "2027-01-15T08:00:00Z", "2027-01-15T09:00:00Z"


def crd(change: Callable[[dict[str, Any]], None] = lambda _: None) -> dict[str, Any]:
    made = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "lamps.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "lamps", "kind": "Lamp"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    change(made)
    return made


def setting(path: str, value: JSON) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        *steps, last = path.split(".")
        place: Any = body
        for step in steps:
            place = place[int(step)] if step.isdigit() else place[step]
        if value is None:
            del place[last]
        else:
            place[last] = value

    return change


def test_a_good_definition_has_no_causes() -> None:
    assert causes_of(crd()) == []


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("metadata.name", "lamp.example.com", "metadata.name"),
        ("spec.group", None, "spec.group"),
        ("spec.group", "example", "spec.group"),
        ("spec.names.plural", "Lamps", "spec.names.plural"),
        ("spec.names.kind", None, "spec.names.kind"),
        ("spec.names", None, "spec.names.plural"),
        ("spec.scope", None, "spec.scope"),
        ("spec.scope", "Everywhere", "spec.scope"),
        ("spec.versions", [], "spec.versions"),
        ("spec.versions", [5], "spec.versions[0]"),
        ("spec.versions.0.name", "V1", "spec.versions[0].name"),
        ("spec.versions.0.served", "yes", "spec.versions[0].served"),
        ("spec.versions.0.storage", False, "spec.versions"),
        ("spec.versions.0.schema", None, "spec.versions[0].schema.openAPIV3Schema"),
        ("spec.versions.0.schema.openAPIV3Schema", {"type": "string"}, "spec.versions[0].schema.openAPIV3Schema.type"),
        ("spec.versions.0.additionalPrinterColumns", [{"name": "x"}], "spec.versions[0].additionalPrinterColumns[0]"),
        (
            "spec.versions.0.additionalPrinterColumns",
            [{"name": "x", "type": "string", "jsonPath": ".a["}],
            "spec.versions[0].additionalPrinterColumns[0].jsonPath",
        ),
    ],
)
def test_what_is_wrong_is_named(path: str, value: JSON, field: str) -> None:
    assert field in [cause.field for cause in causes_of(crd(setting(path, value)))]


def test_webhook_conversion_is_refused() -> None:
    body = crd()
    body["spec"]["conversion"] = {"strategy": "Webhook"}
    assert [cause.field for cause in causes_of(body)] == ["spec.conversion.strategy"]


def test_names_are_completed() -> None:
    body = crd()
    fill_in(body)
    assert body["spec"]["names"] == {"plural": "lamps", "kind": "Lamp", "singular": "lamp", "listKind": "LampList"}


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("spec.scope", "Cluster", "spec.scope"),
        ("spec.names.kind", "Light", "spec.names.kind"),
        ("spec.versions.0.name", "v2", "spec.versions"),
        ("spec.versions.0.schema.openAPIV3Schema.description", "new", None),
    ],
)
def test_what_stored_objects_depend_on_cannot_be_changed(path: str, value: JSON, field: str | None) -> None:
    causes = change_causes(crd(setting(path, value)), crd())
    assert [cause.field for cause in causes] == ([] if field is None else [field])


def test_misspelt_keywords_are_found() -> None:
    body = crd(setting("spec.versions.0.schema.openAPIV3Schema", {"type": "object", "requird": ["a"]}))
    assert unknown_fields(body) == ["spec.versions[0].schema.openAPIV3Schema.requird"]


def test_an_accepted_definition_is_established_at_once_and_keeps_its_transition_times() -> None:
    body = crd()
    establish(body, Catalogue(BUILT_IN), NOW)
    assert is_established(body)
    assert body["status"]["storedVersions"] == ["v1"]
    again = copy.deepcopy(body)
    establish(again, Catalogue(BUILT_IN), LATER)
    assert again == body


def test_a_kind_that_is_taken_is_not_established() -> None:
    other = crd(setting("metadata.name", "lights.example.com"))
    other["spec"]["names"]["plural"] = "lights"
    body = crd()
    establish(body, Catalogue([*BUILT_IN, *from_crd(other)]), NOW)
    assert not is_established(body)
    assert '"Lamp" is already in use by lights.example.com' in str(body["status"])


def test_a_body_without_status_is_not_established() -> None:
    assert not is_established({})
    assert not is_established({"status": {"conditions": "rubbish"}})
