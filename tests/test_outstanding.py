"""Reports that are under way, entry by entry."""

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from link.frames import REPORT_WINDOW_BYTES, REPORT_WINDOW_ENTRIES, ReportEntry
from link.outstanding import Outstanding, size_of

ENTRY = ReportEntry(ObjectKey(DEVICES, "default", "lamp"), "state", b"{}")


def test_numbers_are_dense_and_settled_in_any_order_each_once() -> None:
    outstanding = Outstanding()
    assert (outstanding.add([ENTRY] * 3), outstanding.add([ENTRY]), outstanding.last) == (1, 4, 4)
    assert outstanding.settle([3, 1]) is None
    assert (3 in outstanding, 2 in outstanding, len(outstanding)) == (False, True, 2)
    assert outstanding.settle([2, 3]) == 3
    assert 2 in outstanding, "all of them or none"
    assert outstanding.settle([2, 2]) == 2
    assert outstanding.settle([4, 2]) is None
    assert outstanding.room() == REPORT_WINDOW_BYTES
    assert outstanding.settle([5]) == 5


def test_the_window_is_bounded_by_bytes_and_by_entries() -> None:
    few, many = Outstanding(), Outstanding()
    few.add([ENTRY])
    assert few.room() == REPORT_WINDOW_BYTES - size_of(ENTRY)
    few.add([ENTRY._replace(value=b"x" * 2 * REPORT_WINDOW_BYTES)])
    assert few.room() == 0
    many.add([ENTRY._replace(value=b"")] * (REPORT_WINDOW_ENTRIES - 1))
    assert many.room() > 0
    many.add([ENTRY])
    assert many.room() == 0
