"""Whichever of the two writes, the bytes are the same."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.objects import NotJSON, canonical
from componentbase.jsonbytes import LONG_BYTES, SEARCHED_BYTES, SHALLOW, compact, parsed, plain, read, sorted_

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_both_ways_give_the_same_bytes(value: object) -> None:
    assert compact(value) == plain(value)
    assert json.loads(compact(value)) == value


SMALL = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(SMALL)
def test_what_is_parsed_is_what_the_standard_library_reads(value: object) -> None:
    assert parsed(json.dumps(value).encode()) == value


@given(VALUES, st.sampled_from(["", "9" * 30, "-18446744073709551616", "1.0", "1e400", "NaN", '"\\ud800"']))
def test_what_is_read_is_what_the_standard_library_reads_to_the_last_digit(value: object, special: str) -> None:
    text = json.dumps([value, "x" * LONG_BYTES])[:-1] + (f", {special}]" if special else "]")
    assert repr(read(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("text", [b"[" + b"1," * LONG_BYTES, b"[" * LONG_BYTES, b'{"a": ' + b" " * LONG_BYTES])
def test_what_cannot_be_read_raises_as_the_standard_library_does(text: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)) as expected:
        json.loads(text)
    with pytest.raises(type(expected.value)) as raised:
        read(text)
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize("text", [b"[NaN]", b"[1,]", b"{", b"\xff", b"[1] 2", b"-Infinity"])
def test_what_is_no_json_is_not_parsed(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  whatever its words
        parsed(text)


def test_what_others_could_not_read_is_not_parsed_either() -> None:
    assert parsed(b'["\\ud800"]') == ["\ud800"], "they can"
    assert parsed(b"[" * SHALLOW + b"]" * SHALLOW) == json.loads("[" * SHALLOW + "]" * SHALLOW)
    for depth in (2_000, 200_000):
        with pytest.raises(RecursionError):
            parsed(b"[" * depth + b"]" * depth)
    for opens, closes in ((b"[", b"]"), (b'{"a":', b"}")):
        long = b'"' + b"x" * SEARCHED_BYTES + b'"'
        assert parsed(opens * SHALLOW + long + closes * SHALLOW)
        with pytest.raises(RecursionError):
            parsed(opens * 2_000 + long + closes * 2_000)


@given(VALUES, st.floats(allow_nan=False, allow_infinity=False))
def test_sorted_is_canonical(value: object, fraction: float) -> None:
    for each in (value, fraction, [value, {"b": fraction, "a": value}]):
        assert sorted_(each) == canonical(each)


def test_every_character_is_written_and_sorted_as_canonical_has_it() -> None:
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x11000), 0x10FFFF)))
    value = {"text": every * 2, "keys": dict.fromkeys(reversed(every), 1), "deep": json.loads("[" * 400 + "]" * 400)}
    assert sorted_(value) == canonical(value)


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, [1, float("inf")], {"a": float("nan")}])
def test_what_json_cannot_hold_has_no_canonical_form(value: object) -> None:
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
    says = "print(it.compact is it.plain, it.sorted_({'b': 1.5, 'a': 2}), it.parsed(b'[1]'))"
    command = [sys.executable, "-c", f"{code}; {says}"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told == """True b'{"a":2,"b":1.5}' [1]\n"""
