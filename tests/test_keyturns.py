"""Whose turn it is: no node gets more keys let in than it may, and the table does not grow."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import Node
from cloudhub.keyturns import HOUR_S, Turn, Turns

A, B, C = Node("a"), Node("b"), Node("c")


def test_the_key_that_was_let_in_last_comes_again_for_nothing() -> None:
    turns = Turns(most=2)
    assert turns.last(A) is None
    assert [turns.take(A, key, 1.0) for key in ("k1", "k1", "k2", "k2")] == [0.0] * 4
    assert turns.last(A) == Turn("k2", 1.0)
    assert turns.take(A, "k1", 11.0) == turns.wait_s(A, 11.0) == HOUR_S - 10.0
    assert turns.take(A, "k2", 11.0) == 0.0
    assert turns.take(B, "k1", 11.0) == 0.0, "another node is another matter"
    assert turns.take(A, "k1", 11.0, within_s=10.0) == 0.0


def test_who_came_longest_ago_is_forgotten() -> None:
    turns = Turns(most=1, table=2)
    for at_s, node in enumerate((A, B, C)):
        assert turns.take(node, "k1", float(at_s)) == 0.0
    assert turns.last(A) is None
    assert turns.last(B) == Turn("k1", 1.0)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 30)), max_size=60))
def test_no_more_keys_than_may_are_let_in_within_the_time(asked: Sequence[tuple[str, int]]) -> None:
    turns, now_s, let_in = Turns(most=3), 0.0, list[float]()
    for key, after_s in asked:
        now_s += after_s
        last = turns.last(A)
        wait_s = turns.take(A, key, now_s, within_s=60.0)
        if wait_s == 0.0 and (last is None or last.key != key):
            let_in.append(now_s)
        assert 0.0 <= wait_s <= 60.0
    assert all(later - first >= 60.0 for first, later in zip(let_in, let_in[3:], strict=False))
