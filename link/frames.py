"""
The words of the link: nineteen frames, each an immutable tuple.

A frame says one thing and is understood without the one before it; state is kept by the peers, not by
the wire. The hub speaks Welcome, Push, Part, ReportAck, Granted, Answer; the edge speaks Hello, Inventory, Ack, Nack,
Check, Report, Wanted, Call, Cancel; both speak Taken, Ping, Pong, Goodbye. docs/protocol.md tells when.
"""

import enum
from typing import NamedTuple

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import Object
from apimachinery.resources import DEVICE_GROUP

PROTOCOL = 2
"""The protocol's number, in Hello. A hub refuses one it does not speak, with a Goodbye that says which it does."""

WINDOW_FRAMES = 64
"""Frames of one class under way: at 200 ms round trip 320 a second, each of many objects."""
WINDOW_BYTES = 256 << 10
"""Bytes of infrastructure under way, as they travel: 2 s at 1 Mbit/s."""
PUSH_GROWTH = 4
"""Times WINDOW_BYTES may be under way of pushes while they are acknowledged soon; see link.sender."""
DEVICE_WINDOW_FRAMES = 32
DEVICE_WINDOW_BYTES = 32 << 10
"""Bytes of devices' changes under way: a pod waits behind at most this, 0.26 s at 1 Mbit/s, and what it has grown."""
DEVICE_GROWTH = 8
"""Times DEVICE_WINDOW_BYTES that may be, while a frame waits on the line for less than twice PROMPT_S."""
PROMPT_S = 0.25
"""What a frame of devices, or of bulk, may wait on the line for its window to grow: 32 KiB at 1 Mbit/s."""

MAX_TERM = 2**53 - 1
"""What every JSON reader takes for an integer; milliseconds since 1970 reach it in 285,000 years."""

MAX_VERSION = 2**63 - 1
"""The apiserver's versions are etcd's revisions, which are such integers."""
MAX_HORIZON = 64
"""Entries of a horizon: resources that nodes hold objects of. There are nine, and what rules add."""

MAX_NAME_BYTES = 253
"""Of a name or a namespace: RFC 1123's subdomain, the longest that Kubernetes allows for most kinds."""
MAX_USER_BYTES = 600
"""Of who asks: "system:serviceaccount:" and two names."""

MAX_REPORT_ENTRIES = 256
"""Entries of a Report: 6 ms of a hub's time, and then other nodes have their turn."""
REPORT_WINDOW_ENTRIES = 1024
"""Of a class reported and not settled."""
REPORT_WINDOW_BYTES = 64 << 10
"""Of the same: an Ack waits behind at most this, 0.5 s at 1 Mbit/s. What is reported meanwhile takes its predecessor's
place at the edge, so a larger window would carry more values that are old when they come."""

MAX_INTERESTS = 256
"""Of one node. Selections by label are made at the edge, so these are kinds and namespaces, and names now and then."""

MAX_CALLS = 8
"""Of one node under way at once."""
MAX_CALL_BYTES = 3 << 20
"""The body of a call, and that of its answer: what kube-apiserver takes of a request."""
CHUNK_BYTES = 16 << 10
"""Of such a body, or of a large delta, in one frame: 0.13 s at 1 Mbit/s, then something else may go."""
CHUNK_WINDOW_BYTES = 2 * CHUNK_BYTES
"""Of bulk (calls; or answers and parts) under way and not Taken: 0.26 s at 1 Mbit/s."""
CHUNK_GROWTH = 8
"""Times that may be under way of it while it is taken soon."""

LARGE_BYTES = 32 << 10
"""A delta that is longer, as it travels, goes ahead of its Push in parts, between which what is urgent may go."""
MAX_TRANSFERS = 4
"""Deltas of one node that have come in part, or whole and not in a Push: a line of 200 ms is kept busy by two."""
MAX_TRANSFER_BYTES = (3 << 20) + (4 << 10)
"""Of one: the largest body, and its key."""
MAX_TRANSFERS_BYTES = 4 << 20
"""Of all of them: what a node keeps in memory beyond what it commits."""
CALL_S = 30.0
"""How long a call may take, counted at either end."""
MAX_TARGET_BYTES = 8 << 10
MAX_WARNINGS = 16


