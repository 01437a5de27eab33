"""
The MQTT topics and payloads between edgecore and the mappers, both directions.

Everything a mapper must know is here and nothing else: this is the only module of devicetwin that mappers
import, and a mapper in another language needs exactly what it says. The topics and payloads are KubeEdge's,
member by member and in its order, so that mappers written for KubeEdge run unchanged; what is ours alone is
marked "Fairlead adds". docs/mqtt.md tells the differences and their reasons.

A mapper's life
    subscribe Channel.CONFIG filter        retained DeviceConfig per device; an empty payload: the device is gone
    per device   publish TWIN_GET          the answer is a TwinResult, followed by a Delta when a wish is open
                 subscribe TWIN_DELTA      write what differs, then report
                 publish TWIN_UPDATE       report; the answer is a TwinResult or an ErrorReply
                 publish STATE_UPDATE      "online", "offline", ...
    itself       publish MapperState       retained, with the ids it serves; and as its last will: offline

Invariants
    decode(encode(message)) == message for every message
    whatever bytes come in, decoding returns or raises MessageError, after a time linear in the bytes
    members are found whatever their case, as Go's decoder does; values are strings, timestamps integer ms

Standard library only; pure.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from devicetwin.configuration import DeviceConfig, PropertyConfig, ProtocolConfig
from devicetwin.payloads import (
    MAX_PAYLOAD_BYTES,
    MAX_VALUE_BYTES,
    Malformed,
    MessageError,
    Reading,
    dump,
    integer,
    listing,
    mapping,
    members_of,
    text_of,
)
from devicetwin.topics import (
    MAPPER_STATE_FILTER,
    Channel,
    DeviceId,
    DeviceTopic,
    MapperTopic,
    NodeChannel,
    NodeTopic,
    Topic,
    TopicError,
    mapper_state_topic,
    parse_topic,
)

__all__ = [
    "MAPPER_STATE_FILTER",
    "MAX_PAYLOAD_BYTES",
    "MAX_PROBLEM_BYTES",
    "MAX_VALUE_BYTES",
    "OFFLINE",
    "PROPERTY_NAME",
    "STATES",
    "STATES_UP",
    "Ask",
    "Channel",
    "CurrentTwin",
    "Delta",
    "DeviceConfig",
    "DeviceId",
    "DeviceTopic",
    "Document",
    "ErrorReply",
    "MapperState",
    "MapperTopic",
    "Member",
    "MembershipList",
    "MembershipUpdate",
    "MessageError",
    "NodeChannel",
    "NodeTopic",
    "PropertyConfig",
    "ProtocolConfig",
    "StateResult",
    "StateUpdate",
    "Topic",
    "TopicError",
    "Turn",
    "Twin",
    "TwinEntry",
    "TwinResult",
    "TwinUpdate",
    "Value",
    "mapper_state_topic",
    "parse_topic",
]

PROPERTY_NAME = re.compile(r"[a-zA-Z0-9\-_.,:/@#]{1,128}")
"""What a property may be called on MQTT; KubeEdge's alphabet and length."""
MAX_PROBLEM_BYTES = 1024
"""Of the reason why a device refuses a wish: a sentence or two."""
STATES = ("online", "offline", "ok", "unknown", "unhealthy")
"""What a device's state may be; compared without regard to case, as KubeEdge does."""
STATES_UP = ("online", "ok")
"""The states that set a device's last online time."""
OFFLINE = "offline"


# --- twins ----------------------------------------------------------------------------------------------------


class Value(NamedTuple):
    """`expected` or `actual` of a twin entry."""

    value: str
    timestamp_ms: int | None = None
    """In a request the device's own time; in an answer when the edge took it in."""
    stale: bool = False
    """In an answer: nobody has reported it for longer than is set. Fairlead adds."""


