"""
Retained messages: the last one of each topic, for whoever subscribes later.

Bounded in messages and bytes; at the bound a new topic is refused, never an old one evicted: which of the old ones
nobody needs any more is not for the broker to guess. Replacing and clearing always work.

Pure state: no clock, no I/O, nothing on disk. A restart forgets them, see docs/why/broker.md.
"""

from collections.abc import Iterator

from devicetwin.broker.session import Message
from devicetwin.broker.topics import matches


class RetainedMessages:
    """The retained messages of one broker."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._messages: dict[str, Message] = {}
        self._bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._messages)

    def keep(self, message: Message) -> bool:
        """Retain a message, or forget its topic if the payload is empty. False if there is no room for it."""
        old = self._messages.pop(message.topic, None)
        if old is not None:
            self._bytes -= old.size
        if not message.payload:
            # "A PUBLISH Packet with a RETAIN flag set to 1 and a payload containing zero bytes … any existing retained
            # message with the same topic name MUST be removed" [MQTT-3.3.1-10], and it is not itself retained [-11].
            return True
        if len(self._messages) >= self._max_messages or self._bytes + message.size > self._max_bytes:
            # The old message goes as well: serving a value known to be out of date would be worse than serving none.
            return False
        self._messages[message.topic] = message
        self._bytes += message.size
        return True

    def matching(self, topic_filter: str) -> Iterator[Message]:
        """
        What a new subscription to `topic_filter` starts with.

        A look-up for a filter without wildcards, else a scan: 1 µs per retained message, paid once per subscription.
        """
        if "#" not in topic_filter and "+" not in topic_filter:
            message = self._messages.get(topic_filter)
            return iter(() if message is None else (message,))
        return iter([message for topic, message in self._messages.items() if matches(topic_filter, topic)])
