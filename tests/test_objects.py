"""Bodies: one value, one encoding."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import BadRequest
from apimachinery.keys import ObjectKey
from apimachinery.objects import canonical, from_json, lookup, revision_of
from apimachinery.resources import CONFIG_MAPS, NODES

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON_VALUES)
def test_canonical_survives_a_round_trip(value: object) -> None:
    assert canonical(json.loads(canonical(value))) == canonical(value)


def test_order_of_members_does_not_matter() -> None:
    assert canonical({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    assert revision_of(canonical({"a": 1})) != revision_of(canonical({"a": 2}))


def test_key_version_and_labels_come_from_the_metadata() -> None:
    item = from_json(
        CONFIG_MAPS,
        {"metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "5", "labels": {"x": "y"}}},
    )
    assert item.key == ObjectKey(CONFIG_MAPS, "n", "a")
    assert item.version == ("u", "5")
    assert item.labels == {"x": "y"}


def test_a_cluster_scoped_object_has_no_namespace() -> None:
    assert from_json(NODES, {"metadata": {"name": "a", "namespace": "stray"}}).key == ObjectKey(NODES, "", "a")


@pytest.mark.parametrize("body", [{}, {"metadata": {}}, {"metadata": {"name": ""}}, {"metadata": {"name": 7}}])
def test_without_a_name_it_is_no_object(body: dict[str, object]) -> None:
    with pytest.raises(BadRequest, match=r"metadata\.name"):
        from_json(CONFIG_MAPS, body)


def test_lookup_gives_none_for_what_is_not_there() -> None:
    assert lookup({"a": {"b": [1]}}, "a.b") == [1]
    assert lookup({"a": {"b": [1]}}, "a.b.c") is None
    assert lookup(None, "a") is None
