"""Topic filters: what is valid, what meets what, and a trie that agrees with trying every filter."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devicetwin.broker.topics import (
    MAX_LEVELS,
    MAX_TOPIC_BYTES,
    InvalidTopic,
    SubscriptionTrie,
    check_filter,
    check_text,
    check_topic,
    matches,
)

# The standard's own examples, section 4.7, and the corners around them.
MATCHES = [
    ("sport/tennis/player1/#", "sport/tennis/player1", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/#", "sport", True),
    ("#", "a", True),
    ("#", "/", True),
    ("sport/tennis/+", "sport/tennis/player1", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("+/tennis/#", "a/tennis", True),
    ("#", "$SYS/a", False),
    ("+/monitor/Clients", "$SYS/monitor/Clients", False),
    ("$SYS/#", "$SYS/a", True),
    ("$SYS/#", "$SYS", True),
    ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
    ("a/+", "a/$b", True),
    ("a/#", "a/$b", True),
    ("a", "A", False),
    ("+", "", True),  # not a topic anybody can publish to, but the algebra holds
]


@pytest.mark.parametrize(("topic_filter", "topic", "meets"), MATCHES)
def test_one_filter_against_one_topic(topic_filter: str, topic: str, meets: bool) -> None:
    assert matches(topic_filter, topic) is meets
    if topic:
        trie: SubscriptionTrie[str] = SubscriptionTrie()
        trie.add(topic_filter, "s", 1)
        assert trie.match(topic) == ({"s": 1} if meets else {})


@pytest.mark.parametrize("good", ["#", "+", "/", "a//b", "+/+/#", "$hw/+/x/#", "größe/温度 🌡", "a" * MAX_TOPIC_BYTES])
def test_valid_filters(good: str) -> None:
    check_filter(good)


@pytest.mark.parametrize(
    "bad",
    ["", "a#", "a/#/b", "#/", "a+", "+a/b", "a/b+/c", "##", "++", "a\x00", "a\x1f", "a\x85", "\ufffe", "\U0010ffff"],
)
def test_invalid_filters(bad: str) -> None:
    with pytest.raises(InvalidTopic):
        check_filter(bad)
    with pytest.raises(InvalidTopic):
        check_topic(bad)


@pytest.mark.parametrize("check", [check_filter, check_topic])
def test_limits_hold_for_topics_and_filters(check: Callable[[str], None]) -> None:
    check("/" * (MAX_LEVELS - 1))
    check("é" * (MAX_TOPIC_BYTES // 2))
    for bad in ("/" * MAX_LEVELS, "a" * (MAX_TOPIC_BYTES + 1), "é" * (MAX_TOPIC_BYTES // 2 + 1)):
        with pytest.raises(InvalidTopic):
            check(bad)


def test_wildcards_are_no_topics() -> None:
    for bad in ("#", "a/+", "a+b"):
        with pytest.raises(InvalidTopic):
            check_topic(bad)


def test_text_that_is_unusual_but_allowed_passes() -> None:
    check_text("\u00a0\u2028\u200d\ue000\U000e0001")  # spaces, joiners, private use: not printable, not forbidden


def test_highest_qos_wins_and_replacing_lowers_it() -> None:
    trie: SubscriptionTrie[str] = SubscriptionTrie()
    trie.add("a/#", "s", 0)
    trie.add("a/+", "s", 2)
    trie.add("a/b", "s", 1)
    assert trie.match("a/b") == {"s": 2}
    trie.add("a/+", "s", 0)
    assert trie.match("a/b") == {"s": 1}


def test_removing_the_last_subscription_leaves_nothing_behind() -> None:
    trie: SubscriptionTrie[str] = SubscriptionTrie()
    trie.add("a/b/c", "s", 0)
    trie.add("a/b", "t", 0)
    trie.remove("a/b/c", "t")  # not subscribed there
    trie.remove("a/x/y", "s")  # nobody is
    trie.remove("a/b/c", "s")
    assert trie.match("a/b") == {"t": 0}
    trie.remove("a/b", "t")
    assert trie.is_empty()


_words = st.sampled_from(["", "a", "b", "$x"])
_topics = st.lists(_words, min_size=1, max_size=4).map("/".join).filter(bool)
_filters = st.builds(
    lambda levels, last: "/".join([*levels, *last]),
    st.lists(_words | st.just("+"), max_size=3),
    st.sampled_from([("#",), ("+",), ("a",), ("$x",)]),
)
_subscriptions = st.lists(st.tuples(_filters, st.sampled_from("stu"), st.integers(0, 2), st.booleans()), max_size=20)


def _brute(topic_filter: str, topic: str) -> bool:
    """Section 4.7 read literally, level by level."""

    def meets(wanted: list[str], levels: list[str]) -> bool:
        if wanted == ["#"]:
            return True
        if not wanted or not levels:
            return not wanted and not levels
        return wanted[0] in ("+", levels[0]) and meets(wanted[1:], levels[1:])

    return not (topic[0] == "$" and topic_filter[0] in "+#") and meets(topic_filter.split("/"), topic.split("/"))


@given(_filters, _topics)
def test_matches_agrees_with_the_standard_read_literally(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == _brute(topic_filter, topic)


@given(_subscriptions, _topics)
def test_trie_agrees_with_trying_every_filter(history: list[tuple[str, str, int, bool]], topic: str) -> None:
    trie: SubscriptionTrie[str] = SubscriptionTrie()
    held: dict[tuple[str, str], int] = {}
    for topic_filter, subscriber, qos, is_added in history:
        if is_added:
            trie.add(topic_filter, subscriber, qos)
            held[topic_filter, subscriber] = qos
        else:
            trie.remove(topic_filter, subscriber)
            held.pop((topic_filter, subscriber), None)
    expected: dict[str, int] = {}
    for (topic_filter, subscriber), qos in held.items():
        if _brute(topic_filter, topic):
            expected[subscriber] = max(qos, expected.get(subscriber, 0))
    assert trie.match(topic) == expected
    for topic_filter, subscriber in held:
        trie.remove(topic_filter, subscriber)
    assert trie.is_empty()
