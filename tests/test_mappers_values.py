"""Values between Python and the twin's strings."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyModel, PropertyType
from mappers.values import from_text, has_moved, shortest_single, to_text
from mappers.words import Value


def model(kind: PropertyType) -> PropertyModel:
    return PropertyModel("p", kind, True, "", "", "")


TYPED: st.SearchStrategy[tuple[PropertyType, Value]] = st.one_of(
    st.tuples(st.just(PropertyType.BOOLEAN), st.booleans()),
    st.tuples(st.just(PropertyType.INT), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(
        st.sampled_from([PropertyType.FLOAT, PropertyType.DOUBLE]), st.floats(allow_nan=False, allow_infinity=False)
    ),
    st.tuples(
        st.sampled_from([PropertyType.STRING, PropertyType.STREAM]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    ),
    st.tuples(st.just(PropertyType.BYTES), st.binary(max_size=50)),
)


@given(TYPED)
def test_every_value_survives_the_way_there_and_back_and_is_allowed_by_its_model(
    typed: tuple[PropertyType, Value],
) -> None:
    kind, value = typed
    text = to_text(kind, value)
    assert from_text(kind, text) == value
    assert model(kind).problem_with(text) is None


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (PropertyType.BOOLEAN, 1),
        (PropertyType.INT, True),
        (PropertyType.INT, 2**63),
        (PropertyType.INT, 1.0),
        (PropertyType.FLOAT, math.nan),
        (PropertyType.FLOAT, math.inf),
        (PropertyType.FLOAT, "1"),
        (PropertyType.STRING, b"x"),
        (PropertyType.BYTES, "x" * 100),
    ],
)
def test_a_value_of_another_type_than_the_models_is_refused(kind: PropertyType, value: Value) -> None:
    with pytest.raises(ValueError, match=f"the model says {kind}"):
        to_text(kind, value)


def test_a_float_property_takes_a_drivers_int() -> None:
    assert to_text(PropertyType.FLOAT, 21) == "21.0"


@pytest.mark.parametrize(
    ("kind", "before", "after", "dead_band", "moved"),
    [
        (PropertyType.FLOAT, "21", "21.0", 0.0, False),
        (PropertyType.FLOAT, "21", "21.01", 0.0, True),
        (PropertyType.FLOAT, "21", "21.5", 0.5, False),
        (PropertyType.FLOAT, "21", "20.4", 0.5, True),
        (PropertyType.INT, "1", "2", 0.0, True),
        (PropertyType.STRING, "21", "21.0", 5.0, True),
        (PropertyType.BOOLEAN, "true", "true", 0.0, False),
    ],
)
def test_only_numbers_have_a_dead_band(
    kind: PropertyType, before: str, after: str, dead_band: float, moved: bool
) -> None:
    assert has_moved(model(kind), before, after, dead_band) is moved


@pytest.mark.parametrize("number", [0.0, 21.3, 0.1, -40.0, 1e-30, 123456.0, 0.00012345])
def test_a_number_of_single_precision_is_told_with_the_digits_it_was_given(number: float) -> None:
    assert shortest_single(struct.unpack(">f", struct.pack(">f", number))[0]) == number


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_number_is_the_same_in_single_precision(number: float) -> None:
    assert struct.pack(">f", shortest_single(number)) == struct.pack(">f", number)
