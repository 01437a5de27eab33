"""
One node's connection at the hub: what each frame means, and how often a node may say it.

What a node is allowed in a time (reports, sets of interests, comparisons) is counted here, for it is a connection that
uses it up. What concerns more than the one connection is its owner's business.

Invariants
    a frame of a node costs the hub no more than its allowance, or the link ends; but reports are acknowledged later
    answers and transfers have turns, a chunk each
    while changes that are urgent go out, to any node, a node gets a part of a transfer each PART_S at most

Pure state, as far as its pump and clock are: no I/O of its own. Its owner is cloudhub.sessions.Hub.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from apimachinery.keys import Node, ObjectKey, ObjectVersion
from cloudhub.horizon import Told
from cloudhub.hubstatus import Counters
from cloudhub.nodecalls import NodeCalls, Turn
from cloudhub.outbox import Outbox
from cloudhub.transfers import Transfers
from link.errors import LinkError, RemoteProtocolError
from link.exchange import Whole
from link.frames import (
    CHUNK_BYTES,
    Ack,
    Answer,
    AnswerHead,
    Call,
    CallHead,
    Cancel,
    Check,
    Frame,
    Held,
    Hello,
    Interest,
    Inventory,
    Nack,
    Refusal,
    Report,
    ReportAck,
    Taken,
    Wanted,
)
from link.peer import Peer, State
from link.pump import Clock, Pump, Transport

logger = logging.getLogger(__name__)

REPORTS_PER_S = 2000.0  # entries of one node, each of which costs 20 us: 4 % of a processor
REPORT_BYTES_PER_S = 256 << 10  # of their values: 3 % of a processor, and 12 % of JSON that is made to be slow to read
REPORTS_BURST = 4096  # all that a node may have under way, and again
WANTED_BURST = (
    2000  # of what sets of interests cost (_wanted_cost): 500 small ones at once, or 83 of 200, half a second
)
WANTED_PER_S = 8.0  # two small ones: a node says one when its programs read something new
CHECKS_BURST = 20  # comparisons, each of which reads all that the node should hold: 44 ms for 10,000 objects
CHECKS_PER_S = 1.0  # an edge at rest asks for one now and then
PART_S = CHUNK_BYTES / (1 << 20)  # from one part of a large object to the next while pods change: 1 MiB/s
MAX_INVENTORY = 1 << 17  # objects: about 50 MB here, and far more than a node's store is made for
MAX_INVENTORY_BYTES = 128 * MAX_INVENTORY  # as they travel: usual ones take 86 to 121 B each, of the longest names 800
MAX_REFUSALS_TOLD = 32  # of one session in the log: a node that refuses everything is one message, not ten thousand


class ReportSink(Protocol):
    """Who takes reports to the apiserver."""

    def accept(self, node: Node, session: "Session", report: Report) -> None:
        """Take a Report in; Hub.reported is called once it is known what becomes of its entries."""

    def session_closed(self, session: "Session") -> None:
        """Nobody waits for this session's acks any more."""


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


class SessionOwner(Protocol):
    """Who has the sessions of all nodes, and acts on what concerns more than one frame of one connection."""

    counters: Counters
    reports: ReportSink
    calls: CallSink

    def ready(self, session: "Session") -> None:
        """It may have something to send."""

    def hello(self, session: "Session", hello: Hello) -> None:
        """It says who it is, and what its node holds."""

    def surveyed(self, session: "Session", held: Mapping[ObjectKey, ObjectVersion]) -> None:
        """Its inventory is complete."""

    def checked(self, session: "Session", seq: int, held_digest: bytes) -> None:
        """Its node is at rest, and says what it holds."""

    def wanted(self, session: "Session", number: int, interests: tuple[Interest, ...]) -> None:
        """Its node has other interests than before."""

    def ended(self, session: "Session", error: LinkError) -> None:
        """The link is gone."""

    def serves(self, session: "Session") -> bool:
        """Whether this is its node's session, and there still."""

    def has_urgent(self) -> bool:
        """Whether changes that are urgent have gone out a moment ago, to whomever."""


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

    def __init__(self, hub: SessionOwner, node: Node, transport: Transport, peer: Peer, clock: Clock) -> None:
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
                self._surveyed(entries, last)
            case Nack(seq, refusals) if self.outbox is not None:
                self._refused(self.outbox, seq, refusals)
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

    def _surveyed(self, entries: Sequence[Held], last: bool) -> None:
        if self.pump.bytes_received > MAX_INVENTORY_BYTES:
            raise RemoteProtocolError(f"an inventory of more than {MAX_INVENTORY_BYTES} bytes")
        self._inventory.update(entries)
        if len(self._inventory) > MAX_INVENTORY:
            raise RemoteProtocolError(f"an inventory of more than {MAX_INVENTORY} objects")
        if last:
            self._hub.surveyed(self, self._inventory)
            self._inventory = {}

    def _refused(self, outbox: Outbox, seq: int, refusals: Sequence[Refusal]) -> None:
        for refusal in refusals:
            if refusal.whole:
                self._hub.counters.healed += outbox.doubt(seq, refusal.key)
                continue
            self._hub.counters.nacks += 1
            self._refusals += 1
            if self._refusals <= MAX_REFUSALS_TOLD:
                facts = {"node": self.node, "key": str(refusal.key), "reason": refusal.reason}
                logger.warning("node refused object", extra=facts)
            outbox.refuse(seq, refusal.key, refusal.reason)

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
        transfers = self.transfers
        if transfers is None or not transfers.has_next:
            return False
        now = self._clock.time()
        if now < transfers.next_at and self._hub.has_urgent():
            if not transfers.is_resting:
                transfers.is_resting = True
                self._clock.call_at(transfers.next_at, self._rested)
            return False
        transfers.next_at = now + PART_S
        self._is_answers_turn = True
        part, transfer = transfers.next()
        self.pump.send(part)
        if transfer is not None and transfer.is_sent:
            transfer.chunk = self.pump.peer.chunks_sent
        return True

    def _rested(self) -> None:
        assert self.transfers is not None, "its rest was asked for"
        self.transfers.is_resting = False
        if self._hub.serves(self):
            self.speak()


def _wanted_cost(interests: Sequence[Interest]) -> int:
    """Each set is judged against all that is watched, and each of its interests: 200 take 5 ms, as six small sets."""
    return 4 + len(interests) // 10


def _used_until(until: float, now: float, burst: int, per_s: float, cost: int = 1) -> float | None:
    """When an allowance is free again of which more is used; None where that is too much. until: as it was."""
    used = max(until, now) + cost / per_s
    return None if used > now + burst / per_s else used
