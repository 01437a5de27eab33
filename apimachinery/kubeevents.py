"""
A Kubernetes Event as an edge reports it: what happened to one of its objects, told to people.

Events are no state: two of them are two, the later does not replace the earlier, and one that is lost or told twice
changes nothing. The edge makes them, the hub takes only those about objects that are the node's own, and writes who
said it itself, so the vocabulary and its limits are here, once. The body is that of core/v1, which `kubectl get
events` and `kubectl describe` read.

Invariants
    an Event stands in the namespace of what it is about, "default" for what has none (as kube-apiserver demands)
    from_json(to_json(event)) == event
"""

import enum
import re
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import JSON, lookup
from apimachinery.resources import DEVICES, EVENTS, NODES, PODS

EVENT_FIELD = "event"
"""A report's field for an Event; the target is the Event itself, the value its body."""

COMPONENT = "edgecore"
HUB = "cloudcore"
"""The component of what a hub says itself."""
CLUSTER_SCOPED_NAMESPACE = "default"  # k8s.io/kubernetes, legacyValidateEvent
MAX_MESSAGE_CHARACTERS = 1024  # NoteLengthLimit of k8s.io/kubernetes/pkg/apis/core/validation/events.go
MAX_REASON_CHARACTERS = 128  # ReasonLengthLimit, there
MAX_NAME_CHARACTERS = 253
MAX_COUNT = 2**31 - 1  # an int32 in core/v1

_ABOUT = {(resource.api_version, resource.kind): resource for resource in (NODES, PODS, DEVICES)}
"""What an edge may tell of."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_TIME = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ")


class EventType(enum.StrEnum):
    """Whether somebody should look."""

    NORMAL = "Normal"
    WARNING = "Warning"


class KubeEvent(NamedTuple):
    """One Event. Make new ones with `new_event`."""

    name: str
    about: ObjectKey
    uid: str
    """Of what it is about; a Node's is its name, as with the kubelet, for `kubectl describe node` looks for that."""
    type: EventType
    reason: str
    """One word in CamelCase."""
    message: str
    first_at: str
    """RFC 3339 in UTC, whole seconds, by the clock of whoever says it."""
    last_at: str
    times: int = 1
    """How often, from first to last."""

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(EVENTS, self.about.namespace or CLUSTER_SCOPED_NAMESPACE, self.name)

    def to_json(self, host: Node | None = None, component: str = COMPONENT) -> dict[str, JSON]:
        """The body for an apiserver. host: the node that says it; the hub knows that for certain, and adds it."""
        resource, namespace, name = self.about
        source = {"component": component} | ({} if host is None else {"host": host})
        involved = {"apiVersion": resource.api_version, "kind": resource.kind, "name": name, "uid": self.uid}
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": self.name, "namespace": self.key.namespace},
            "involvedObject": involved | ({"namespace": namespace} if namespace else {}),
            "reason": self.reason,
            "message": self.message,
            "type": self.type.value,
            "firstTimestamp": self.first_at,
            "lastTimestamp": self.last_at,
            "count": self.times,
            "source": source,
            "reportingComponent": component,
        }

    @classmethod
    def from_json(cls, value: JSON) -> "KubeEvent":
        """
        Raises ValueError with what is wrong; the sender is a peer, so every field is checked.

        What is not known is left out, and so is who said it.
        """
        if not isinstance(value, Mapping):
            raise ValueError("an Event must be an object")  # noqa: TRY004 - the caller refuses on ValueError
        count = value.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_COUNT:
            raise ValueError("count must be a positive integer")
        try:
            kind = EventType(str(value.get("type")))
        except ValueError:
            raise ValueError("type must be Normal or Warning") from None
        event = cls(
            name=_text(value, "metadata.name", MAX_NAME_CHARACTERS),
            about=_about(value),
            uid=_text(value, "involvedObject.uid", MAX_NAME_CHARACTERS, optional=True),
            type=kind,
            reason=_text(value, "reason", MAX_REASON_CHARACTERS),
            message=_text(value, "message", MAX_MESSAGE_CHARACTERS, optional=True),
            first_at=_time(value, "firstTimestamp"),
            last_at=_time(value, "lastTimestamp"),
            times=count,
        )
        if not _NAME.fullmatch(event.name):
            raise ValueError("metadata.name must be an RFC 1123 subdomain")
        if lookup(value, "metadata.namespace") != event.key.namespace:
            raise ValueError(f'metadata.namespace must be "{event.key.namespace}", where what it is about is')
        return event


def new_event(
    about: ObjectKey, uid: str, kind: EventType, reason: str, message: str, *, at: str, unique: str
) -> KubeEvent:
    """
    An Event of something that has just happened.

    at: RFC 3339 in UTC, whole seconds. unique: lower-case letters and digits that no other Event about this object
    was given; not the time, for a node's clock may run a second time over the same hour. A message that is too long
    is cut.
    """
    name = f"{about.name[: MAX_NAME_CHARACTERS - len(unique) - 1].rstrip('-.')}.{unique}"
    if len(message) > MAX_MESSAGE_CHARACTERS:
        message = message[: MAX_MESSAGE_CHARACTERS - 3] + "..."
    return KubeEvent(name, about, uid, kind, reason, message, at, at)


def _about(value: Mapping[str, JSON]) -> ObjectKey:
    said = (lookup(value, "involvedObject.apiVersion"), lookup(value, "involvedObject.kind"))
    resource = _ABOUT.get(said) if all(isinstance(word, str) for word in said) else None
    if resource is None:
        raise ValueError("a node tells Events of its Node, its Devices and its Pods only")
    namespace = _text(value, "involvedObject.namespace", MAX_NAME_CHARACTERS, optional=True)
    if bool(namespace) is not resource.namespaced:
        raise ValueError(f"a {resource.kind} {'needs a' if resource.namespaced else 'has no'} namespace")
    return ObjectKey(resource, namespace, _text(value, "involvedObject.name", MAX_NAME_CHARACTERS))


def _text(value: Mapping[str, JSON], path: str, limit: int, *, optional: bool = False) -> str:
    text = lookup(value, path)
    if text is None and optional:
        return ""
    if not isinstance(text, str) or len(text) > limit or not (text or optional):
        raise ValueError(f"{path} must be a string of {0 if optional else 1} to {limit} characters")
    return text


def _time(value: Mapping[str, JSON], path: str) -> str:
    text = lookup(value, path)
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise ValueError(f"{path} must be a time such as 2030-01-31T12:00:00Z")
    return text
