"""Tests for metamanager.parked."""

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from link.frames import RefusedReport
from metamanager.parked import KEPT, Parked


def refused(number: int, reason: str = "no right") -> RefusedReport:
    return RefusedReport(ObjectKey(DEVICES, "default", f"d{number}"), "state", reason)


def test_the_last_are_kept_and_all_are_counted() -> None:
    parked = Parked().plus([refused(number) for number in range(KEPT)], 1).plus([refused(99)], 2)
    assert parked.total == KEPT + 1
    assert len(parked.last) == KEPT
    assert tuple(parked.last[-1]) == ("devices.devices.kubeedge.io/default/d99", "state", "no right", 2)
    assert parked.last[0].key.endswith("/d1")


def test_one_field_has_one_line_with_its_newest_reason() -> None:
    parked = Parked().plus([refused(1, "old"), refused(2), refused(1, "new")], 1)
    assert parked.total == 3
    assert [(each.key[-2:], each.reason) for each in parked.last] == [("d2", "no right"), ("d1", "new")]


def test_a_document_gives_it_again() -> None:
    parked = Parked().plus([refused(1), refused(2)], 7)
    assert Parked.from_bytes(parked.to_bytes()) == parked


@pytest.mark.parametrize("document", [None, b"", b"[]", b"{", b'{"total":1}', b'{"total":1,"last":[{"key":"a"}]}'])
def test_what_cannot_be_read_is_the_beginning(document: bytes | None) -> None:
    assert Parked.from_bytes(document) == Parked()
