"""Definitions: read from CustomResourceDefinitions whole, reduced or broken, and looked up in a Catalogue."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import Resource
from apimachinery.resources import PODS
from apiserver.builtins import BUILT_IN
from apiserver.definitions import Catalogue, Column, Definition, from_crd, version_order


def crd(**spec: Any) -> dict[str, Any]:
    base = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "lamps", "kind": "Lamp", "shortNames": ["la"], "categories": ["all"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object"}},
                "selectableFields": [{"jsonPath": ".spec.nodeName"}],
                "additionalPrinterColumns": [
                    {"name": "Node", "type": "string", "jsonPath": ".spec.nodeName", "priority": 1}
                ],
            },
            {"name": "v1alpha1", "served": True, "storage": False},
            {"name": "v0", "served": False, "storage": False},
        ],
    }
    return {"metadata": {"name": "lamps.example.com"}, "spec": base | spec}


def test_each_served_version_becomes_a_definition() -> None:
    first, second = from_crd(crd())
    assert first.resource == Resource("example.com", "v1", "lamps", "Lamp", True)
    assert first.columns == (Column("Node", "string", ".spec.nodeName", priority=1),)
    assert (first.short_names, first.categories, first.singular, first.list_kind) == (
        ("la",),
        ("all",),
        "lamp",
        "LampList",
    )
    assert (first.has_status, first.is_custom) == (True, True)
    assert first.selectable == ("spec.nodeName",)
    assert first.schema == {"type": "object"}
    assert (second.resource.version, second.has_status, second.schema) == ("v1alpha1", False, None)


def test_scope_decides_about_namespaces() -> None:
    assert not from_crd(crd(scope="Cluster"))[0].resource.namespaced


@pytest.mark.parametrize(
    "broken", [{}, {"spec": None}, {"spec": {"names": []}}, crd(group=""), crd(versions=None), crd(versions=[3, {}])]
)
def test_a_broken_definition_defines_nothing(broken: dict[str, Any]) -> None:
    assert from_crd(broken) == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda value: st.lists(value, max_size=2) | st.dictionaries(st.text(max_size=3), value, max_size=2),
)


@given(st.dictionaries(st.sampled_from(list(crd()["spec"])), JSON_VALUES), st.data())
def test_from_crd_never_raises(spec: dict[str, Any], data: st.DataObject) -> None:
    from_crd(crd(**spec))
    version = dict(crd()["spec"]["versions"][0])
    version[data.draw(st.sampled_from(list(version)))] = data.draw(JSON_VALUES)
    from_crd(crd(versions=[version]))


def test_a_catalogue_finds_by_place_by_resource_and_by_kind() -> None:
    catalogue = Catalogue([*BUILT_IN, *from_crd(crd())])
    assert catalogue.resolve("", "v1", "pods") == PODS
    assert catalogue.resolve("", "v1", "lamps") is None
    found = catalogue.by_kind("example.com", "v1", "Lamp")
    assert found is not None
    assert catalogue.of(found.resource) is found
    assert catalogue.by_kind("example.com", "v1", "Pod") is None
    assert len(catalogue) == len(BUILT_IN) + 2


def test_versions_are_in_the_order_that_clients_prefer() -> None:
    names = ["v10alpha3", "v1", "foo", "v2beta1", "v2", "v10", "v1beta2", "v2beta10", "bar", "v0", "v11alpha2"]
    assert sorted(names, key=version_order) == [
        "v10", "v2", "v1", "v2beta10", "v2beta1", "v1beta2", "v11alpha2", "v10alpha3", "bar", "foo", "v0",
    ]  # fmt: skip


def test_objects_of_all_versions_are_kept_under_the_stored_one() -> None:
    first, second = (replace(one, stored_version="v1alpha1") for one in from_crd(crd()))
    catalogue = Catalogue([*BUILT_IN, first, second])
    assert catalogue.place_of(first.resource) == catalogue.place_of(second.resource) == second.resource
    assert catalogue.place_of(BUILT_IN[0].resource) == BUILT_IN[0].resource
    assert catalogue.places() == [*(one.resource for one in BUILT_IN), second.resource]


def test_groups_name_the_preferred_version_first() -> None:
    first, second = from_crd(crd())
    groups = Catalogue([second, first]).groups()
    assert groups == {"example.com": ["v1", "v1alpha1"]}


def test_a_later_definition_replaces_an_earlier_one() -> None:
    resource = Resource("g", "v1", "things", "Thing", True)
    catalogue = Catalogue([Definition(resource), Definition(resource, ("t",))])
    assert [found.short_names for found in catalogue] == [("t",)]
