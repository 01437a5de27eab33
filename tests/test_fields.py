"""Elements of arrays: each as it was asked for, within its limit, or a complaint that names it."""

from collections.abc import Callable

import msgpack
import pytest

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import CONFIG_MAPS, PODS
from link.errors import RemoteProtocolError
from link.fields import (
    MAX_TEXT_BYTES,
    SMALL_BYTES,
    Fields,
    cut,
    pack,
    pack_small,
    read_with_table,
    unpack,
    write_with_table,
)


def fields(*values: object) -> Fields:
    return Fields(unpack(pack(list(values)), "sample"), "sample")


@pytest.mark.parametrize(
    ("value", "read", "complaint"),
    [
        (True, lambda found: found.integer("n", 9), "sample: n must be an integer from 0 to 9"),
        (10, lambda found: found.integer("n", 9), "sample: n must be an integer from 0 to 9"),
        (1.0, lambda found: found.integer("n", 9), "sample: n must be an integer from 0 to 9"),
        (0, lambda found: found.size(), "size must be an integer from 1"),
        (-1, lambda found: found.seconds("s"), "s must be a number from 0 to 86400"),
        (float("nan"), lambda found: found.seconds("s"), "s must be a number"),
        (1, lambda found: found.boolean("b"), "b must be a boolean"),
        (b"x", lambda found: found.text("t"), "t must be a string of at most 253 characters"),
        ("", lambda found: found.text("t", empty=False), "t must be a string"),
        ("x", lambda found: found.binary("b", 9), "b must be at most 9 bytes"),
        (b"\xff", lambda found: found.line("l", 9), "l is no UTF-8"),
        ("x", lambda found: found.array("a"), "a must be an array"),
        (["a", 1], lambda found: found.texts("t", 9), "t must be at most 9 strings"),
        ("x", lambda found: found.optional("o"), "a sample: o must be an array"),
        (1, lambda found: found.placed([PODS]), "there is no resource 1"),
        (
            [[1, 2]],
            lambda found: found.records("r", lambda each: each.integer("n", 9)),
            "sample: r: 1 elements too many",
        ),
    ],
)
def test_an_element_that_is_another_is_named(value: object, read: Callable[[Fields], object], complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        read(fields(value))


def test_an_array_has_as_many_elements_as_are_read() -> None:
    found = fields(1)
    assert found.is_integer()
    assert found.integer("n", 9) == 1
    assert not found.is_integer()
    found.end()
    with pytest.raises(RemoteProtocolError, match="sample: m is missing"):
        found.integer("m", 9)
    with pytest.raises(RemoteProtocolError, match="sample: 2 elements too many"):
        fields(1, 2).end()
    with pytest.raises(RemoteProtocolError, match="a sample must be an array"):
        Fields(7, "sample")


@pytest.mark.parametrize("value", [{"a": 1}, "x" * (MAX_TEXT_BYTES + 1), msgpack.ExtType(1, b"x"), [0] * 1025])
def test_what_no_frame_has_is_not_unpacked(value: object) -> None:
    with pytest.raises(RemoteProtocolError, match="not a sample"):
        unpack(msgpack.packb([value]), "sample")


def test_small_and_large_are_packed_alike() -> None:
    for size in (0, SMALL_BYTES, 3 * SMALL_BYTES):
        assert pack_small([1, b"x" * size]) == pack([1, b"x" * size])


def test_entries_of_one_kind_name_their_resource_once() -> None:
    rows: list[tuple[ObjectKey, list[object]]] = [
        (ObjectKey(resource, "default", f"{n}"), ["u", f"r{n}"]) for n in range(9) for resource in (PODS, CONFIG_MAPS)
    ]
    written = pack(write_with_table(rows))
    assert written.count(b"Pod") == 1
    read = read_with_table(Fields(unpack(written, "sample"), "sample"), "rows", lambda each, key: (key, each.version()))
    assert read == tuple((key, ObjectVersion("u", str(rest[1]))) for key, rest in rows)


def test_a_text_that_was_cut_is_within_the_limit_in_bytes() -> None:
    assert len(cut("\N{GRINNING FACE}" * MAX_TEXT_BYTES).encode()) == MAX_TEXT_BYTES
