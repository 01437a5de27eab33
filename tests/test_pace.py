"""Writes of devices' statuses leave the loop to others: one while rounds are long, more while they are short."""

from hypothesis import given
from hypothesis import strategies as st

from cloudhub.pace import LONG_S, RISE, Pace

MOST = 7
ROUNDS = st.lists(st.sampled_from([0.0, LONG_S, LONG_S * 1.01, 1.0]))


def test_a_long_round_leaves_one_and_short_ones_give_more_step_by_step() -> None:
    pace = Pace(MOST)
    assert pace.allowed == MOST
    pace.came_round(LONG_S * 1.01)
    assert pace.allowed == 1
    for allowed in range(1, MOST):
        for _ in range(RISE):
            assert pace.allowed == allowed
            pace.came_round(LONG_S)
    assert pace.allowed == MOST


@given(ROUNDS)
def test_there_is_always_one_and_never_more_than_there_may_be(rounds: list[float]) -> None:
    pace = Pace(MOST)
    for seconds in rounds:
        pace.came_round(seconds)
        assert 1 <= pace.allowed <= MOST
    for _ in range(RISE * (MOST - 1)):
        pace.came_round(0.0)
    assert pace.allowed == MOST
