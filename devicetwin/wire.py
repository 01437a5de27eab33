"""
Between the bytes on MQTT and the words of the core: what a message asks for, and how an effect is said.

Invariants
    whatever topic and bytes come in, `read` returns; what cannot be read becomes a Refuse where the sender looks
    `written` gives one publication per effect, on the topics and in the formats of devicetwin.messages

Pure: ids and the time are arguments.
"""

from collections.abc import Callable
from typing import NamedTuple

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from devicetwin.messages import (
    MAPPER_STATE_FILTER,
    MAX_PAYLOAD_BYTES,
    Ask,
    Channel,
    Delta,
    DeviceConfig,
    DeviceId,
    DeviceTopic,
    Document,
    ErrorReply,
    MapperState,
    MapperTopic,
    MessageError,
    NodeChannel,
    NodeTopic,
    StateResult,
    StateUpdate,
    TopicError,
    TwinResult,
    TwinUpdate,
    parse_topic,
)
from devicetwin.steps import (
    Asked,
    PublishDelta,
    PublishDocument,
    PublishResult,
    PublishState,
    Refuse,
    StateReported,
    Updated,
)


def subscriptions(node: str) -> list[tuple[str, int]]:
    """
    What edgecore listens to, with the quality of service.

    `twin/+` and not the two requests it answers, so that a wrong topic is told so. The configurations are its own:
    a broker hands out the retained ones at each subscription, which is how those of devices that left are found.
    """
    return [
        ("$hw/events/device/+/+/twin/+", 1),
        (Channel.STATE_UPDATE.filter, 1),
        (NodeChannel.MEMBERSHIP_GET.topic(node), 1),
        (MAPPER_STATE_FILTER, 1),
        (Channel.CONFIG.filter, 0),
    ]


class Publication(NamedTuple):
    """One message to publish."""

    topic: str
    payload: bytes
    retain: bool = False
    quality: int = 1
    """Of service; 0 where nobody waits for it and the current twin says the same: that halves the acknowledgements."""


class MembershipAsked(NamedTuple):
    """A mapper wants to know the node's devices."""

    event_id: str


class MapperSpoke(NamedTuple):
    """A mapper, or its last will, said whether it lives."""

    mapper: str
    event_id: str
    state: str
    devices: tuple[DeviceId, ...] | None


class ConfigSeen(NamedTuple):
    """A configuration that the broker keeps for this node's devices."""

    device: DeviceId
    node: str


class Refused(NamedTuple):
    """A request that could not be read, and the answer."""

    device: DeviceId
    refuse: Refuse


class Ignored(NamedTuple):
    """A message that nobody waits for an answer to."""

    reason: str
    is_odd: bool = True
    """Whether somebody should know; not so for what edgecores say themselves and the broker hands back."""


Read = Updated | StateReported | Asked | MembershipAsked | MapperSpoke | ConfigSeen | Refused | Ignored


def key_of(device: DeviceId) -> ObjectKey:
    """The Device that a topic's id names."""
    return ObjectKey(DEVICES, device.namespace, device.name)


def id_of(key: ObjectKey) -> DeviceId:
    """The id that topics name a Device by."""
    return DeviceId(key.namespace, key.name)


def read(topic: str, payload: bytes, *, retained: bool = False) -> Read:
    """What a message asks for."""
    try:
        place = parse_topic(topic)
    except TopicError as error:
        return Ignored(str(error))
    try:
        match place:
            case DeviceTopic(device, channel):
                return _read_device(device, channel, payload, retained)
            case NodeTopic(_, NodeChannel.MEMBERSHIP_GET):
                return MembershipAsked(Ask.decode(payload).event_id)
            case MapperTopic(mapper):
                said = MapperState.decode(payload)
                return MapperSpoke(mapper, said.event_id, said.state, said.devices)
            case _:
                return Ignored("nobody asks on this topic")
    except MessageError as error:
        # Without a device there is no topic for the answer.
        return Ignored(error.reason)


