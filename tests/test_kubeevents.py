"""Tests for apimachinery.kubeevents."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import (
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    EventType,
    KubeEvent,
    new_event,
)
from apimachinery.resources import CONFIG_MAPS, DEVICES, EVENTS, NODES, PODS

NODE = ObjectKey(NODES, "", "edge-1")
LAMP = ObjectKey(DEVICES, "shop", "lamp")
AT = "2030-01-31T12:00:00Z"


def event(about: ObjectKey = LAMP, message: str = "it did") -> KubeEvent:
    return new_event(about, "u-1", EventType.WARNING, "Broke", message, at=AT, unique="0a1b")


def test_the_body_is_what_kubectl_reads() -> None:
    assert event().to_json(Node("edge-1")) == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "lamp.0a1b", "namespace": "shop"},
        "involvedObject": {
            "apiVersion": "devices.kubeedge.io/v1beta1",
            "kind": "Device",
            "name": "lamp",
            "namespace": "shop",
            "uid": "u-1",
        },
        "reason": "Broke",
        "message": "it did",
        "type": "Warning",
        "firstTimestamp": AT,
        "lastTimestamp": AT,
        "count": 1,
        "source": {"component": "edgecore", "host": "edge-1"},
        "reportingComponent": "edgecore",
    }


def test_an_event_about_a_node_stands_in_default() -> None:
    body = event(NODE).to_json()
    assert event(NODE).key == ObjectKey(EVENTS, "default", "edge-1.0a1b")
    assert body["metadata"]["namespace"] == "default"
    assert "namespace" not in body["involvedObject"]
    assert body["source"] == {"component": "edgecore"}, "who says it is for the hub to say"


def test_a_long_name_and_a_long_message_are_cut() -> None:
    long = event(LAMP._replace(name="a" * 247 + "-bcdef"), "m" * 2000)
    assert len(long.name) <= MAX_NAME_CHARACTERS
    assert long.name.endswith("a.0a1b"), "no hyphen before the dot"
    assert len(long.message) == MAX_MESSAGE_CHARACTERS
    assert long.message.endswith("...")
    assert KubeEvent.from_json(long.to_json()) == long


@given(
    st.builds(
        KubeEvent,
        name=st.from_regex(r"[a-z][a-z0-9.]{0,20}[a-z]", fullmatch=True),
        about=st.sampled_from([NODE, LAMP, ObjectKey(PODS, "default", "web")]),
        uid=st.text(max_size=40),
        type=st.sampled_from(EventType),
        reason=st.text(min_size=1, max_size=128),
        message=st.text(max_size=1024),
        first_at=st.just(AT),
        last_at=st.just("2030-12-01T00:00:59Z"),
        times=st.integers(1, 2**31 - 1),
    )
)
def test_a_body_gives_the_event_again(event: KubeEvent) -> None:
    assert KubeEvent.from_json(event.to_json(Node("n"))) == event


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("count", 0, "count"),
        ("count", True, "count"),
        ("type", "Error", "type"),
        ("type", ["Normal"], "type"),
        ("metadata.name", "UP", "subdomain"),
        ("metadata.name", "", "name"),
        ("metadata.name", "a" * 254, "name"),
        ("metadata.namespace", "kube-system", "namespace"),
        ("involvedObject", None, "its Node, its Devices and its Pods"),
        ("involvedObject.kind", CONFIG_MAPS.kind, "its Node, its Devices and its Pods"),
        ("involvedObject.kind", ["Device"], "its Node, its Devices and its Pods"),
        ("involvedObject.namespace", "", "needs a namespace"),
        ("involvedObject.name", 7, "name"),
        ("reason", "r" * 129, "reason"),
        ("message", "m" * 1025, "message"),
        ("firstTimestamp", "yesterday", "time"),
        ("lastTimestamp", "2030-13-01T00:00:00Z", "time"),
    ],
)
def test_a_peer_may_send_anything(path: str, value: object, problem: str) -> None:
    body: dict[str, Any] = copy.deepcopy(event().to_json())
    *steps, last = path.split(".")
    place = body
    for step in steps:
        place = place[step]
    place[last] = value
    with pytest.raises(ValueError, match=problem):
        KubeEvent.from_json(body)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="must be an object"):
        KubeEvent.from_json([])
    with pytest.raises(ValueError, match="has no namespace"):
        KubeEvent.from_json(event(NODE).to_json() | {"involvedObject": {**_node(), "namespace": "x"}})


def _node() -> dict[str, Any]:
    involved: dict[str, Any] = event(NODE).to_json()["involvedObject"]
    return involved
