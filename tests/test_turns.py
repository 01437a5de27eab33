"""One of each group in turn."""

from cloudhub.turns import Turns


def test_groups_have_turns_and_keep_their_own_order() -> None:
    turns: Turns[str, int] = Turns()
    for number in range(5):
        turns.put("many", number)
    turns.put("many", 3)
    turns.put("one", 7)
    assert len(turns) == 2
    assert [turns.take(lambda _: True) for _ in range(7)] == [0, 7, 1, 2, 3, 4, None]
    assert len(turns) == 0


def test_a_group_that_may_not_have_a_turn_keeps_it() -> None:
    turns: Turns[str, int] = Turns()
    turns.put("a", 1)
    turns.put("b", 2)
    assert turns.take(lambda group: group != "a") == 2
    assert turns.take(lambda group: group != "a") is None
    assert turns.take(lambda _: True) == 1
