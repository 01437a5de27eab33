"""Tests for cloudhub.reading: the same values and the same bytes as by the standard library."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from apimachinery.errors import BadRequest, Unavailable
from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import canonical, from_json
from apimachinery.resources import CONFIG_MAPS, NODES, PODS
from cloudhub.reading import Sent, decoded, read_line, sent, text, typed

TEXTS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


def spelled(value: object, **how: Any) -> bytes:
    return json.dumps(value, **how).encode()


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
@example([1e16, 1e-7, 5e-324, 1.7976931348623157e308, -0.0, 1e22, 123456789.0], True, None)
@example({"\U00010000": 1, "￿": 2, "é": 3, "z": 4, '"\\/\b\f\n\r\t\x00\x1f\x7f\u2028': 5}, False, 1)
@example([2**63, 2**64, -(2**63) - 1, 10**40], True, None)
def test_however_it_was_spelled_it_is_written_canonically(value: object, ascii_only: bool, indent: int | None) -> None:
    raw = spelled(value, ensure_ascii=ascii_only, indent=indent)
    assert decoded(raw) == json.loads(raw)
    assert text(decoded(raw)) == canonical(json.loads(raw))


@pytest.mark.parametrize("raw", [b"-0", b"-0.0", b"1E5", b"1.50", b'{"a":1,"a":2}', rb'"\ud83d\ude00\/\u003c"'])
def test_odd_spellings_read_the_same(raw: bytes) -> None:
    assert text(decoded(raw)) == canonical(json.loads(raw))


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"01", b"NaN", b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b"[" * 100_000, b"9" * 5000],
)
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(Unavailable, match="not JSON"):
        decoded(raw)


def test_a_number_that_is_too_large_is_refused() -> None:
    with pytest.raises(Unavailable, match="not JSON"):
        text(decoded(b'{"a":1e999}'))


def members(**value: object) -> dict[str, Any]:
    return read_line(spelled({"type": "ADDED", "object": value})).object


def test_an_object_is_what_was_sent() -> None:
    value = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "a",
            "namespace": "n",
            "uid": "u",
            "resourceVersion": "5",
            "labels": {"x": "y"},
            "managedFields": [{"manager": "kubelet"}],
        },
        "spec": {"nodeName": "edge", "priority": 0.5},
    }
    found = Sent(PODS, members(**value))
    assert found.key == ObjectKey(PODS, "n", "a")
    assert found.version == ObjectVersion("u", "5")
    assert found.labels == {"x": "y"}
    assert found.member("spec") == value["spec"]
    assert found.member("status") is None
    assert "managedFields" not in found.member("metadata")
    assert found.parse() == value
    assert sent(from_json(PODS, value)).parse() == value


def test_what_a_list_leaves_out_is_filled_in() -> None:
    found = Sent(CONFIG_MAPS, typed(CONFIG_MAPS, members(metadata={"name": "a"}, data={})))
    assert found.parse() == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {}}


def test_a_cluster_scoped_object_has_no_namespace() -> None:
    assert Sent(NODES, members(metadata={"name": "a", "namespace": "stray"})).key == ObjectKey(NODES, "", "a")


@pytest.mark.parametrize("value", [{}, {"metadata": None}, {"metadata": 7}, {"metadata": {"name": ""}}])
def test_without_a_name_it_is_no_object(value: dict[str, object]) -> None:
    with pytest.raises(BadRequest, match=r"a ConfigMap without metadata\.name"):
        Sent(CONFIG_MAPS, members(**value))


def test_labels_that_are_none_are_none() -> None:
    assert Sent(PODS, members(metadata={"name": "a", "labels": ["x"]})).labels == {}
