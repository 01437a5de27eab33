"""The twin's own rules: what is open, what is shown, what is written down."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.devices import PropertyModel, PropertyReport, PropertyType
from apimachinery.keys import ObjectKey
from apimachinery.objects import canonical
from apimachinery.resources import DEVICES
from devicetwin.messages import TwinEntry, Value
from devicetwin.twin import NO_WISH, Desired, Origin, Property, Reported, Twin

KEY = ObjectKey(DEVICES, "default", "t")
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
PROPERTIES = st.builds(
    Property,
    desired=st.just(NO_WISH)
    | st.builds(Desired, TEXT, st.integers(1, 9), st.integers(0, 2**45), st.sampled_from(Origin), TEXT, TEXT),
    reported=st.none()
    | st.builds(
        Reported,
        value=TEXT,
        version=st.integers(1, 9),
        answers=st.none() | st.integers(0, 9),
        observed_at_ms=st.integers(0, 2**45),
        device_at_ms=st.none() | st.integers(1, 2**45),
        stale=st.booleans(),
    ),
    cloud=TEXT,
    type=TEXT,
    optional=st.booleans(),
    declared=st.booleans(),
    held=st.booleans(),
    unlisted=st.booleans(),
    model=st.none(),
    cycle_ms=st.just(0),
    stale_after_ms=st.just(0),
)


@given(
    st.builds(
        Twin,
        device=st.just(KEY),
        uid=TEXT,
        properties=st.dictionaries(TEXT, PROPERTIES, max_size=4),
        state=TEXT,
        last_online=TEXT,
        versions=st.integers(0, 99),
        generation=st.integers(0, 99),
        problem=TEXT,
        sequence=st.none(),
    )
)
def test_a_twin_survives_being_written_down(twin: Twin) -> None:
    assert Twin.from_json(KEY, json.loads(canonical(twin.to_json()))) == twin


@given(PROPERTIES, PROPERTIES, st.sampled_from(Property._fields))
def test_twins_are_kept_as_one_another_exactly_where_what_is_written_down_is_the_same(
    one: Property, other: Property, field: str
) -> None:
    changed = one._replace(**{field: getattr(other, field)})
    for properties in ({"p": one}, {"p": changed}, {"p": changed, "q": other}, {}):
        twin, after = Twin(KEY, "u", {"p": one}), Twin(KEY, "u", properties)
        assert twin.is_kept_as(after) == (twin.to_json() == after.to_json())
    head = Twin(KEY, "u", {"p": one})
    assert not head.is_kept_as(head._replace(versions=1))


@pytest.mark.parametrize(
    "value", [None, [], {}, {"uid": "u"}, {"uid": "", "state": "", "lastOnline": "", "versions": "x", "properties": {}}]
)
def test_what_is_no_twin_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="the stored twin of devices"):
        Twin.from_json(KEY, value)


FLOAT = PropertyModel("t", PropertyType.FLOAT, True, "", "", "")


@pytest.mark.parametrize(
    ("each", "is_open"),
    [
        (Property(), False),
        (Property(Desired("", 3)), False),
        (Property(Desired("1", 1, problem="no")), False),
        (Property(Desired("1", 1)), True),
        (Property(Desired("1", 1), Reported("2", 1, None, 0)), True),
        (Property(Desired("1", 1), Reported("1", 1, None, 0)), False),
        (Property(Desired("1", 2), Reported("1", 1, 1, 0)), True),
        (Property(Desired("1", 2), Reported("1", 1, 2, 0)), False),
        (Property(Desired("1", 1), Reported("1.0", 1, None, 0)), True),
        (Property(Desired("1", 1), Reported("1.0", 1, None, 0), model=FLOAT), False),
        (Property(Desired("1", 1), Reported("1.0", 1, None, 0), type="float"), False),
    ],
)
def test_a_wish_is_open_until_it_is_met(each: Property, is_open: bool) -> None:
    assert each.is_open is is_open
    assert Twin(KEY, "u", {"p": each}).delta() == ({"p": "1"} if is_open else {})


def test_an_entry_shows_no_wish_that_has_a_problem_and_a_version_only_in_a_delta() -> None:
    each = Property(Desired("1", 4, 7), Reported("2", 1, None, 9))
    assert each.entry() == TwinEntry(Value("1", 7), Value("2", 9), True, "string")
    assert each.entry(versioned=True).expected_version == 4
    by_edge = each._replace(desired=each.desired._replace(origin=Origin.EDGE))
    assert by_edge.entry(versioned=True).expected_version is None
    refused = each._replace(desired=each.desired._replace(problem="no"))
    assert refused.entry(versioned=True) == TwinEntry(None, Value("2", 9), True, "string")
    assert refused.report(3) == PropertyReport("2", "", 9, "1", "no", desired_at_ms=7, desired_version=4, generation=3)
    assert Property(model=FLOAT).entry().type == "float"
