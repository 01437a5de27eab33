"""The three kinds of patch and what each refuses."""

import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import ApiError, BadRequest, Invalid, TooLarge, UnsupportedMediaType
from apiserver import patches
from apiserver.patches import JSON_PATCH, MAX_COPIED_BYTES, MERGE_PATCH, STRATEGIC_PATCH, apply, merge

CURRENT = {"kind": "Pod", "spec": {"a": 1, "list": [1, 2], "containers": [{"name": "c", "image": "x"}]}}


def patched(patch: Any, content_type: str, *, is_custom: bool = False) -> dict[str, Any]:
    before = copy.deepcopy(CURRENT)
    try:
        return apply(CURRENT, json.dumps(patch).encode(), content_type, is_custom=is_custom)
    finally:
        assert before == CURRENT


def test_a_json_patch_runs_its_operations() -> None:
    operations = [
        {"op": "test", "path": "/spec/a", "value": 1},
        {"op": "replace", "path": "/spec/a", "value": 2},
        {"op": "add", "path": "/spec/list/-", "value": 3},
        {"op": "remove", "path": "/spec/containers"},
    ]
    assert patched(operations, JSON_PATCH)["spec"] == {"a": 2, "list": [1, 2, 3]}


def test_a_merge_patch_replaces_lists_and_removes_nulls() -> None:
    result = patched({"spec": {"a": None, "list": [9], "new": {"x": None, "y": 1}}}, MERGE_PATCH + "; charset=utf-8")
    assert result["spec"] == {"list": [9], "new": {"y": 1}, "containers": CURRENT["spec"]["containers"]}  # type: ignore[index]


def test_a_strategic_patch_merges_lists_by_their_keys() -> None:
    result = patched({"spec": {"containers": [{"name": "c", "tty": True}, {"name": "d"}]}}, STRATEGIC_PATCH)
    assert result["spec"]["containers"] == [{"name": "c", "image": "x", "tty": True}, {"name": "d"}]


@pytest.mark.parametrize(
    ("patch", "content_type", "error", "words"),
    [
        ([], "text/plain", UnsupportedMediaType, "accepted media types"),
        ({}, "", UnsupportedMediaType, "accepted media types"),
        ([], MERGE_PATCH, BadRequest, "JSON object"),
        ({}, JSON_PATCH, BadRequest, "list of operations"),
        ([{"op": "test", "path": "/spec/a", "value": 9}], JSON_PATCH, Invalid, "testing failed"),
        ([{"op": "remove", "path": "/spec/nothing"}], JSON_PATCH, Invalid, "rejected"),
        ([{"op": "replace", "path": "/spec/a/b/c", "value": 1}], JSON_PATCH, Invalid, "rejected"),
        ([{"op": "add", "path": "/spec/list/99", "value": 1}], JSON_PATCH, Invalid, "rejected"),
        ([{"op": "explode", "path": "/spec"}], JSON_PATCH, Invalid, "rejected"),
        ([{"path": "/spec"}], JSON_PATCH, Invalid, "rejected"),
        ([7], JSON_PATCH, Invalid, "rejected"),
        ([{"op": "add", "path": "", "value": 7}], JSON_PATCH, Invalid, "does not leave an object"),
        ([{"op": "add", "path": "/x", "value": 1}] * 10_001, JSON_PATCH, TooLarge, "10001 operations"),
    ],
)  # fmt: skip
def test_refusals(patch: Any, content_type: str, error: type[ApiError], words: str) -> None:
    with pytest.raises(error, match=words):
        patched(patch, content_type)


def test_custom_resources_know_no_strategic_patch() -> None:
    with pytest.raises(UnsupportedMediaType):
        patched({}, STRATEGIC_PATCH, is_custom=True)


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        apply(CURRENT, body, MERGE_PATCH, is_custom=True)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=2),
    lambda value: st.lists(value, max_size=2) | st.dictionaries(st.sampled_from("abc"), value, max_size=3),
)


@given(JSON_VALUES, JSON_VALUES)
def test_a_merge_patch_applied_twice_is_the_same_as_once(current: Any, patch: Any) -> None:
    once = merge(current, patch)
    assert merge(once, patch) == once


@given(st.dictionaries(st.sampled_from("abc"), JSON_VALUES), st.dictionaries(st.sampled_from("abc"), JSON_VALUES))
def test_the_difference_as_a_merge_patch_leads_to_the_target(current: dict[str, Any], target: dict[str, Any]) -> None:
    """As far as a merge patch can say it: a null in the target is the one thing it cannot."""

    def without_nulls(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without_nulls(item) for name, item in value.items() if item is not None}
        return value

    def difference(old: Any, new: Any) -> Any:
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return new
        changed = {name: difference(old.get(name), value) for name, value in new.items() if old.get(name) != value}
        return changed | {name: None for name in old if name not in new}

    current, target = without_nulls(current), without_nulls(target)
    assert merge(current, difference(current, target)) == target


@given(JSON_VALUES, st.sampled_from([JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH]))
def test_any_patch_gives_an_object_or_an_api_error(patch: Any, content_type: str) -> None:
    with contextlib.suppress(ApiError):
        assert isinstance(patched(patch, content_type), dict)


def test_limits_are_kubernetes_own() -> None:
    assert patches.MAX_OPERATIONS == 10_000


def test_copies_that_double_an_object_are_stopped_before_they_are_made() -> None:
    """Thirty of them come to 10 GiB; kube-apiserver stops at 3 MiB as well."""
    doubling = [{"op": "add", "path": "/a", "value": {}}]
    doubling += [{"op": "copy", "from": "/a", "path": f"/a/x{number}"} for number in range(40)]
    with pytest.raises(Invalid, match=f"its copies come to more than {MAX_COPIED_BYTES} bytes"):
        apply({"metadata": {}}, json.dumps(doubling).encode(), JSON_PATCH, is_custom=True)
    few = [{"op": "add", "path": "/a", "value": "x" * 1000}, {"op": "copy", "from": "/a", "path": "/b"}]
    assert apply({}, json.dumps(few).encode(), JSON_PATCH, is_custom=True)["b"] == "x" * 1000
