"""
Whether an MQTT device is there, by what it, its gateway or a last will says on its availability topics.

Tasmota says `Online` on `tele/NAME/LWT`; Zigbee2MQTT says `{"state":"online"}` on `zigbee2mqtt/NAME/availability`,
and of itself on `zigbee2mqtt/bridge/state`. Several topics are for a device behind a gateway: all must say so.

Pure state. The driver is mappers/mqttdevice.py.
"""

from collections.abc import Collection

from mappers.payloads import Pointer, document, plain
from mappers.settings import Settings, is_scalar, shown

MAX_BYTES = 1024
"""What is longer is no word."""


class Availability:
    """Of one device."""

    def __init__(self, settings: Settings, topics: Collection[str]) -> None:
        """Reads `availabilityPointer`, `online` and `offline`. Raises BadConfig."""
        self.topics = frozenset(topics)
        try:
            self._pointer = Pointer.parse(settings.text("availabilityPointer", "/state"))
        except ValueError as exc:
            raise settings.bad("availabilityPointer", str(exc)) from None
        self._words = {settings.text(word, word).lower(): word == "online" for word in ("online", "offline")}
        if len(self._words) < 2:
            raise settings.bad("online", "and offline must differ")
        self._said: dict[str, bool | str] = {}
        """By topic: there, not there, or what cannot be understood."""

    def forget(self) -> None:
        """Nothing has been heard."""
        self._said.clear()

    def hear(self, topic: str, payload: bytes) -> None:
        """One of the topics says this."""
        text = payload[:MAX_BYTES].decode(errors="replace").strip()
        is_there = self._words.get(self._word(text).lower())
        self._said[topic] = shown(text) if is_there is None else is_there

    def is_known(self) -> bool:
        """Whether enough was heard to say so: one topic that speaks against it, or all of them."""
        return any(said is not True for said in self._said.values()) or self.topics <= self._said.keys()

    def problem(self) -> str | None:
        """Why the device counts as gone; None when it is there, or nothing says whether."""
        for topic in sorted(self.topics, key=lambda each: (each not in self._said, each)):
            match self._said.get(topic):
                case None:
                    return f"nothing has come on {topic} yet: look at availabilityTopic"
                case False:
                    return f"{topic} says that it is offline"
                case str() as text:
                    return f'{topic} says "{text}", which is neither of the words in online and offline'
                case True:
                    pass
        return None

    def _word(self, text: str) -> str:
        if not text.startswith("{"):
            return text
        try:
            found = self._pointer.find(document(text.encode()))
        except ValueError:
            return text
        return plain(found) if is_scalar(found) else text
