"""Tests for cloudhub.horizon."""

import pytest

from apimachinery.resources import CONFIG_MAPS, PODS
from cloudhub.horizon import Advance, Horizon, Told, number
from link.frames import MAX_HORIZON, MAX_VERSION, Position


def horizon(**reached: int) -> Horizon:
    """By the name of the collection, as after a list."""
    made = Horizon()
    for name, version in reached.items():
        made.advance({"pods": PODS, "configmaps": CONFIG_MAPS}[name], Advance(str(version)))
    return made


def told(*entries: tuple[str, int], owed: frozenset[str] = frozenset()) -> Told:
    return Told([Position(*entry) for entry in entries], owed)


def test_a_node_that_was_told_more_is_waited_for() -> None:
    it = horizon(pods=7, configmaps=9)
    assert it.behind([Position("pods", 8), Position("configmaps", 9)]) == {"pods"}
    it.advance(PODS, Advance("8"))
    assert not it.behind([Position("pods", 8)])


def test_a_bookmark_is_as_good_as_an_event_for_catching_up_and_no_news_for_the_node() -> None:
    it = horizon(pods=7)
    it.advance(PODS, Advance("20", is_bookmark=True))
    assert not it.behind([Position("pods", 20)])
    assert told().next(it, ["pods"]) == (Position("pods", 7),)


def test_of_a_resource_that_is_not_here_nobody_knows_whether_it_lags() -> None:
    it = horizon(pods=7)
    it.advance(PODS, Advance(""))
    assert not it.behind([Position("pods", 8), Position("gadgets.example.com", 8)])
    assert told().next(it, ["pods"]) == ()


def test_a_version_that_is_no_number_is_left_out() -> None:
    it = horizon(pods=7)
    it.advance(PODS, Advance("opaque"))
    assert not it.behind([Position("pods", 8)])
    assert told().next(it, ["pods"]) == ()


def test_what_was_told_already_is_not_told_again() -> None:
    it, node = horizon(pods=7, configmaps=9), told(("pods", 7))
    assert node.next(it, ["pods", "configmaps"]) == (Position("configmaps", 9),)
    assert node.next(it, ["pods", "configmaps"]) == ()
    it.advance(PODS, Advance("8"))
    assert node.next(it, ["configmaps"]) == ()
    assert node.next(it, ["pods"]) == (Position("pods", 8),)


def test_what_another_replica_told_holds_as_long_as_it_was_reached() -> None:
    it = horizon(pods=7)
    it.advance(PODS, Advance("20", is_bookmark=True))
    assert told(("pods", 12)).next(it, ["pods"]) == ()


def test_while_something_is_held_back_a_node_is_told_of_what_is_known_and_nobody_counts_on_the_rest() -> None:
    it, node = horizon(pods=7), told(("pods", 7))
    it.advance(PODS, Advance("8", ahead="12"))
    assert node.next(it, ["pods"]) == (Position("pods", 12),)
    assert node.next(it, ["pods"]) == (), "it is told once"
    assert it.behind([Position("pods", 12)]) == {"pods"}, "between 8 and 12 something may be missing"
    it.advance(PODS, Advance("12"))
    assert not it.behind([Position("pods", 12)])


def test_what_an_apiserver_that_went_back_does_not_know_is_taken_back() -> None:
    assert told(("pods", 12)).next(horizon(pods=7), ["pods"]) == (Position("pods", 7),)


def test_what_was_waited_for_in_vain_is_taken_back_by_the_next_push_whatever_it_speaks_of() -> None:
    it, node = horizon(pods=7, configmaps=9), told(("pods", 12), ("configmaps", 12), owed=frozenset({"pods"}))
    assert node.next(it, []) == (Position("pods", 7),)
    assert node.next(it, []) == ()


def test_a_push_says_no_more_than_a_frame_may() -> None:
    it = Horizon()
    for place in range(MAX_HORIZON + 5):
        it.advance(PODS._replace(group="example.com", plural=f"p{place}"), Advance("7"))
    node = told()
    names = [f"p{place}.example.com" for place in range(MAX_HORIZON + 5)]
    assert len(node.next(it, names)) == MAX_HORIZON
    assert len(node.next(it, names)) == 5


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("7", 7),
        (str(MAX_VERSION), MAX_VERSION),
        (str(MAX_VERSION + 1), None),
        ("9" * 400, None),
        ("0", None),
        ("-7", None),
        ("7a", None),
        ("\u0667", None),
        ("", None),
    ],
)
def test_only_a_number_that_all_can_read_is_one(text: str, read: int | None) -> None:
    assert number(text) == read
