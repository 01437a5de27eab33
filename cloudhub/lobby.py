"""
Connections that are not served yet: who is let in, who has to wait, and whom a newer one ends.

A node that lost its connection dials again before the hub knows of the loss, a disk may be rolled back, a clock may be
wrong, and somebody else may have the node's key. Terms tell of two connections which is the later one.

Invariants
    a Hello is acted upon when this hub has seen as much of the apiserver as the node was told by another one, and knows
    what becomes of the node's interests, or has waited for it long enough
    the older connection of a node has ended before the newer one's Hello is acted upon
    there is always a higher term to be had than any that was taken up
    at most MAX_UNGREETED connections of a node have not said Hello, and at most one that has waits

Pure state, as far as its clock is. The shell is cloudhub/sessions.py.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from apimachinery.keys import Node
from cloudhub.horizon import Horizon
from cloudhub.hubstatus import Counters
from cloudhub.session import Session
from link.frames import GoodbyeCode, Hello, Interest
from link.pump import Clock, Timer

logger = logging.getLogger(__name__)

LAG_S = 5.0  # for a watch that lags; a quarter of the handshake's time. A watch that lags for longer is broken
MAX_UNGREETED = 4  # connections of a node that have not said Hello: one, and those that it lost and does not know of
MAX_AHEAD_MS = 365 * 86_400_000  # of a term before this hub's clock: hubs must agree whom they turn away for it


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


class _Parked(NamedTuple):
    """A Hello that waits until this hub has caught up, and knows what becomes of the node's interests."""

    session: Session
    hello: Hello
    timer: Timer
    lags: bool
    """Whether this hub had seen less than the node, when it came."""


