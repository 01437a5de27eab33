"""
The hub's side of every link: who is connected, what each node has, and what goes out next.

Changes come in from the reflectors, frames from the nodes; both only mark what may differ. What goes
out is decided in work(), which gives each session that has something to do one turn, so that one
node's load cannot starve another's. Nothing here waits or reads a clock of its own.

Invariants
    at most one live session per node; the newer one takes over, and the older has ended before the
    newer one's Hello is acted upon
    a node's outbox outlives its session by the grace period, and goes on being marked meanwhile
    an entry of a Report is acknowledged only when the report sink says what became of it
    a Hello is acted upon when this hub has seen as much of the apiserver as the node was told by another one, and knows
    what becomes of the node's interests, or has waited for it long enough
    what a node holds by an interest that is not known yet stays as it is
    after a Granted there is a synced Push

The shell is cloudhub/server.py.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

from apimachinery.events import Change, EventType
from apimachinery.inventory import digest
from apimachinery.keys import Node, ObjectKey, ObjectVersion, Resource
from apimachinery.resources import SERVICE_ACCOUNTS
from apimachinery.watchcache import WatchCache
from cloudhub.horizon import Advance, Horizon, Told
from cloudhub.identities import NODE_PREFIX
from cloudhub.interests import Decision, Interests, Standing, affected, judged, selected
from cloudhub.nodecalls import NodeCalls, Turn
from cloudhub.outbox import Desired, Outbox, Verdict, traffic_of
from cloudhub.patches import Patches
from cloudhub.placement import EVERYWHERE, Placement
from cloudhub.transfers import Transfers
from cloudhub.wires import Aside, Wire, Wires, removal
from link.codec import MAX_BODY_BYTES
from link.errors import LinkError, RemoteProtocolError
from link.exchange import Whole
from link.frames import (
    Ack,
    Answer,
    AnswerHead,
    Call,
    CallHead,
    Cancel,
    Check,
    Frame,
    GoodbyeCode,
    Granted,
    Hello,
    Interest,
    Inventory,
    Nack,
    Report,
    ReportAck,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)
from link.peer import HEARTBEAT_S, Peer, Role, State
from link.pump import Clock, Pump, Timer, Transport

logger = logging.getLogger(__name__)

LAG_S = 5.0  # for a watch that lags; a quarter of the handshake's time. A watch that lags for longer is broken
GRACE_S = 600.0  # an outbox costs a few hundred bytes per object; afterwards a digest does the same job
FRAME_BYTES = 64 << 10  # a quarter of the window: the node commits one while others come; 3 s on a 200 kbit/s line
DEVICE_FRAME_BYTES = 16 << 10  # half of its window, for the same reason
TURN_S = 0.005  # of work() at a time, whatever a session costs: then frames and watch events are taken in
PREPARED_BYTES = 64 << 10  # of bodies that are packed for a session's turn, in 5 ms, and one that is begun then
ASKED_AHEAD = 4  # large objects of a node that are packed before there is room for them; each may turn out to be small
TURN_LOOKS = 8  # sessions between two looks at the clock, each of which sends two frames at most
REPORTS_PER_S = 2000.0  # entries of one node, each of which costs 20 us: 4 % of a processor
REPORT_BYTES_PER_S = 256 << 10  # of their values: 3 % of a processor, and 12 % of JSON that is made to be slow to read
REPORTS_BURST = 4096  # all that a node may have under way, and again
WANTED_BURST = (
    2000  # of what sets of interests cost (_wanted_cost): 500 small ones at once, or 83 of 200, half a second
)
WANTED_PER_S = 8.0  # two small ones: a node says one when its programs read something new
CHECKS_BURST = 20  # comparisons, each of which reads all that the node should hold: 44 ms for 10,000 objects
CHECKS_PER_S = 1.0  # an edge at rest asks for one now and then
MAX_INVENTORY = 1 << 17  # objects: about 50 MB here, and far more than a node's store is made for
MAX_INVENTORY_BYTES = 128 * MAX_INVENTORY  # as they travel: usual ones take 86 to 121 B each, of the longest names 800
MAX_UNGREETED = 4  # connections of a node that have not said Hello: one, and those that it lost and does not know of
MAX_AHEAD_MS = 365 * 86_400_000  # of a term before this hub's clock: hubs must agree whom they turn away for it
MAX_REFUSALS_TOLD = 32  # of one session in the log: a node that refuses everything is one message, not ten thousand


_FRAME_BYTES = {Traffic.INFRASTRUCTURE: FRAME_BYTES, Traffic.DEVICES: DEVICE_FRAME_BYTES}


class ReportSink(Protocol):
    """Who takes reports to the apiserver."""

    def accept(self, node: Node, session: "Session", report: Report) -> None:
        """Take a Report in; Hub.reported is called once it is known what becomes of its entries."""

    def session_closed(self, session: "Session") -> None:
        """Nobody waits for this session's acks any more."""


class NodeWatcher(Protocol):
    """Who wants to know which nodes are connected."""

    def session_up(self, node: Node, term: int) -> None:
        """Hub.overtaken is to be called when another replica turns out to have a newer session."""

    def session_down(self, node: Node) -> None: ...

    def last_term(self, node: Node) -> int:
        """The highest term that a replica is known to have taken up for the node; 0 for none."""


class Denial(NamedTuple):
    """Why a node is not let in."""

    code: GoodbyeCode
    reason: str


