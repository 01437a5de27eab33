"""Of objects that change all the time the newest state is taken in now and then, and nothing else waits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.events import EventType
from apimachinery.objects import canonical
from apimachinery.resources import DEVICES
from cloudhub.apiwire import Event, event_of
from cloudhub.buckets import Rate
from cloudhub.conflation import FREE, SPACING_S, TURNS, Conflation


def event(name: str, version: int, kind: EventType = EventType.MODIFIED) -> Event:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": str(version)}
    return event_of(DEVICES, canonical({"type": kind.value, "object": {"metadata": metadata}}))


def bookmark(version: int) -> Event:
    return Event(EventType.BOOKMARK, None, str(version))


def hasty(now: float = 0.0) -> Conflation:
    """One whose allowance is used up, by an object that nobody asks for, and not filled again."""
    it = Conflation(now, Rate(per_s=1e-9, burst=1.0))
    it.begin("0")
    for _ in range(2):
        assert not it.holds(event("busy", 0), now)
    return it


def version(given: Event | None) -> str:
    assert given is not None
    return given.resume_version


def test_nothing_waits_as_long_as_there_is_little_to_do() -> None:
    it = Conflation(0.0)
    assert not any(it.holds(event("lamp", number), 0.0) for number in range(round(FREE.burst) + 1))
    assert it.holds(event("lamp", 999), 0.0)
    later = 1 / FREE.per_s
    assert not it.holds(event("fan", 1000), later), "it did not change before"
    assert it.holds(event("fan", 1001), later), "the lamp has used that up, by waiting"
    later += 5 / FREE.per_s
    assert not it.holds(event("pump", 1002), later)
    assert not it.holds(event("pump", 1003), later), "what is free again is anybody's"


def test_a_burst_holds_nobody_up_for_longer_than_it_takes_to_make_up_for_it() -> None:
    """Eight that change thrice a second are half of what is free, also where one of them waits all the time."""
    it, now, held = Conflation(0.0), 0.0, 0
    for number in range(1, 3 * round(FREE.burst)):
        held += it.holds(event(f"lamp-{number % 8}", number), now)
    assert held > FREE.burst
    waited = []
    for number in range(1000, 1000 + 24 * 20):
        now += 1 / 24
        while it.due(now) is not None:
            pass
        if it.holds(event(f"lamp-{number % 8}", number), now):
            waited.append(now)
    assert waited
    assert max(waited) < 2 * FREE.burst / (FREE.per_s - 24)


def test_of_what_waits_the_newest_state_is_given_when_its_time_has_come() -> None:
    it = hasty()
    assert not it.holds(event("lamp", 1), 0.0), "an object's first change is given whatever others do"
    assert it.holds(event("lamp", 2), 0.1)
    assert it.holds(event("lamp", 3), 0.2)
    turn = it.next_deadline()
    assert turn is not None
    assert 0.1 < turn < 0.1 + SPACING_S
    assert it.due(turn - 0.01) is None
    assert version(it.due(turn)) == "3"
    assert it.holds(event("lamp", 4), turn + 0.01)
    assert it.next_deadline() == pytest.approx(turn + SPACING_S)
    assert version(it.pop()) == "4"
    assert (it.due(9.0), it.next_deadline(), len(it)) == (None, None, 0)


def test_what_is_deleted_or_made_anew_does_not_wait_and_takes_the_place_of_what_did() -> None:
    for kind in (EventType.DELETED, EventType.ADDED):
        it = hasty()
        it.holds(event("lamp", 1), 0.0)
        assert it.holds(event("lamp", 2), 0.1)
        assert not it.holds(event("lamp", 3, kind), 0.1)
        assert (it.due(9.0), it.reached) == (None, "3")


def test_nothing_counts_as_reached_that_waits_and_everything_does_once_it_was_given() -> None:
    it = hasty()
    it.holds(event("lamp", 1), 0.0)
    it.holds(event("meter", 2), 0.0)
    assert it.reached == "2"
    assert it.holds(event("lamp", 3), 0.1)
    assert it.reached == "2"
    assert it.holds(event("meter", 4), 0.1)
    assert it.holds(event("lamp", 5), 0.2), "its newest state is later than that of the meter, its first one earlier"
    assert not it.holds(bookmark(9), 0.2)
    assert it.reached == "2"
    assert version(it.due(SPACING_S)) == "5", "the lamp's turn comes first"
    assert it.reached == "3", "the meter waits since 4"
    assert version(it.due(2 * SPACING_S)) == "4"
    assert (it.reached, it.newest) == ("9", "5")


def test_what_is_reached_goes_on_where_something_waits_all_the_time() -> None:
    it, now = hasty(), 0.0
    for number in range(1, 3000):
        now += 0.001
        it.holds(event(f"lamp-{number % 50}", number), now)
        while it.due(now) is not None:
            pass
        assert number < 50 or number - int(it.reached) <= 1000 * SPACING_S, "no further behind than what waits longest"
    assert len(it)


def test_what_began_to_wait_together_is_not_given_together() -> None:
    it, now = hasty(), 0.0
    names = [f"lamp-{number}" for number in range(50)]
    for name in names:
        it.holds(event(name, 1), now)
    for number in range(2, 6):
        for name in names:
            assert it.holds(event(name, number), now + 0.001)
        for turn in range(TURNS):
            now += SPACING_S / TURNS
            together = 0
            while it.due(now) is not None:
                together += 1
            assert together <= 10, turn
        assert not len(it)


def test_a_list_makes_what_waits_out_of_date() -> None:
    it = hasty()
    it.holds(event("lamp", 1), 0.0)
    it.holds(event("lamp", 2), 0.1)
    it.begin("7")
    assert (it.reached, it.due(9.0), it.pop()) == ("7", None, None)


def test_at_the_end_of_a_watch_all_that_waits_is_given() -> None:
    it = hasty()
    for name in ("lamp", "fan"):
        it.holds(event(name, 1), 0.0)
        assert it.holds(event(name, 2), 0.1)
    assert [version(it.pop()), version(it.pop()), it.pop()] == ["2", "2", None]
    assert (it.reached, it.due(9.0), it.next_deadline()) == ("2", None, None)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lamp", "fan", "pump"]),
        st.sampled_from([EventType.MODIFIED] * 6 + [EventType.DELETED, EventType.ADDED, None]),
        st.sampled_from([0.0, 0.0, 0.01, 0.2, 0.6]),
    ),
    max_size=60,
)


@given(STEPS)
def test_each_object_is_given_in_order_to_its_last_state_and_reached_never_skips_one_that_waits(
    steps: list[tuple[str, EventType | None, float]],
) -> None:
    it, now = hasty(), 0.0
    told: dict[str, int] = {}
    given: dict[str, list[int]] = {}
    waits_since: dict[str, float] = {}
    waits_from: dict[str, int] = {}

    def take(one: Event) -> None:
        assert one.object is not None
        versions = given.setdefault(one.object.key.name, [])
        assert not versions or versions[-1] < int(one.resume_version)
        versions.append(int(one.resume_version))
        waits_since.pop(one.object.key.name, None)
        waits_from.pop(one.object.key.name, None)

    for number, (name, kind, pause_s) in enumerate(steps, 1):
        now += pause_s
        while (one := it.due(now)) is not None:
            take(one)
        if kind is None:
            assert not it.holds(bookmark(number), now)
            assert it.newest == str(max(told.values(), default=0))
            continue
        told[name] = number
        if it.holds(event(name, number, kind), now):
            assert kind is EventType.MODIFIED
            assert now - waits_since.setdefault(name, now) <= SPACING_S
            waits_from.setdefault(name, number)
        else:
            take(event(name, number, kind))
        behind = [each for each, last in told.items() if given.get(each, [0])[-1] < last]
        assert len(it) == len(behind)
        assert int(it.reached) == min(waits_from.values(), default=number + 1) - 1
    while (one := it.pop()) is not None:
        take(one)
    assert {name: versions[-1] for name, versions in given.items()} == told
