"""Bodies in YAML become what they would be in JSON, or are refused."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import BadRequest
from apiserver.yamlbodies import MAX_NODES, load

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_what_is_dumped_is_read_back(value: Any) -> None:
    assert load(yaml.safe_dump(value).encode()) == (value, [])


def test_json_is_yaml() -> None:
    value = {"a": [1, 2.5, True, None, "x"], "b": {"c": "2020-01-01"}}
    assert load(json.dumps(value).encode()) == (value, [])


def test_dates_are_texts_and_keys_are_texts() -> None:
    assert load(b"on: 2020-01-01\n80: x\n1.5: y\n") == ({"true": "2020-01-01", "80": "x", "1.5": "y"}, [])


def test_a_merge_key_and_an_alias_are_followed() -> None:
    text = b"base: &b {x: 1}\nmade: {<<: *b, y: 2}\nagain: *b\n"
    assert load(text)[0] == {"base": {"x": 1}, "made": {"x": 1, "y": 2}, "again": {"x": 1}}


def test_repeated_keys_are_told_with_their_lines() -> None:
    value, repeated = load(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert value == {"a": 3, "b": {"c": 2}}
    assert sorted(repeated) == ['line 4: key "c" already set in map', 'line 5: key "a" already set in map']


LAUGHS = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (c + 1, c + 1, *[c] * 10)
    for c in range(ord("a"), ord("i"))
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: [", "error decoding YAML"),
        (b"a: 1\n---\nb: 2\n", "single document"),
        (b"a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (b"a: .nan", "no value that JSON has"),
        (b"a: .inf", "no value that JSON has"),
        (b"a: !!binary eA==", "no value that JSON has"),
        (b"? [a]\n: b\n", "error decoding YAML"),
        (b"~: b\n", "must be a text"),
        (b"a: &x [*x]\n", "nested more than"),
        (b"\xff\xfe\x00", "error decoding YAML"),
        (b"[" * 100_000, "error decoding YAML"),
        (LAUGHS, f"more than {MAX_NODES} values"),
    ],
)
def test_what_is_no_json_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        load(text)
