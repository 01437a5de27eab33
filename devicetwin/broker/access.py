"""
Who may say and hear what at the embedded broker.

Three kinds of clients: edgecore itself, which came in through the process and not through the listener; users of the
broker's file, who showed a password; and anonymous ones, where they are allowed. What the edge says (deltas, results,
documents, configurations, memberships) only edgecore may publish, so nobody else can pose as the cloud.

Invariants
    under `$hw/` what is not named here is refused, whoever asks but edgecore
    a user who is bound to devices neither publishes for another device nor hears of one, by wildcards included
    an account compares equal to another exactly if nothing about it has changed, its password included

Subscriptions are not what is judged, as in mosquitto: `$hw/events/device/+/+/config` is every mapper's, and each
message is judged for each reader when it is handed out. Only a filter without wildcards that its reader may not read
is refused.

Pure: no I/O. The file is users.py, and passwords are its business too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from devicetwin.broker.topics import InvalidTopic, check_filter, check_topic, matches
from devicetwin.messages import MapperState, MessageError

_REALM = "$hw/"
MAX_RULES = 1000  # devices or topics of one user: a list is gone through for each message
_EVERY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What one kind of client may do. ValueError, with a sentence, for rules that make no sense."""

    name: str = ""
    """"" for edgecore and for anonymous clients."""
    password: str = field(default="", repr=False)
    """As users.py hashed it."""
    mapper: bool = False
    """Whether it may publish for its devices, and as the mapper that is called as it is; else it only listens."""
    devices: tuple[str, ...] = ()
    """NAMESPACE/NAME, or NAMESPACE/* for all of a namespace; none: every device of the node."""
    topics: tuple[str, ...] = ()
    """Filters outside `$hw/` that it may publish and subscribe, for devices that speak MQTT themselves."""
    is_edge: bool = False
    is_anonymous: bool = False

    def __post_init__(self) -> None:
        if len(self.devices) > MAX_RULES or len(self.topics) > MAX_RULES:
            raise ValueError(f"more than {MAX_RULES} devices or topics")
        for device in self.devices:
            _check_device(device)
        for topic in self.topics:
            try:
                check_filter(topic)
            except InvalidTopic as exc:
                raise ValueError(f'"{topic}" is not a topic filter: {exc}') from exc
            if topic.startswith("$"):
                raise ValueError(f'"{topic}": topics that begin with $ are the edge\'s; name devices instead')

    def may_publish(self, topic: str, payload: bytes) -> bool:
        """The payload counts where a mapper says which devices it speaks for."""
        if self.is_edge:
            return True
        if not topic.startswith(_REALM):
            return self.is_anonymous or any(matches(each, topic) for each in self.topics)
        if not self.mapper:
            return False
        match topic.split("/"):
            case ["$hw", "events", "device", namespace, name, "twin", _]:
                return self.serves(namespace, name)
            case ["$hw", "events", "device", namespace, name, "state", "update"]:
                return self.serves(namespace, name)
            case ["$hw", "events", "node", _, "membership", "get"]:
                return True
            case ["$hw", "events", "mapper", name, "state", "update"]:
                return self.is_anonymous or (name == self.name and self._serves_all_of(payload))
            case _:
                return False

    def may_read(self, topic: str) -> bool:
        if self.is_edge or self.is_anonymous:
            return True
        if not topic.startswith(_REALM):
            return any(matches(each, topic) for each in self.topics)
        match topic.split("/"):
            case ["$hw", "events", "device", namespace, name, *_]:
                return self.serves(namespace, name)
            case ["$hw", "events", "node", *_]:
                return True
            case ["$hw", "events", "mapper", name, *_]:
                return not self.devices or name == self.name
            case _:
                return False

    def may_subscribe(self, topic_filter: str) -> bool:
        return "+" in topic_filter or "#" in topic_filter or self.may_read(topic_filter)

    def serves(self, namespace: str, name: str) -> bool:
        """Whether it is bound to this device, or to none."""
        return not self.devices or f"{namespace}/{name}" in self.devices or f"{namespace}/{_EVERY}" in self.devices

    def _serves_all_of(self, payload: bytes) -> bool:
        """Without this a will could turn others' devices offline. What cannot be read is edgecore's to refuse."""
        if not self.devices:
            return True
        try:
            said = MapperState.decode(payload)
        except MessageError:
            return True
        return all(self.serves(each.namespace, each.name) for each in said.devices or ())


EDGE = Account(is_edge=True)
ANONYMOUS = Account(is_anonymous=True, mapper=True)


@dataclass(frozen=True, slots=True)
class Access:
    """Everybody who may come in through the listener."""

    users: Mapping[str, Account] = field(default_factory=dict)
    anonymous: bool = True
    """Whether one may come without a name."""


def _check_device(device: str) -> None:
    namespace, slash, name = device.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise ValueError(f'"{device}" is not NAMESPACE/NAME or NAMESPACE/*')
    try:
        check_topic(device)
    except InvalidTopic as exc:
        raise ValueError(f'"{device}" is not NAMESPACE/NAME: {exc}') from exc
