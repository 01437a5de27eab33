"""OPC UA's values and ours."""

import math
import uuid
from datetime import UTC, datetime
from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyType
from mappers.values import to_text
from mappers.variants import INTEGERS, from_node, to_node
from mappers.words import Value, WriteRefused

INT, FLOAT, BOOLEAN, STRING, BYTES = (
    PropertyType.INT,
    PropertyType.FLOAT,
    PropertyType.BOOLEAN,
    PropertyType.STRING,
    PropertyType.BYTES,
)


class State(IntEnum):
    RUNNING = 2


class Localized:
    Text = "Kessel"


@pytest.mark.parametrize(
    ("kind", "type_", "value", "expected"),
    [
        (BOOLEAN, "Boolean", True, True),
        (INT, "Boolean", True, 1),
        (INT, "Int32", 7, 7),
        (INT, "Int32", State.RUNNING, 2),
        (FLOAT, "Double", 21.3, 21.3),
        (FLOAT, "Float", 21.299999237060547, 21.3),
        (FLOAT, "Double", math.nan, None),
        (STRING, "String", "a", "a"),
        (STRING, "String", None, None),
        (STRING, "LocalizedText", Localized(), "Kessel"),
        (STRING, "DateTime", datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (STRING, "Guid", uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (STRING, "Int32", [1, 2], "[1,2]"),
        (STRING, "String", ["ä"], '["ä"]'),
        (BYTES, "ByteString", b"\x00", b"\x00"),
    ],
)
def test_a_nodes_value_is_told_in_the_models_type(
    kind: PropertyType, type_: str, value: object, expected: Value | None
) -> None:
    found = from_node(kind, type_, value)
    assert found == expected
    assert type(found) is type(expected)
    if found is not None:
        assert to_text(kind, found)


@pytest.mark.parametrize(("kind", "value"), [(INT, [1, 2]), (BYTES, [b"a"]), (FLOAT, "warm"), (INT, 1.5)])
def test_what_does_not_fit_the_model_is_left_for_the_runtime_to_complain_of(kind: PropertyType, value: object) -> None:
    found = from_node(kind, "Int32", value)
    assert found is not None
    with pytest.raises(ValueError, match="the driver read"):
        to_text(kind, found)


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        ("Boolean", True, True),
        ("Boolean", 0, False),
        ("Int16", -5, -5),
        ("UInt16", 3.0, 3),
        ("Double", 3, 3.0),
        ("Float", 21.3, 21.3),
        ("String", "x", "x"),
        ("LocalizedText", "x", "x"),
        ("ByteString", b"x", b"x"),
        ("DateTime", "2026-01-02T00:00:00+00:00", datetime(2026, 1, 2, tzinfo=UTC)),
        ("Guid", str(uuid.UUID(int=1)), str(uuid.UUID(int=1))),
    ],
)
def test_a_value_is_written_in_the_nodes_type(type_: str, value: Value, expected: object) -> None:
    found = to_node("p", type_, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("type_", "value", "words"),
    [
        ("Byte", 256, "p: 256 does not fit into the node's type Byte"),
        ("Boolean", 2, "2 cannot be written to a node of type Boolean"),
        ("Int32", 1.5, "1.5 cannot be written to a node of type Int32"),
        ("Int32", "1", "'1' cannot be written to a node of type Int32"),
        ("Float", 1 / 3, r"cannot hold 0\.3333333333333333; the nearest it can hold is 0\.33333334"),
        ("Float", 1e300, r"1e\+300 does not fit into the node's type Float"),
        ("DateTime", "tomorrow", "'tomorrow' is no DateTime"),
        ("Guid", "x", "'x' is no Guid"),
        ("ExtensionObject", "x", "cannot be written to a node of type ExtensionObject"),
    ],
)
def test_a_value_the_node_cannot_hold_is_refused(type_: str, value: Value, words: str) -> None:
    with pytest.raises(WriteRefused, match=words):
        to_node("p", type_, value)


@given(st.sampled_from(list(INTEGERS)), st.integers(-(2**64), 2**65))
def test_an_integer_fits_or_is_refused(type_: str, value: int) -> None:
    if value in INTEGERS[type_]:
        assert from_node(INT, type_, to_node("p", type_, value)) == value
    else:
        with pytest.raises(WriteRefused):
            to_node("p", type_, value)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_what_a_float_node_holds_can_be_written_to_it(value: float) -> None:
    told = from_node(FLOAT, "Float", value)
    assert isinstance(told, float)
    assert to_node("p", "Float", told) == told
