"""What registers mean."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyModel, PropertyType
from apimachinery.objects import JSON
from mappers.batches import Span, Table
from mappers.registers import DataType, Mask, Point
from mappers.words import BadConfig, Device, Property, Value, WriteRefused

INT, FLOAT, BOOLEAN, STRING, BYTES = (
    PropertyType.INT,
    PropertyType.FLOAT,
    PropertyType.BOOLEAN,
    PropertyType.STRING,
    PropertyType.BYTES,
)


def a_point(kind: PropertyType = INT, **settings: JSON) -> Point:
    settings = {"register": "HoldingRegister", "offset": 4} | settings
    one = Property(PropertyModel("p", kind, True, "", "", ""), settings, 1.0, 60.0, True, 0.0)
    return Point.of_property(Device("default/one", {}, {"p": one}), "p")


@pytest.mark.parametrize(
    ("point", "words", "value"),
    [
        (a_point(), [0xFFFF], 65535),
        (a_point(dataType="int16"), [0xFFFE], -2),
        (a_point(limit=2), [1, 2], 65538),
        (a_point(limit=4), [0, 0, 1, 2], 65538),
        (a_point(dataType="int32"), [0xFFFF, 0xFFFE], -2),
        (a_point(dataType="uint32", isRegisterSwap=True), [2, 1], 65538),
        (a_point(dataType="uint32", isSwap=True), [0x0100, 0x0200], 65538),
        (a_point(dataType="uint32", isSwap=True, isRegisterSwap=True), [0x0200, 0x0100], 65538),
        (a_point(dataType="uint64", isRegisterSwap=True), [4, 3, 2, 1], (1 << 48) + (2 << 32) + (3 << 16) + 4),
        (a_point(dataType="int64"), [0xFFFF] * 4, -1),
        (a_point(FLOAT, limit=2), [0x41AA, 0x6666], 21.3),
        (a_point(FLOAT, dataType="float64"), [0x4035, 0x4CCC, 0xCCCC, 0xCCCD], 21.3),
        (a_point(FLOAT, scale=0.1), [3], 0.3),
        (a_point(FLOAT, scale=0.1, valueOffset=-40), [653], 25.3),
        (a_point(FLOAT, dataType="int16", scale=-0.5), [0xFFFF], 0.5),
        (a_point(INT, scale=0.1), [218], 22),
        (a_point(BOOLEAN, bit=0), [0b101], True),
        (a_point(BOOLEAN, bit=1), [0b101], False),
        (a_point(INT, bit=15), [0x8000], 1),
        (a_point(BOOLEAN, register="CoilRegister"), [1], True),
        (a_point(INT, register="DiscreteInputRegister", dataType="int"), [1], 1),
        (a_point(BOOLEAN, dataType="bool"), [1], True),
        (a_point(STRING, limit=3), [0x4169, 0x7200, 0], "Air"),
        (a_point(STRING, limit=3, isSwap=True), [0x6941, 0x0072, 0], "Air"),
        (a_point(BYTES, limit=2), [0x0102, 0x0304], b"\x01\x02\x03\x04"),
    ],
)
def test_words_are_read_and_written_as_the_manual_says(point: Point, words: list[int], value: Value) -> None:
    found = point.decode(words)
    assert found == value
    assert type(found) is type(value)
    if point.bit is None and point != a_point(INT, scale=0.1):
        assert point.encode(value) == words


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_value(number: float) -> None:
    words = list(struct.unpack(">2H", struct.pack(">f", number)))
    assert a_point(FLOAT, limit=2).decode(words) is None


def test_a_text_that_is_none_is_told_apart() -> None:
    assert a_point(STRING, limit=1).decode([0xFFFF]) == b"\xff\xff"


@pytest.mark.parametrize(
    ("point", "value", "words"),
    [
        (a_point(dataType="int16"), 40000, "p \\(holding register 4, int16\\) cannot hold 40000: it is out of range"),
        (a_point(), -1, "out of range"),
        (a_point(FLOAT, scale=0.1), 21.55, "the nearest it can hold is 21.[56]"),
        (a_point(FLOAT, limit=2), 21.123456789, "the nearest it can hold is 21.1234"),
        (a_point(FLOAT, limit=2), 1e300, "out of range"),
        (a_point(STRING, limit=2), "Fairlead", "holds 4 bytes, not 8"),
        (a_point(STRING, limit=4), "Air ", "the nearest it can hold is 'Air'"),
        (a_point(BYTES, limit=2), b"abc", "holds 4 bytes, not 3"),
        (a_point(INT, register="CoilRegister"), 2, "is one bit: 0 or 1, not 2"),
    ],
)
def test_what_the_device_cannot_hold_is_refused_with_what_it_can(point: Point, value: Value, words: str) -> None:
    with pytest.raises(WriteRefused, match=words):
        point.encode(value)


def test_one_bit_of_a_register_leaves_the_others_alone() -> None:
    point = a_point(BOOLEAN, bit=3)
    assert point.mask(True) == Mask(keep=0xFFF7, set=0x0008)
    assert point.mask(False) == Mask(keep=0xFFF7, set=0)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (INT, {"register": "holding"}, "configData.register must be CoilRegister or Discrete"),
        (INT, {"offset": None}, "property p: visitors.configData.offset is missing"),
        (INT, {"offset": 65536}, "must be from 0 to 65535"),
        (INT, {"offset": 65535, "limit": 2}, "room for 2 addresses"),
        (INT, {"limit": 3}, "limit must be 1 or 2 or 4 for a value of type int, not 3"),
        (INT, {"limit": 2, "dataType": "int16"}, "limit must be 1 for int16"),
        (INT, {"dataType": "decimal"}, "dataType must be bool or boolean or"),
        (INT, {"dataType": "string"}, "string does not fit the model's type INT"),
        (BOOLEAN, {"dataType": "uint16"}, "uint16 does not fit the model's type BOOLEAN"),
        (STRING, {"dataType": "float32"}, "float32 does not fit the model's type STRING"),
        (INT, {"bit": 16}, "must be from 0 to 15"),
        (BOOLEAN, {"bit": 1, "register": "CoilRegister"}, "a CoilRegister is one bit by itself"),
        (BOOLEAN, {"bit": 1, "limit": 2}, "limit must be left out"),
        (FLOAT, {"register": "CoilRegister", "dataType": "float32"}, "dataType must be left out: it is a single bit"),
        (INT, {"register": "CoilRegister", "limit": 2}, "must be from 0 to 1"),
        (FLOAT, {"scale": 0}, "scale must be a number other than 0"),
        (FLOAT, {"scale": "0.1"}, "scale must be a number"),
        (INT, {"isSwap": "yes"}, "isSwap must be true or false"),
        (INT, {"ofset": 3}, "ofset is not known to this driver; it knows bit, dataType"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_its_property(
    kind: PropertyType, settings: dict[str, JSON], words: str
) -> None:
    with pytest.raises(BadConfig, match=words) as caught:
        a_point(kind, **settings)
    assert str(caught.value).startswith("property p: visitors.configData.")


def test_kubeedges_sample_is_read_as_it_stands() -> None:
    point = a_point(
        FLOAT,
        dataType="float",
        offset=0,
        limit=1,
        scale=0.1,
        isSwap=False,
        isRegisterSwap=False,
        max=100.0,
        min=1.0,
        deadBand=1,
    )
    assert (point.span, point.type) == (Span(Table.HOLDING, 0, 1), DataType.UINT16)
    assert point.decode([215]) == 21.5


swaps = st.fixed_dictionaries({"isSwap": st.booleans(), "isRegisterSwap": st.booleans()})


@given(
    swaps,
    st.sampled_from(["int16", "uint16", "int32", "uint32", "int64"]),
    st.integers(-(2**63), 2**63 - 1),
)
def test_an_integer_comes_back_as_it_was_written_or_is_refused(
    order: dict[str, JSON], data_type: str, value: int
) -> None:
    point = a_point(INT, dataType=data_type, **order)
    bits = int(data_type.lstrip("uint"))
    fits = 0 <= value < 2**bits if data_type.startswith("u") else -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
    if fits:
        words = point.encode(value)
        assert len(words) == point.span.size
        assert point.decode(words) == value
    else:
        with pytest.raises(WriteRefused):
            point.encode(value)


@given(
    swaps,
    st.sampled_from(["int16", "uint16", "uint32", "float32", "float64"]),
    st.sampled_from([1.0, 0.1, 0.01, -0.5, 10.0]),
    st.sampled_from([0.0, -40.0, 273.15]),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_number_comes_back_as_it_was_written_or_is_refused(
    order: dict[str, JSON], data_type: str, scale: float, shift: float, value: float
) -> None:
    point = a_point(FLOAT, dataType=data_type, scale=scale, valueOffset=shift, **order)
    try:
        words = point.encode(value)
    except WriteRefused:
        return
    held = point.decode(words)
    assert isinstance(held, int | float)
    assert held == float(f"{value:.12g}")


@given(st.sampled_from([0.1, 0.01, 0.5]), st.integers(-30000, 30000))
def test_every_step_of_the_scale_can_be_written(scale: float, steps: int) -> None:
    point = a_point(FLOAT, dataType="int16", scale=scale)
    value = float(f"{steps * scale:.6g}")
    assert point.decode(point.encode(value)) == value


@given(st.sampled_from(list(DataType)), st.data())
def test_no_words_are_too_strange_to_be_read(data_type: DataType, data: st.DataObject) -> None:
    kind = {DataType.BOOL: BOOLEAN, DataType.STRING: STRING, DataType.BYTES: BYTES}.get(data_type, FLOAT)
    point = a_point(kind, dataType=data_type, **({} if kind in (FLOAT, BOOLEAN) else {"limit": 3}))
    words = data.draw(st.lists(st.integers(0, 0xFFFF), min_size=point.span.size, max_size=point.span.size))
    value = point.decode(words)
    assert value is None or isinstance(value, bool | int | float | str | bytes)
