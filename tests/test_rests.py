"""A node's devices rest between two writes, however long one of them hangs, and hold up no other node's."""

from hypothesis import given
from hypothesis import strategies as st

from cloudhub.pace import YOUNG_S
from cloudhub.rests import REST, Rests

STEPS = st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.sampled_from([0.0, 0.02, 0.05, 0.2, 5.0])))


def test_after_a_write_comes_a_rest_of_several_times_what_it_took() -> None:
    rests: Rests[str, int] = Rests()
    rests.begin("a", 1, 10.0)
    assert not rests.may_begin("a", 10.0)
    assert rests.may_begin("b", 10.0), "nodes do not wait for each other"
    rests.end("a", 1, 10.02)
    until = 10.02 + REST * (10.02 - 10.0)
    assert rests.next_deadline(10.02) == until
    assert not rests.may_begin("a", until - 0.001)
    assert rests.may_begin("a", until)
    assert rests.next_deadline(until) is None


def test_a_write_that_hangs_holds_up_no_other() -> None:
    rests: Rests[str, int] = Rests()
    rests.begin("a", 1, 0.0)
    assert rests.next_deadline(0.05) == YOUNG_S
    assert rests.may_begin("a", YOUNG_S)
    rests.begin("a", 2, 1.0)
    rests.end("a", 1, 1.01)
    assert not rests.may_begin("a", 1.02), "the end of an earlier one is not that of the last"
    rests.end("a", 2, 60.0)
    assert rests.may_begin("a", 60.0 + REST * YOUNG_S)


@given(STEPS)
def test_nobody_waits_for_longer_than_the_longest_rest(steps: list[tuple[str, bool, float]]) -> None:
    rests: Rests[str, int] = Rests()
    now = 0.0
    for number, (group, ends, pause_s) in enumerate(steps):
        now += pause_s
        if ends:
            rests.end(group, number - 1, now)
        elif rests.may_begin(group, now):
            rests.begin(group, number, now)
            assert not rests.may_begin(group, now)
        for each in "ab":
            assert rests.may_begin(each, now + REST * YOUNG_S)
        deadline = rests.next_deadline(now)
        assert (deadline is None) is all(rests.may_begin(each, now) for each in "ab")
