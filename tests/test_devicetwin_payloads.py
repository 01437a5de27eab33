"""Reading payloads: each helper converts nothing and says which member is wrong."""

import pytest

from devicetwin.payloads import (
    MAX_PAYLOAD_BYTES,
    Malformed,
    MessageError,
    Reading,
    dump,
    integer,
    listing,
    mapping,
    members_of,
    text_of,
)


def test_what_is_dumped_is_compact_and_in_the_order_given() -> None:
    assert dump("e", 5, {"b": 1, "a": "ü"}) == '{"event_id":"e","timestamp":5,"b":1,"a":"ü"}'.encode()


def test_the_event_id_is_in_the_error_once_it_was_read() -> None:
    with pytest.raises(MessageError) as caught, Reading(b'{"EVENT_ID":"e5"}', "complaint") as reading:
        reading.base()
        raise Malformed("the rest")
    assert (caught.value.event_id, caught.value.reason, caught.value.code) == ("e5", "complaint: the rest", 400)


def test_an_error_that_is_no_complaint_passes_through() -> None:
    with pytest.raises(KeyError), Reading(b"{}", "complaint"):
        raise KeyError("a bug")


def test_the_size_is_looked_at_first() -> None:
    with pytest.raises(MessageError, match="longer than"), Reading(b"[" * (MAX_PAYLOAD_BYTES + 1), "c") as reading:
        reading.members()


def test_an_event_id_has_a_bound() -> None:
    with pytest.raises(MessageError, match="1024"), Reading(b'{"event_id":"' + b"x" * 1025 + b'"}', "c") as reading:
        reading.base()


def test_of_two_members_that_differ_in_case_the_later_counts() -> None:
    assert members_of({"Value": 1, "value": 2}, "x") == {"value": 2}


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 2**63])
def test_an_integer_is_one(value: object) -> None:
    assert integer(-(2**63), "x") == -(2**63)
    with pytest.raises(Malformed, match="x must be"):
        integer(value, "x")


def test_text_lists_and_objects_are_not_converted() -> None:
    for reader, wrong in ((text_of, 1), (listing, {}), (mapping, [])):
        with pytest.raises(Malformed, match="here must be"):
            reader(wrong, "here")
    assert text_of("abc", "x", limit=3) == "abc"
    with pytest.raises(Malformed, match="longer than 3 bytes"):
        text_of("äb1", "x", limit=3)


def test_a_reason_can_be_sent_back_whatever_it_quotes() -> None:
    assert MessageError('"\ud83d" is no name').reason == '"?" is no name'