class Door(Protocol):
    """Who decides which of the nodes with a certificate are let in; cloudhub.doorkeeper.Doorkeeper is one."""

    def refusal(self, node: Node, key: str, *, joined_with: str | None = None) -> Denial | None:
        """
        Why not, or why not any more, as things stand. Who says something else of a node then calls Hub.recheck.

        key: of the certificate, "" for unknown. joined_with: what is said below, as of when the connection was good.
        """

    def joined_with(self, node: Node) -> str | None:
        """The key that the machine joined with that has the name now; None where that is not known."""

    def turned_away(self, node: Node, refusal: Denial) -> None:
        """A connection was."""

    def superseded(self, node: Node, remotes: Sequence[str]) -> None:
        """A node says that somebody connected in its name. remotes: of what it found here, and its own."""


class Access(Protocol):
    """Who decides upon interests."""

    def want(self, node: Node, interests: Sequence[Interest]) -> None:
        """
        These are the node's interests, all of them; none once nothing is kept of the node any more.

        Hub.decided is called, later and never from here, whenever a decision on one of them changes.
        """

    def decision(self, node: Node, interest: Interest) -> Decision:
        """How things stand, at once. Only of what was said by want()."""


class CallSink(Protocol):
    """Who makes the requests that nodes call for."""

    def has_room(self, session: "Session") -> bool:
        """Whether another call of this session, or a part of one, may be kept in memory."""

    def begin(self, session: "Session", call: Whole[CallHead]) -> None:
        """Make it; Session.answer is called once it is done, unless it is cancelled."""

    def refuse(self, session: "Session", number: int) -> None:
        """One too many: Session.answer is called at once, to say so."""

    def cancel(self, session: "Session", number: int) -> None:
        """Nobody waits for this one any more."""

    def session_closed(self, session: "Session") -> None:
        """Nor for any of these."""


class SessionStatus(NamedTuple):
    """One line of `cloudcore status`."""

    node: str
    connected: bool
    remote: str
    agent: str
    outbox: str
    dirty: int
    synced: bool
    refused: int
    interests: int = 0
    """How many the node has."""
    interests_refused: int = 0
    """... that are not granted, be it that they are not known yet."""
    transport: str = ""
    """What carries its link."""


@dataclass
class Counters:
    """What a hub has done since it started; each only grows."""

    sessions: int = 0
    """Hellos acted on."""
    resumed: int = 0
    """... that went on after a cursor."""
    identical: int = 0
    """... whose node held what it should."""
    empty: int = 0
    """... whose node held nothing."""
    surveyed: int = 0
    """... whose node was asked for its inventory."""
    superseded: int = 0
    """Sessions ended by a newer one of their node, here or at another replica."""
    stale: int = 0
    """Sessions whose term was not newer than one that was known: dead connections, or a disk that was rolled back."""
    ahead: int = 0
    """Sessions whose term was of the future: nodes with a wrong clock, or somebody who would keep others out."""
    lagging: int = 0
    """Sessions begun though this hub had seen less of the apiserver than the node had been told of."""
    turned_away: int = 0
    """Connections without a node's certificate, or of a node that called itself another."""
    banned: int = 0
    """Connections refused or ended because the node is banned."""
    replaced: int = 0
    """... because another key has the node's name."""
    clones: int = 0
    """Hellos of nodes whose connection somebody else's had superseded."""
    pushes: int = 0
    deltas: int = 0
    patches: int = 0
    """Deltas told as what changed."""
    packed: int = 0
    """Deltas whose body went whole and packed."""
    push_bytes: int = 0
    """Of bodies as they travel, before framing."""
    reports: int = 0
    """Report frames."""
    nacks: int = 0
    """Objects that nodes could not take in."""
    healed: int = 0
    """Objects sent whole because a node did not hold what we thought it held. No fault should need it."""
    divergences: int = 0
    """Nodes at rest that did not hold what they should. No fault should need it."""
    undecided: int = 0
    """Sessions begun though an interest of the node was not known yet."""
    calls: int = 0
    """Requests that nodes made through their link."""
    calls_refused: int = 0
    """... that were turned away, as one too many."""