class TwinEntry(NamedTuple):
    """One property in a message; what is None is left out."""

    expected: Value | None = None
    actual: Value | None = None
    optional: bool | None = None
    type: str | None = None
    """The mapper's word for the type: "int", "float", "boolean", "string", ..."""
    expected_version: int | None = None
    """
    Which wish of the cloud this is about: its number in a Delta, and in a TwinUpdate the one that `actual` answers or
    `expected` was based on. KubeEdge has the member and never shows it. None when it is not known.
    """
    problem: str | None = None
    """
    Why the device does not take the wish, as a sentence by its mapper: in a TwinUpdate of the wish `expected_version`,
    or where that is missing of the present one; "" takes it back. Fairlead adds.
    """


Twin = Mapping[str, TwinEntry | None]
"""By property name; None is JSON's null: deleted."""


class TwinUpdate(NamedTuple):
    """What a mapper reports: `actual` for readings, `expected` for a wish set at the edge, None to delete."""

    event_id: str
    timestamp_ms: int
    twin: Twin
    sequence: int | None = None
    """
    1 for the first update of a device on a connection, and one more for each that follows, so that the edge sees when
    some were lost; None: the mapper does not number. Fairlead adds.
    """

    def encode(self) -> bytes:
        members: dict[str, object] = {"twin": _twin_json(self.twin)}
        if self.sequence is not None:
            members["sequence"] = self.sequence
        return dump(self.event_id, self.timestamp_ms, members)

    @classmethod
    def decode(cls, payload: bytes) -> "TwinUpdate":
        with Reading(payload, "Unmarshal update request body failed, please check the request") as reading:
            event_id, timestamp_ms, members = reading.base()
            twin = members.get("twin")
            if twin is None:
                raise MessageError("Update twin error, key:twin does not exist")
            sequence = members.get("sequence")
            number = None if sequence is None else integer(sequence, "sequence")
            return cls(event_id, timestamp_ms, _twin_from(mapping(twin, "twin")), number)


class TwinResult(NamedTuple):
    """The answer to a TwinUpdate (what it changed) and to a twin Ask (everything)."""

    event_id: str
    timestamp_ms: int
    twin: Twin

    def encode(self) -> bytes:
        return dump(self.event_id, self.timestamp_ms, {"twin": _twin_json(self.twin)})

    @classmethod
    def decode(cls, payload: bytes) -> "TwinResult | ErrorReply":
        """An ErrorReply when the payload is one: both come on the same topic."""
        with Reading(payload, "not a twin result") as reading:
            event_id, timestamp_ms, members = reading.base()
            if "code" in members:
                return ErrorReply.read(event_id, timestamp_ms, members)
            return cls(event_id, timestamp_ms, _twin_from(mapping(members.get("twin") or {}, "twin")))


class ErrorReply(NamedTuple):
    """Why a request was refused: an HTTP-like code and a sentence."""

    event_id: str
    timestamp_ms: int
    code: int
    reason: str

    def encode(self) -> bytes:
        return dump(self.event_id, self.timestamp_ms, {"code": self.code, "reason": self.reason})

    @classmethod
    def read(cls, event_id: str, timestamp_ms: int, members: Mapping[str, object]) -> "ErrorReply":
        reason = text_of(members.get("reason"), "reason")
        return cls(event_id, timestamp_ms, integer(members.get("code"), "code"), reason)


class Delta(NamedTuple):
    """What a device should be but is not: cumulative, all that differs and not only what is new."""

    event_id: str
    timestamp_ms: int
    twin: Twin
    """Every property that has a wish, whether met or not."""
    delta: Mapping[str, str]
    """The wishes that are not met, by property name."""

    def encode(self) -> bytes:
        members = {"twin": _twin_json(self.twin), "delta": dict(sorted(self.delta.items()))}
        return dump(self.event_id, self.timestamp_ms, members)

    @classmethod
    def decode(cls, payload: bytes) -> "Delta":
        with Reading(payload, "not a delta") as reading:
            event_id, timestamp_ms, members = reading.base()
            wishes = mapping(members.get("delta") or {}, "delta")
            delta = {name: text_of(wish, f"delta.{name}") for name, wish in wishes.items()}
            return cls(event_id, timestamp_ms, _twin_from(mapping(members.get("twin") or {}, "twin")), delta)

    def version_of(self, name: str) -> int | None:
        """The number of the wish for `name`, to be sent back with the reading that answers it; None when unknown."""
        entry = self.twin.get(name)
        return entry.expected_version if entry else None


