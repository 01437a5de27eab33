"""
The edge as a mapper sees it over MQTT, played by a plain paho client: what a test says, and what it heard.

It answers reports and questions as edgecore does, from the messages module and nothing else, but decides
nothing: deltas go out when the test says so.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from devicetwin.messages import (
    Ask,
    Channel,
    Delta,
    DeviceConfig,
    DeviceId,
    DeviceTopic,
    ErrorReply,
    MapperState,
    MapperTopic,
    Member,
    MembershipList,
    NodeChannel,
    NodeTopic,
    StateUpdate,
    TopicError,
    TwinEntry,
    TwinResult,
    TwinUpdate,
    Value,
    parse_topic,
)
from tests.harness.pahoclient import hang_up

DEADLINE_S = 15.0


class Heard(NamedTuple):
    device: DeviceId
    update: TwinUpdate


class MqttEdge:
    """Connected to a broker on loopback; use it with `with`."""

    def __init__(self, port: int, node: str = "edge-1") -> None:
        self.node = node
        self.answers = True
        """Whether reports and questions are answered."""
        self.refusal: ErrorReply | None = None
        """What reports are answered with instead of a result."""
        self.updates: list[Heard] = []
        self.states: list[tuple[DeviceId, str]] = []
        self.mappers: list[tuple[str, MapperState]] = []
        self.asked: list[DeviceId] = []
        self.twins: dict[DeviceId, dict[str, TwinEntry]] = {}
        self.members: list[DeviceId] = []
        self._port = port
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"edge-{node}", clean_session=True)
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self._hear(message.topic, bytes(message.payload))

    # --- saying

    def configure(self, config: DeviceConfig) -> None:
        """The device is on this node, so configured."""
        if config.id not in self.members:
            self.members.append(config.id)
        self._publish(Channel.CONFIG.topic(config.id), config.encode(), retain=True)

    def remove(self, device: DeviceId) -> None:
        """The device is deleted."""
        self.members.remove(device)
        self._publish(Channel.CONFIG.topic(device), b"", retain=True)

    def desire(self, device: DeviceId, version: int | None = None, **values: str) -> None:
        """Say in a delta, and in the twin when asked, what the device should be."""
        twin = self.twins.setdefault(device, {})
        for name, text in values.items():
            entry = twin.get(name, TwinEntry())
            twin[name] = entry._replace(expected=Value(text), expected_version=version)
        wanted = {name: entry for name, entry in twin.items() if entry.expected is not None}
        self._publish(Channel.TWIN_DELTA.topic(device), Delta("edge", 0, wanted, values).encode())

    def publish(self, topic: str, payload: bytes) -> None:
        """Anything at all."""
        self._publish(topic, payload)

    # --- what was heard

    def reported(self, device: DeviceId) -> dict[str, str]:
        """The last value of each property."""
        values: dict[str, str] = {}
        for heard in list(self.updates):
            if heard.device == device:
                for name, entry in heard.update.twin.items():
                    if entry and entry.actual:
                        values[name] = entry.actual.value
        return values

    def answered(self, device: DeviceId, name: str) -> int | None:
        """The version of the wish that the last report of this property answers."""
        version = None
        for heard in list(self.updates):
            if heard.device == device and (entry := heard.update.twin.get(name)) is not None:
                version = entry.expected_version
        return version

    def refused(self, device: DeviceId, name: str) -> str | None:
        """Why the device does not take what is desired, by the last report of this property."""
        found = [heard.update.twin.get(name) for heard in list(self.updates) if heard.device == device]
        entries = [entry for entry in found if entry is not None]
        return entries[-1].problem if entries else None

    def states_of(self, device: DeviceId) -> list[str]:
        return [state for each, state in list(self.states) if each == device]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until it is so; AssertionError after DEADLINE_S."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what} in vain; heard {self.states} {self.updates[-5:]}"
            await asyncio.sleep(0.01)

    # --- the client

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._ready.wait(DEADLINE_S), "the broker does not answer"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        hang_up(self._client)

    def _subscribe(self, client: paho.Client, *_: object) -> None:
        client.subscribe("$hw/#", 1)

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain)

    def _hear(self, text: str, payload: bytes) -> None:
        try:
            topic = parse_topic(text)
        except TopicError:
            return  # rubbish of the test's own
        match topic:
            case DeviceTopic(device, Channel.TWIN_UPDATE):
                update = TwinUpdate.decode(payload)
                self.updates.append(Heard(device, update))
                self._take(device, update)
            case DeviceTopic(device, Channel.TWIN_GET):
                self.asked.append(device)
                if self.answers:
                    twin = dict(self.twins.get(device, {}))
                    result = TwinResult(Ask.decode(payload).event_id, 0, twin)
                    self._publish(Channel.TWIN_GET_RESULT.topic(device), result.encode())
            case DeviceTopic(device, Channel.STATE_UPDATE):
                self.states.append((device, StateUpdate.decode(payload).state))
            case NodeTopic(node, NodeChannel.MEMBERSHIP_GET) if node == self.node:
                members = tuple(Member(each) for each in self.members)
                listing = MembershipList(Ask.decode(payload).event_id, 0, members)
                self._publish(NodeChannel.MEMBERSHIP_GET_RESULT.topic(node), listing.encode())
            case MapperTopic(mapper):
                self.mappers.append((mapper, MapperState.decode(payload)))

    def _take(self, device: DeviceId, update: TwinUpdate) -> None:
        if not self.answers:
            return
        reply: TwinResult | ErrorReply = TwinResult(update.event_id, 0, update.twin)
        if self.refusal is not None:
            reply = self.refusal._replace(event_id=update.event_id)
        else:
            twin = self.twins.setdefault(device, {})
            for name, entry in update.twin.items():
                if entry is not None:
                    twin[name] = twin.get(name, TwinEntry())._replace(actual=entry.actual)
        self._publish(Channel.TWIN_UPDATE_RESULT.topic(device), reply.encode())
