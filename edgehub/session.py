"""
The edge's side of one link: what came down and must be committed, what may go up.

It decides nothing about disks or waiting. The shell takes batches, commits them and says so, and only
then is an Ack sent; it offers reports and is told which rows the cloud has.

Interests and calls go the same way: whoever wants them says so at any time, and hears of it when it is so. Of
interests two things are told, and in this order: what the hub decided, and later, for what it granted, that the store
holds all of it. The second comes with the commit of the first synced push after the decision.

Invariants
    an Ack is sent for what committed() was told, never for more
    batches leave take_batches() in the order of their numbers, each once
    report rows are settled, refused or handed back as the hub says it of each, and no others
    of the interests the hub knows the last that was wanted, in this session, as soon as the link carries it
    whoever asked by a call is answered once, or told that the link was lost

Pure state but for the pump it speaks through. The shell is edgehub/connector.py.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from apimachinery.keys import Node, Resource
from edgehub.arrivals import Arrivals
from link.codec import decode
from link.errors import LinkError, RemoteProtocolError
from link.exchange import Incoming, Outgoing
from link.frames import (
    MAX_HORIZON,
    PROTOCOL,
    Ack,
    Answer,
    AnswerHead,
    Batch,
    Call,
    CallHead,
    Cancel,
    Check,
    Cursor,
    Delta,
    Frame,
    Granted,
    Held,
    Hello,
    Interest,
    Inventory,
    Nack,
    Part,
    Position,
    Push,
    Refusal,
    RefusedInterest,
    RefusedReport,
    ReportAck,
    ReportEntry,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)
from link.peer import Peer, Role, State
from link.pump import Clock, Pump, Transport

logger = logging.getLogger(__name__)

COMMIT_BYTES = 1 << 20  # of bodies, unpacked: what one transaction holds in memory, but for one larger push
INVENTORY_CHUNK = 1000  # entries per frame: about 60 KB, a few packets' worth of progress at a time


class Decided(NamedTuple):
    """What the hub made of the interests."""

    interests: tuple[Interest, ...]
    """All that it has decided upon, which is what was wanted last."""
    refused: tuple[RefusedInterest, ...]
    """Those of them that are not granted; code 503: not known yet, this is said again."""
    resources: tuple[Resource, ...]
    """Those of the granted ones, in the version in which objects of them come."""

    @property
    def granted(self) -> tuple[Interest, ...]:
        refused = {refusal.interest for refusal in self.refused}
        return tuple(interest for interest in self.interests if interest not in refused)


class Answered(NamedTuple):
    """The answer to a call."""

    head: AnswerHead
    body: bytes


class Unanswered(NamedTuple):
    """The link was lost before there was an answer."""

    was_sent: bool
    """Whether the hub has it all, so that it may have been done."""


class Reported(NamedTuple):
    """What became of rows of the durable outbox."""

    done: list[int]
    """The cloud has them, or refuses them for good."""
    refused: list[RefusedReport]
    """Those of them that it refuses."""
    later: list[int]
    """To be sent again, in a while."""


class EdgeSession:
    """One connection to a hub, from dialling to loss: opened(), greet(), then the rest. Is a link.pump.Handler."""

    def __init__(
        self,
        node: Node,
        *,
        agent: str,
        clock: Clock,
        wake: Callable[[], None],
        decode: Callable[[bytes], Frame] = decode,
        unfolds: bool = False,
    ) -> None:
        """
        wake: called whenever something below may have changed. decode: see link.peer.Peer. unfolds: whether somebody
        asks take_arrived().
        """
        self.error: LinkError | None = None
        """Why the link is gone; None while it is there."""
        self.is_welcome = False
        self.wants_inventory = False
        self.is_synced = False
        """Whether everything the hub had was committed, as far as committed() was told."""
        self._node = node
        self._agent = agent
        self._clock = clock
        self._wake = wake
        self._decode = decode
        self._pump: Pump | None = None
        self._epoch = ""
        self._pushes: deque[Push] = deque()
        self._rows: dict[Traffic, dict[int, tuple[int, ReportEntry]]] = {traffic: {} for traffic in Traffic}
        """Row and entry by the number that the entry has in this session; those under way."""
        self._outcomes = {traffic: Reported([], [], []) for traffic in Traffic}
        self._wanted: tuple[int, tuple[Interest, ...]] = (0, ())
        """What the hub was told last, and its number."""
        self._unsaid: tuple[Interest, ...] | None = None
        """What it is to be told once it may be."""
        self._decided: list[Decided] = []
        self._granted: frozenset[Interest] = frozenset()
        """Of what is wanted now, as far as the hub has decided."""
        self._undone: Decided | None = None
        """Decided, and the push that completes it has not come."""
        self._completing: deque[tuple[int, Decided]] = deque()
        """(number of the Push, what its commit completes)."""
        self._completed: list[tuple[Interest, ...]] = []
        self._calls = 0
        self._callers: dict[int, Callable[[Answered | Unanswered], None]] = {}
        self._chunks_out: Outgoing[CallHead] = Outgoing()
        self._chunks_in: Incoming[AnswerHead] = Incoming()
        self._arrivals = Arrivals(hands_over=unfolds)

    def opened(self, transport: Transport) -> Pump:
        """The connection is there; greet() is next."""
        self._pump = Pump(Peer(Role.EDGE, self._clock.time(), decode=self._decode), transport, self, self._clock)
        return self._pump

    def greet(
        self,
        cursor: Cursor | None,
        digest: bytes,
        term: int,
        horizon: tuple[Position, ...] = (),
        interests: tuple[Interest, ...] = (),
        *,
        superseded: bool = False,
    ) -> None:
        """
        Say Hello, if there is still anybody to say it to.

        cursor, digest, horizon: of what is committed, and nothing may commit from here on but what this session brings.
        term: higher than that of any connection before. interests: as they are wanted now. superseded: see Hello.
        """
        self._wanted, self._unsaid = (0, interests), None
        # Of kinds that are not held any more positions stay. The newest are those that another hub may lag behind.
        horizon = tuple(sorted(horizon, key=lambda position: position.version)[-MAX_HORIZON:])
        if self.error is None:
            self.pump.send(
                Hello(PROTOCOL, self._node, cursor, digest, self._agent, term, horizon, interests, superseded)
            )

    @property
    def pump(self) -> Pump:
        assert self._pump is not None, "opened() comes first"
        return self._pump

    # From the pump

    def frame_received(self, frame: Frame) -> None:
        match frame:
            case Welcome(epoch, _, inventory, _):
                self._epoch = epoch
                self.is_welcome = True
                self.wants_inventory = inventory
                self._speak()
            case Push():
                if frame.transfer:
                    frame = frame._replace(deltas=(self._arrivals.claim(frame.transfer, frame.seq),), transfer=0)
                self._pushes.append(frame)
                if frame.synced and self._undone is not None:
                    self._completing.append((frame.seq, self._undone))
                    self._undone = None
            case Granted(number, refused, resources):
                # Of another set than the last nothing is told: the hub decides upon each that it hears of.
                if number == self._wanted[0]:
                    self._undone = Decided(self._wanted[1], refused, resources)
                    self._decided.append(self._undone)
                    self._granted = frozenset(self._undone.granted)
            case Answer(number, head, body, last):
                self._answered(number, head, body, last)
                return  # the shell has nothing to do with it
            case Part():
                if not self._arrivals.take(frame):
                    self._say_taken()
                    return
            case Taken():
                self._speak()
                return
            case ReportAck():
                self._reported(frame)
            case _:
                raise RemoteProtocolError(f"a hub does not say {type(frame).__name__}")
        self._wake()

    def link_lost(self, error: LinkError) -> None:
        self.error = error
        callers, self._callers = self._callers, {}
        for number, caller in callers.items():
            caller(Unanswered(was_sent=not self._chunks_out.drop(number)))
        self._wake()

    # Down

    def send_inventory(self, held: Sequence[Held]) -> None:
        """Answer a Welcome that asked for it: everything the store holds."""
        self.wants_inventory = False
        chunks = _chunks(held, INVENTORY_CHUNK) or [()]
        for place, chunk in enumerate(chunks):
            if self.error is None:
                self.pump.send(Inventory(tuple(chunk), last=place == len(chunks) - 1))
        self._speak()

    def take_batches(self) -> list[Batch]:
        """
        What has come and is not yet taken, oldest first; to be committed in one transaction or several.

        Not more than COMMIT_BYTES at a time, for what is packed may be a small part of what it unpacks to; one that has
        more goes alone, so that what came before a large object is there before it is written.
        """
        batches: list[Batch] = []
        room = COMMIT_BYTES
        while self._pushes:
            room -= sum(delta.whole_size for delta in self._pushes[0].deltas)
            if batches and room < 0:
                break
            push = self._pushes.popleft()
            batches.append(Batch(Cursor(self._epoch, push.seq), push.deltas, push.synced, push.horizon))
        if self._pushes:
            self._wake()
        return batches

    def take_arrived(self) -> bytearray | None:
        """The bytes of a large delta that has come whole; see Arrivals.next(). What it comes to goes to unfolded()."""
        return self._arrivals.next()

    def unfolded(self, made: Delta | RemoteProtocolError) -> None:
        """What take_arrived() gave, decoded, and as far as may be unpacked; or why it is none."""
        self._arrivals.unfolded(made)
        if self.error is None:
            self._say_taken()

    def _say_taken(self) -> None:
        if not self._arrivals.is_busy:
            self.pump.send(Taken(self.pump.peer.chunks_received))

    def committed(self, batches: Sequence[Batch], refusals: Mapping[int, Sequence[Refusal]]) -> None:
        """These batches are durable, but for the objects refused in them (by number): tell the hub."""
        self.is_synced = batches[-1].synced
        self._arrivals.committed(batches[-1].cursor.seq)
        while self._completing and self._completing[0][0] <= batches[-1].cursor.seq:
            decided = self._completing.popleft()[1]
            # What was refused, or dropped, while this was on its way is not to be heard of as complete after that.
            self._completed.append(tuple(each for each in decided.granted if each in self._granted))
        if self.error is not None:
            return
        for seq, refused in refusals.items():
            if refused:
                self.pump.send(Nack(seq, tuple(refused)))
        self.pump.send(Ack(batches[-1].cursor.seq))

    def check(self, cursor: Cursor, digest: bytes) -> None:
        """Ask whether this is what the hub thinks we hold; nothing comes back where it is."""
        if self.error is None and self.is_synced and not self._pushes and cursor.epoch == self._epoch:
            self.pump.send(Check(cursor.seq, digest))

    # Interests

    def want(self, interests: tuple[Interest, ...]) -> None:
        """These are the interests from now on. Before greet() it has no effect: the Hello says them."""
        self._unsaid = interests
        self._granted &= frozenset(interests)
        self._speak()

    def take_decided(self) -> list[Decided]:
        """What the hub has decided since the last call, oldest first."""
        decided, self._decided = self._decided, []
        return decided

    def take_completed(self) -> list[tuple[Interest, ...]]:
        """Interests of which the store has come to hold everything since the last call, as far as committed() says."""
        completed, self._completed = self._completed, []
        return completed

    # Calls

    def call(self, head: CallHead, body: bytes, answered: Callable[[Answered | Unanswered], None]) -> int:
        """
        Ask the apiserver something; returns the number by which it may be cancelled.

        body: of at most MAX_CALL_BYTES. At most MAX_CALLS may be under way: that is the caller's to see to.
        answered: called once, unless it is cancelled.
        """
        assert self.error is None, "there is nobody to ask"
        self._calls += 1
        self._callers[self._calls] = answered
        self._chunks_out.put(self._calls, head, body)
        number = self._calls
        self._speak()
        return number

    def cancel(self, number: int) -> bool:
        """Nobody waits for this answer any more; returns whether the hub has the whole call. Harmless when answered."""
        if self._callers.pop(number, None) is None:
            return True
        was_sent = not self._chunks_out.drop(number)
        self._chunks_in.drop(number)
        if self.error is None and self.pump.peer.state is State.STREAMING:
            self.pump.send(Cancel(number))
        return was_sent

    def _answered(self, number: int, head: AnswerHead | None, body: bytes, last: bool) -> None:
        self._say_taken()
        if number not in self._callers:
            return
        if (whole := self._chunks_in.take(number, head, body, last)) is not None:
            self._callers.pop(number)(Answered(whole.head, whole.body))

    def _speak(self) -> None:
        """Say what waits to be said, as far as the hub listens."""
        if self.error is not None or self._pump is None or self._pump.peer.state is not State.STREAMING:
            return
        if self._unsaid is not None:
            number, said = self._wanted
            interests, self._unsaid = self._unsaid, None
            if interests != said:
                self._wanted, self._undone = (number + 1, interests), None
                self._pump.send(Wanted(number + 1, interests))
        while self._pump.peer.chunk_room() and (chunk := self._chunks_out.next()) is not None:
            self._pump.send(Call(*chunk))

    # Up

    def report_room(self, traffic: Traffic) -> int:
        """Bytes of a class that may be reported now."""
        return 0 if self.error is not None or self._pump is None else self._pump.peer.report_room(traffic)

    def report(self, rows: Sequence[tuple[int, ReportEntry]], traffic: Traffic) -> None:
        """Send rows of the durable outbox."""
        first = self.pump.report(tuple(entry for _, entry in rows), traffic)
        self._rows[traffic] |= enumerate(rows, first)

    def has_reported(self, traffic: Traffic) -> bool:
        """Whether take_reported() has something."""
        return any(self._outcomes[traffic])

    def take_reported(self, traffic: Traffic) -> Reported:
        """What became of reports since the last call."""
        reported, self._outcomes[traffic] = self._outcomes[traffic], Reported([], [], [])
        return reported

    def _reported(self, ack: ReportAck) -> None:
        rows, outcomes = self._rows[ack.traffic], self._outcomes[ack.traffic]
        outcomes.done.extend(rows.pop(number)[0] for first, last in ack.settled for number in range(first, last + 1))
        for number, reason in ack.refused:
            row, entry = rows.pop(number)
            outcomes.done.append(row)
            outcomes.refused.append(RefusedReport(entry.key, entry.field, reason))
        outcomes.later.extend(rows.pop(number)[0] for first, last in ack.later for number in range(first, last + 1))


def _chunks(items: Iterable[Held], size: int) -> list[tuple[Held, ...]]:
    rest = iter(items)
    return list(iter(lambda: tuple(islice(rest, size)), ()))
