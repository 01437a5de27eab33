"""
Topic names, topic filters, and which filters a topic meets.

The trie holds one node per level of a filter, so finding a topic's subscribers costs what its depth and the wildcards
on its way cost, not what the number of subscriptions is.

Invariants
    a wildcard on the first level never meets a topic that starts with "$": "#" does not see $hw/…, "$hw/#" does
    match(topic) holds a subscriber once, with the highest QoS of its filters that meet the topic
    a node without subscribers and children is removed, so the trie is as large as the live subscriptions

Pure: no I/O. After "MQTT Version 3.1.1", OASIS Standard, section 4.7.
"""

import re
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

MAX_LEVELS = 200  # mosquitto's TOPIC_HIERARCHY_LIMIT; it bounds the trie's depth
MAX_TOPIC_BYTES = 4096  # the format allows 65,535; the longest of our own topics stays under 400

# [MQTT-1.5.3-2] forbids U+0000. The other control characters and the non-characters a sender "SHOULD NOT" use and a
# receiver may refuse; mosquitto does, so a client meets the same answer at either broker, and no log line breaks.
_NONCHARACTERS = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_FORBIDDEN = re.compile(f"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef{_NONCHARACTERS}]")

Subscriber = TypeVar("Subscriber", bound=Hashable)


class InvalidTopic(ValueError):
    """Text that is no topic name, or no topic filter. The client that sent it is dropped."""


def check_text(text: str) -> None:
    """Raise InvalidTopic for characters no MQTT string of ours may hold. Printable text costs one scan in C."""
    if not text.isprintable() and _FORBIDDEN.search(text):
        raise InvalidTopic("text holds a control character or a non-character")


def _check_shape(text: str) -> None:
    if not text:
        raise InvalidTopic("topic is empty")  # [MQTT-4.7.3-1]
    if len(text) > MAX_TOPIC_BYTES or (not text.isascii() and len(text.encode()) > MAX_TOPIC_BYTES):
        raise InvalidTopic(f"topic is longer than {MAX_TOPIC_BYTES} bytes")
    if text.count("/") >= MAX_LEVELS:
        raise InvalidTopic(f"topic has more than {MAX_LEVELS} levels")
    check_text(text)


def check_topic(topic: str) -> None:
    """Raise InvalidTopic unless something may be published to `topic`."""
    _check_shape(topic)
    if "#" in topic or "+" in topic:
        raise InvalidTopic("wildcard in a topic name")  # [MQTT-3.3.2-2]


def check_filter(topic_filter: str) -> None:
    """Raise InvalidTopic unless `topic_filter` may be subscribed to."""
    _check_shape(topic_filter)
    if "#" not in topic_filter and "+" not in topic_filter:
        return
    levels = topic_filter.split("/")
    for level in levels:
        if len(level) > 1 and ("#" in level or "+" in level):
            raise InvalidTopic(f"wildcard must stand alone in its level: {topic_filter}")  # [MQTT-4.7.1-2], [-3]
    if "#" in levels[:-1]:
        raise InvalidTopic(f"# must be the last level: {topic_filter}")


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter meets a valid topic: one pair, where the trie answers for many."""
    if topic.startswith("$") and topic_filter[0] in "#+":
        return False  # [MQTT-4.7.2-1]
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if wanted[-1] == "#":
        # "sport/tennis/#" meets "sport/tennis" too: # includes the parent level.
        wanted.pop()
        if len(levels) < len(wanted):
            return False
        del levels[len(wanted) :]
    return len(wanted) == len(levels) and all(w in ("+", level) for w, level in zip(wanted, levels, strict=True))


class _Node(Generic[Subscriber]):
    __slots__ = ("children", "subscribers")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Subscriber]] = {}
        self.subscribers: dict[Subscriber, int] = {}


class SubscriptionTrie(Generic[Subscriber]):
    """Subscribers by topic filter. Filters must have passed check_filter, topics check_topic."""

    def __init__(self) -> None:
        self._root: _Node[Subscriber] = _Node()

    def add(self, topic_filter: str, subscriber: Subscriber, qos: int) -> None:
        """Subscribe, or replace the QoS of the same subscription."""
        node = self._root
        for level in topic_filter.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        node.subscribers[subscriber] = qos

    def remove(self, topic_filter: str, subscriber: Subscriber) -> None:
        """Unsubscribe; a subscription that does not exist is no error."""
        path = [self._root]
        levels = topic_filter.split("/")
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        path[-1].subscribers.pop(subscriber, None)
        for parent, level in zip(reversed(path[:-1]), reversed(levels), strict=True):
            child = parent.children[level]
            if child.subscribers or child.children:
                return
            del parent.children[level]

    def match(self, topic: str) -> Mapping[Subscriber, int]:
        """Each subscriber of a topic, once, with the highest QoS any of its matching filters was granted."""
        found: dict[Subscriber, int] = {}
        nodes = [self._root]
        # [MQTT-4.7.2-1] "The Server MUST NOT match Topic Filters starting with a wildcard character (# or +) with
        # Topic Names beginning with a $ character."
        wildcards = topic[0] != "$"
        for level in topic.split("/"):
            following: list[_Node[Subscriber]] = []
            for node in nodes:
                children = node.children
                if (child := children.get(level)) is not None:
                    following.append(child)
                if wildcards:
                    if (child := children.get("+")) is not None:
                        following.append(child)
                    if (child := children.get("#")) is not None:
                        _merge(found, child.subscribers)
            if not following:
                return found
            nodes = following
            wildcards = True
        for node in nodes:
            _merge(found, node.subscribers)
            if (child := node.children.get("#")) is not None:
                _merge(found, child.subscribers)
        return found

    def is_empty(self) -> bool:
        return not self._root.children


def _merge(found: dict[Subscriber, int], subscribers: Mapping[Subscriber, int]) -> None:
    for subscriber, qos in subscribers.items():
        if found.get(subscriber, -1) < qos:
            found[subscriber] = qos
