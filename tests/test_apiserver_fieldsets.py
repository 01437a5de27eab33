"""Sets of field paths: the same as sets of tuples, in another form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.fieldsets import (
    difference,
    entry,
    field,
    insert,
    intersection,
    is_fieldset,
    item,
    paths,
    shown,
    union,
    without_all,
)

STEPS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', "v:1"])
PATHS = st.sets(st.lists(STEPS, min_size=1, max_size=4).map(tuple), max_size=8)


def of(some: set[tuple[str, ...]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for path in sorted(some):
        insert(made, path)
    return made


@given(PATHS)
def test_a_set_has_the_paths_that_were_put_in(some: set[tuple[str, ...]]) -> None:
    backwards: dict[str, Any] = {}
    for path in sorted(some, reverse=True):
        insert(backwards, path)
    assert set(paths(of(some))) == set(paths(backwards)) == some
    assert is_fieldset(of(some))


@given(PATHS, PATHS)
def test_operations_are_those_of_sets(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> None:
    one, other = of(left), of(right)
    assert set(paths(union(one, other))) == left | right
    assert set(paths(difference(one, other))) == left - right
    assert set(paths(intersection(one, other))) == left & right
    assert (one, other) == (of(left), of(right))


@given(PATHS, PATHS)
def test_without_all_takes_what_is_below_along(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> None:
    kept = {path for path in left if not any(path[: len(above)] == above for above in right)}
    assert set(paths(without_all(of(left), of(right)))) == kept


@given(PATHS, PATHS)
def test_nothing_is_left_that_leads_nowhere(left: set[tuple[str, ...]], right: set[tuple[str, ...]]) -> None:
    for result in (
        difference(of(left), of(right)),
        intersection(of(left), of(right)),
        without_all(of(left), of(right)),
    ):
        assert result == of(set(paths(result)))


def test_paths_are_shown_as_kubernetes_does() -> None:
    containers = entry({"name": "web"})
    assert (
        shown((field("spec"), field("containers"), containers, field("image"))) == '.spec.containers[name="web"].image'
    )
    ports = entry({"protocol": "TCP", "containerPort": 80})
    assert shown((field("ports"), ports)) == '.ports[containerPort=80,protocol="TCP"]'
    assert shown((field("finalizers"), item("a/b"))) == '.finalizers[="a/b"]'
    assert shown(("i:3",)) == "[3]"


def test_paths_that_end_come_before_those_that_go_on() -> None:
    assert list(paths({"f:a": {"f:x": {}}, "f:b": {}})) == [("f:b",), ("f:a", "f:x")]


@pytest.mark.parametrize(
    "value",
    [None, [], "x", {"a": {}}, {"f:a": 1}, {"k:x": {}}, {"k:[]": {}}, {"v:": {}}, {".": {"f:a": {}}}, {"i:x": {}}],
)  # fmt: skip
def test_what_has_another_form_is_told(value: Any) -> None:
    assert not is_fieldset(value)


def test_what_is_nested_without_end_is_no_set() -> None:
    value: dict[str, Any] = {}
    for _ in range(5000):
        value = {"f:a": value}
    assert not is_fieldset(value)
