"""The mailbox of a device that speaks for itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappers.sink import Sink, Word
from mappers.words import DeviceSilent, Reading


class Bell:
    def __init__(self) -> None:
        self.rings = 0

    def __call__(self) -> None:
        self.rings += 1


def a_sink() -> tuple[Sink, Bell]:
    bell = Bell()
    return Sink(["power", "level"], bell), bell


def test_the_last_word_of_each_property_is_kept_and_the_bell_rings_once() -> None:
    sink, bell = a_sink()
    for level in range(1000):
        sink.heard({"level": Reading(level), "power": Reading(True)})
    assert bell.rings == 1
    assert sink.has_word()
    assert sink.collect() == Word({"level": Reading(999), "power": Reading(True)}, None)
    assert not sink.has_word()
    sink.heard({"level": Reading(1)})
    assert bell.rings == 2
    assert sink.collect() == Word({"level": Reading(1)}, None)


def test_names_the_device_does_not_have_take_no_memory() -> None:
    sink, _ = a_sink()
    sink.heard({f"topic-{number}": Reading(number) for number in range(1000)})
    assert sink.collect() == Word({}, None)


def test_being_there_is_a_word_of_its_own() -> None:
    sink, bell = a_sink()
    sink.heard({})
    assert bell.rings == 1
    assert sink.collect() == Word({}, None)


def test_what_was_heard_before_a_farewell_is_not_told_after_it() -> None:
    sink, _ = a_sink()
    sink.heard({"level": Reading(1)})
    sink.away("its last will says offline")
    assert sink.collect() == Word({}, "its last will says offline")


def test_whoever_speaks_again_is_back() -> None:
    sink, _ = a_sink()
    sink.away("its last will says offline")
    sink.heard({"level": Reading(1)})
    assert sink.collect() == Word({"level": Reading(1)}, None)


def test_a_lost_connection_is_raised_and_the_first_reason_counts() -> None:
    sink, bell = a_sink()
    sink.heard({"level": Reading(1)})
    sink.lost(DeviceSilent("no keep-alive"))
    sink.lost(OSError("and so on"))
    assert bell.rings == 1
    with pytest.raises(DeviceSilent, match="no keep-alive"):
        sink.collect()


def test_after_the_end_nothing_is_held_and_nothing_rings() -> None:
    sink, bell = a_sink()
    sink.heard({"level": Reading(1)})
    sink.close()
    sink.heard({"level": Reading(2)})
    sink.away("gone")
    sink.lost(OSError("gone"))
    assert not sink.has_word()
    assert bell.rings == 1


@given(st.lists(st.one_of(st.tuples(st.sampled_from(["power", "level", "x"]), st.integers()), st.none())))
def test_between_two_looks_only_the_last_words_count(history: list[tuple[str, int] | None]) -> None:
    """None is the task, looking."""
    sink, bell = a_sink()
    told: dict[str, int] = {}
    rings = 0
    for each in history:
        if each is None:
            rings += sink.has_word()
            readings = sink.collect().readings
            assert readings == {name: Reading(value) for name, value in told.items()}
            told = {}
        else:
            name, value = each
            sink.heard({name: Reading(value)})
            if name != "x":
                told[name] = value
    assert bell.rings == rings + sink.has_word()
