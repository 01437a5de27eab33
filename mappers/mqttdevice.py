"""
The driver `mqtt`: devices that speak MQTT in their own way, as those of Tasmota and Zigbee2MQTT do.

Settings (`protocol.configData`)
    broker                  where the device speaks; mqtt://127.0.0.1:1883. mqtts:// for TLS
    username, password      passwordFile: a file of the secrets directory instead of password
    caFile                  the CA to verify an mqtts broker with, instead of the system's
    availabilityTopic       where the device, or its last will, says whether it is there; a list where all must say so
    availabilityPointer     where that stands in a JSON answer; /state
    online, offline         the words for it; online and offline, in any case
    silentAfter             seconds without any message after which it counts as gone; 0 for never
    maxBytes                how long a message may be; 65536
and anything that a topic names, such as the device's own part of it.

Settings of a property (`visitors.configData`), topics and payloads being templates
    state                   the topic where the device tells it, or a list of them
    pointer, format, values, timePointer    where in the message it is, and what it means: mappers/payloads.py
    command, payload        the topic to set it with, and what to say there; {value}
    retain                  whether the broker keeps the command; false
    ask, askPayload         the topic to ask the device for it with, and what to say there

A property with a command and no state reports what was last sent. A message without the property is none about it.

Invariants
    the last word of each property is kept, and nothing else of what came
    while the device is said to be gone, nothing of it is told, whatever retained messages say
    no topic begins with "$": a Device cannot make the mapper speak in the edge's name
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from apimachinery.objects import JSON
from componentbase.brokers import BrokerAddress
from mappers.availability import Availability
from mappers.credentials import Account, Unusable
from mappers.driver import Device, DeviceSilent, Reading, Sink, Value, WriteRefused
from mappers.faults import Faults
from mappers.mqtt import BrokerRefused, Connection, Message, MqttError
from mappers.payloads import Absent, Codec, Names, Template, document, template, template_names
from mappers.settings import Settings, shown

BROKER = "mqtt://127.0.0.1:1883"
MAX_BYTES = 64 * 1024
MOST_BYTES = 1024 * 1024
MOST_TOPICS = 16
"""In one list."""
MAX_TOPIC_BYTES = 1024
DAY_S = 86_400.0
FIRST_WORD_S = 1.0
"""How long a device may take to be heard of, and to answer, after the connection."""
ASK_AGAIN_S = 1.0
"""One question is not asked more often."""


class Command(NamedTuple):
    """How to set a property."""

    topic: str
    payload: Template
    retain: bool


class Point(NamedTuple):
    """One property."""

    codec: Codec
    states: tuple[str, ...]
    command: Command | None
    ask: Message | None


class MqttDevice:
    """One device on a broker."""

    def __init__(self, device: Device) -> None:
        settings = Settings.of_device(device)
        try:
            self._broker = BrokerAddress.parse(settings.text("broker", BROKER))
        except ValueError as exc:
            raise settings.bad("broker", str(exc)) from None
        if self._broker.username is not None:
            raise settings.bad("broker", "must not hold a name and a password: there are settings for them")
        self._account = Account.read(settings)
        self._ca_file = settings.text("caFile", "")
        if self._ca_file and not self._broker.tls:
            raise settings.bad("caFile", "is for mqtts, and the broker is mqtt")
        self._silent_after_s = settings.number("silentAfter", 0, minimum=0, maximum=DAY_S)
        self._max_bytes = settings.whole("maxBytes", MAX_BYTES, minimum=1, maximum=MOST_BYTES)
        self._availability = Availability(settings, _topics(settings, "availabilityTopic", template_names(device)))
        self._points = {name: _point(device, name) for name in device.properties}
        self._by_topic: dict[str, list[str]] = defaultdict(list)
        for name, point in self._points.items():
            for topic in point.states:
                self._by_topic[topic].append(name)
        self._client_id = f"mapper-device-{device.id.replace('/', '.')}"  # a namespace has no dot, so this is unique
        self._faults = Faults(device.id, [name for name, point in self._points.items() if point.states])
        self._last: dict[str, Reading | None] = {}
        self._asked_at: dict[Message, float] = {}
        self._first_word = asyncio.Event()
        """Heard of what was asked for, or that the device is not there."""
        self._unanswered: set[str] = set()
        self._connection: Connection | None = None
        self._sink: Sink | None = None
        self._silence: asyncio.TimerHandle | None = None

    async def connect(self) -> None:
        """Connect to the broker; the device itself is heard of later."""
        broker = self._broker
        if self._ca_file:
            broker = replace(broker, authority=Path(self._ca_file))
        try:
            if self._account.username:
                broker = replace(broker, username=self._account.username, password=self._account.password.reveal())
            self._connection = Connection(broker, self._client_id, listener=self)
            await self._connection.open()
        except BrokerRefused as exc:
            where = self._account.where() if self._account.username else "username and password: there are none"
            raise DeviceSilent(f"{self._broker} refuses the mapper ({exc}): look at {where}") from exc
        except (MqttError, Unusable) as exc:
            raise DeviceSilent(str(exc)) from exc

    async def subscribe(self, sink: Sink) -> Collection[str]:
        """All the device's topics, and a question for what it does not tell by itself. Waits for its first word."""
        self._sink = sink
        self._last.clear()
        self._asked_at.clear()
        self._availability.forget()
        self._first_word.clear()
        self._unanswered = {name for name, point in self._points.items() if point.ask is not None}
        topics = {*self._by_topic, *self._availability.topics}
        if not topics:
            sink.heard({})  # there is nothing that it could be heard by
            return list(self._points)
        try:
            self._connected().subscribe(sorted(topics))
        except MqttError as exc:
            raise DeviceSilent(f"{self._broker}: {exc}") from exc
        self._hush()
        self._ask(self._points)
        # Without this a mapper that starts would say "offline" of each device, and "online" a moment later, and write
        # what the device is already.
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WORD_S):
                await self._first_word.wait()
        if (problem := self._availability.problem()) is not None:
            sink.away(problem)
        elif not self._last and not self._availability.topics:
            sink.away(f"nothing has come from it at {self._broker} yet")
        return list(self._points)

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        """The last words, and a question for the next ones."""
        self._ask(names)
        return {name: last for name in names if (last := self._last.get(name)) is not None}

    async def write(self, name: str, value: Value) -> None:
        """Publish the command; what becomes of it the device says by itself."""
        point = self._points[name]
        if point.command is None:
            raise WriteRefused(f"{name}: visitors.configData.command does not say how to set it")
        try:
            payload = point.command.payload.text(point.codec.to_device(value)).encode()
        except ValueError as exc:
            raise WriteRefused(f"{name}: {exc}") from None
        message = Message(point.command.topic, payload, point.command.retain)
        self._publish(message)
        if not point.states:
            self._tell({name: Reading(value)})

    async def close(self) -> None:
        """Let go of the broker."""
        connection, self._connection, self._sink = self._connection, None, None
        if self._silence is not None:
            self._silence.cancel()
        if connection is not None:
            await connection.close()

    # --- the connection's listener

    def heard(self, message: Message) -> None:
        """A message came on one of the topics."""
        if self._sink is None:
            return
        try:
            self._hush()
            if message.topic in self._availability.topics:
                self._hear_availability(message)
            if names := self._by_topic.get(message.topic):
                self._tell(self._readings(names, message))
        except Exception as exc:  # the connection is no place for a bug of ours: the device's task tells of it
            self._sink.lost(exc)

    def lost(self, reason: str) -> None:
        """The broker has gone."""
        if self._sink is not None:
            self._sink.lost(DeviceSilent(f"{self._broker}: {reason}"))

    def _hear_availability(self, message: Message) -> None:
        assert self._sink is not None, "heard() checks it"
        self._availability.hear(message.topic, message.payload)
        problem = self._availability.problem()
        if problem is None:
            self._tell(self._last)
        elif self._availability.is_known():
            if not message.retain:
                self._last.clear()  # what it said before it went is not what it is when it comes back
            self._sink.away(problem)
            self._first_word.set()

    def _readings(self, names: Iterable[str], message: Message) -> dict[str, Reading | None]:
        said: dict[bool, JSON] = {}
        readings: dict[str, Reading | None] = {}
        for name in names:
            codec = self._points[name].codec
            try:
                if codec.is_json not in said:
                    said[codec.is_json] = self._parse(message.payload, is_json=codec.is_json)
                reading = codec.reading(said[codec.is_json])
            except Absent:
                continue
            except ValueError as exc:
                self._faults.found(name, f"{message.topic}: {exc}")
                continue
            self._faults.over(name)
            readings[name] = reading
        return readings

    def _parse(self, payload: bytes, *, is_json: bool) -> JSON:
        if len(payload) > self._max_bytes:
            raise ValueError(f"a message of {len(payload)} bytes, and maxBytes is {self._max_bytes}")
        if not is_json:
            return payload.decode(errors="replace").strip()
        try:
            return document(payload)
        except ValueError as exc:
            raise ValueError(f"{exc}. If it is to be plain text, set format: text") from None

    def _tell(self, readings: Mapping[str, Reading | None]) -> None:
        self._last.update(readings)
        if self._sink is not None and self._availability.problem() is None:
            self._sink.heard(readings)
            self._unanswered -= readings.keys()
            if not self._unanswered:
                self._first_word.set()

    # --- the connection

    def _ask(self, names: Iterable[str]) -> None:
        now = asyncio.get_running_loop().time()
        for question in {self._points[name].ask: None for name in names}:
            if question is not None and now >= self._asked_at.get(question, -math.inf) + ASK_AGAIN_S:
                self._asked_at[question] = now
                self._publish(question)

    def _publish(self, message: Message) -> None:
        connection = self._connected()
        if not connection.has_room():
            raise DeviceSilent(f"{self._broker} takes no more messages")
        try:
            connection.publish(message)
        except MqttError as exc:
            raise DeviceSilent(f"{self._broker}: {exc}") from exc

    def _connected(self) -> Connection:
        assert self._connection is not None, "connect() comes before"
        return self._connection

    def _hush(self) -> None:
        """Something was heard: wait for the next silence."""
        if not self._silent_after_s:
            return
        if self._silence is not None:
            self._silence.cancel()
        self._silence = asyncio.get_running_loop().call_later(self._silent_after_s, self._on_silence)

    def _on_silence(self) -> None:
        self._last.clear()
        if self._sink is not None:
            self._sink.away(f"nothing has come from it for {self._silent_after_s:g} s")
            self._hush()
            try:
                self._ask(self._points)  # it may be of the kind that speaks only when it is asked
            except DeviceSilent as exc:
                self._sink.lost(exc)