class CurrentTwin(NamedTuple):
    """
    All of a device as it is, retained on Channel.TWIN: whoever starts late knows where it stands without asking.
    Fairlead adds.

    It follows changes within seconds, not each of them: what happens is in results, documents and deltas.
    """

    timestamp_ms: int
    state: str
    """"" until the mapper has said one."""
    last_online: str
    twin: Twin
    """Every property that has a reading or a wish."""
    delta: Mapping[str, str]
    """The wishes that are not met."""

    def encode(self) -> bytes:
        members = {
            "state": self.state,
            "last_online": self.last_online,
            "twin": _twin_json(self.twin),
            "delta": dict(sorted(self.delta.items())),
        }
        return dump("", self.timestamp_ms, members)

    @classmethod
    def decode(cls, payload: bytes) -> "CurrentTwin | ErrorReply":
        """An ErrorReply stands there while the twin is too long for one message."""
        with Reading(payload, "not a twin") as reading:
            event_id, timestamp_ms, members = reading.base()
            if "code" in members:
                return ErrorReply.read(event_id, timestamp_ms, members)
            state, last_online = (text_of(members.get(name) or "", name) for name in ("state", "last_online"))
            wishes = mapping(members.get("delta") or {}, "delta")
            delta = {name: text_of(wish, f"delta.{name}") for name, wish in wishes.items()}
            twin = _twin_from(mapping(members.get("twin") or {}, "twin"))
            return cls(timestamp_ms, state, last_online, twin, delta)


class Turn(NamedTuple):
    """One property before and after a change; None where it was not there."""

    last: TwinEntry | None
    current: TwinEntry | None


class Document(NamedTuple):
    """What a change did: the properties it touched, before and after."""

    event_id: str
    timestamp_ms: int
    twin: Mapping[str, Turn]

    def encode(self) -> bytes:
        turns = {
            name: {"last": _entry_json(turn.last), "current": _entry_json(turn.current)}
            for name, turn in sorted(self.twin.items())
        }
        return dump(self.event_id, self.timestamp_ms, {"twin": turns})

    @classmethod
    def decode(cls, payload: bytes) -> "Document":
        with Reading(payload, "not a document") as reading:
            event_id, timestamp_ms, members = reading.base()
            turns: dict[str, Turn] = {}
            for name, turn in mapping(members.get("twin") or {}, "twin").items():
                sides = members_of(turn, f"twin.{name}")
                last, current = (_entry_from(sides.get(side), f"twin.{name}.{side}") for side in ("last", "current"))
                turns[name] = Turn(last, current)
            return cls(event_id, timestamp_ms, turns)


class Ask(NamedTuple):
    """The request on TWIN_GET and MEMBERSHIP_GET: nothing but an id to find the answer by."""

    event_id: str
    timestamp_ms: int = 0

    def encode(self) -> bytes:
        return dump(self.event_id, self.timestamp_ms, {})

    @classmethod
    def decode(cls, payload: bytes) -> "Ask":
        with Reading(payload, "Unmarshal request body failed, please check the request") as reading:
            event_id, timestamp_ms, _ = reading.base()
            return cls(event_id, timestamp_ms)


# --- state ----------------------------------------------------------------------------------------------------


class StateUpdate(NamedTuple):
    """A device's state as its mapper sees it: one of STATES, in any case."""

    event_id: str
    timestamp_ms: int
    state: str

    def encode(self) -> bytes:
        return dump(self.event_id, self.timestamp_ms, {"state": self.state})

    @classmethod
    def decode(cls, payload: bytes) -> "StateUpdate":
        with Reading(payload, "Unmarshal state update request body failed, please check the request") as reading:
            event_id, timestamp_ms, members = reading.base()
            return cls(event_id, timestamp_ms, _state(members.get("state")))


