"""Writes of devices' statuses leave the loop to others: one while rounds are long, more while they are short."""

from hypothesis import given
from hypothesis import strategies as st

from cloudhub.pace import LONG_S, RISE, YOUNG_S, Pace

MOST = 7
ROUNDS = st.lists(st.sampled_from([0.0, LONG_S, LONG_S * 1.01, 1.0]))
STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "long", "short"]), st.integers(0, 9), st.sampled_from([0.0, 0.03, 0.2]))
)


def test_a_long_round_leaves_one_and_short_ones_give_more_step_by_step() -> None:
    pace: Pace[int] = Pace(MOST)
    assert pace.allowed == MOST
    pace.came_round(LONG_S * 1.01)
    assert pace.allowed == 1
    for allowed in range(1, MOST):
        for _ in range(RISE):
            assert pace.allowed == allowed
            pace.came_round(LONG_S)
    assert pace.allowed == MOST


def test_what_waits_for_the_apiserver_holds_up_no_other() -> None:
    pace: Pace[str] = Pace(3)
    pace.came_round(1.0)
    pace.begin("hangs", 0.0)
    assert not pace.has_room(0.05)
    assert pace.next_room(0.05) == YOUNG_S
    assert pace.has_room(YOUNG_S)
    pace.begin("quick", 0.2)
    assert pace.next_room(0.2) == 0.2 + YOUNG_S
    pace.end("quick")
    pace.begin("two", 0.3)
    pace.begin("three", 0.5)
    assert (pace.has_room(9.0), pace.next_room(9.0)) == (False, None), "as many as there may be"
    pace.end("hangs")
    assert pace.has_room(9.0)


@given(STEPS)
def test_there_is_room_for_one_at_least_and_never_for_more_than_there_may_be(
    steps: list[tuple[str, int, float]],
) -> None:
    pace: Pace[int] = Pace(MOST)
    now, under_way = 0.0, dict[int, float]()
    for step, what, later in steps:
        now += later
        if step == "begin" and what not in under_way and pace.has_room(now):
            pace.begin(what, now)
            under_way[what] = now
        elif step == "end":
            pace.end(what)
            under_way.pop(what, None)
        else:
            pace.came_round(1.0 if step == "long" else 0.0)
        assert 1 <= pace.allowed <= MOST
        assert len(under_way) <= MOST
        young = sum(at > now - YOUNG_S for at in under_way.values())
        assert pace.has_room(now) == (len(under_way) < MOST and young < pace.allowed)
        if (room_at := pace.next_room(now)) is not None:
            assert now < room_at <= now + YOUNG_S
            assert not pace.has_room(now)
            assert pace.has_room(room_at + 1e-9)
