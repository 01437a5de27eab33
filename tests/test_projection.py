"""What a node sees, and what is no change to it."""

from typing import Any

import pytest

from apimachinery.keys import Resource
from apimachinery.objects import from_json
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICES, LEASES, NODES, PODS
from cloudhub.fences import REPLICA_ANNOTATION, TERM_ANNOTATION
from cloudhub.projection import LAST_APPLIED, is_projected_specially, project


def version(
    resource: Resource, resource_version: str = "1", annotations: dict[str, str] | None = None, **rest: Any
) -> object:
    metadata: dict[str, Any] = {
        "name": "a",
        "uid": "u",
        "resourceVersion": resource_version,
        "managedFields": [resource_version],
    }
    if annotations is not None:
        metadata["annotations"] = annotations
    return project(from_json(resource, {"metadata": metadata, **rest})).version


def test_bookkeeping_is_left_out() -> None:
    item = from_json(
        PODS,
        {
            "metadata": {
                "name": "a",
                "uid": "u",
                "resourceVersion": "1",
                "managedFields": [],
                "annotations": {LAST_APPLIED: "{}", "x": "y"},
            }
        },
    )
    assert project(item).parse() == {"metadata": {"name": "a", "uid": "u", "annotations": {"x": "y"}}}
    assert version(PODS, "1", {LAST_APPLIED: "{}"}) == version(PODS, "2")


@pytest.mark.parametrize(
    ("resource", "one", "other"),
    [
        (DEVICES, {"status": {"state": "online"}}, {"status": {"state": "offline"}}),
        (LEASES, {"spec": {"renewTime": "1"}}, {"spec": {"renewTime": "2"}}),
        (LEASES, {"annotations": {TERM_ANNOTATION: "1", REPLICA_ANNOTATION: "a"}}, {}),
        (NODES, {"status": {"conditions": [{"lastHeartbeatTime": "1"}]}}, {"status": {"conditions": [{}]}}),
        (
            CUSTOM_RESOURCE_DEFINITIONS,
            {"spec": {"versions": [{"schema": 1}]}, "status": 1},
            {"spec": {"versions": [{}]}},
        ),
    ],
)
def test_what_a_node_cannot_see_is_no_new_version(
    resource: Resource, one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert version(resource, "1", **one) == version(resource, "2", **other)
    assert is_projected_specially(resource)


def test_what_a_node_can_see_is_a_new_version() -> None:
    assert version(DEVICES, spec={"a": 1}) != version(DEVICES, spec={"a": 2})
    assert version(PODS, status={"phase": "Running"}) != version(PODS, status={"phase": "Failed"})
    assert version(PODS, annotations={"x": "1"}) != version(PODS, annotations={"x": "2"})
    assert not is_projected_specially(PODS)


def test_odd_bodies_pass_through() -> None:
    for resource in (DEVICES, LEASES, NODES, CUSTOM_RESOURCE_DEFINITIONS):
        project(from_json(resource, {"metadata": {"name": "a"}, "spec": None, "status": {"conditions": ["x", None]}}))
