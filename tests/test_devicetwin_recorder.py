"""Events that are few, and whose counts add up."""

import itertools
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import EventType, KubeEvent
from apimachinery.resources import DEVICES
from devicetwin.recorder import BURST, MAX_WAITING, WINDOW_MS, EventRecorder

START = 1_800_000_000_000


def key(name: str = "thermo") -> ObjectKey:
    return ObjectKey(DEVICES, "default", name)


def ids() -> Callable[[], str]:
    numbers = itertools.count()
    return lambda: f"A-{next(numbers)}"


def happen(recorder: EventRecorder, name: str = "thermo", at_ms: int = START, reason: str = "DeviceOffline") -> None:
    recorder.record(key(name), f"uid-{name}", EventType.WARNING, reason, f"at {at_ms - START}", at_ms)


def test_the_first_is_told_at_once_and_the_flapping_after_it_as_one() -> None:
    recorder, new_id = EventRecorder(), ids()
    assert recorder.next_deadline_ms() is None
    happen(recorder)
    assert recorder.next_deadline_ms() == 0
    (first,) = recorder.due(START, new_id)
    assert (first.name, first.times, first.uid) == ("thermo.a0", 1, "uid-thermo")
    for at_ms in range(START + 1000, START + 40_000, 1000):
        happen(recorder, at_ms=at_ms)
        assert recorder.due(at_ms, new_id) == []
    assert recorder.next_deadline_ms() == START + WINDOW_MS
    (second,) = recorder.due(START + WINDOW_MS, new_id)
    assert (second.times, second.message) == (39, "at 39000")
    assert (second.first_at, second.last_at) == ("2027-01-15T08:00:01Z", "2027-01-15T08:00:39Z")
    assert second.name != first.name
    assert recorder.next_deadline_ms() is None


def test_other_reasons_and_other_devices_have_windows_of_their_own() -> None:
    recorder, new_id = EventRecorder(), ids()
    happen(recorder)
    happen(recorder, reason="DeviceOnline")
    happen(recorder, "other")
    assert len(recorder.due(START, new_id)) == 3


def test_an_event_of_a_device_made_anew_is_not_counted_with_its_predecessor_s() -> None:
    recorder = EventRecorder()
    happen(recorder)
    recorder.record(key(), "another", EventType.WARNING, "DeviceOffline", "", START)
    (event,) = recorder.due(START, ids())
    assert (event.uid, event.times) == ("another", 1)


def test_a_thousand_devices_at_once_are_told_at_a_bounded_rate_and_the_rest_is_counted() -> None:
    recorder, new_id = EventRecorder(), ids()
    for number in range(1000):
        happen(recorder, f"d{number}")
    assert recorder.dropped == 1000 - MAX_WAITING
    assert len(recorder.due(START, new_id)) == BURST
    assert recorder.due(START, new_id) == []
    deadline = recorder.next_deadline_ms()
    assert deadline is not None
    assert START < deadline <= START + 1001
    assert len(recorder.due(deadline, new_id)) == 1
    assert len(recorder.due(START + 11_000, new_id)) == 10


def test_a_clock_that_is_set_neither_floods_nor_silences() -> None:
    recorder, new_id = EventRecorder(), ids()
    happen(recorder)
    assert len(recorder.due(START, new_id)) == 1
    back = START - 10**9
    happen(recorder, at_ms=back)
    assert len(recorder.due(back, new_id)) == 1
    for number in range(MAX_WAITING):
        happen(recorder, f"d{number}", at_ms=back)
    assert len(recorder.due(back + 10**12, new_id)) == BURST


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30_000)), max_size=40))
def test_the_counts_add_up_and_no_kind_is_told_twice_in_a_window(history: list[tuple[str, int]]) -> None:
    recorder, new_id = EventRecorder(), ids()
    told: list[tuple[int, KubeEvent]] = []
    now_ms = START
    for name, pause_ms in history:
        now_ms += pause_ms
        happen(recorder, name, now_ms)
        told += [(now_ms, each) for each in recorder.due(now_ms, new_id)]
    while (deadline := recorder.next_deadline_ms()) is not None:
        now_ms = max(now_ms, deadline)
        told += [(now_ms, each) for each in recorder.due(now_ms, new_id)]
    for name in "ab":
        mine = [(at_ms, each) for at_ms, each in told if each.about == key(name)]
        assert sum(each.times for _, each in mine) == sum(each == name for each, _ in history)
        assert all(later - earlier >= WINDOW_MS for (earlier, _), (later, _) in itertools.pairwise(mine))
    assert len({each.name for _, each in told}) == len(told)
