"""
One end of a link as a state machine, for both roles, without I/O.

How to use it, after websockets' and aioquic's sans-I/O cores
    Give it each message that arrives: receive(data, now), and act on the frame that it returns.
    Tell it what to say: send(frame, now), push(...), report(...).
    After any of these write what frames_to_send() returns, and arrange that handle_deadline(now) is
    called at next_deadline(). Time is a float of seconds on any clock that only moves forward.

Theory
    Which frame may come when is one table for both ends: a row is (state, who speaks, what is said) and
    the state that follows. A peer looks a frame up whether it sends or receives it, so that no rule can
    be applied to one side and forgotten on the other. Welcome and Inventory stand in it twice, because
    what follows depends on one of their fields. Ping, Pong and Goodbye change nothing or end it all.

    OPENING ──Hello──▶ GREETED ──Welcome(inventory)──▶ SURVEYING ──Inventory(last)──▶ STREAMING
                               └─Welcome──────────────────────────────────────────────▶┘

    The edge shows that it lives: when it has said or heard nothing for a heartbeat it sends a Ping, which
    the hub answers. Over a slow line the Ping, or its answer, waits behind frames that take many heartbeats to
    pass. So any bytes that arrive are a sign of life, also in the middle of a frame (heard()), and a hub that has
    said nothing for HUB_SILENCE heartbeats sends a Pong unasked. Each side gives the other up when nothing has
    come for DEAD_AFTER heartbeats. The websocket library's own keepalive is off, so that every transport behaves
    alike.

Invariants
    an illegal frame raises and leaves the state untouched
    after CLOSED nothing is sent and nothing is taken in
    at most one Ping is unanswered since anything was heard
"""

import enum
from collections.abc import Callable, Sequence
from itertools import chain

from link.codec import decode, encode, encode_push
from link.errors import LinkClosed, LocalProtocolError, RemoteProtocolError
from link.frames import (
    BULK,
    PROTOCOL,
    PUSHES,
    Ack,
    Answer,
    Call,
    Cancel,
    Check,
    Frame,
    Goodbye,
    GoodbyeCode,
    Granted,
    Hello,
    Inventory,
    Nack,
    Part,
    Ping,
    Pong,
    Position,
    Push,
    Report,
    ReportAck,
    ReportEntry,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)
from link.outstanding import Outstanding
from link.receiver import Receiver
from link.sender import Sender

_DEVICES = Traffic.DEVICES  # read for each push, and enum's attributes are slower
HANDSHAKE_S = (
    20.0  # from connection to STREAMING; an inventory of 10,000 objects over 64 kbit/s takes longer: it moves this on
)
HEARTBEAT_S = 20.0  # NAT tables forget idle TCP after minutes at worst (RFC 5382 asks for 124), mobile ones after 30 s
DEAD_AFTER = 2.5  # heartbeats: one lost Ping is forgiven
MIN_HEARTBEAT_S, MAX_HEARTBEAT_S = 0.05, 600.0
"""Of what a hub says. With less an edge would do nothing but ping; with more it would not notice a dead line."""
MAX_CHATTER = 2000
"""
Frames within CHATTER_S that carry nothing and that no window holds back: Pings and Pongs, acknowledgements of nothing
new, refusals, comparisons, parts of an inventory. The largest inventory is 260, an edge at rest says one in a
heartbeat. What costs more than 20 us counts for more. Sets of interests are the hub's to count: only it knows what one
costs (cloudhub.session.WANTED_BURST).
"""
CHATTER_S = 10.0
REFUSALS_AS_ONE = (
    50  # a frame of 1,024 costs a hub 15 ms; a node whose disk is full refuses 20,000 objects and is heard
)
HUB_SILENCE = 1.5  # heartbeats: an idle edge's Ping comes before, so that two idle ends exchange no more for it


class Role(enum.Enum):
    """Which end this is."""

    __hash__ = object.__hash__  # three are hashed for each frame, and enum's own is a call into Python

    EDGE = "edge"
    HUB = "hub"

    @property
    def other(self) -> "Role":
        return Role.HUB if self is Role.EDGE else Role.EDGE


class State(enum.Enum):
    """How far the conversation is."""

    __hash__ = object.__hash__  # see Role

    OPENING = "opening"
    GREETED = "greeted"
    SURVEYING = "surveying"
    STREAMING = "streaming"
    CLOSED = "closed"