class StateResult(NamedTuple):
    """The answer to a StateUpdate that was taken."""

    event_id: str
    timestamp_ms: int
    name: str
    state: str
    last_online_time: str = ""
    """RFC 3339 in UTC, to the second; "" when the device is not online."""

    def encode(self) -> bytes:
        device = {"name": self.name, "state": self.state}
        if self.last_online_time:
            device["lastOnlineTime"] = self.last_online_time
        return dump(self.event_id, self.timestamp_ms, {"device": device})

    @classmethod
    def decode(cls, payload: bytes) -> "StateResult | ErrorReply":
        with Reading(payload, "not a state result") as reading:
            event_id, timestamp_ms, members = reading.base()
            if "code" in members:
                return ErrorReply.read(event_id, timestamp_ms, members)
            device = members_of(members.get("device"), "device")
            texts = [text_of(device.get(name) or "", f"device.{name}") for name in ("name", "state", "lastonlinetime")]
            return cls(event_id, timestamp_ms, *texts)


class MapperState(NamedTuple):
    """
    Whether a mapper lives and which devices it serves. Fairlead adds.

    A connection has one last will, a mapper many devices: so the mapper tells, retained, which ones it serves, and its
    will on the same topic says `offline` without a list; the edge then sets every device of the last list offline.
    """

    event_id: str
    timestamp_ms: int
    state: str
    devices: tuple[DeviceId, ...] | None = None
    """None: as said before."""

    def encode(self) -> bytes:
        members: dict[str, object] = {"state": self.state}
        if self.devices is not None:
            members["devices"] = [str(device) for device in self.devices]
        return dump(self.event_id, self.timestamp_ms, members)

    @classmethod
    def decode(cls, payload: bytes) -> "MapperState":
        with Reading(payload, "not a mapper's state") as reading:
            event_id, timestamp_ms, members = reading.base()
            devices = members.get("devices")
            ids = None
            if devices is not None:
                ids = tuple(DeviceId.parse(text_of(each, "devices")) for each in listing(devices, "devices"))
            return cls(event_id, timestamp_ms, _state(members.get("state")), ids)


# --- membership -----------------------------------------------------------------------------------------------


class Member(NamedTuple):
    """One device in a membership message."""

    id: DeviceId
    description: str = ""
    state: str = ""
    last_online: str = ""

    def to_json(self) -> dict[str, object]:
        out: dict[str, object] = {"id": str(self.id), "name": self.id.name}
        for name, text in (("description", self.description), ("state", self.state), ("last_online", self.last_online)):
            if text:
                out[name] = text
        return out

    @classmethod
    def from_json(cls, value: object, where: str) -> "Member":
        members = members_of(value, where)
        texts = [
            text_of(members.get(name) or "", f"{where}.{name}") for name in ("description", "state", "last_online")
        ]
        return cls(DeviceId.parse(text_of(members.get("id"), f"{where}.id")), *texts)


class MembershipUpdate(NamedTuple):
    """Devices that came to this node or left it."""

    event_id: str
    timestamp_ms: int
    added: tuple[Member, ...] = ()
    removed: tuple[Member, ...] = ()

    def encode(self) -> bytes:
        added, removed = ([member.to_json() for member in side] or None for side in (self.added, self.removed))
        return dump(self.event_id, self.timestamp_ms, {"added_devices": added, "removed_devices": removed})

    @classmethod
    def decode(cls, payload: bytes) -> "MembershipUpdate":
        with Reading(payload, "not a membership update") as reading:
            event_id, timestamp_ms, members = reading.base()
            added, removed = (
                tuple(Member.from_json(each, name) for each in listing(members.get(name) or [], name))
                for name in ("added_devices", "removed_devices")
            )
            return cls(event_id, timestamp_ms, added, removed)