def _point(device: Device, name: str) -> Point:
    model = device.properties[name].model
    settings = Settings.of_property(device, name)
    names = template_names(device, name)
    codec = Codec(model.type, settings)
    states = _topics(settings, "state", names)
    retain = settings.flag("retain", False)
    payload = template(settings, "payload", settings.text("payload", "{value}"), names, with_value=True)
    command: Command | None = None
    if "command" in settings:
        command = Command(_topic(settings, "command", settings.text("command"), names), payload, retain)
    elif model.writable:
        raise settings.bad("command", "is missing; else the model must say ReadOnly")
    elif not states:
        raise settings.bad("state", "is missing: the topic where the device tells the property")
    ask: Message | None = None
    ask_payload = template(settings, "askPayload", settings.text("askPayload", ""), names).text()
    if "ask" in settings:
        ask = Message(_topic(settings, "ask", settings.text("ask"), names), ask_payload.encode())
    settings.done()
    return Point(codec, states, command, ask)


def _topics(settings: Settings, name: str, names: Names) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_topic(settings, name, text, names) for text in settings.texts(name, MOST_TOPICS)))


def _topic(settings: Settings, name: str, text: str, names: Names) -> str:
    topic = template(settings, name, text, names).text()
    if not topic or topic.startswith("$") or any(char in topic for char in "+#\0"):
        raise settings.bad(name, f'must be one topic of the device, without "+", "#" or "$" in front: "{shown(topic)}"')
    if len(topic.encode()) > MAX_TOPIC_BYTES:
        raise settings.bad(name, f"is a topic of more than {MAX_TOPIC_BYTES} bytes")
    return topic