class Say(enum.Enum):
    """What a frame means to the state machine; finer than its type where a field decides."""

    __hash__ = object.__hash__  # see Role

    HELLO = "Hello"
    WELCOME = "Welcome"
    WELCOME_SURVEY = "Welcome(inventory)"
    INVENTORY = "Inventory"
    INVENTORY_LAST = "Inventory(last)"
    PUSH = "Push"
    ACK = "Ack"
    NACK = "Nack"
    CHECK = "Check"
    REPORT = "Report"
    REPORT_ACK = "ReportAck"
    WANTED = "Wanted"
    GRANTED = "Granted"
    CALL = "Call"
    ANSWER = "Answer"
    TAKEN = "Taken"
    CANCEL = "Cancel"
    PART = "Part"
    PING = "Ping"
    PONG = "Pong"
    GOODBYE = "Goodbye"


def meaning(frame: Frame) -> Say:
    """The row of the table a frame stands for."""
    if isinstance(frame, Welcome):
        return Say.WELCOME_SURVEY if frame.inventory else Say.WELCOME
    if isinstance(frame, Inventory):
        return Say.INVENTORY_LAST if frame.last else Say.INVENTORY
    return _PLAIN[type(frame)]


_PLAIN: dict[type, Say] = {
    Hello: Say.HELLO,
    Push: Say.PUSH,
    Ack: Say.ACK,
    Nack: Say.NACK,
    Check: Say.CHECK,
    Report: Say.REPORT,
    ReportAck: Say.REPORT_ACK,
    Wanted: Say.WANTED,
    Granted: Say.GRANTED,
    Call: Say.CALL,
    Answer: Say.ANSWER,
    Taken: Say.TAKEN,
    Cancel: Say.CANCEL,
    Part: Say.PART,
    Ping: Say.PING,
    Pong: Say.PONG,
    Goodbye: Say.GOODBYE,
}

_CHATTER = frozenset({Cancel, Check, Granted, Inventory, Nack, Ping, Pong})

TRANSITIONS: dict[tuple[State, Role, Say], State] = {
    (State.OPENING, Role.EDGE, Say.HELLO): State.GREETED,
    (State.GREETED, Role.HUB, Say.WELCOME): State.STREAMING,
    (State.GREETED, Role.HUB, Say.WELCOME_SURVEY): State.SURVEYING,
    (State.SURVEYING, Role.EDGE, Say.INVENTORY): State.SURVEYING,
    (State.SURVEYING, Role.EDGE, Say.INVENTORY_LAST): State.STREAMING,
    (State.STREAMING, Role.HUB, Say.PUSH): State.STREAMING,
    (State.STREAMING, Role.EDGE, Say.ACK): State.STREAMING,
    (State.STREAMING, Role.EDGE, Say.NACK): State.STREAMING,
    (State.STREAMING, Role.EDGE, Say.CHECK): State.STREAMING,
    (State.STREAMING, Role.EDGE, Say.REPORT): State.STREAMING,
    (State.STREAMING, Role.HUB, Say.REPORT_ACK): State.STREAMING,
    (State.STREAMING, Role.EDGE, Say.WANTED): State.STREAMING,
    (State.STREAMING, Role.HUB, Say.GRANTED): State.STREAMING,
    (State.STREAMING, Role.EDGE, Say.CALL): State.STREAMING,
    (State.STREAMING, Role.EDGE, Say.CANCEL): State.STREAMING,
    (State.STREAMING, Role.HUB, Say.ANSWER): State.STREAMING,
    (State.STREAMING, Role.HUB, Say.PART): State.STREAMING,
    (State.STREAMING, Role.EDGE, Say.TAKEN): State.STREAMING,
    (State.STREAMING, Role.HUB, Say.TAKEN): State.STREAMING,
} | {
    row: after
    for state in (State.GREETED, State.SURVEYING, State.STREAMING)
    for role in Role
    for row, after in (
        ((state, role, Say.PING), state),
        ((state, role, Say.PONG), state),
        ((state, role, Say.GOODBYE), State.CLOSED),
    )
}
# A hub may turn a connection away before it has said anything (overload, a certificate without a name).
TRANSITIONS[State.OPENING, Role.HUB, Say.GOODBYE] = State.CLOSED
TRANSITIONS[State.OPENING, Role.EDGE, Say.GOODBYE] = State.CLOSED