class MembershipList(NamedTuple):
    """Every device of this node, the answer to an Ask on MEMBERSHIP_GET."""

    event_id: str
    timestamp_ms: int
    devices: tuple[Member, ...]

    def encode(self) -> bytes:
        return dump(self.event_id, self.timestamp_ms, {"devices": [member.to_json() for member in self.devices]})

    @classmethod
    def decode(cls, payload: bytes) -> "MembershipList | ErrorReply":
        with Reading(payload, "not a membership list") as reading:
            event_id, timestamp_ms, members = reading.base()
            if "code" in members:
                return ErrorReply.read(event_id, timestamp_ms, members)
            devices = listing(members.get("devices") or [], "devices")
            return cls(event_id, timestamp_ms, tuple(Member.from_json(each, "devices") for each in devices))


# --- entries of a twin ---------------------------------------------------------------------------------------


def _twin_json(twin: Twin) -> dict[str, object]:
    # Sorted, because Go writes maps in the order of their keys.
    return {name: _entry_json(entry) for name, entry in sorted(twin.items())}


def _entry_json(entry: TwinEntry | None) -> dict[str, object] | None:
    if entry is None:
        return None
    out: dict[str, object] = {}
    for name, side in (("expected", entry.expected), ("actual", entry.actual)):
        if side is not None:
            metadata: dict[str, object] = {}
            if side.timestamp_ms is not None:
                metadata["timestamp"] = side.timestamp_ms
            if side.stale:
                metadata["stale"] = True
            out[name] = {"value": side.value, "metadata": metadata} if metadata else {"value": side.value}
    if entry.optional is not None:
        out["optional"] = entry.optional
    if entry.type is not None:
        out["metadata"] = {"type": entry.type}
    if entry.expected_version is not None:
        out["expected_version"] = {"cloud": entry.expected_version, "edge": 0}
    if entry.problem is not None:
        out["problem"] = entry.problem
    return out


def _twin_from(twin: Mapping[str, object]) -> dict[str, TwinEntry | None]:
    for name in twin:
        if not PROPERTY_NAME.fullmatch(name):
            raise Malformed(f'"{name[:64]}" is no name for a property: 1 to 128 of a-z, A-Z, 0-9 and -_.,:/@#')
    return {name: _entry_from(entry, f"twin.{name}") for name, entry in twin.items()}


def _entry_from(value: object, where: str) -> TwinEntry | None:
    if value is None:
        return None
    members = members_of(value, where)
    optional = members.get("optional")
    if optional is not None and not isinstance(optional, bool):
        raise Malformed(f"{where}.optional must be true or false")
    metadata, version = members.get("metadata"), members.get("expected_version")
    problem = members.get("problem")
    kind = None if metadata is None else members_of(metadata, f"{where}.metadata").get("type")
    number = None if version is None else members_of(version, f"{where}.expected_version").get("cloud")
    return TwinEntry(
        expected=_value_from(members.get("expected"), f"{where}.expected"),
        actual=_value_from(members.get("actual"), f"{where}.actual"),
        optional=optional,
        type=None if kind is None else text_of(kind, f"{where}.metadata.type", limit=64),
        expected_version=None if number is None else integer(number, f"{where}.expected_version.cloud"),
        problem=None if problem is None else text_of(problem, f"{where}.problem", limit=MAX_PROBLEM_BYTES),
    )


def _value_from(value: object, where: str) -> Value | None:
    if value is None:
        return None
    members = members_of(value, where)
    metadata = members.get("metadata")
    about = {} if metadata is None else members_of(metadata, f"{where}.metadata")
    timestamp = about.get("timestamp")
    return Value(
        text_of(members.get("value"), f"{where}.value"),
        None if timestamp is None else integer(timestamp, f"{where}.metadata.timestamp"),
        about.get("stale") is True,
    )


def _state(value: object) -> str:
    text = text_of(value, "state", limit=64)
    if text.lower() not in STATES:
        raise Malformed(f'the state "{text}" is none of {", ".join(STATES)}')
    return text
