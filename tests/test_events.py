"""What a watch says and what a cache makes of it: plain tuples whose words are the API's."""

import pytest

from apimachinery.events import Change, EventType, WatchEvent
from apimachinery.objects import from_json
from apimachinery.resources import PODS


def test_the_types_are_the_words_on_the_wire() -> None:
    assert [str(kind) for kind in EventType] == ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    assert EventType("DELETED") is EventType.DELETED
    with pytest.raises(ValueError, match="ERROR"):
        EventType("ERROR")


def test_events_and_changes_compare_by_value() -> None:
    item = from_json(PODS, {"metadata": {"name": "a"}})
    assert WatchEvent(EventType.ADDED, item, "1") == WatchEvent(EventType.ADDED, item, "1")
    assert Change(1, EventType.ADDED, item, None) != Change(2, EventType.ADDED, item, None)
