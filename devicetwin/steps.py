"""
What can happen to a twin, and what then has to be done: the words between devicetwin.reconcile and its shell.

An event is said by the cluster's objects, by a mapper or by the clock; an effect is performed by the shell, in
the order in which a step gives it.

Pure.
"""

from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import EventType
from apimachinery.objects import JSON
from devicetwin.declaration import Declaration
from devicetwin.messages import Channel, Turn, TwinEntry

# --- what happens ---------------------------------------------------------------------------------------------


class Declared(NamedTuple):
    """The Device or its model came or changed; also said of every device when edgecore starts."""

    device: ObjectKey
    declaration: Declaration


class Removed(NamedTuple):
    """The Device is not this node's any more."""

    device: ObjectKey


class Updated(NamedTuple):
    """A mapper's TwinUpdate: readings, wishes set at the edge, deletions. Taken whole or refused whole."""

    device: ObjectKey
    event_id: str
    twin: Mapping[str, TwinEntry | None]
    timestamp_ms: int = 0
    """When it was made, by its sender's clock; 0 when that is not said."""
    sequence: int | None = None
    """Its number; None when its sender does not number."""


class StateReported(NamedTuple):
    """A mapper's StateUpdate, or its last will ("offline", with no event id)."""

    device: ObjectKey
    event_id: str
    state: str
    gone: str = ""
    """The mapper whose end this is; "" where somebody said it."""


class Claimed(NamedTuple):
    """Which mappers say that they serve the device."""

    device: ObjectKey
    mappers: tuple[str, ...]


class Elapsed(NamedTuple):
    """Time went by: readings may have become stale, and report cycles be over."""

    device: ObjectKey
    since_ms: int
    """When this process began to listen, in milliseconds since 1970."""


class Asked(NamedTuple):
    """A mapper's twin Ask."""

    device: ObjectKey
    event_id: str


class Connected(NamedTuple):
    """The broker is there (again): what was published meanwhile is lost."""

    device: ObjectKey


Event = Declared | Removed | Updated | StateReported | Claimed | Elapsed | Asked | Connected

# --- what is to be done ---------------------------------------------------------------------------------------


class Save(NamedTuple):
    """The twin must be durable before the step's other effects are performed. Not asked for when only times differ."""


class Forget(NamedTuple):
    """The durable twin must go."""


class QueueReport(NamedTuple):
    """News for the cloud, last value per field; durable together with the twin."""

    field: str
    value: Mapping[str, JSON]


class PublishResult(NamedTuple):
    """The answer to a request that was taken."""

    channel: Channel
    event_id: str
    twin: Mapping[str, TwinEntry | None]


class PublishDocument(NamedTuple):
    """What a step changed. No event id: nobody asked."""

    event_id: str
    twin: Mapping[str, Turn]


class PublishDelta(NamedTuple):
    """All wishes, and those not met."""

    twin: Mapping[str, TwinEntry | None]
    delta: Mapping[str, str]
    event_id: str = ""
    """Of the request that caused it; "" where none did."""


class PublishState(NamedTuple):
    """The answer to a state that was taken. No event id: nobody asked."""

    event_id: str
    state: str
    last_online: str
    """As KubeEdge answers: "" unless the device is online."""


class Refuse(NamedTuple):
    """The answer to a request that was not taken."""

    channel: Channel
    event_id: str
    code: int
    reason: str


class Tell(NamedTuple):
    """A Kubernetes Event for people."""

    type: EventType
    reason: str
    message: str


class CountMissed(NamedTuple):
    """So many updates were sent and never came."""

    updates: int


class Record(NamedTuple):
    """A reading for the history: it differs from the last one."""

    name: str
    at_ms: int
    """When the edge took it in, in milliseconds since 1970."""
    value: str | None
    """None: from here on it is not known."""


Effect = (
    Save
    | Forget
    | QueueReport
    | PublishResult
    | PublishDocument
    | PublishDelta
    | PublishState
    | Refuse
    | Tell
    | CountMissed
    | Record
)