# Where the answer to what stands on a channel goes.
_ANSWERS = {
    Channel.TWIN_UPDATE: Channel.TWIN_UPDATE_RESULT,
    Channel.TWIN_GET: Channel.TWIN_GET_RESULT,
    Channel.STATE_UPDATE: Channel.STATE_UPDATE_RESULT,
    Channel.TWIN_CLOUD_UPDATED: Channel.TWIN_UPDATE_RESULT,
}


def _read_device(device: DeviceId, channel: Channel, payload: bytes, retained: bool) -> Read:
    key = key_of(device)
    try:
        match channel:
            case Channel.TWIN_UPDATE:
                update = TwinUpdate.decode(payload)
                return Updated(key, update.event_id, update.twin, update.timestamp_ms, update.sequence)
            case Channel.TWIN_GET:
                return Asked(key, Ask.decode(payload).event_id)
            case Channel.STATE_UPDATE:
                state = StateUpdate.decode(payload)
                return StateReported(key, state.event_id, state.state)
            case Channel.TWIN_CLOUD_UPDATED:
                event_id = Ask.decode(payload).event_id
                why = "twin/cloud_updated is not taken from MQTT: change the Device instead"
                raise MessageError(why, code=403, event_id=event_id)
            case Channel.CONFIG if retained and payload:
                return ConfigSeen(device, DeviceConfig.decode(payload).node)
            case Channel.CONFIG:
                return Ignored("a configuration, as edgecore has just published it", is_odd=False)
            case _:
                return Ignored("nobody asks on this topic")
    except MessageError as error:
        answer = _ANSWERS.get(channel)
        if answer is None:
            return Ignored(error.reason)
        return Refused(device, Refuse(answer, error.event_id, error.code, error.reason))


Spoken = PublishResult | PublishDocument | PublishDelta | PublishState | Refuse
"""The effects that are said on MQTT."""


def written(device: DeviceId, effect: Spoken, now_ms: int, new_id: Callable[[], str]) -> Publication:
    """The message for an effect. new_id: gives the event id to use where nobody asked."""
    match effect:
        case PublishResult(channel, event_id, twin):
            return Publication(channel.topic(device), _bounded(TwinResult(event_id, now_ms, twin)))
        case PublishDocument(event_id, twin):
            payload = Document(event_id or new_id(), now_ms, twin).encode()
            return Publication(Channel.TWIN_DOCUMENT.topic(device), payload, quality=0)
        case PublishDelta(twin, delta, event_id):
            return Publication(
                Channel.TWIN_DELTA.topic(device), _fitting(Delta(event_id or new_id(), now_ms, twin, delta))
            )
        case PublishState(event_id, state, last_online):
            result = StateResult(event_id or new_id(), now_ms, device.name, state, last_online)
            return Publication(Channel.STATE_UPDATE_RESULT.topic(device), result.encode())
        case Refuse(channel, event_id, code, reason):
            return Publication(channel.topic(device), ErrorReply(event_id, now_ms, code, reason).encode())


def _bounded(result: TwinResult) -> bytes:
    """What no mapper's limit lets through is not sent: it would only wait for its answer."""
    payload = result.encode()
    if len(payload) <= MAX_PAYLOAD_BYTES:
        return payload
    why = f"the answer is longer than {MAX_PAYLOAD_BYTES} bytes; what was asked is done"
    return ErrorReply(result.event_id, result.timestamp_ms, 413, why).encode()


def _fitting(delta: Delta) -> bytes:
    """
    The delta, or as many of its open wishes as a message holds, in the order of their names.

    Each update brings a delta anew, so those that are met make room for the next.
    """
    payload = delta.encode()
    if len(payload) <= MAX_PAYLOAD_BYTES:
        return payload
    kept, room = dict[str, str](), MAX_PAYLOAD_BYTES - len(delta._replace(twin={}, delta={}).encode())
    for name, wish in sorted(delta.delta.items()):
        entry = {name: delta.twin.get(name)}
        room -= len(delta._replace(twin=entry, delta={name: wish}).encode())
        if room < 0:
            break
        kept[name] = wish
    return delta._replace(twin={name: delta.twin.get(name) for name in kept}, delta=kept).encode()
