"""
Inputs for whoever listens on MQTT: mostly almost right, which is where mistakes are made.

Everything comes from one seeded generator, so a number names an input for ever.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

DEVICE = "$hw/events/device/"
CHANNELS = (
    *("twin/update", "twin/get", "state/update", "twin/cloud_updated", "twin/update/result", "twin/update/delta"),
    *("twin/update/document", "twin/get/result", "state/update/result", "twin", "config", "twin/fetch", ""),
)
NAMES = (
    "default/fuzzed",
    "default/other",
    "default/ghost",
    "../fuzzed",
    "default/..",
    "a/b/c",
    "/",
    "\u00e9/\U0001f600",
    "x",
)
PROPERTIES = ("temperature", "setpoint", "mode", "blob", "switch", "nobody", "a/b", "", "b d", "x" * 129, "\ud83d")
TEXTS = (
    *(
        "21",
        "22",
        "-3.5",
        "1e400",
        "NaN",
        "inf",
        "0x10",
        "+7",
        "true",
        "TRUE",
        "warm",
        "",
        " ",
        "\u20ac",
        "\U0001f600",
        "\ud800",
    ),
    *("a" * 16384, "a" * 16385, "AAAA", "{}", '{"a":[1,2]}', "\0", "9" * 400, "online", "offline", "sleepy", "OK"),
)
NUMBERS = (0, 1, -1, 2, 7, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, 1.5, 1e308, True)
MEMBERS = (
    *("event_id", "timestamp", "twin", "sequence", "state", "devices", "actual", "expected", "value", "metadata"),
    *(
        "type",
        "optional",
        "expected_version",
        "cloud",
        "edge",
        "stale",
        "Twin",
        "EVENT_ID",
        "\u212a",
        "code",
        "id",
        "node",
    ),
)


class MqttFuzz:
    """An endless supply of (topic, payload, retained)."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def __iter__(self) -> Iterator[tuple[str, bytes, bool]]:
        while True:
            yield self._topic(), self._payload(), self._rarely()

    def _rarely(self) -> bool:
        return self.random.random() < 0.1

    def _topic(self) -> str:
        pick = self.random.random()
        choose = self.random.choice
        if pick < 0.75:
            topic = f"{DEVICE}{choose(NAMES[:2])}/{choose(CHANNELS[:3])}"
        elif pick < 0.9:
            topic = f"{DEVICE}{choose(NAMES)}/{choose(CHANNELS)}"
        elif pick < 0.95:
            topic = f"$hw/events/mapper/{choose(('m1', 'm2', 'm' * 254, '..'))}/state/update"
        else:
            topic = f"$hw/events/node/{choose(('edge1', 'edge2', ''))}/membership/{choose(('get', 'updated', 'x'))}"
        return self._mutated(topic) if self.random.random() < 0.05 else topic

    def _mutated(self, text: str) -> str:
        place = self.random.randrange(len(text) + 1)
        return text[:place] + self.random.choice(("", "/", "//", "..", "+", "#", "\0", "\u00df")) + text[place + 1 :]

    def _payload(self) -> bytes:
        pick = self.random.random()
        if pick < 0.02:
            return self.random.randbytes(self.random.randrange(64))
        if pick < 0.03:
            return self.random.choice((b"[" * 5000, b'{"twin":' * 3000, b"\xff\xfe{\0}\0", b"", b"null", b"1" * 5000))
        value = self._request() if pick < 0.85 else self._anything(3)
        data = json.dumps(value, ensure_ascii=self.random.random() < 0.5).encode("utf-8", "surrogatepass")
        if self.random.random() < 0.1:
            return self._broken(data)
        return data

    def _broken(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.random.randrange(1, 4)):
            if changed:
                place = self.random.randrange(len(changed))
                match self.random.randrange(3):
                    case 0:
                        changed[place] = self.random.randrange(256)
                    case 1:
                        del changed[place:]
                    case _:
                        changed[place:place] = data[: self.random.randrange(40)]
        return bytes(changed)

    def _request(self) -> dict[str, Any]:
        """Something that could be meant, with one thing wrong now and then."""
        value: dict[str, Any] = {"event_id": self._text(), "timestamp": self._number()}
        names = self.random.choices(PROPERTIES, k=self.random.randrange(3))
        match self.random.randrange(8):
            case 0:
                value["state"] = self._text()
            case 1:
                value["state"] = self.random.choice(("online", "offline"))
                value["devices"] = self.random.choices(NAMES, k=self.random.randrange(4))
            case _:
                value["twin"] = {name: self._entry() for name in names}
        if self.random.random() < 0.5:
            value["sequence"] = self._number()
        for _ in range(self.random.choice((0, 0, 0, 1, 2))):
            value[self.random.choice(MEMBERS)] = self._anything(2)
        return value

    def _entry(self) -> Any:
        if self._rarely():
            return self._anything(2)
        entry: dict[str, Any] = {}
        for side, share in (("actual", 0.7), ("expected", 0.4)):
            if self.random.random() < share:
                entry[side] = {"value": self._text()} | (
                    {"metadata": {"timestamp": self._number()}} if self._rarely() else {}
                )
        if self.random.random() < 0.3:
            entry["metadata"] = {"type": self.random.choice(("int", "string", "float", "bool", "odd", 5))}
        if self.random.random() < 0.3:
            entry["expected_version"] = {"cloud": self._number(), "edge": 0}
        if self._rarely():
            entry["optional"] = self.random.choice((True, False, "no"))
        return entry

    def _text(self) -> Any:
        return self.random.choice(TEXTS) if self.random.random() < 0.97 else self._anything(1)

    def _number(self) -> Any:
        return self.random.choice(NUMBERS) if self.random.random() < 0.97 else self._anything(1)

    def _anything(self, depth: int) -> Any:
        pick = self.random.randrange(8 if depth else 5)
        if pick < 5:
            return (None, self.random.choice(TEXTS), self.random.choice(NUMBERS), True, False)[pick]
        if pick == 5:
            return [self._anything(depth - 1) for _ in range(self.random.randrange(4))]
        return {
            self.random.choice(MEMBERS + PROPERTIES): self._anything(depth - 1) for _ in range(self.random.randrange(4))
        }
