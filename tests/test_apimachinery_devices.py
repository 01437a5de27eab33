"""Values against their models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import (
    MAX_VALUE_BYTES,
    PropertyModel,
    PropertyReport,
    PropertyType,
    is_met,
    property_models,
    same_value,
)


def a_property(kind: str, minimum: str = "", maximum: str = "") -> PropertyModel:
    return PropertyModel("p", PropertyType(kind), True, minimum, maximum, "")


@pytest.mark.parametrize(
    ("prop", "value", "problem"),
    [
        (a_property("INT"), "21", None),
        (a_property("INT"), "-9223372036854775808", None),
        (a_property("INT"), "9223372036854775808", "not an integer"),
        (a_property("INT"), "21.5", "not an integer"),
        (a_property("INT"), "1_000", "not an integer"),
        (a_property("INT"), "", "not an integer"),
        (a_property("INT", "0", "60"), "60", None),
        (a_property("INT", "0", "60"), "61", "above the model's maximum of 60"),
        (a_property("INT", "0", "60"), "-1", "below the model's minimum of 0"),
        (a_property("INT", "zero", ""), "-1", None),
        (a_property("FLOAT"), "1e3", None),
        (a_property("FLOAT"), "nan", "not a number"),
        (a_property("FLOAT"), "1e999", "not a number"),
        (a_property("DOUBLE", "-1.5", ""), "-1.6", "below"),
        (a_property("BOOLEAN"), "true", None),
        (a_property("BOOLEAN"), "True", "not true or false"),
        (a_property("BYTES"), "aGk=", None),
        (a_property("BYTES"), "aGk", "not base64"),
        (a_property("STRING"), "anything, {}", None),
        (a_property("STRING"), "x" * (MAX_VALUE_BYTES + 1), "longer than"),
        (a_property("STREAM"), "rtsp://x", None),
    ],
)
def test_a_value_against_its_model(prop: PropertyModel, value: str, problem: str | None) -> None:
    found = prop.problem_with(value)
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert problem in found


def test_a_model_as_kubeedge_writes_it() -> None:
    model = {
        "spec": {
            "properties": [
                {
                    "name": "temperature",
                    "type": "INT",
                    "accessMode": "ReadOnly",
                    "minimum": "-40",
                    "maximum": "125",
                    "unit": "C",
                },
                {"name": "note"},
                {"name": "odd", "type": "MATRIX"},
                "rubbish",
            ]
        }
    }
    found = property_models(model)
    assert found["temperature"] == PropertyModel("temperature", PropertyType.INT, False, "-40", "125", "C")
    assert found["note"].type is PropertyType.STRING
    assert found["note"].writable
    assert set(found) == {"temperature", "note"}
    assert property_models({}) == {}


def test_a_unit_is_compared_where_both_sides_name_one() -> None:
    celsius = PropertyModel("t", PropertyType.FLOAT, True, "", "", "C")
    assert celsius.problem_with_unit("F") == 't: the value is in "F", the model\'s unit is "C"'
    assert celsius.problem_with_unit("C") is None
    assert celsius.problem_with_unit("") is None
    assert a_property("FLOAT").problem_with_unit("F") is None


def test_a_range_that_is_empty_is_told() -> None:
    assert a_property("INT", "7", "5").contradiction() == "p: the model's minimum of 7 is above its maximum of 5"
    assert a_property("INT", "5", "5").contradiction() is None
    assert a_property("INT", "5").contradiction() is None


def test_numbers_are_compared_as_numbers_and_texts_as_texts() -> None:
    assert same_value(PropertyType.FLOAT, "21", "21.0")
    assert not same_value(PropertyType.STRING, "21", "21.0")
    assert not same_value(PropertyType.FLOAT, "21", "x")
    assert not same_value(None, "21", "21.0")


@pytest.mark.parametrize(
    ("value", "answers", "expected"),
    [("21.0", None, True), ("21", 4, True), ("21", 5, True), ("21", 3, False), ("20", 4, False), (None, None, False)],
)
def test_a_late_answer_meets_no_newer_wish(value: str | None, answers: int | None, expected: bool) -> None:
    assert is_met(PropertyType.FLOAT, "21", 4, value, answers) is expected


@given(
    st.builds(
        PropertyReport,
        value=st.none() | st.text(),
        value_type=st.text(),
        observed_at_ms=st.integers(0, 2**52),
        desired=st.none() | st.text(),
        problem=st.text(),
        device_at_ms=st.none() | st.integers(0, 2**52),
        desired_at_ms=st.none() | st.integers(0, 2**52),
        desired_version=st.integers(0, 2**52),
        answers=st.none() | st.integers(0, 2**52),
        generation=st.integers(0, 2**52),
        origin=st.sampled_from(["", "edge"]),
        stale=st.booleans(),
    )
)
def test_a_report_survives_the_wire(report: PropertyReport) -> None:
    assert PropertyReport.from_json(report.to_json()) == report


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"observedAt": "1"},
        {"observedAt": True},
        {"observedAt": 1, "value": 2},
        {"observedAt": 1, "deviceAt": "2"},
        {"observedAt": 1, "desiredVersion": -1},
        {"observedAt": 1, "answers": 2**63},
        {"observedAt": 1, "generation": 1.5},
        {"observedAt": 1, "origin": ["edge"]},
        {"observedAt": 1, "stale": "false"},
        {"observedAt": 1, "problem": "x" * 99_999},
    ],
)
def test_rubbish_is_no_report(value: object) -> None:
    with pytest.raises(ValueError, match=r"must be|longer"):
        PropertyReport.from_json(value)