class Session:
    """One node's connection, from accept to loss. Is a link.pump.Handler."""

    __slots__ = (
        "__weakref__",
        "_calls",
        "_checked_until",
        "_clock",
        "_hub",
        "_inventory",
        "_is_answers_turn",
        "_refusals",
        "_reported_until",
        "_wanted_until",
        "agent",
        "is_ungreeted",
        "joined_with",
        "node",
        "outbox",
        "pump",
        "term",
        "told",
        "transfers",
    )

    def __init__(self, hub: "Hub", node: Node, transport: Transport, peer: Peer, clock: Clock) -> None:
        self.node = node
        self.agent = ""
        self.term = 0
        self.outbox: Outbox | None = None
        """Set once the Hello was acted upon."""
        self.told = Told((), frozenset())
        self._hub = hub
        self._inventory: dict[ObjectKey, ObjectVersion] = {}
        self._calls = NodeCalls()
        self.transfers: Transfers | None = None
        """Made for the first change that is too large for a push."""
        self._is_answers_turn = True
        self._clock = clock
        self._wanted_until = 0.0
        """When what it said of its interests is used up, at WANTED_PER_S."""
        self._checked_until = 0.0
        """When what it compared is used up, at CHECKS_PER_S."""
        self._reported_until = 0.0
        """When what it reported is used up, at REPORTS_PER_S."""
        self._refusals = 0
        self.is_ungreeted = False
        """Whether the hub counts it among those that have not said Hello."""
        self.joined_with: str | None = None
        """What the door said of its machine when it last found it good."""
        self.pump = Pump(peer, transport, self, clock)

    def __repr__(self) -> str:
        return f"session[{self.node}]"

    def frame_received(self, frame: Frame) -> None:
        match frame:
            case Ack(seq) if self.outbox is not None:  # first, for it comes most often by far
                self.outbox.settle(seq)
                if self.transfers is not None:
                    self.transfers.settle(seq)
                if self.outbox.has_something:
                    self._hub.ready(self)
            case Hello():
                self._hub.hello(self, frame)
            case Inventory(entries, last):
                if self.pump.bytes_received > MAX_INVENTORY_BYTES:
                    raise RemoteProtocolError(f"an inventory of more than {MAX_INVENTORY_BYTES} bytes")
                self._inventory.update(entries)
                if len(self._inventory) > MAX_INVENTORY:
                    raise RemoteProtocolError(f"an inventory of more than {MAX_INVENTORY} objects")
                if last:
                    self._hub.surveyed(self, self._inventory)
                    self._inventory = {}
            case Nack(seq, refusals) if self.outbox is not None:
                for refusal in refusals:
                    if refusal.whole:
                        self._hub.counters.healed += self.outbox.doubt(seq, refusal.key)
                        continue
                    self._hub.counters.nacks += 1
                    self._refusals += 1
                    if self._refusals <= MAX_REFUSALS_TOLD:
                        logger.warning(
                            "node refused object",
                            extra={"node": self.node, "key": str(refusal.key), "reason": refusal.reason},
                        )
                    self.outbox.refuse(seq, refusal.key, refusal.reason)
            case Check(seq, held_digest):
                until = _used_until(self._checked_until, self._clock.time(), CHECKS_BURST, CHECKS_PER_S)
                if until is None:
                    return  # it will ask again
                self._checked_until = until
                self._hub.checked(self, seq, held_digest)
            case Report():
                self._hub.counters.reports += 1
                values = sum(len(entry.value) for entry in frame.entries)
                used_s = max(len(frame.entries) / REPORTS_PER_S, values / REPORT_BYTES_PER_S)
                self._reported_until = max(self._reported_until, self._clock.time()) + used_s
                self._hub.reports.accept(self.node, self, frame)
            case Wanted(number, interests):
                cost = _wanted_cost(interests)
                until = _used_until(self._wanted_until, self._clock.time(), WANTED_BURST, WANTED_PER_S, cost)
                if until is None:
                    raise RemoteProtocolError("interests that change all the time")
                self._wanted_until = until
                self._hub.wanted(self, number, interests)
            case Call():
                self._called(frame)
            case Cancel(number):
                if self._calls.cancel(number):
                    self._hub.calls.cancel(self, number)
            case Taken():
                self.speak()
                if self.transfers is not None:
                    self._hub.ready(self)
            case _:
                raise AssertionError(f"the peer let {frame!r} through to a hub")

    def link_lost(self, error: LinkError) -> None:
        self._hub.ended(self, error)

    def acknowledge(self, ack: ReportAck) -> None:
        """Say what became of entries; later, where it reports more than its share, so that its window paces it."""
        due = self._reported_until - REPORTS_BURST / REPORTS_PER_S
        if due <= self._clock.time():
            self._say(ack)
        else:
            self._clock.call_at(due, partial(self._say, ack))

    def _say(self, ack: ReportAck) -> None:
        if self._hub.serves(self):
            self.pump.send(ack)

    @property
    def call_bytes(self) -> int:
        """What calls and their answers take in memory here."""
        return self._calls.size

    def _called(self, call: Call) -> None:
        self.pump.send(Taken(self.pump.peer.chunks_received))
        match self._calls.take(call, has_room=self._hub.calls.has_room(self)):
            case Turn.MORE:
                pass
            case Turn.REFUSED:
                self._hub.counters.calls_refused += 1
                self._hub.calls.refuse(self, call.number)
            case whole:
                self._hub.counters.calls += 1
                self._hub.calls.begin(self, whole)

    def answer(self, number: int, head: AnswerHead, body: bytes) -> None:
        """The answer to a call. Harmless where nobody waits for it any more."""
        if self.pump.peer.state is State.STREAMING:
            self._calls.answer(number, head, body)
            self.speak()

    def speak(self) -> None:
        """Send of answers and transfers, in turn, what the other side has room for."""
        while self.pump.peer.chunk_room():
            sends = (
                (self._send_answer, self._send_part) if self._is_answers_turn else (self._send_part, self._send_answer)
            )
            if not any(send() for send in sends):
                return

    def _send_answer(self) -> bool:
        """Send a chunk of one, if there is any."""
        chunk = self._calls.next()
        if chunk is None:
            return False
        self._is_answers_turn = False
        self.pump.send(Answer(*chunk))
        return True

    def _send_part(self) -> bool:
        found = None if self.transfers is None else self.transfers.next()
        if found is None:
            return False
        self._is_answers_turn = True
        part, transfer = found
        self.pump.send(part)
        if transfer is not None and transfer.is_sent:
            transfer.chunk = self.pump.peer.chunks_sent
        return True