class Allowance(NamedTuple):
    """What may be under way of one class; both ends go by it."""

    frames: int
    bytes: int
    growth: int = 1
    """Times `bytes` that the window may grow to."""
    prompt_s: float = 0.5
    """How long a frame may wait on the line for it to grow, and half of how long for it not to be `bytes` again."""

    @property
    def most_bytes(self) -> int:
        return self.bytes * self.growth


class Traffic(enum.Enum):
    """What something numbered is about. Each class has a window of its own, so that neither takes the other's place."""

    __hash__ = object.__hash__  # it is hashed for every push, and enum's own is a call into Python

    INFRASTRUCTURE = "infrastructure"
    """Nodes, pods and what they refer to, their status, Events."""
    DEVICES = "devices"
    """Devices and their models, and what is reported of them: as much as there is, and never urgent."""


def traffic_of(key: ObjectKey) -> Traffic:
    """The class of what is said of an object, down and up."""
    return Traffic.DEVICES if key.resource.group == DEVICE_GROUP else Traffic.INFRASTRUCTURE


PUSHES = (
    Allowance(WINDOW_FRAMES, WINDOW_BYTES, PUSH_GROWTH),
    Allowance(DEVICE_WINDOW_FRAMES, DEVICE_WINDOW_BYTES, DEVICE_GROWTH, PROMPT_S),
)
"""In the order of Traffic."""
BULK = Allowance(WINDOW_FRAMES, CHUNK_WINDOW_BYTES, CHUNK_GROWTH, PROMPT_S)


class Lane(enum.IntEnum):
    """
    Which of a connection's streams a frame takes where the transport has several; the more urgent first.

    Order is kept within a lane. Between lanes it is not, so a frame must not rely on one of another lane before it:
    only nothing of another lane is looked at before the peers are STREAMING (link.lanes).
    """

    CONTROL = 0
    """Whatever is not named below: the handshake, acknowledgements, heartbeats, Goodbye."""
    PUSH = 1
    """Push and Granted, for the first synced Push after a Granted completes it."""
    REPORT = 2
    """Of infrastructure."""
    DEVICE = 3
    """Reports of devices."""
    BULK = 4
    """Call, Answer, Part, Cancel: nobody waits for them but who asked."""


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
    taken: "Object | Refusal | None" = None
    """What was made of it before its turn (metamanager.intake), of `size` bytes; the link carries none."""

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


class Interest(NamedTuple):
    """A selection of one resource that somebody at the edge reads."""

    resource: Resource
    namespace: str = ""
    """"" for all of them, or for a resource that has none."""
    name: str = ""
    """"" for all of them."""
    user: str = ""
    """On whose behalf: "" for the node itself, else "system:serviceaccount:NAMESPACE:NAME"."""


class RefusedInterest(NamedTuple):
    """An interest that is not granted, and why."""

    interest: Interest
    code: int
    """
    As HTTP has them. 403: who asks may not; 404: there is no such resource; 429: one too many; 400: no such
    user or selection can be. 503: not known yet, another Granted follows; until then what is held of it stays.
    """
    reason: str
    """A sentence, where there is one in the apiserver's words."""


class CallHead(NamedTuple):
    """A request to the apiserver, but for its body."""

    method: str
    """GET, POST, PUT, PATCH or DELETE."""
    target: str
    """Path and query, percent-encoded, as in a request line; never a watch, nor anything else without an end."""
    user: str = ""
    """As Interest.user."""
    content_type: str = ""
    accept: str = ""
    base: str = ""
    """
    The revision (ObjectVersion.revision) of the object that the caller wants to change, as the node holds it, where the
    caller said a resourceVersion; "" for no precondition. The body then says none.
    """
    agent: str = ""
    """The caller's User-Agent: the apiserver takes the name of a field manager from it."""


