"""What became of entries, until it is told."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from cloudhub.ledgers import MAX_REFUSED, Acknowledgement, Ledgers, spans
from link.frames import RefusedEntry, RefusedReport, ReportAck, Span, Traffic

NO = RefusedReport(ObjectKey(DEVICES, "default", "lamp"), "state", "no")


@given(st.sets(st.integers(1, 60)))
def test_spans_say_the_same_numbers(numbers: set[int]) -> None:
    found = list(spans(sorted(numbers, key=lambda number: number % 7)))
    assert [each for first, last in found for each in range(first, last + 1)] == sorted(numbers)
    assert all(later.first > earlier.last + 1 for earlier, later in itertools.pairwise(found)), "as few as can be"


def test_all_that_is_known_is_told_once_by_session_and_class() -> None:
    ledgers: Ledgers[str] = Ledgers()
    ledgers.settle("one", Traffic.DEVICES, [2, 1])
    ledgers.refuse("one", Traffic.DEVICES, [4], NO)
    ledgers.hand_back("one", Traffic.DEVICES, [3])
    ledgers.settle("one", Traffic.INFRASTRUCTURE, [1])
    ledgers.settle("other", Traffic.DEVICES, [1])
    assert ledgers.told() == [
        Acknowledgement(
            "one", ReportAck(Traffic.DEVICES, (Span(1, 2),), (RefusedEntry(4, "no"),), (Span(3, 3),)), (NO,)
        ),
        Acknowledgement("one", ReportAck(Traffic.INFRASTRUCTURE, (Span(1, 1),))),
        Acknowledgement("other", ReportAck(Traffic.DEVICES, (Span(1, 1),))),
    ]
    assert ledgers.told() == []


def test_more_refusals_than_a_frame_holds_are_told_in_several_and_the_rest_once() -> None:
    ledgers: Ledgers[str] = Ledgers()
    ledgers.settle("one", Traffic.DEVICES, [1000])
    ledgers.refuse("one", Traffic.DEVICES, range(1, MAX_REFUSED + 2), NO)
    first, second = (each.ack for each in ledgers.told())
    assert (len(first.refused), len(second.refused)) == (MAX_REFUSED, 1)
    assert (first.settled, second.settled) == ((Span(1000, 1000),), ())


def test_nothing_is_kept_of_a_session_that_has_closed() -> None:
    ledgers: Ledgers[str] = Ledgers()
    for traffic in Traffic:
        ledgers.settle("one", traffic, [1])
    ledgers.settle("other", Traffic.DEVICES, [1])
    ledgers.close("one")
    assert [each.session for each in ledgers.told()] == ["other"]
