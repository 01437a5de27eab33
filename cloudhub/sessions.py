"""
The hub's side of every link: who is connected, what each node has, and whose turn it is.

Changes come in from the reflectors, frames from the nodes; both only mark what may differ. What goes
out is decided in work(), which gives each session that has something to do one turn, so that one
node's load cannot starve another's. Nothing here waits or reads a clock of its own.

What is one thing has a room of its own: a connection is cloudhub.session, who is let in and who waits cloudhub.lobby,
what a node should hold cloudhub.desires, what is decided upon its interests cloudhub.standings, a turn cloudhub.pushes,
what is too large for a push cloudhub.largeobjects.

Invariants
    at most one live session per node
    a node's outbox outlives its session by the grace period, and goes on being marked meanwhile
    an entry of a Report is acknowledged only when the report sink says what became of it
    what is kept of a node's interests is kept while it waits in the lobby or has an outbox, and no longer

The shell is cloudhub/server.py.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import NamedTuple, Protocol

from apimachinery.events import Change, EventType
from apimachinery.inventory import digest
from apimachinery.keys import Node, ObjectKey, ObjectVersion, Resource
from apimachinery.resources import SERVICE_ACCOUNTS
from apimachinery.watchcache import WatchCache
from cloudhub.desires import Desires
from cloudhub.horizon import Advance, Horizon, Told
from cloudhub.hubstatus import Counters, SessionStatus, status_of
from cloudhub.identities import NODE_PREFIX
from cloudhub.interests import Interests
from cloudhub.lobby import Door, Lobby
from cloudhub.outbox import Outbox, Verdict
from cloudhub.patches import Patches
from cloudhub.placement import EVERYWHERE, Placement
from cloudhub.pushes import PREPARED_BYTES, Pushes
from cloudhub.session import CallSink, ReportSink, Session
from cloudhub.standings import Access, Standings
from cloudhub.wires import Aside, Wires
from link.errors import LinkError
from link.frames import GoodbyeCode, Hello, Interest, ReportAck, Welcome
from link.peer import HEARTBEAT_S, Peer, Role, State
from link.pump import Clock, Pump, Transport

logger = logging.getLogger(__name__)

GRACE_S = 600.0  # an outbox costs a few hundred bytes per object; afterwards a digest does the same job
TURN_S = 0.005  # of work() at a time, whatever a session costs: then frames and watch events are taken in
TURN_LOOKS = 8  # sessions between two looks at the clock, each of which sends two frames at most


class NodeWatcher(Protocol):
    """Who wants to know which nodes are connected."""

    def session_up(self, node: Node, term: int) -> None:
        """Hub.overtaken is to be called when another replica turns out to have a newer session."""

    def session_down(self, node: Node) -> None: ...

    def last_term(self, node: Node) -> int:
        """The highest term that a replica is known to have taken up for the node; 0 for none."""


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
        self._interests = Interests()
        self._standings = Standings(cache, self._interests, access)
        self._cache = cache
        self._placement = placement
        self._nodes = nodes
        self._clock = clock
        self._new_epoch = new_epoch
        self._wake = wake
        self._left = left
        self._heartbeat_s = heartbeat_s
        self._grace_s = grace_s
        self._horizon = Horizon()
        self._sessions: dict[Node, Session] = {}
        self._outboxes: dict[Node, Outbox] = {}
        self._absent: dict[Node, _Absent] = {}
        self._ready: dict[Session, None] = {}
        self._to_survey: set[Node] = set()
        """Nodes whose inventory somebody asked for, whatever their digests say."""
        self._lobby = Lobby(
            self._sessions,
            self._horizon,
            self.counters,
            door=door,
            clock=clock,
            now_ms=now_ms,
            heartbeat_s=heartbeat_s,
            last_term=nodes.last_term,
            is_pending=self._standings.is_pending,
            welcome=self._welcome,
        )
        self._desires = Desires(cache, placement, self._interests, self._outboxes)
        self._wires = Wires(
            Patches() if patches is None else patches, aside=aside, made=self._made, awaits=self._awaits
        )
        self._pushes = Pushes(cache, self._wires, self._desires, self._horizon, self.counters, self.ready, clock.time)

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
        self._lobby.advanced()

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
        else:
            self._lobby.expect(session)
        return session.pump

    def hello(self, session: Session, hello: Hello) -> None:
        """Act on a Hello: end an older session of the node, wait where this hub lags, decide how to go on, answer."""
        if not self._lobby.admits(session, hello):
            return
        self._standings.greet(session.node, hello.interests)
        self._lobby.receive(session, hello)

    def recheck(self, node: Node) -> None:
        """The door may not let this node in any more."""
        self._lobby.recheck(node)

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
        self._standings.change(session.node, number, interests)
        self._judge(session.node)

    def decided(self, node: Node) -> None:
        """A decision on an interest of this node may be another than before."""
        if node in self._lobby:
            self._lobby.decided(node)
        elif node in self._outboxes:
            self._judge(node)

    def _judge(self, node: Node) -> None:
        """Have the node hold what it may of what it wants, and tell it what it may not, where that is news."""
        marked, granted = self._standings.judge(node, self._outboxes[node].known_keys())
        for key in marked:
            self._mark(node, key)
        session = self._sessions.get(node)
        if session is None or session.pump.peer.state is not State.STREAMING or not self._standings.tell(node, granted):
            return
        assert session.outbox is not None, "who streams was welcomed"
        session.outbox.synced_told = False
        session.pump.send(granted)
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
        self._lobby.left(session)
        self._ready.pop(session, None)
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
            self._lobby.stale(session, newest)
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

    def has_urgent(self) -> bool:
        """Whether changes that are urgent have gone out a moment ago, to whomever."""
        return self._pushes.has_urgent()

    def work(self, most: int = 64) -> bool:
        """Give up to `most` sessions a turn each, for about TURN_S; returns whether more are waiting."""
        until, prepared = self._clock.time() + TURN_S, self._wires.prepared
        flush = self._pushes.flush
        for place, session in enumerate(list(islice(self._ready, most)), 1):
            del self._ready[session]
            flush(session)
            is_costly = self._wires.prepared >= prepared + PREPARED_BYTES
            if (is_costly or place % TURN_LOOKS == 0) and self._clock.time() >= until:
                break
        return bool(self._ready)

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

    def desired_by(self, node: Node) -> dict[ObjectKey, ObjectVersion]:
        """Everything a node should hold now, in which version."""
        return self._desires.all_of(node)

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
        if node not in self._outboxes and node not in self._lobby:
            self._standings.forget(node)

    def retry_refused(self) -> None:
        """Send what nodes refused again, in case the reason is gone."""
        for node, outbox in self._outboxes.items():
            if outbox.refused:
                outbox.retry_refused()
                if node in self._sessions:
                    self.ready(self._sessions[node])

    def close(self, reason: str, retry_after_s: float = 0.0) -> None:
        """Say Goodbye to everybody."""
        for session in [*self._sessions.values(), *self._lobby.parked]:
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
            session = self._sessions.get(node)
            pump, agent = (None, "") if session is None else (session.pump, session.agent)
            found.append(status_of(node, outbox, self._standings[node], pump, agent))
        return found
