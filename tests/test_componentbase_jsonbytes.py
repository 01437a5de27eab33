"""Whichever of the two writes, the bytes are the same."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.objects import NotJSON, canonical
from componentbase import jsonbytes
from componentbase.jsonbytes import LONG, compact, plain, sorted_

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_both_ways_give_the_same_bytes(value: object) -> None:
    assert compact(value) == plain(value)
    assert json.loads(compact(value)) == value


@given(VALUES | st.floats(allow_nan=False, allow_infinity=False))
def test_with_long_texts_in_it_a_value_is_written_as_ever(value: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonbytes, "LONG", 3)
        assert sorted_(value) == canonical(value)


def test_every_character_is_written_alike_in_long_texts() -> None:
    every = "".join(map(chr, (*range(0x3000), 0xFFFF, 0x10FFFF)))
    value = {"b": [every * 2, {"z": LONG * "x", "a": 1.5}], "a": every, "c": "short"}
    assert sorted_(value) == canonical(value)
    assert value["c"] == "short"


@pytest.mark.parametrize("value", [LONG * "x" + "\ud800", [LONG * "x", float("inf")], float("nan")])
def test_what_json_cannot_hold_is_refused_beside_long_texts(value: object) -> None:
    with pytest.raises(NotJSON):
        sorted_(value)


@pytest.mark.parametrize("value", ["\ud800", {"a": ["\ud800"]}])
def test_half_a_surrogate_pair_is_refused_as_by_the_standard_library(value: object) -> None:
    with pytest.raises(UnicodeEncodeError):
        compact(value)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        compact({"a": object()})


def test_without_orjson_the_standard_library_serves() -> None:
    code = "import sys; sys.modules['orjson'] = None; from componentbase import jsonbytes as it"
    command = [sys.executable, "-c", f"{code}; print(it.compact is it.plain)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
