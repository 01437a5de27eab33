"""Scales: read from an object, and turned back into a change of it."""

from typing import Any

import pytest

from apimachinery.errors import BadRequest, Invalid, NotFound
from apimachinery.keys import Resource
from apiserver.definitions import Definition, ScalePaths
from apiserver.scale import scale_of, scaling

RESOURCE = Resource("apps", "v1", "things", "Thing", True)
THINGS = Definition(RESOURCE, scale=ScalePaths("spec.size.count", "status.count", "spec.selector"))
BODY: dict[str, Any] = {
    "metadata": {"name": "t", "uid": "u", "resourceVersion": "3", "labels": {"a": "b"}},
    "spec": {"size": {"count": 2, "other": 1}, "selector": {"matchLabels": {"b": "2", "a": "1"}}},
    "status": {"count": 1},
}


def test_a_scale_shows_what_is_wanted_and_what_is_there() -> None:
    assert scale_of(BODY, THINGS) == {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {"name": "t", "uid": "u", "resourceVersion": "3"},
        "spec": {"replicas": 2},
        "status": {"replicas": 1, "selector": "a=1,b=2"},
    }


def test_what_is_not_there_counts_as_none() -> None:
    found = scale_of({"spec": {"selector": "a=b"}}, THINGS)
    assert (found["spec"], found["status"]) == ({"replicas": 0}, {"replicas": 0, "selector": "a=b"})


def test_a_kind_without_replicas_has_no_scale() -> None:
    with pytest.raises(NotFound):
        scale_of(BODY, Definition(RESOURCE))


def test_a_changed_scale_changes_the_object_and_nothing_beside() -> None:
    made = scaling(lambda scale: scale | {"spec": {"replicas": 9}}, THINGS)(BODY)
    assert made["spec"] == BODY["spec"] | {"size": {"count": 9, "other": 1}}
    assert made["metadata"] == BODY["metadata"]
    assert BODY["spec"]["size"]["count"] == 2


def test_a_scale_of_another_version_is_passed_on_to_be_refused() -> None:
    made = scaling(lambda scale: scale | {"metadata": {"resourceVersion": "2"}}, THINGS)(BODY)
    assert made["metadata"]["resourceVersion"] == "2"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"spec": {"replicas": -1}}, Invalid, 'Scale.autoscaling "t" is invalid: spec.replicas: Invalid value: -1'),
        ({"spec": {"replicas": "2"}}, BadRequest, "must be an integer"),
        ({"spec": {"replicas": True}}, BadRequest, "must be an integer"),
        ({"spec": {"replicas": 2**31}}, BadRequest, "at most"),
        ({"kind": "Thing"}, BadRequest, "does not match"),
        ({"apiVersion": "autoscaling/v2"}, BadRequest, "does not match"),
    ],
)
def test_what_is_no_scale_is_refused(change: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        scaling(lambda scale: scale | change, THINGS)(BODY)
