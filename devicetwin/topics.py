"""
The MQTT topics between edgecore and the mappers: how they are built and what they say.

They are KubeEdge's; what is ours alone is marked "Fairlead adds". Mappers get these names from
devicetwin.messages.

Invariants
    parse_topic(topic(x)) == x; any other text raises TopicError

Standard library only; pure.
"""

import enum
import re
from typing import NamedTuple


class TopicError(ValueError):
    """A topic that is none of ours."""


class DeviceId(NamedTuple):
    """A device as topics name it: `<namespace>/<name>`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> "DeviceId":
        """Raises TopicError for what is not two levels of a topic."""
        namespace, slash, name = text.partition("/")
        if not slash or not _is_level(namespace) or not _is_level(name):
            raise TopicError(f'"{text[:64]}" is not <namespace>/<name>')
        return cls(namespace, name)


class Channel(enum.StrEnum):
    """What follows `$hw/events/device/<namespace>/<name>/`; who publishes it is in the comment."""

    TWIN_UPDATE = "twin/update"  # mapper: TwinUpdate
    TWIN_UPDATE_RESULT = "twin/update/result"  # edge: TwinResult or ErrorReply
    TWIN_DELTA = "twin/update/delta"  # edge: Delta
    TWIN_DOCUMENT = "twin/update/document"  # edge: Document
    TWIN_GET = "twin/get"  # mapper: Ask
    TWIN_GET_RESULT = "twin/get/result"  # edge: TwinResult or ErrorReply
    TWIN_CLOUD_UPDATED = "twin/cloud_updated"  # nobody: KubeEdge took it from anyone, here it is refused
    STATE_UPDATE = "state/update"  # mapper: StateUpdate
    STATE_UPDATE_RESULT = "state/update/result"  # edge: StateResult; Fairlead adds ErrorReply
    TWIN = "twin"  # edge, retained: CurrentTwin, empty when the device is gone. Fairlead adds.
    CONFIG = "config"  # edge, retained: DeviceConfig, empty when the device is gone. Fairlead adds.

    def topic(self, device: DeviceId) -> str:
        return f"{_DEVICE}{device.namespace}/{device.name}/{self.value}"

    @property
    def filter(self) -> str:
        """The subscription for this channel of every device."""
        return f"{_DEVICE}+/+/{self.value}"


class NodeChannel(enum.StrEnum):
    """What follows `$hw/events/node/<node>/`."""

    MEMBERSHIP_GET = "membership/get"  # mapper: Ask
    MEMBERSHIP_GET_RESULT = "membership/get/result"  # edge: MembershipList or ErrorReply
    MEMBERSHIP_UPDATED = "membership/updated"  # edge: MembershipUpdate

    def topic(self, node: str) -> str:
        return f"{_NODE}{node}/{self.value}"


_DEVICE = "$hw/events/device/"
_NODE = "$hw/events/node/"
_MAPPER = "$hw/events/mapper/"

MAPPER_STATE_FILTER = f"{_MAPPER}+/state/update"
"""The subscription for every mapper's own state. Fairlead adds."""


def mapper_state_topic(mapper: str) -> str:
    """Where a mapper tells, retained and as its last will, whether it lives. Fairlead adds."""
    return f"{_MAPPER}{mapper}/state/update"


class DeviceTopic(NamedTuple):
    device: DeviceId
    channel: Channel


class NodeTopic(NamedTuple):
    node: str
    channel: NodeChannel


class MapperTopic(NamedTuple):
    mapper: str


Topic = DeviceTopic | NodeTopic | MapperTopic


def parse_topic(topic: str) -> Topic:
    """
    What a topic is about. The id is found by its place, never by looking for its text (KubeEdge's trap).

    Raises TopicError for any other topic.
    """
    try:
        if topic.startswith(_DEVICE):
            namespace, name, channel = topic[len(_DEVICE) :].split("/", 2)
            if _is_level(namespace) and _is_level(name):
                return DeviceTopic(DeviceId(namespace, name), Channel(channel))
        elif topic.startswith(_NODE):
            node, channel = topic[len(_NODE) :].split("/", 1)
            if _is_level(node):
                return NodeTopic(node, NodeChannel(channel))
        elif topic.startswith(_MAPPER):
            mapper, channel = topic[len(_MAPPER) :].split("/", 1)
            if _is_level(mapper) and channel == "state/update":
                return MapperTopic(mapper)
    except ValueError:
        pass
    raise TopicError(f'"{topic[:128]}" is not a topic of ours')


def _is_level(text: str) -> bool:
    # 253: the longest name Kubernetes knows. "..", blanks and the like are names of nothing, they are found unknown.
    return 0 < len(text) <= 253 and _NO_LEVEL.search(text) is None


_NO_LEVEL = re.compile("[+#/\0]")
