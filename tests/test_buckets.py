"""Token buckets: nobody gets more than their rate, however many ask, and forgetting an address gives it nothing."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudhub.buckets import Buckets, Rate
from cloudhub.join import EACH, GUESS_EACH, GUESS_OVERALL, ORIGINS, OVERALL

SMALL, ALL = Rate(per_s=1, burst=4), Rate(per_s=2, burst=6)  # a bucket fills in 8 s, in which 22 are let in
TABLE = 22


def test_a_burst_is_let_in_and_then_the_rate() -> None:
    buckets = Buckets(SMALL, ALL, TABLE)
    assert [buckets.enter("a", 0.0) for _ in range(4)] == [0.0] * 4
    assert buckets.enter("a", 0.0) == pytest.approx(1.0)
    assert buckets.enter("a", 0.5) == pytest.approx(0.5)
    assert buckets.enter("a", 1.0) == 0.0
    assert buckets.enter("b", 1.0) == 0.0


def test_all_together_have_a_rate_too() -> None:
    buckets = Buckets(SMALL, ALL, TABLE)
    assert [buckets.enter(str(number), 0.0) for number in range(6)] == [0.0] * 6
    assert buckets.enter("late", 0.0) == pytest.approx(0.5)
    assert buckets.enter("late", 0.5) == 0.0


def test_who_is_sent_away_costs_the_others_nothing() -> None:
    buckets = Buckets(SMALL, ALL, TABLE)
    for _ in range(100):
        buckets.enter("greedy", 0.0)
    assert [buckets.enter("b", 0.0) for _ in range(2)] == [0.0, 0.0]


def test_a_guess_costs_more() -> None:
    buckets = Buckets(SMALL, ALL, TABLE)
    assert buckets.enter("a", 0.0) == 0.0
    buckets.charge("a", 5, 1, 0.0)
    assert buckets.enter("a", 0.0) == pytest.approx(3.0)
    buckets.charge("a", 1e9, 0, 0.0)  # it never owes more than it can hold
    assert buckets.enter("a", 0.0) == pytest.approx(5.0)


def test_a_table_that_would_forget_debts_is_refused() -> None:
    with pytest.raises(ValueError, match="the table must hold"):
        Buckets(SMALL, ALL, TABLE - 1)
    assert Buckets(EACH, OVERALL, ORIGINS).enter("a", 0.0) == 0.0
    assert GUESS_EACH > 1
    assert GUESS_OVERALL > 1


class Ledger:
    """What the buckets are to do, with everybody remembered and every unit written down."""

    def __init__(self) -> None:
        self.levels: dict[str, float] = {}

    def pass_time(self, s: float) -> None:
        for name, level in self.levels.items():
            rate = ALL if name == "" else SMALL
            self.levels[name] = min(rate.burst, level + s * rate.per_s)

    def enter(self, origin: str) -> bool:
        for name, rate in (("", ALL), (origin, SMALL)):
            self.levels.setdefault(name, rate.burst)
        if min(self.levels[""], self.levels[origin]) < 1:
            return False
        self.charge(origin, 1, 1)
        return True

    def charge(self, origin: str, each: float, overall: float) -> None:
        self.levels[origin] = max(self.levels[origin] - each, -SMALL.burst)
        self.levels[""] = max(self.levels[""] - overall, -ALL.burst)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 2.0, 9.0])), max_size=300)
)
def test_a_bounded_table_lets_in_whom_an_endless_one_would(steps: Sequence[tuple[int, bool, float]]) -> None:
    buckets, ledger, now_s = Buckets(SMALL, ALL, TABLE), Ledger(), 0.0
    for origin, guesses, passes_s in steps:
        now_s += passes_s
        ledger.pass_time(passes_s)
        let_in = buckets.enter(str(origin), now_s) == 0.0
        assert let_in is ledger.enter(str(origin))
        if let_in and guesses:
            buckets.charge(str(origin), 3, 0.5, now_s)
            ledger.charge(str(origin), 3, 0.5)
        assert len(buckets) <= TABLE


@given(st.integers(0, 10), st.floats(0, 100))
def test_whoever_waits_as_told_is_let_in(used: int, now_s: float) -> None:
    buckets = Buckets(SMALL, ALL, TABLE)
    for _ in range(used):
        buckets.enter("a", 0.0)
    wait_s = buckets.enter("a", now_s)
    assert wait_s == 0 or buckets.enter("a", now_s + wait_s + 1e-9) == 0