class Lobby:
    """Of one hub."""

    def __init__(
        self,
        sessions: Mapping[Node, Session],
        horizon: Horizon,
        counters: Counters,
        *,
        door: Door | None,
        clock: Clock,
        now_ms: Callable[[], int],
        heartbeat_s: float,
        last_term: Callable[[Node], int],
        is_pending: Callable[[Node, Interest], bool],
        welcome: Callable[[Session, Hello, frozenset[str]], None],
    ) -> None:
        """
        sessions, horizon: as they stand; others change them. door: None lets every node in.

        last_term: the highest that a replica is known to have taken up for the node. is_pending: whether a decision
        upon an interest may soon be there. welcome: called for who is served from now on, with the collections of which
        the node has heard more than it will hear of us.
        """
        self._sessions = sessions
        self._horizon = horizon
        self._counters = counters
        self._door = door
        self._clock = clock
        self._now_ms = now_ms
        self._last_term = last_term
        self._is_pending = is_pending
        self._welcome = welcome
        # A parked session says nothing, so a short heartbeat would take it for dead.
        self._lag_s = min(LAG_S, 2.0 * heartbeat_s)
        self._parked: dict[Node, _Parked] = {}
        self._ungreeted: Counter[Node] = Counter()

    def __contains__(self, node: Node) -> bool:
        """Whether it waits here."""
        return node in self._parked

    @property
    def parked(self) -> list[Session]:
        """Those that wait."""
        return [parked.session for parked in self._parked.values()]

    # Before its Hello

    def expect(self, session: Session) -> None:
        """A connection of a node that has not said Hello; it is ended where there are too many."""
        node = session.node
        if self._ungreeted[node] >= MAX_UNGREETED:
            self._counters.turned_away += 1
            reason = f"{MAX_UNGREETED} connections of {node} have not said Hello yet"
            session.pump.close(GoodbyeCode.OVERLOADED, reason, retry_after_s=1.0)
            return
        session.is_ungreeted = True
        self._ungreeted[node] += 1

    def greeted(self, session: Session) -> None:
        """It has said Hello, or will not any more."""
        if session.is_ungreeted:
            session.is_ungreeted = False
            self._ungreeted[session.node] -= 1
            if not self._ungreeted[session.node]:
                del self._ungreeted[session.node]

    # With its Hello

    def admits(self, session: Session, hello: Hello) -> bool:
        """Whether its Hello counts. Older connections of the node are ended then, else this one is."""
        node = session.node
        self.greeted(session)
        if hello.node != node:
            self._counters.turned_away += 1
            session.pump.close(GoodbyeCode.FORBIDDEN, f'your certificate is for node "{node}", not "{hello.node}"')
            return False
        if self._turned_away(session) or self._is_ahead(session, hello.term):
            return False
        for older in self._known_sessions(node):
            if hello.term <= older.term:
                # Last words of a connection that its node has left; or its disk was rolled back, and it hears this.
                self.stale(session, older.term)
                return False
        if hello.superseded:
            self._counters.clones += 1
            if self._door is not None:
                places = (*self._known_sessions(node), session)
                self._door.superseded(node, [each.pump.transport.remote for each in places])
        for older in self._known_sessions(node):
            self._counters.superseded += 1
            older.pump.close(GoodbyeCode.SUPERSEDED, f"another connection of {node} took over")
        session.agent, session.term = hello.agent, hello.term
        return True

    def receive(self, session: Session, hello: Hello) -> None:
        """Welcome who was admitted; later, where this hub lags."""
        node = session.node
        if self._must_wait(hello, node):
            timer = self._clock.call_at(self._clock.time() + self._lag_s, lambda: self._waited(node))
            self._parked[node] = _Parked(session, hello, timer, bool(self._horizon.behind(hello.horizon)))
            logger.info("waiting for what the node knows", extra={"node": node})
        else:
            self._welcome(session, hello, frozenset())

    def advanced(self) -> None:
        """This hub has seen more of the apiserver."""
        for parked in list(self._parked.values()):
            if parked.lags and not self._must_wait(parked.hello, parked.session.node):
                self._unpark(parked)

    def decided(self, node: Node) -> None:
        """A decision on an interest of a node that waits here may be another than before."""
        parked = self._parked[node]
        if not self._must_wait(parked.hello, node):
            self._unpark(parked)

    def left(self, session: Session) -> None:
        """Its connection is lost."""
        self.greeted(session)
        if (parked := self._parked.get(session.node)) is not None and parked.session is session:
            del self._parked[session.node]
            parked.timer.cancel()

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
        self._counters.banned += refusal.code is GoodbyeCode.BANNED
        self._counters.replaced += refusal.code is GoodbyeCode.REPLACED
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
            self._is_pending(node, interest) for interest in hello.interests
        )

    def _known_sessions(self, node: Node) -> list[Session]:
        parked = self._parked.get(node)
        found = [] if parked is None else [parked.session]
        return [*found, self._sessions[node]] if node in self._sessions else found

    def _waited(self, node: Node) -> None:
        parked = self._parked[node]
        behind = self._horizon.behind(parked.hello.horizon)
        if behind:
            self._counters.lagging += 1
            logger.warning(
                "this hub has seen less of the apiserver than the node was told of; as after a restore it goes on",
                extra={"node": node, "behind": sorted(behind)},
            )
        self._unpark(parked, behind)

    def _unpark(self, parked: _Parked, behind: frozenset[str] = frozenset()) -> None:
        del self._parked[parked.session.node]
        parked.timer.cancel()
        self._welcome(parked.session, parked.hello, behind)

    def _is_ahead(self, session: Session, term: int) -> bool:
        """
        End a session whose term is of the future; returns whether it did.

        Who took up the last term that there is would keep its node out for ever. So there is always a higher one: that
        after what is known, or a year before our clock. A day would not do: where one replica takes up a term that is
        of the future to another, both have a session that they take for the last one.
        """
        now_ms, node = self._now_ms(), session.node
        known = max([self._last_term(node), *(each.term for each in self._known_sessions(node))])
        if term <= max(now_ms + MAX_AHEAD_MS, known + 1):
            return False
        self._counters.ahead += 1
        days = (term - now_ms) // 86_400_000
        reason = f"the term {term} is {days} days ahead of cloudcore's clock: is the clock of {node} right?"
        logger.warning(
            "term of the future", extra={"node": node, "remote": session.pump.transport.remote, "term": term}
        )
        session.pump.close(GoodbyeCode.AHEAD, reason, term=max(now_ms, known))
        return True

    def stale(self, session: Session, newest: int) -> None:
        """Its node has had a later connection: end it, and say so."""
        self._counters.stale += 1
        reason = f"{session.node} has had a connection of term {newest}"
        session.pump.close(GoodbyeCode.STALE, reason, term=newest)