def _wanted_cost(interests: Sequence[Interest]) -> int:
    """Each set is judged against all that is watched, and each of its interests: 200 take 5 ms, as six small sets."""
    return 4 + len(interests) // 10


def _used_until(until: float, now: float, burst: int, per_s: float, cost: int = 1) -> float | None:
    """When an allowance is free again of which more is used; None where that is too much. until: as it was."""
    used = max(until, now) + cost / per_s
    return None if used > now + burst / per_s else used


class _Parked(NamedTuple):
    """A Hello that waits until this hub has caught up, and knows what becomes of the node's interests."""

    session: Session
    hello: Hello
    timer: Timer
    lags: bool
    """Whether this hub had seen less than the node, when it came."""


class _Absent(NamedTuple):
    """A node that was here."""

    outbox: Outbox
    since: float


class Hub:
    """All sessions of one cloudcore process."""

    def __init__(
        self,
        cache: WatchCache,
        placement: Placement,
        reports: ReportSink,
        nodes: NodeWatcher,
        *,
        access: Access,
        calls: CallSink,
        door: Door | None = None,
        clock: Clock,
        now_ms: Callable[[], int],
        new_epoch: Callable[[], str],
        wake: Callable[[], None],
        left: Callable[[], None] = lambda: None,
        heartbeat_s: float = HEARTBEAT_S,
        grace_s: float = GRACE_S,
        patches: Patches | None = None,
        aside: Aside | None = None,
    ) -> None:
        """
        cache: what the apiserver holds, as nodes see it. door: None lets every node in.
        now_ms: milliseconds since 1970. wake: called when work() has something to do. aside: where long bodies are
        packed; None: here.
        new_epoch: gives a name that was never given before, by any hub.
        """
        self.reports = reports
        self.calls = calls
        self.counters = Counters()
        self._access = access
        self._door = door
        self._interests = Interests()
        self._standings: dict[Node, Standing] = {}
        """Of nodes that are parked, or have an outbox."""
        self._wires = Wires(
            Patches() if patches is None else patches, aside=aside, made=self._made, awaits=self._awaits
        )
        self._cache = cache
        self._placement = placement
        self._nodes = nodes
        self._clock = clock
        self._now_ms = now_ms
        self._new_epoch = new_epoch
        self._wake = wake
        self._left = left
        self._heartbeat_s = heartbeat_s
        self._grace_s = grace_s
        self._horizon = Horizon()
        self._deciders: dict[Resource, frozenset[str]] = {}
        """What _deciding() says of each resource that was pushed."""
        # A parked session says nothing, so a short heartbeat would take it for dead.
        self._lag_s = min(LAG_S, 2.0 * heartbeat_s)
        self._parked: dict[Node, _Parked] = {}
        self._ungreeted: Counter[Node] = Counter()
        self._sessions: dict[Node, Session] = {}
        self._outboxes: dict[Node, Outbox] = {}
        self._absent: dict[Node, _Absent] = {}
        self._ready: dict[Session, None] = {}
        self._to_survey: set[Node] = set()
        """Nodes whose inventory somebody asked for, whatever their digests say."""

    # From the reflectors

    def changed(self, changes: Iterable[Change]) -> None:
        """The cache has taken these in; nodes may see something different now."""
        users_changed: dict[Node, None] = {}
        for change in changes:
            if change.previous is not None and change.type is EventType.MODIFIED:
                self._wires.replaced(change.previous)
            elif change.type is EventType.DELETED:
                self._wires.deleted(change.object.key)
            for node, key in self._placement.observe(change):
                if node == EVERYWHERE:
                    self._mark_everywhere(key)
                else:
                    self._mark(node, key)
                    if key.resource == SERVICE_ACCOUNTS and node in self._standings:
                        users_changed[node] = None
            for node in self._interests.nodes(change.object.key):
                self._mark(node, change.object.key)
        for node in users_changed:
            self.decided(node)

    def advanced(self, resource: Resource, advance: Advance) -> None:
        """How far the cache has come with this resource; what it means was told by changed() before."""
        self._horizon.advance(resource, advance)
        for parked in list(self._parked.values()):
            if parked.lags and not self._must_wait(parked.hello, parked.session.node):
                self._unpark(parked)

    def _mark_everywhere(self, key: ObjectKey) -> None:
        if not self._ready:
            self._wake()
        ready, sessions = self._ready, self._sessions
        for node, outbox in self._outboxes.items():
            outbox.mark(key)
            session = sessions.get(node)
            if session is not None and session.outbox is outbox:
                ready[session] = None

    def _mark(self, node: Node, key: ObjectKey) -> None:
        outbox = self._outboxes.get(node)
        if outbox is None:
            return
        outbox.mark(key)
        session = self._sessions.get(node)
        if session is not None and session.outbox is outbox:
            self.ready(session)

    # From the links

    def opened(self, transport: Transport) -> Pump:
        """A connection was accepted. Without a node's certificate it is told so and ended."""
        now = self._clock.time()
        peer = Peer(Role.HUB, now, heartbeat_s=self._heartbeat_s)
        name = transport.identity.removeprefix(NODE_PREFIX)
        session = Session(self, Node(name), transport, peer, self._clock)
        if name == transport.identity or not name:
            self.counters.turned_away += 1
            logger.warning("refused", extra={"remote": transport.remote, "identity": transport.identity})
            session.pump.close(GoodbyeCode.FORBIDDEN, "your certificate is not a node's: join first")
        elif self._ungreeted[session.node] >= MAX_UNGREETED:
            self.counters.turned_away += 1
            reason = f"{MAX_UNGREETED} connections of {name} have not said Hello yet"
            session.pump.close(GoodbyeCode.OVERLOADED, reason, retry_after_s=1.0)
        else:
            session.is_ungreeted = True
            self._ungreeted[session.node] += 1
        return session.pump

    def _greeted(self, session: Session) -> None:
        """It has said Hello, or will not any more."""
        if session.is_ungreeted:
            session.is_ungreeted = False
            self._ungreeted[session.node] -= 1
            if not self._ungreeted[session.node]:
                del self._ungreeted[session.node]

    def hello(self, session: Session, hello: Hello) -> None:
        """Act on a Hello: end an older session of the node, wait where this hub lags, decide how to go on, answer."""
        node = session.node
        self._greeted(session)
        if hello.node != node:
            self.counters.turned_away += 1
            session.pump.close(GoodbyeCode.FORBIDDEN, f'your certificate is for node "{node}", not "{hello.node}"')
            return
        if self._turned_away(session):
            return
        if self._is_ahead(session, hello.term):
            return
        for older in self._known_sessions(node):
            if hello.term <= older.term:
                # Last words of a connection that its node has left; or its disk was rolled back, and it hears this.
                self._stale(session, older.term)
                return
        if hello.superseded:
            self.counters.clones += 1
            if self._door is not None:
                places = (*self._known_sessions(node), session)
                self._door.superseded(node, [each.pump.transport.remote for each in places])
        for older in self._known_sessions(node):
            self.counters.superseded += 1
            older.pump.close(GoodbyeCode.SUPERSEDED, f"another connection of {node} took over")
        session.agent, session.term = hello.agent, hello.term
        standing = self._standings.setdefault(node, Standing())
        standing.number, standing.interests, standing.told = 0, hello.interests, None
        self._access.want(node, hello.interests)
        if self._must_wait(hello, node):
            timer = self._clock.call_at(self._clock.time() + self._lag_s, lambda: self._waited(node))
            self._parked[node] = _Parked(session, hello, timer, bool(self._horizon.behind(hello.horizon)))
            logger.info("waiting for what the node knows", extra={"node": node})
            return
        self._welcome(session, hello, frozenset())

    def _turned_away(self, session: Session) -> bool:
        """End a session that the door does not let in, or not any more; returns whether it did."""
        if self._door is None:
            return False
        node, transport = session.node, session.pump.transport
        refusal = self._door.refusal(node, transport.key, joined_with=session.joined_with)
        if refusal is None:
            if (joined_with := self._door.joined_with(node)) is not None:
                session.joined_with = joined_with
            return False
        self.counters.banned += refusal.code is GoodbyeCode.BANNED
        self.counters.replaced += refusal.code is GoodbyeCode.REPLACED
        logger.warning("turned away", extra={"node": node, "remote": transport.remote, "reason": refusal.reason})
        session.pump.close(refusal.code, refusal.reason)
        self._door.turned_away(node, refusal)
        return True

    def recheck(self, node: Node) -> None:
        """The door may not let this node in any more."""
        for session in self._known_sessions(node):
            self._turned_away(session)

    def _must_wait(self, hello: Hello, node: Node) -> bool:
        """Whether what is to be known before a Hello is acted on may soon be."""
        return bool(self._horizon.behind(hello.horizon)) or any(
            self._access.decision(node, interest).is_pending for interest in hello.interests
        )

    def _known_sessions(self, node: Node) -> list[Session]:
        parked = self._parked.get(node)
        found = [] if parked is None else [parked.session]
        return [*found, self._sessions[node]] if node in self._sessions else found

    def _waited(self, node: Node) -> None:
        parked = self._parked[node]
        behind = self._horizon.behind(parked.hello.horizon)
        if behind:
            self.counters.lagging += 1
            logger.warning(
                "this hub has seen less of the apiserver than the node was told of; as after a restore it goes on",
                extra={"node": node, "behind": sorted(behind)},
            )
        self._unpark(parked, behind)

    def _unpark(self, parked: _Parked, behind: frozenset[str] = frozenset()) -> None:
        del self._parked[parked.session.node]
        parked.timer.cancel()
        self._welcome(parked.session, parked.hello, behind)

    def _welcome(self, session: Session, hello: Hello, behind: frozenset[str]) -> None:
        """Decide how to go on, and answer. behind: of what the node has heard more than it will hear of us."""
        node = session.node
        session.told = Told(hello.horizon, behind)
        self._absent.pop(node, None)
        outbox = self._outboxes.get(node)
        if outbox is None:
            outbox = self._outboxes[node] = Outbox(self._new_epoch())
        self._judge(node)
        self.counters.undecided += self._interests.is_unknown(node)
        desired = self.desired_by(node)
        verdict = outbox.hear(hello.cursor, hello.digest, desired)
        if node in self._to_survey:
            self._to_survey.discard(node)
            verdict = Verdict.SURVEY
        self.counters.sessions += 1
        self.counters.resumed += verdict is Verdict.RESUME
        self.counters.identical += verdict is Verdict.IDENTICAL
        self.counters.empty += verdict is Verdict.EMPTY
        self.counters.surveyed += verdict is Verdict.SURVEY
        if verdict is Verdict.RESUME:
            assert hello.cursor is not None, "only a cursor resumes"
            outbox.rewind(hello.cursor.seq)
        else:
            outbox.renew(self._new_epoch())
            if verdict is Verdict.IDENTICAL:
                outbox.adopt(desired.items(), desired)
            elif verdict is Verdict.EMPTY:
                outbox.adopt((), desired)
        session.outbox = outbox
        self._sessions[node] = session
        logger.info(
            "session opened",
            extra={
                "node": node,
                "remote": session.pump.transport.remote,
                "transport": session.pump.transport.kind,
                "verdict": verdict.value,
                "outbox": outbox,
            },
        )
        survey = verdict is Verdict.SURVEY
        session.pump.send(Welcome(outbox.epoch, outbox.sent_seq, survey, self._heartbeat_s))
        self._nodes.session_up(node, hello.term)
        self._judge(node)
        self.ready(session)

    def _is_ahead(self, session: Session, term: int) -> bool:
        """
        End a session whose term is of the future; returns whether it did.

        Who took up the last term that there is would keep its node out for ever. So there is always a higher one: that
        after what is known, or a year before our clock. A day would not do: where one replica takes up a term that is
        of the future to another, both have a session that they take for the last one.
        """
        now_ms, node = self._now_ms(), session.node
        known = max([self._nodes.last_term(node), *(each.term for each in self._known_sessions(node))])
        if term <= max(now_ms + MAX_AHEAD_MS, known + 1):
            return False
        self.counters.ahead += 1
        days = (term - now_ms) // 86_400_000
        reason = f"the term {term} is {days} days ahead of cloudcore's clock: is the clock of {node} right?"
        logger.warning(
            "term of the future", extra={"node": node, "remote": session.pump.transport.remote, "term": term}
        )
        session.pump.close(GoodbyeCode.AHEAD, reason, term=max(now_ms, known))
        return True

    def _stale(self, session: Session, newest: int) -> None:
        self.counters.stale += 1
        reason = f"{session.node} has had a connection of term {newest}"
        session.pump.close(GoodbyeCode.STALE, reason, term=newest)

    def surveyed(self, session: Session, held: Mapping[ObjectKey, ObjectVersion]) -> None:
        """The inventory is complete."""
        assert session.outbox is not None, "an inventory follows a Welcome"
        session.outbox.adopt(held.items(), self.desired_by(session.node))
        logger.info(
            "inventory taken",
            extra={"node": session.node, "held": len(held), "dirty": session.outbox.dirty_count},
        )
        self._judge(session.node)
        self.ready(session)

    def checked(self, session: Session, seq: int, held_digest: bytes) -> None:
        """A node at rest says what it holds. Where that is not what it should, begin anew with its inventory."""
        outbox = session.outbox
        if outbox is None or not outbox.is_settled or outbox.acked != seq or outbox.refused:
            return  # it speaks of a moment that has passed, or of objects that it told us it could not take
        if self._interests.is_unknown(session.node):
            return  # it keeps what it holds of something, whatever that is
        if held_digest != digest(self.desired_by(session.node).items()):
            self.counters.divergences += 1
            logger.error("node diverged", extra={"node": session.node, "outbox": outbox})
            self.resync(session.node)

    # Interests

    def wanted(self, session: Session, number: int, interests: tuple[Interest, ...]) -> None:
        """A node has other interests than before."""
        standing = self._standings[session.node]
        standing.number, standing.interests = number, interests
        self._access.want(session.node, interests)
        self._judge(session.node)

    def decided(self, node: Node) -> None:
        """A decision on an interest of this node may be another than before."""
        parked = self._parked.get(node)
        if parked is not None:
            if not self._must_wait(parked.hello, node):
                self._unpark(parked)
        elif node in self._outboxes:
            self._judge(node)

    def _judge(self, node: Node) -> None:
        """Have the node hold what it may of what it wants, and tell it what it may not, where that is news."""
        standing = self._standings[node]
        decisions = {interest: self._access.decision(node, interest) for interest in standing.interests}
        refused, resources, granted, kept = judged(standing.interests, decisions)
        changed = self._interests.set_scopes(node, granted, kept)
        for key in affected(changed, self._cache, self._outboxes[node].known_keys()):
            self._mark(node, key)
        session, news = self._sessions.get(node), (standing.number, refused, resources)
        if session is None or session.pump.peer.state is not State.STREAMING or news == standing.told:
            return
        if not standing.number and not standing.interests:
            return  # a Hello without interests asks nothing
        standing.told = news
        assert session.outbox is not None, "who streams was welcomed"
        session.outbox.synced_told = False
        session.pump.send(Granted(*news))
        self.ready(session)

    def resync(self, node: Node) -> bool:
        """Forget what a node is thought to hold and ask it; returns whether it is connected now."""
        self._to_survey.add(node)
        session = self._sessions.get(node)
        if session is not None:
            session.pump.close(GoodbyeCode.RESYNC, "what you hold is to be compared")
        return session is not None

    def ended(self, session: Session, error: LinkError) -> None:
        """The link is gone; the outbox stays for the grace period."""
        self._left()
        self._greeted(session)
        self._ready.pop(session, None)
        if (parked := self._parked.get(session.node)) is not None and parked.session is session:
            del self._parked[session.node]
            parked.timer.cancel()
        self.reports.session_closed(session)
        self.calls.session_closed(session)
        if self._sessions.get(session.node) is not session:
            if session.outbox is None:
                remote = session.pump.transport.remote
                logger.warning("dropped before Hello", extra={"node": session.node, "remote": remote, "reason": error})
                self._forget_interests(session.node)
            return
        del self._sessions[session.node]
        assert session.outbox is not None, "a session among the sessions has said Hello"
        self._absent[session.node] = _Absent(session.outbox, self._clock.time())
        logger.info("session ended", extra={"node": session.node, "reason": str(error), "outbox": session.outbox})
        self._nodes.session_down(session.node)

    def overtaken(self, node: Node, term: int, newest: int, *, was_last: bool) -> None:
        """
        The node has a session of a newer term, `newest`, at another replica.

        was_last: the session of `term` here was the newest before; else it never was.
        """
        session = self._sessions.get(node)
        if session is None or session.term != term:
            return
        if not was_last:
            self._stale(session, newest)
            return
        self.counters.superseded += 1
        reason = f"another connection of {node} took over, at another replica"
        session.pump.close(GoodbyeCode.SUPERSEDED, reason, term=newest)

    def ready(self, session: Session) -> None:
        """The session may have something to send."""
        if not self._ready:
            self._wake()
        self._ready[session] = None

    # From the report sink

    def reported(self, session: Session, ack: ReportAck) -> None:
        """What became of entries that this session reported."""
        if self.serves(session):
            session.acknowledge(ack)

    def serves(self, session: Session) -> bool:
        """Whether this is its node's session, and there still."""
        return self._sessions.get(session.node) is session

    # What goes out

    def work(self, most: int = 64) -> bool:
        """Give up to `most` sessions a turn each, for about TURN_S; returns whether more are waiting."""
        until, prepared = self._clock.time() + TURN_S, self._wires.prepared
        for place, session in enumerate(list(islice(self._ready, most)), 1):
            del self._ready[session]
            self._flush(session)
            is_costly = self._wires.prepared >= prepared + PREPARED_BYTES
            if (is_costly or place % TURN_LOOKS == 0) and self._clock.time() >= until:
                break
        return bool(self._ready)

    def _flush(self, session: Session) -> None:
        outbox, pump = session.outbox, session.pump
        if outbox is None or not outbox.has_something:
            return
        desired, peer = partial(self._desired, session.node), pump.peer
        wires, prepared = self._wires, self._wires.prepared + PREPARED_BYTES

        def is_enough() -> bool:
            return wires.prepared >= prepared

        if session.transfers is not None:
            # First: it has waited for all its bytes, and what is small would take each room that there comes to be.
            self._land(session, outbox, session.transfers, desired)
        for traffic in outbox.dirty_classes():
            if room := peer.push_room(traffic):
                budget = min(room, _FRAME_BYTES[traffic])
                changes, pieces = outbox.pull(desired, self._wire, budget, traffic, is_enough=is_enough)
                if changes:
                    self._push(session, outbox, changes, pieces, traffic)
                if outbox.has_unsent and (changes or is_enough()):
                    self.ready(session)  # a frame of each class in a turn; whether there is room is asked then
        if outbox.large or session.transfers is not None:
            self._transfer(session, outbox, desired)
        if not outbox.synced_told and not outbox.has_dirty and outbox.known_count is not None and peer.push_room():
            self._push(session, outbox, {}, [])

    def _made(self, key: ObjectKey) -> None:
        """What an object becomes is there, for which somebody may have waited."""
        for session in self._sessions.values():
            if session.outbox is not None and key in session.outbox.large:
                self.ready(session)

    def _awaits(self, node: Node, key: ObjectKey, held: ObjectVersion | None) -> bool:
        """Whether a node that asked for what is made of an object could do something with it."""
        session = self._sessions.get(node)
        if session is None or session.outbox is None or not session.outbox.awaits(key, held):
            return False
        return session.transfers is None or not session.transfers.is_pending(key)

    def _wire(self, key: ObjectKey, version: ObjectVersion | None, held: ObjectVersion | None) -> Wire:
        if version is None:
            return removal(key)
        item = self._cache.get(key)
        assert item is not None, "what is desired is in the cache"
        return self._wires.of(item, held)

    def _push(
        self,
        session: Session,
        outbox: Outbox,
        changes: Mapping[ObjectKey, ObjectVersion | None],
        wires: list[Wire],
        traffic: Traffic = Traffic.INFRASTRUCTURE,
        transfer: int = 0,
    ) -> None:
        counters = self.counters
        for wire in wires:
            counters.patches += wire.is_patch
            counters.packed += wire.is_packed
            counters.push_bytes += wire.body_bytes
        counters.pushes += 1
        counters.deltas += len(wires)
        synced = not outbox.has_dirty
        outbox.synced_told = outbox.synced_told or synced
        horizon = session.told.next(self._horizon, self._deciding(changes))
        seq = session.pump.push(transfer or [wire.data for wire in wires], synced, horizon, traffic)
        outbox.launch(seq, changes)

    def _land(self, session: Session, outbox: Outbox, transfers: Transfers, desired: Desired) -> None:
        """Push what has come whole, of each class that has room."""
        peer = session.pump.peer

        def has_room(key: ObjectKey) -> bool:
            return peer.push_room(traffic_of(key)) > 0

        while (done := transfers.whole(peer.chunks_taken, has_room)) is not None:
            if not outbox.may_land(done.key, done.version, done.held, desired):
                transfers.drop(done)
                outbox.look_again(done.key)
                continue
            del outbox.large[done.key]
            if desired(done.key) != done.version:
                outbox.mark(done.key)
                self.ready(session)
            changes = {done.key: done.version}
            self._push(session, outbox, changes, [done.wire], traffic_of(done.key), done.number)
            done.seq = outbox.sent_seq

    def _transfer(self, session: Session, outbox: Outbox, desired: Desired) -> None:
        """See to what is too large for a push: what is of no use is dropped, and more begun, in its order."""
        if session.transfers is None:
            session.transfers = Transfers()
        transfers = session.transfers
        for transfer in transfers.pending:
            if not outbox.awaits(transfer.key, transfer.held):
                transfers.drop(transfer)
        for key in list(islice(outbox.large, len(transfers) + ASKED_AHEAD)):
            if transfers.is_pending(key):
                continue
            version, held = desired(key), outbox.sent(key)
            wire = None if version is None or version == held else self._wire(key, version, held)
            if version is None or wire is None or not wire.is_large:
                outbox.look_again(key)
                self.ready(session)
                continue
            if wire.is_awaited:
                # What it waited for is sent also if it has changed: packed anew each time, it would never be.
                asked = outbox.large[key]
                made = None if asked is None else self._wires.made(key, asked, held)
                if asked is None or made is None:
                    self._ask(session.node, key, held)
                    if self._wires.awaited(key, held) == version:
                        outbox.large[key] = version
                    continue
                version, wire = asked, made  # in a transfer though it may be small: a push is of what is desired
            if transfers.has_room(len(wire.data)):
                transfers.begin(key, version, held, wire)
            break  # else it waits, and those after it, too: smaller ones that change often would take its room for ever
        session.speak()

    def _ask(self, node: Node, key: ObjectKey, held: ObjectVersion | None) -> None:
        item = self._cache.get(key)
        assert item is not None, "what is desired is in the cache"
        self._wires.ask(node, item, held)

    def _deciding(self, keys: Iterable[ObjectKey]) -> frozenset[str]:
        """The collections that decide what a node holds of these; by an interest a resource does that itself."""
        found: frozenset[str] = frozenset()
        for key in keys:
            resource = key.resource
            deciding = self._deciders.get(resource)
            if deciding is None:
                deciding = self._placement.deciding(resource) or frozenset({resource.collection})
                self._deciders[resource] = deciding
            found = found | deciding if found else deciding
        return found

    def _desired(self, node: Node, key: ObjectKey) -> ObjectVersion | None:
        if not self._placement.is_placed(node, key) and not self._interests.covers(node, key):
            return self._outboxes[node].sent(key) if self._interests.keeps(node, key) else None
        item = self._cache.get(key)
        if item is None or len(item.body) > MAX_BODY_BYTES:
            return None
        return item.version

    def desired_by(self, node: Node) -> dict[ObjectKey, ObjectVersion]:
        """Everything a node should hold now, in which version."""
        keys = dict.fromkeys(self._placement.keys(node))
        for scope in self._interests.granted(node):
            keys |= dict.fromkeys(selected(scope, self._cache))
        versions = ((key, self._desired(node, key)) for key in keys)
        return {key: version for key, version in versions if version is not None}

    # Upkeep

    def expire(self) -> None:
        """Forget outboxes of nodes that have been away for longer than the grace period."""
        by = self._clock.time() - self._grace_s
        for node, absent in list(self._absent.items()):
            if absent.since <= by:
                del self._absent[node]
                del self._outboxes[node]
                self._forget_interests(node)

    def _forget_interests(self, node: Node) -> None:
        """Unless something else is kept of the node, for which they count."""
        if node not in self._outboxes and node not in self._parked and node in self._standings:
            del self._standings[node]
            self._interests.set_scopes(node, frozenset(), frozenset())
            self._access.want(node, ())

    def retry_refused(self) -> None:
        """Send what nodes refused again, in case the reason is gone."""
        for node, outbox in self._outboxes.items():
            if outbox.refused:
                outbox.retry_refused()
                if node in self._sessions:
                    self.ready(self._sessions[node])

    def close(self, reason: str, retry_after_s: float = 0.0) -> None:
        """Say Goodbye to everybody."""
        for session in [*self._sessions.values(), *(parked.session for parked in self._parked.values())]:
            session.pump.close(GoodbyeCode.SHUTDOWN, reason, retry_after_s)

    @property
    def connected(self) -> int:
        """How many nodes are."""
        return len(self._sessions)

    def is_connected(self, node: Node) -> bool:
        return node in self._sessions

    def statuses(self) -> list[SessionStatus]:
        """How each known node stands, in the order of their names."""
        found = []
        for node, outbox in sorted(self._outboxes.items()):
            session, standing = self._sessions.get(node), self._standings[node]
            found.append(
                SessionStatus(
                    node=node,
                    connected=session is not None,
                    remote=session.pump.transport.remote if session else "",
                    transport=session.pump.transport.kind if session else "",
                    agent=session.agent if session else "",
                    outbox=str(outbox),
                    dirty=outbox.dirty_count,
                    synced=outbox.is_settled and outbox.synced_told,
                    refused=len(outbox.refused),
                    interests=len(standing.interests),
                    interests_refused=len(standing.told[1]) if standing.told else 0,
                )
            )
        return found