class AnswerHead(NamedTuple):
    """What the apiserver answered, but for the body."""

    status: int
    content_type: str = ""
    retry_after_s: float = 0.0
    """0 where nothing was said of it."""
    warnings: tuple[str, ...] = ()
    """The Warning headers' texts, at most MAX_WARNINGS."""
    revision: str = ""
    """
    The revision that the object in the body has where a node holds it; "" where the body is no object of a kind that
    is pushed. A node that waits until its store has it has read its caller's write.
    """


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
    BANNED = "banned"
    """Your node was banned. Ask now and then, for a ban may be lifted."""
    REPLACED = "replaced"
    """Your certificate is not the one that was given out in your name. Ask again, for who says so may be behind."""
    AHEAD = "ahead"
    """Your term is of the future: come back at once, with the one after `term`, whatever you had."""


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
    interests: tuple[Interest, ...] = ()
    """All of them, as a Wanted of number 0."""
    superseded: bool = False
    """
    The connection before this one ended in a Goodbye of that code. A node has one at a time, so somebody else connected
    in its name.
    """


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
    transfer: int = 0
    """The number of the Parts that are the delta of this push; then `deltas` is empty. 0: there were none."""


class Part(NamedTuple):
    """A part of a delta that is too large for a Push; when all are Taken a Push names them."""

    number: int
    """Of the transfer; grows from one to the next of a connection."""
    size: int
    """Bytes of all its parts, said in each. 0: what came of this transfer is of no use any more."""
    body: bytes


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
    """Values for the apiserver."""

    first: int
    """The number of the first entry; the others follow it. Dense within one connection and class, from 1."""
    entries: tuple[ReportEntry, ...]
    traffic: Traffic = Traffic.INFRASTRUCTURE


class Span(NamedTuple):
    """Numbers from `first` to `last`, both included."""

    first: int
    last: int


class RefusedEntry(NamedTuple):
    """An entry, by its number, that the apiserver will never take, and why."""

    number: int
    reason: str


class ReportAck(NamedTuple):
    """What became of entries of a class; each that was reported is in one such list once."""

    traffic: Traffic
    settled: tuple[Span, ...]
    """The apiserver has them, or a later value of their field."""
    refused: tuple[RefusedEntry, ...] = ()
    later: tuple[Span, ...] = ()
    """It cannot take them now, though it takes others. They are the edge's again, to be reported later."""


class Wanted(NamedTuple):
    """These are the node's interests from now on, all of them."""

    number: int
    """Dense within one connection, from 1."""
    interests: tuple[Interest, ...]


class Granted(NamedTuple):
    """
    What became of Wanted `number`: all of it is granted but for what is refused.

    What is granted is marked, so that the first synced Push after this frame completes it. Said again when it changes.
    """

    number: int
    refused: tuple[RefusedInterest, ...]
    resources: tuple[Resource, ...] = ()
    """Those of the granted interests, as keys of pushed objects have them: in the apiserver's preferred version."""


class Call(NamedTuple):
    """A part of a request to the apiserver: its number, its head the first time, a chunk of its body."""

    number: int
    """Grows from call to call of a connection."""
    head: CallHead | None
    body: bytes
    last: bool


class Answer(NamedTuple):
    """A part of the answer to a Call."""

    number: int
    head: AnswerHead | None
    body: bytes
    last: bool


class Taken(NamedTuple):
    """Of the other side's Calls, or Answers, so many have come in, counted from 1 within one connection."""

    seq: int


class Cancel(NamedTuple):
    """Nobody waits for the answer to this call any more. What it was to do may have been done."""

    number: int


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
    """STALE, SUPERSEDED: the highest that the hub knows of the node's connections. AHEAD: where to go on. Else 0."""


Frame = (
    Hello
    | Welcome
    | Inventory
    | Push
    | Part
    | Ack
    | Nack
    | Check
    | Report
    | ReportAck
    | Wanted
    | Granted
    | Call
    | Answer
    | Taken
    | Cancel
    | Ping
    | Pong
    | Goodbye
)
