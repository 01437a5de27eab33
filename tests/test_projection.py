"""What a node sees, and what is no change to it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import Unavailable
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import LAST_APPLIED, Object, canonical, from_json
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICES, LEASES, NODE_LEASE_NAMESPACE, NODES, PODS
from cloudhub.fences import REPLICA_ANNOTATION, TERM_ANNOTATION
from cloudhub.placement import MIRROR, STANDARD_RULES, By, Placement, Rule
from cloudhub.projection import MIN_KEPT_BYTES, Projection, is_projected_specially, project, restored
from cloudhub.reading import Sent, read_line


def version(
    resource: Resource, resource_version: str = "1", annotations: dict[str, str] | None = None, **rest: Any
) -> object:
    metadata: dict[str, Any] = {
        "name": "a",
        "uid": "u",
        "resourceVersion": resource_version,
        "managedFields": [resource_version],
    }
    if resource == LEASES:
        metadata["namespace"] = NODE_LEASE_NAMESPACE
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


def test_of_a_definition_s_status_the_conditions_are_seen() -> None:
    conditions = [{"type": "Established", "status": "True"}]
    status = {"conditions": conditions, "acceptedNames": {"plural": "lamps"}, "storedVersions": ["v1"]}
    item = from_json(CUSTOM_RESOURCE_DEFINITIONS, {"metadata": {"name": "a"}, "spec": {}, "status": status})
    assert project(item).parse()["status"] == {"conditions": conditions}


def test_odd_bodies_pass_through() -> None:
    for resource in (DEVICES, LEASES, NODES, CUSTOM_RESOURCE_DEFINITIONS):
        project(from_json(resource, {"metadata": {"name": "a"}, "spec": None, "status": {"conditions": ["x", None]}}))
        odd = {"metadata": {"name": "a"}, "spec": {"versions": 7}, "status": {"conditions": 7}}
        restored(resource, project(from_json(resource, odd)).parse(), odd)


def test_what_no_standard_rule_places_keeps_what_kubectl_applied() -> None:
    widgets = Resource("example.com", "v1", "widgets", "Widget", True)
    value = {"metadata": {"name": "a", "annotations": {LAST_APPLIED: "{}", TERM_ANNOTATION: "1"}, "managedFields": []}}
    assert project(from_json(widgets, value)).parse()["metadata"] == {"name": "a", "annotations": {LAST_APPLIED: "{}"}}


def test_who_waits_for_a_leader_sees_it_renew() -> None:
    def seen(renewed: str) -> object:
        metadata = {"name": "leader", "namespace": "default", "uid": "u"}
        return project(from_json(LEASES, {"metadata": metadata, "spec": {"renewTime": renewed}})).version

    assert seen("1") != seen("2")


@pytest.mark.parametrize(
    ("resource", "live"),
    [
        (PODS, {"metadata": {"name": "a", "annotations": {LAST_APPLIED: "{}", "x": "y"}}}),
        (PODS, {"metadata": {"name": "a", "annotations": {LAST_APPLIED: "{}"}}}),
        (PODS, {"metadata": {"name": "a"}, "spec": {}}),
        (
            LEASES,
            {
                "metadata": {"name": "a", "namespace": NODE_LEASE_NAMESPACE, "annotations": {TERM_ANNOTATION: "7"}},
                "spec": {"renewTime": "1", "holderIdentity": "a"},
            },
        ),
        (
            NODES,
            {
                "metadata": {"name": "a"},
                "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "1"}]},
            },
        ),
        (
            CUSTOM_RESOURCE_DEFINITIONS,
            {
                "metadata": {"name": "a"},
                "spec": {"conversion": {"strategy": "None"}, "versions": [{"name": "v1", "schema": {"x": 1}}]},
            },
        ),
    ],
)
def test_a_body_that_comes_back_gets_what_was_taken_away(resource: Resource, live: dict[str, Any]) -> None:
    seen = project(from_json(resource, live)).parse()
    assert seen != live or resource == PODS
    assert restored(resource, seen, live) == live


def test_what_a_caller_says_himself_stands() -> None:
    live = {"metadata": {"name": "a", "annotations": {LAST_APPLIED: "old"}}}
    said = {"metadata": {"name": "a", "annotations": {LAST_APPLIED: "new"}}}
    assert restored(PODS, {"metadata": {**said["metadata"]}}, live) == said
    assert restored(PODS, {"metadata": 7}, live) == {"metadata": 7}, "the apiserver will say what is wrong with it"


def sent(resource: Resource, value: Mapping[str, object]) -> Sent:
    return Sent(resource, read_line(json.dumps({"type": "ADDED", "object": value}).encode()).object)


LARGE = "x" * MIN_KEPT_BYTES
ANNOTATIONS = st.dictionaries(st.sampled_from([MIRROR, LAST_APPLIED, TERM_ANNOTATION, "é"]), st.just("1"), max_size=3)
MEMBERS = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": st.sampled_from("ab"), "namespace": st.just(NODE_LEASE_NAMESPACE)},
            optional={
                "annotations": ANNOTATIONS,
                "labels": st.dictionaries(st.just("node"), st.sampled_from(["n1", "n2"])),
                "managedFields": st.just([{"manager": "m"}]),
                "resourceVersion": st.sampled_from("123"),
            },
        )
    },
    optional={
        "spec": st.fixed_dictionaries(
            {"nodeName": st.sampled_from(["n1", "n2", ""])},
            optional={
                "z": st.sampled_from([LARGE, LARGE + "é", 0.5, 1e-7]),
                "renewTime": st.sampled_from("12"),
                "conversion": st.just({"strategy": "None"}),
                "volumes": st.lists(st.sampled_from("cd").map(lambda name: {"configMap": {"name": name}}), max_size=2),
            },
        )
        | st.none(),
        "status": st.fixed_dictionaries(
            {"conditions": st.lists(st.fixed_dictionaries({"lastHeartbeatTime": st.sampled_from("12")}), max_size=1)},
            optional={"long": st.sampled_from([LARGE, LARGE + "2"])},
        ),
        "data": st.sampled_from([{"a": LARGE}, {"a": LARGE + "2"}, {}]),
        'odd "name"': st.sampled_from([LARGE, 1]),
    },
)
RULES = (*STANDARD_RULES, Rule(CUSTOM_RESOURCE_DEFINITIONS, By.LABEL, "node"))


@given(
    st.sampled_from([PODS, DEVICES, LEASES, NODES, CUSTOM_RESOURCE_DEFINITIONS]),
    st.lists(st.tuples(st.sampled_from(["seen", "seen", "gone", "listed"]), MEMBERS), max_size=8),
)
def test_what_was_seen_before_changes_nothing_but_the_time(
    resource: Resource, steps: list[tuple[str, dict[str, Any]]]
) -> None:
    placement = Placement(RULES)
    projection = Projection(resource, placement.look)
    last: dict[ObjectKey, Object] = {}
    for what, value in steps:
        item = sent(resource, value)
        made, afresh = projection.seen(item), project(sent(resource, value))
        assert made._replace(found=None) == afresh
        assert made.body == canonical(json.loads(made.body))
        assert made.found == placement.look(sent(resource, value), None, ())
        if item.key in last and last[item.key].body == made.body and len(made.body) > 4 * MIN_KEPT_BYTES:
            assert made is last[item.key]
        last[item.key] = made
        if what == "gone":
            projection.gone(item)
            del last[item.key]
        elif what == "listed":
            last = {item.key: made}
            projection.keep_only(last.values())
        assert projection._kept.keys() <= last.keys(), "what is gone is forgotten"


def test_a_member_that_is_no_json_is_refused_when_it_is_looked_at() -> None:
    raw = b'{"type":"ADDED","object":{"metadata":{"name":"a"},"spec":{"a":"\xff"}}}'
    with pytest.raises(Unavailable, match="not JSON"):
        Projection(PODS).seen(Sent(PODS, read_line(raw).object))
