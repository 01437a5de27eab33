"""
The words of the link: twelve frames, each an immutable tuple.

A frame says one thing and is understood without the one before it; state is kept by the peers, not by
the wire. The hub speaks Welcome, Push, ReportAck; the edge speaks Hello, Inventory, Ack, Nack, Check, Report;
both speak Ping, Pong, Goodbye. docs/protocol.md tells when.
"""

import enum
from typing import NamedTuple

from apimachinery.keys import ObjectKey, ObjectVersion

PROTOCOL = 1
"""The protocol's number, in Hello. A hub refuses one it does not speak, with a Goodbye that says which it does."""

WINDOW_FRAMES = 64
"""Frames of one numbered stream under way: at 200 ms round trip 320 a second, each of many objects."""
WINDOW_BYTES = 256 << 10
"""Bytes of one numbered stream under way, as they travel: what is urgent waits behind at most this, 2 s at 1 Mbit/s."""
PUSH_GROWTH = 4
"""Times WINDOW_BYTES may be under way of pushes while they are acknowledged soon; see link.sender."""

MAX_TERM = 2**53 - 1
"""What every JSON reader takes for an integer; milliseconds since 1970 reach it in 285,000 years."""

MAX_VERSION = 2**63 - 1
"""The apiserver's versions are etcd's revisions, which are such integers."""
MAX_HORIZON = 64
"""Entries of a horizon: resources that nodes hold objects of. There are nine, and what rules add."""

MAX_REPORT_ENTRIES = 2048
"""Entries of a Report: the ReportAck that refuses all of them, each with its reason, must be a frame, too."""


class Cursor(NamedTuple):
    """How far an edge has committed what a hub pushed."""

    epoch: str
    """Names one outbox's life at one hub; a hub that does not know it starts another."""
    seq: int


class Delta(NamedTuple):
    """One object's change."""

    key: ObjectKey
    version: ObjectVersion | None
    """None removes the object."""
    body: bytes
    """Canonical JSON, or with a size that JSON as link.packing packs it; empty for a removal."""
    base: str = ""
    """The revision that the node holds, whose body is the dictionary of this one; "" when it is told by itself."""
    size: int = 0
    """Bytes of the JSON that `body` unpacks to; 0 when it is that JSON. With a base it is never 0."""

    @property
    def whole_size(self) -> int:
        """Bytes of the JSON."""
        return self.size or len(self.body)


class Position(NamedTuple):
    """Up to which version of the apiserver a hub knew a resource when it told a node of it."""

    collection: str
    """Plural and group, as apimachinery.keys.Resource.collection."""
    version: int


class Batch(NamedTuple):
    """What an edge commits in one transaction."""

    cursor: Cursor
    deltas: tuple[Delta, ...]
    synced: bool
    """After this the edge holds all that the hub had for it."""
    horizon: tuple[Position, ...] = ()
    """Takes the place of what was said of these collections before."""


class Held(NamedTuple):
    """One line of an inventory."""

    key: ObjectKey
    version: ObjectVersion


class Refusal(NamedTuple):
    """An object that the edge could not take in, and why."""

    key: ObjectKey
    reason: str
    whole: bool = False
    """It was told against a version that is not held: send it whole. Nothing else is wrong with it."""


class ReportEntry(NamedTuple):
    """The last value of one field of one object, on its way up."""

    key: ObjectKey
    field: str
    """"property/NAME", "state" or "nodeInfo", see apimachinery.devices; "event" for a Kubernetes Event."""
    value: bytes
    """JSON."""


class RefusedReport(NamedTuple):
    """A report that the apiserver will never take, and why."""

    key: ObjectKey
    field: str
    reason: str


class GoodbyeCode(enum.StrEnum):
    """Why a peer ends the link; tells the other side whether and when to come back."""

    SHUTDOWN = "shutdown"
    """Come back soon: this process is going away, another will take over."""
    SUPERSEDED = "superseded"
    """A newer connection of the same node took this one's place. Do not come back with this one."""
    PROTOCOL = "protocol"
    """You broke the protocol, or we do not speak the same one."""
    FORBIDDEN = "forbidden"
    """Your certificate does not allow what you ask."""
    OVERLOADED = "overloaded"
    """Come back later."""
    RESYNC = "resync"
    """Come back at once, and we compare what you hold."""
    STALE = "stale"
    """Your term is not newer than one of your node's that is known: come back at once, with one above `term`."""


class Hello(NamedTuple):
    """The edge opens: who it is and what it has."""

    protocol: int
    node: str
    """Must equal the name in the certificate; stands here so that a mismatch can be told apart."""
    cursor: Cursor | None
    """As committed; None from an edge that never committed a batch."""
    digest: bytes
    """apimachinery.inventory.digest of what it holds."""
    agent: str
    """Program and version, for people."""
    term: int
    """Grows from connection to connection of a node: where two connections live, the one with the higher counts."""
    horizon: tuple[Position, ...] = ()
    """The last that was said of each collection, as committed. A hub that knows less waits until it does not."""


class Welcome(NamedTuple):
    """The hub answers: from where it goes on."""

    epoch: str
    seq: int
    """The next Push is seq + 1."""
    inventory: bool
    """Whether the edge must send its inventory first."""
    heartbeat_s: float
    """How often each side shows that it is alive."""


class Inventory(NamedTuple):
    """A chunk of what the edge holds."""

    entries: tuple[Held, ...]
    last: bool


class Push(NamedTuple):
    """Changes for the edge to commit."""

    seq: int
    deltas: tuple[Delta, ...]
    synced: bool
    horizon: tuple[Position, ...] = ()
    """Of the collections that it speaks of, and of those that decide who holds them, where that is news."""


class Ack(NamedTuple):
    """Everything up to and including `seq` is committed."""

    seq: int


class Nack(NamedTuple):
    """These objects of Push `seq` could not be taken in; the rest of it was. The Ack follows separately."""

    seq: int
    refusals: tuple[Refusal, ...]


class Check(NamedTuple):
    """Up to `seq` this is a fingerprint of what I hold: does it agree? Said now and then, by an edge at rest."""

    seq: int
    digest: bytes


class Report(NamedTuple):
    """Values for the apiserver. seq is dense within one connection, from 1."""

    seq: int
    entries: tuple[ReportEntry, ...]


class ReportAck(NamedTuple):
    """The apiserver took everything up to and including `seq`, but for what is refused for good."""

    seq: int
    refused: tuple[RefusedReport, ...]


class Ping(NamedTuple):
    """Are you there? The number comes back in the Pong."""

    number: int


class Pong(NamedTuple):
    """Yes."""

    number: int


class Goodbye(NamedTuple):
    """The last frame of a connection."""

    code: GoodbyeCode
    reason: str
    retry_after_s: float
    term: int = 0
    """The highest term that the hub knows of the node's connections; 0 where that is of no interest."""


Frame = Hello | Welcome | Inventory | Push | Ack | Nack | Check | Report | ReportAck | Ping | Pong | Goodbye
