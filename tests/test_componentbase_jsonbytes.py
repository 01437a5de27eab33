"""Whichever of the two writes, the bytes are the same."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from componentbase.jsonbytes import compact, plain

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_both_ways_give_the_same_bytes(value: object) -> None:
    assert compact(value) == plain(value)
    assert json.loads(compact(value)) == value


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
