"""What msgpack would be unpacked to is counted first."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from link import nesting
from link.errors import RemoteProtocolError

leaves = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary())
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=20), max_leaves=60)


def depth(value: object) -> int:
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


def elements(value: object) -> int:
    return len(value) + sum(map(elements, value)) if isinstance(value, list) else 0


@given(trees)
def test_whatever_is_packed_is_counted_to_the_element(value: object) -> None:
    data, deep, count = msgpack.packb(value), depth(value), elements(value)
    nesting.check(data, "frame", deep=deep, elements=count)
    if deep:
        with pytest.raises(RemoteProtocolError, match=f"nested deeper than {deep - 1}|more than"):
            nesting.check(data, "frame", deep=deep - 1, elements=count)
    if count:
        with pytest.raises(RemoteProtocolError, match=f"more than {count - 1} elements"):
            nesting.check(data, "frame", deep=deep, elements=count - 1)


@pytest.mark.parametrize("data", [b"\x80", b"\xde\x00\x00", b"\xdf\0\0\0\0", b"\xc1", b"\xd4\1\1", b"\xc7\1\1\1"])
def test_a_map_and_an_extension_are_in_no_frame(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="must be an array of values and arrays: byte 1"):
        nesting.check(b"\x91" + data, "frame", deep=3, elements=9)


@given(st.binary(max_size=200))
def test_rubbish_raises_nothing_else(data: bytes) -> None:
    try:
        nesting.check(data, "frame", deep=3, elements=20)
    except RemoteProtocolError:
        return
