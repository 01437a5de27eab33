"""Tests for cloudhub.agenda."""

from hypothesis import given
from hypothesis import strategies as st

from cloudhub.agenda import Agenda


def test_items_come_in_the_order_of_their_times_and_then_of_setting() -> None:
    agenda: Agenda[str] = Agenda()
    for item, at in (("late", 3.0), ("first", 1.0), ("second", 1.0)):
        agenda.set(item, at)
    assert [agenda.take(3.0), agenda.take(3.0), agenda.take(3.0), agenda.take(3.0)] == ["first", "second", "late", None]


def test_nothing_is_given_before_its_time() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.set("a", 2.0)
    assert agenda.take(1.9) is None
    assert agenda.next_deadline() == 2.0
    assert agenda.take(2.0) == "a"
    assert agenda.next_deadline() is None


def test_setting_an_item_again_moves_it() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.set("a", 5.0)
    agenda.set("a", 1.0)
    assert (len(agenda), "a" in agenda) == (1, True)
    assert agenda.take(9.0) == "a"
    assert agenda.take(9.0) is None


def test_a_discarded_item_does_not_come() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.set("a", 1.0)
    agenda.discard("a")
    agenda.discard("never there")
    assert agenda.next_deadline() is None
    assert agenda.take(9.0) is None


def test_moving_one_item_for_ever_takes_no_memory() -> None:
    agenda: Agenda[str] = Agenda()
    for at in range(10_000):
        agenda.set("a", float(at))
    assert len(agenda._lines) < 100


@given(st.lists(st.tuples(st.sampled_from(["set", "discard", "take"]), st.integers(0, 5), st.integers(0, 9))))
def test_agrees_with_a_dictionary(steps: list[tuple[str, int, int]]) -> None:
    agenda: Agenda[int] = Agenda()
    model: dict[int, float] = {}
    for what, item, at in steps:
        if what == "set":
            agenda.set(item, float(at))
            model[item] = float(at)
        elif what == "discard":
            agenda.discard(item)
            model.pop(item, None)
        else:
            taken = agenda.take(float(at))
            due = {item for item, when in model.items() if when <= at}
            assert (taken in due) if due else (taken is None)
            if taken is not None:
                assert model.pop(taken) == min(model.values(), default=99.0) or taken not in model
        assert len(agenda) == len(model)
        assert agenda.next_deadline() == min(model.values(), default=None)
