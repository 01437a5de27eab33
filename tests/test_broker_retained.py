"""Retained messages: the last of each topic, within bounds."""

from devicetwin.broker.retained import RetainedMessages
from devicetwin.broker.session import Message


def message(topic: str, payload: bytes = b"x") -> Message:
    return Message(topic, payload, 1)


def topics(kept: RetainedMessages, topic_filter: str) -> list[str]:
    return [m.topic for m in kept.matching(topic_filter)]


def test_found_by_name_and_by_wildcard() -> None:
    kept = RetainedMessages(10, 1000)
    for topic in ("a/b", "a/c", "$hw/a"):
        assert kept.keep(message(topic))
    assert topics(kept, "a/b") == ["a/b"]
    assert topics(kept, "a/x") == []
    assert topics(kept, "a/+") == ["a/b", "a/c"]
    assert topics(kept, "#") == ["a/b", "a/c"]
    assert topics(kept, "$hw/#") == ["$hw/a"]


def test_replaced_and_cleared() -> None:
    kept = RetainedMessages(10, 1000)
    kept.keep(message("a", b"1"))
    kept.keep(message("a", b"2"))
    assert [m.payload for m in kept.matching("a")] == [b"2"]
    assert kept.keep(message("a", b""))
    assert kept.keep(message("never there", b""))
    assert len(kept) == 0


def test_full_refuses_new_topics_but_replaces_and_clears() -> None:
    kept = RetainedMessages(2, 1000)
    kept.keep(message("a"))
    kept.keep(message("b"))
    assert not kept.keep(message("c"))
    assert kept.keep(message("a", b"new"))
    kept.keep(message("b", b""))
    assert kept.keep(message("c"))


def test_bound_in_bytes_counts_what_is_there() -> None:
    kept = RetainedMessages(10, 100)
    for _ in range(50):  # replacing costs nothing
        assert kept.keep(message("a", bytes(60)))
    assert not kept.keep(message("b", bytes(60)))
    # A value that does not fit is not served in its old version either.
    assert not kept.keep(message("a", bytes(200)))
    assert topics(kept, "a") == []
    assert kept.keep(message("b", bytes(60)))
