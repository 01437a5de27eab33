"""Deadlines that are never late and never many."""

from hypothesis import given
from hypothesis import strategies as st

from devicetwin.silence import STRAY, SilenceDeadlines
from devicetwin.topics import DeviceId

IDS = [DeviceId("default", name) for name in "abc"]


def test_the_earlier_deadline_stands_and_is_due_once() -> None:
    deadlines = SilenceDeadlines()
    deadlines.note(IDS[0], None)
    assert deadlines.next_ms() is None
    deadlines.note(IDS[0], 50)
    deadlines.note(IDS[0], 70)
    deadlines.note(IDS[0], 40)
    deadlines.note(IDS[1], 45)
    assert deadlines.next_ms() == 40
    assert deadlines.due(39, 9) == []
    assert deadlines.due(60, 1) == [IDS[0]]
    assert deadlines.due(60, 9) == [IDS[1]]
    assert deadlines.next_ms() is None


def test_a_device_that_is_gone_is_not_due() -> None:
    deadlines = SilenceDeadlines()
    deadlines.note(IDS[0], 5)
    deadlines.drop(IDS[0])
    deadlines.drop(IDS[1])
    assert deadlines.next_ms() is None
    assert deadlines.due(9, 9) == []


@given(st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 99) | st.none()), max_size=60))
def test_never_late_and_the_heap_stays_small(notes: list[tuple[DeviceId, int | None]]) -> None:
    deadlines = SilenceDeadlines()
    earliest: dict[DeviceId, int] = {}
    for device, at_ms in notes:
        deadlines.note(device, at_ms)
        if at_ms is not None:
            earliest[device] = min(at_ms, earliest.get(device, at_ms))
        assert len(deadlines._heap) <= STRAY * len(earliest) + STRAY
        assert deadlines.next_ms() == min(earliest.values(), default=None)
    assert sorted(deadlines.due(99, 99)) == sorted(earliest)