def _weight(frame: Frame) -> int:
    """How many frames of chatter this one counts for besides itself."""
    match frame:
        case Nack(_, refusals):
            return len(refusals) // REFUSALS_AS_ONE
        case _:
            return 0


class Peer:
    """One end of one connection; made when it opens, thrown away when it closes."""

    __slots__ = (
        "_chatter",
        "_chatter_until",
        "_chunks_in",
        "_chunks_out",
        "_decode",
        "_handshake_by",
        "_handshake_s",
        "_heard_at",
        "_other",
        "_outgoing",
        "_ping_open",
        "_pings",
        "_pushes_in",
        "_pushes_out",
        "_reports",
        "_spoke_at",
        "_wanted",
        "heartbeat_s",
        "role",
        "state",
    )

    def __init__(
        self,
        role: Role,
        now: float,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        handshake_s: float = HANDSHAKE_S,
        decode: Callable[[bytes], Frame] = decode,
    ) -> None:
        """decode: link.codec's, or one that remembers what it made."""
        self.role = role
        self._other = role.other
        self.state = State.OPENING
        self.heartbeat_s = heartbeat_s
        """The edge takes over the hub's, from Welcome."""
        self._decode = decode
        self._pushes_out = Sender(0, *PUSHES)
        self._pushes_in = Receiver(0, *PUSHES)
        self._reports = {traffic: Outstanding() for traffic in Traffic}
        """An edge's own, or a hub's that came."""
        # An edge sends Calls and takes Answers and Parts, a hub the other way round: one stream each way, each Taken.
        self._chunks_out = Sender(0, BULK)
        self._chunks_in = Receiver(0, BULK)
        self._wanted = 0
        """The number of the last Wanted, said or heard."""
        self._handshake_s = handshake_s
        self._handshake_by = now + handshake_s
        self._heard_at = now
        self._spoke_at = now
        self._chatter = 0
        self._chatter_until = now
        self._pings = 0
        self._ping_open = False
        self._outgoing: list[bytes] = []

    # What arrives

    def receive(self, data: bytes, now: float) -> Frame | None:
        """
        Take one message in; returns its frame, or None for Ping and Pong, which are dealt with here.

        Raises RemoteProtocolError, after which the connection should be ended; raises LinkClosed when the link is
        already CLOSED.
        """
        if self.state is State.CLOSED:
            raise LinkClosed("the link is closed")
        frame = self._decode(data)
        after = self._after(_PLAIN.get(type(frame)) or meaning(frame), self._other, RemoteProtocolError)
        if type(frame) is Ack:  # most of what a hub hears, and this is all it means
            if not self._pushes_out.acknowledge(frame.seq, now):
                self._check_chatter(now)
            self._heard_at = now
            return frame
        if type(frame) in _CHATTER:
            self._check_chatter(now, _weight(frame))
        self._check_numbers(frame, len(data), now)
        self.state = after
        self._heard_at = now
        match frame:
            case Ping(number):
                self.send(Pong(number), now)
                return None
            case Pong():
                self._ping_open = False
                return None
            case Welcome(_, seq, _, heartbeat_s):
                self._pushes_in = Receiver(seq, *PUSHES)
                if heartbeat_s:
                    self.heartbeat_s = min(max(heartbeat_s, MIN_HEARTBEAT_S), MAX_HEARTBEAT_S)
            case Inventory():
                # A long inventory over a slow line is progress, not silence.
                self._handshake_by = now + self._handshake_s
            case Wanted(number):
                self._wanted = number
            case _:
                pass
        return frame

    def _check_chatter(self, now: float, more: int = 0) -> None:
        """Count a frame that carries nothing, as so many more."""
        if now >= self._chatter_until:
            self._chatter, self._chatter_until = 0, now + CHATTER_S
        self._chatter += 1 + more
        if self._chatter > MAX_CHATTER:
            raise RemoteProtocolError(f"more than {MAX_CHATTER} frames within {CHATTER_S:g} s that carry nothing")

    def _check_numbers(self, frame: Frame, size: int, now: float) -> None:
        """Everything that may still refuse the frame happens here, before any state changes."""
        match frame:
            case Push(seq):
                self._pushes_in.receive(seq, size)
            case Nack(seq):
                if not self._pushes_out.acked < seq <= self._pushes_out.sent:
                    raise RemoteProtocolError(f"nack of {seq}, which is not under way")
            case Report(first, entries, traffic):
                reports = self._reports[traffic]
                if first != reports.last + 1:
                    raise RemoteProtocolError(f"expected entry {reports.last + 1}, got {first}")
                if not reports.room() and reports:
                    raise RemoteProtocolError(f"entry {first} overruns the window: {len(reports)} are not settled")
                if not entries:
                    self._check_chatter(now)
                reports.add(entries)
            case ReportAck():
                self._settle(frame, RemoteProtocolError)
            case Call() | Answer() | Part():
                self._chunks_in.receive(self._chunks_in.received + 1, size)
            case Taken(seq):
                if not self._chunks_out.acknowledge(seq, now):
                    self._check_chatter(now)
            case Wanted(number) if number != self._wanted + 1:
                raise RemoteProtocolError(f"expected what is wanted to have number {self._wanted + 1}, got {number}")
            case Granted(number) if number > self._wanted:
                raise RemoteProtocolError(
                    f"what is granted has number {number}, but {self._wanted} was the last wanted"
                )
            case Hello(protocol) if protocol != PROTOCOL:
                raise RemoteProtocolError(f"this hub speaks protocol {PROTOCOL}, not {protocol}")
            case _:
                pass

    # What is said

    def send(self, frame: Frame, now: float) -> None:
        """Say a frame that carries no number of ours. Raises LocalProtocolError where it has no place."""
        after = self._after(meaning(frame), self.role, LocalProtocolError)
        match frame:
            case Ack(seq):
                self._pushes_in.acknowledge(seq)
            case Push() | Report():
                raise LocalProtocolError("use push() and report(), which number what they send")
            case ReportAck():
                self._settle(frame, LocalProtocolError)
            case Welcome(_, seq):
                self._pushes_out = Sender(seq, *PUSHES)
            case Inventory():
                self._handshake_by = now + self._handshake_s
            case Taken(seq):
                self._chunks_in.acknowledge(seq)
            case Wanted(number):
                if number != self._wanted + 1:
                    raise LocalProtocolError(f"what is wanted must have number {self._wanted + 1}, not {number}")
                self._wanted = number
            case _:
                pass
        data = encode(frame)
        if isinstance(frame, Call | Answer | Part):
            self._chunks_out.send(len(data), now)
        self.state = after
        self._write(data, now)

    def push(
        self,
        deltas: Sequence[bytes] | int,
        synced: bool,
        now: float,
        horizon: tuple[Position, ...] = (),
        traffic: Traffic = Traffic.INFRASTRUCTURE,
    ) -> int:
        """
        Send changes; returns the number they will be acknowledged by. Look at push_room() first.

        deltas: as encode_delta makes them, so that what goes to many nodes is made once; or the number of the transfer
        that is the delta, all of whose parts were taken.
        """
        self._after(Say.PUSH, self.role, LocalProtocolError)
        data = encode_push(self._pushes_out.sent + 1, deltas, synced, horizon)
        self._outgoing.append(data)
        self._spoke_at = now
        return self._pushes_out.send(len(data), now, traffic is _DEVICES)

    def report(self, entries: tuple[ReportEntry, ...], now: float, traffic: Traffic = Traffic.INFRASTRUCTURE) -> int:
        """Send reports; returns the number of the first. Look at report_room() first."""
        self._after(Say.REPORT, self.role, LocalProtocolError)
        reports = self._reports[traffic]
        data = encode(Report(reports.last + 1, entries, traffic))
        self._write(data, now)
        return reports.add(entries)

    def _settle(self, ack: ReportAck, error: type[Exception]) -> None:
        refused = (number for number, _ in ack.refused)
        spans = (range(first, last + 1) for first, last in (*ack.settled, *ack.later))
        wrong = self._reports[ack.traffic].settle(chain(refused, chain.from_iterable(spans)))
        if wrong is not None:
            raise error(f"entry {wrong} is settled, but it is not outstanding")

    def push_room(self, traffic: Traffic = Traffic.INFRASTRUCTURE) -> int:
        """Bytes of a class that may be pushed now; 0 when its window is full or the state does not allow it."""
        if self.state is not State.STREAMING:
            return 0
        return self._pushes_out.room(traffic is _DEVICES)

    def report_room(self, traffic: Traffic = Traffic.INFRASTRUCTURE) -> int:
        """Bytes of a class that may be reported now; 0 when its window is full or the state does not allow it."""
        return self._reports[traffic].room() if self.state is State.STREAMING else 0

    def chunk_room(self) -> int:
        """Bytes of Calls, or Answers and Parts, that may be sent now; 0 as with push_room()."""
        return self._chunks_out.room() if self.state is State.STREAMING else 0

    @property
    def chunks_received(self) -> int:
        """What a Taken says."""
        return self._chunks_in.received

    @property
    def chunks_sent(self) -> int:
        """The number of the last chunk."""
        return self._chunks_out.sent

    @property
    def chunks_taken(self) -> int:
        """The other side has said Taken up to this one."""
        return self._chunks_out.acked

    def close(self, code: GoodbyeCode, reason: str, now: float, retry_after_s: float = 0.0, term: int = 0) -> None:
        """Say Goodbye, if there is still anybody to say it to. Never raises."""
        if self.state is not State.CLOSED:
            self.send(Goodbye(code, reason, retry_after_s, term), now)

    def frames_to_send(self) -> Sequence[bytes]:
        """Messages to write, in order; each is one message of the transport."""
        outgoing = self._outgoing
        if outgoing:
            self._outgoing = []
        return outgoing

    # Time

    def next_deadline(self) -> float | None:
        """When handle_deadline() wants to be called; None when CLOSED."""
        if self.state is State.CLOSED:
            return None
        deadlines = [self._heard_at + DEAD_AFTER * self.heartbeat_s]
        if self._is_answering():
            deadlines.append(self._spoke_at + HUB_SILENCE * self.heartbeat_s)
        if self.state is not State.STREAMING:
            deadlines.append(self._handshake_by)
        if self._pings_due():
            deadlines.append(self._ping_at())
        return min(deadlines)

    @property
    def heard_at(self) -> float:
        """When anything came last, or the connection began."""
        return self._heard_at

    @property
    def deadlines_recede(self) -> bool:
        """Whether next_deadline() can only move later as long as the state is the present one, come what may."""
        # An answer to a Ping brings the next one nearer than the silence that was waited for.
        return self.state is State.STREAMING and not self._ping_open

    def handle_deadline(self, now: float) -> None:
        """Do what is due. Raises LinkClosed when the other side is to be given up."""
        if self.state is State.CLOSED:
            return
        if self.state is not State.STREAMING and now >= self._handshake_by:
            self.state = State.CLOSED
            raise LinkClosed(f"no handshake within {self._handshake_s:g} s")
        if now >= self._heard_at + DEAD_AFTER * self.heartbeat_s:
            self.state = State.CLOSED
            raise LinkClosed(f"nothing heard for {now - self._heard_at:.1f} s")
        if self._pings_due() and now >= self._ping_at():
            self._pings += 1
            self._ping_open = True
            self.send(Ping(self._pings), now)
        if self._is_answering() and now >= self._spoke_at + HUB_SILENCE * self.heartbeat_s:
            self.send(Pong(0), now)

    def heard(self, now: float) -> None:
        """Bytes have come, perhaps of a frame that is not complete yet. receive() says so by itself."""
        self._heard_at = now
        self._ping_open = False

    def _is_answering(self) -> bool:
        return self.role is Role.HUB and self.state in (State.SURVEYING, State.STREAMING)

    def _pings_due(self) -> bool:
        return self.role is Role.EDGE and not self._ping_open and self.state is State.STREAMING

    def _ping_at(self) -> float:
        # Either silence asks for a Ping: an edge that reports to a hub that cannot answer yet hears nothing.
        return min(self._spoke_at, self._heard_at) + self.heartbeat_s

    def _after(self, said: Say, speaker: Role, error: type[Exception]) -> State:
        try:
            return TRANSITIONS[self.state, speaker, said]
        except KeyError:
            raise error(f"{speaker.value} may not say {said.value} while {self.state.value}") from None

    def _write(self, data: bytes, now: float) -> None:
        self._outgoing.append(data)
        self._spoke_at = now
