"""Which kinds the node serves: those it is sent, and no others."""

from apimachinery.keys import ObjectVersion
from apimachinery.objects import Object, canonical, from_json
from apimachinery.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEVICE_GROUP,
    DEVICES,
    SECRETS,
    SERVICES,
)
from apiserver.definitions import Catalogue
from metamanager.catalogue import EVERY_NODE_HOLDS, catalogue_of
from tests.harness.store_history import GADGETS


def definition(group: str, plural: str, kind: str, version: str = "v1beta1") -> Object:
    columns = [{"name": "Node", "type": "string", "jsonPath": ".spec.nodeName"}]
    return from_json(
        CUSTOM_RESOURCE_DEFINITIONS,
        {
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"plural": plural, "kind": kind, "shortNames": [plural[:3]]},
                "versions": [{"name": version, "served": True, "storage": True, "additionalPrinterColumns": columns}],
            },
        },
    )


DEVICE_CRD = definition(DEVICE_GROUP, "devices", "Device")


def collections(catalogue: Catalogue) -> set[str]:
    return {entry.resource.collection for entry in catalogue}


def test_an_empty_node_serves_what_every_node_is_sent() -> None:
    catalogue = catalogue_of([], [], [])
    assert collections(catalogue) == {resource.collection for resource in EVERY_NODE_HOLDS}
    assert catalogue.resolve("", "v1", "services") is None
    assert {verb for entry in catalogue for verb in entry.verbs} == {"get", "list", "watch"}


def test_a_built_in_kind_that_was_once_held_is_served_from_then_on() -> None:
    assert catalogue_of([], [], [SERVICES]).resolve("", "v1", "services") == SERVICES


def test_a_custom_kind_is_served_as_its_definition_says() -> None:
    found = catalogue_of([DEVICE_CRD], [DEVICES], [DEVICES]).of(DEVICES)
    assert found is not None
    assert found.short_names == ("dev",)
    assert [column.name for column in found.columns] == ["Node"]


def test_a_custom_kind_without_a_definition_is_served_while_there_are_objects() -> None:
    assert catalogue_of([], [GADGETS], [GADGETS]).of(GADGETS) is not None
    assert catalogue_of([], [], [GADGETS]).of(GADGETS) is None


def test_what_is_withheld_is_not_served() -> None:
    catalogue = catalogue_of([], [SECRETS, CONFIG_MAPS], [SECRETS], frozenset((SECRETS,)))
    assert catalogue.of(SECRETS) is None
    assert catalogue.of(CONFIG_MAPS) is not None


def test_a_definition_with_holes_defines_nothing() -> None:
    empty = Object(DEVICE_CRD.key, ObjectVersion("", ""), {}, canonical({"metadata": {"name": "x"}}))
    assert collections(catalogue_of([empty], [], [])) == collections(catalogue_of([], [], []))
