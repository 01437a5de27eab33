"""
What nodes report, on its way into the apiserver: the last value per field of an object, written at a
bounded rate, acknowledged when the apiserver took it.

A node may report a property a thousand times a second; the apiserver sees it twice a second and always
with the last value. An entry of a Report is settled when its value was taken, or was followed by a later value of the
same field that was taken, or is refused for good; each by itself, whatever becomes of the others.

    accept()   values come in; what nobody may report is refused at once
    due()      gives the objects whose turn it is, each at most once until finished()
    finished() tells what became of it, and gives what may be acknowledged now
    close()    a session is gone; its values go with it unless a write is already under way

Kubernetes Events are no state: each is written once, and what one hub wrote is already written for every other (its
name says so). All Events of one node are one object here, so that they have one writer and one rate however many a
node tells; due() gives them one at a time.

Why close() forgets. The node kept what was not acknowledged and reports it again, here or to another
replica, where a newer value may be written in the meantime: an older one that waited here would undo it.

Whose turn it is. Infrastructure (a node's own status, Events) goes before devices, but for a few writes that are kept
for devices; within a class the nodes have turns, so that one that reports ten thousand devices delays another's single
one by a write. While the cluster changes something that is no device, each node's devices rest between two writes
(cloudhub.rests). Where the apiserver says 429, everything waits for as long as it asks: it says so of us, and not of an
object.

What is handed back. An object whose writes fail while others are taken (a webhook that answers 500) is its own trouble.
A conflict is none: the apiserver is well, and so is the object, which somebody else writes too.
Its values are the edge's again, which keeps them and comes back later and later, and they take no room in the
session's window. When everything fails it is the apiserver's, and nothing is handed back: nobody else would get on.

Invariants
    at most one write per object is under way, and they start at least min_interval_s apart, but for what
    a conflict makes repeat
    a value is settled only after a write that carried it, or a later one of its field, was taken
    each entry is acknowledged once (cloudhub.ledgers): settled, refused or handed back
    memory is bounded by the number of objects and fields that are admitted, and by the sessions' windows

Pure state: no clock, no I/O. The shell is cloudhub/statuswriter.py.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar, assert_never

from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import EVENT_FIELD, KubeEvent
from apimachinery.resources import EVENTS
from cloudhub.agenda import Agenda
from cloudhub.ledgers import Acknowledgement, Ledgers
from cloudhub.pace import Pace
from cloudhub.reportvalues import Value, parse, path_of
from cloudhub.rests import Rests
from cloudhub.turns import Turns
from link.frames import (
    REPORT_WINDOW_BYTES,
    REPORT_WINDOW_ENTRIES,
    RefusedReport,
    Report,
    ReportEntry,
    Traffic,
    traffic_of,
)

MIN_INTERVAL_S = 0.5  # two writes a second per device: as fast as a person can read, 1 % of what etcd does
MAX_PAUSE_S = 60.0  # whatever Retry-After says: an apiserver says a second, anybody's webhook a day
EVENT_PAUSE_S = 0.25  # of a node's Events after one that fails by itself, at most
MAX_TROUBLED = REPORT_WINDOW_ENTRIES  # names of Events that were handed back, of one session
EVENT_INTERVAL_S = 0.02  # between two Events of one node: 50 a second, as many as a kubelet tells (eventRecordQPS)
HAND_BACK_AFTER = 3  # writes that failed in a row: within two seconds or so, and a passing thing has passed
WRITES = 8  # at once, of all nodes
NODE_WRITES = 4  # of one node's devices, where others wait, too
KEPT_FOR_DEVICES = 2
KEPT_FOR_INFRASTRUCTURE = 1
MAX_FRAME_VALUES = REPORT_WINDOW_BYTES  # of one Report's values, but for a single one: 8 ms of reading, 30 ms at worst

MOVED = "the object belongs to another node now"

# Causes of refusals, in the style of the apiserver's own, which are the others there are (apimachinery.errors).
MALFORMED = "Malformed"
NOT_ITS_OWN = "NotItsOwn"

S = TypeVar("S", bound=Hashable)


NOBODY = Node("")


class Write(NamedTuple):
    """What the shell is to write into one object's status."""

    key: ObjectKey
    """The object; for Events that of a node's Events together, see `events_of`."""
    node: Node
    """Who reported; "" where nobody did and the status is only to be brought up to date."""
    values: Mapping[str, Value]
    """By field: "property/NAME", "state", "nodeInfo"; an Event by its namespace and name."""
    failures: int
    """How often this object's write has failed in a row."""
    turn: Node = NOBODY
    """Whose turn it was."""


class Taken(NamedTuple):
    """The apiserver has the values, but for those refused for good."""

    refused: Mapping[str, str] = {}
    """Field to reason."""
    is_written: bool = True
    """False where it had them already: nothing was asked of it, so that it says nothing of how it is."""


class Refused(NamedTuple):
    """The apiserver will never take it."""

    reason: str
    divisible: bool = False
    """Whether one value may be to blame: then each is tried on its own."""
    cause: str = NOT_ITS_OWN
    """One of a few words, to count by."""


class Retry(NamedTuple):
    """It may take it later."""

    after_s: float
    is_everybody: bool = False
    """The apiserver has too much to do: everything waits that long."""
    is_conflict: bool = False
    """Somebody else was quicker, which is no trouble of the object's."""


Outcome = Taken | Refused | Retry


class _Slot(Generic[S]):
    """One field's value, and which entries wait for it."""

    __slots__ = ("claims", "failures", "field", "key", "not_before", "taken_before", "value")

    def __init__(self, key: ObjectKey, field: str, value: Value) -> None:
        self.key = key
        self.field = field
        """Both as they were reported."""
        self.value = value
        self.claims: defaultdict[S, list[int]] = defaultdict(list)
        """Their numbers. All are of one class: it is that of the object."""
        self.failures = 0
        """Of an Event, which fails by itself: how often its write has."""
        self.taken_before = -1
        """Of an Event: as _Target.taken_before; -1: it was not tried yet."""
        self.not_before = 0.0
        """Of an Event: when it may be tried again."""

    def inherit(self, older: "_Slot[S]") -> None:
        """What was waiting for an older value of the field waits for this one now."""
        for session, numbers in older.claims.items():
            self.claims[session] += numbers


class _Target(Generic[S]):
    """One object that something is reported of."""

    __slots__ = (
        "failures",
        "flying",
        "is_due",
        "is_given_up",
        "node",
        "not_before",
        "one_by_one",
        "pending",
        "taken_before",
        "touched",
        "troubles",
    )

    def __init__(self) -> None:
        self.node = NOBODY
        self.pending: dict[str, _Slot[S]] = {}
        self.flying: dict[str, _Slot[S]] | None = None
        """None when no write is under way; empty when one without values is."""
        self.touched = False
        self.is_due = False
        """It waits for its turn, and stands on the agenda no more."""
        self.not_before = 0.0
        self.failures = 0
        self.troubles = 0
        """How many of these failures were not conflicts."""
        self.taken_before = 0
        """How many writes had been taken, of any object, when the first of these failures began."""
        self.is_given_up = False
        """Its values were handed back, and are at once when they come, until a write of it is taken."""
        self.one_by_one = False
        """A write of several values was refused: find out which it was."""


class _NotItsOwn(ValueError):
    """The node may not report this."""


class Reports(Generic[S]):
    """
    All reports of one hub. S is whatever stands for a session.

    admit: why this node may not report this field of this object, as a sentence; None when it may. For an Event it is
    asked about what the Event is about, and the field is "event". yields: whether devices are to leave others more time
    just now.
    """

    def __init__(
        self,
        admit: Callable[[Node, ObjectKey, str], str | None],
        *,
        min_interval_s: float = MIN_INTERVAL_S,
        event_interval_s: float = EVENT_INTERVAL_S,
        yields: Callable[[], bool] = lambda: False,
    ) -> None:
        self.taken_count = 0
        """Values that the apiserver has, or a later one of their field."""
        self.refused: Counter[str] = Counter({MALFORMED: 0, NOT_ITS_OWN: 0})
        """Values that it will never have, by cause."""
        self.handed_back = 0
        """Values that were left to the edge, because writes of their object fail while others are taken."""
        self._admit = admit
        self._min_interval_s = min_interval_s
        self._event_interval_s = event_interval_s
        self._targets: dict[ObjectKey, _Target[S]] = {}
        self._agenda: Agenda[ObjectKey] = Agenda()
        self._pace: Pace[ObjectKey] = Pace(WRITES - KEPT_FOR_INFRASTRUCTURE)
        self._yields = yields
        self._rests: Rests[Node, ObjectKey] = Rests()
        self._paced_until: float | None = None
        """When devices that are due may go on, where the pace or a rest stopped them."""
        self._turns: dict[Traffic, Turns[Node, ObjectKey]] = {traffic: Turns() for traffic in Traffic}
        """Objects that are due, by their nodes."""
        self._flying: dict[Traffic, Counter[Node]] = {traffic: Counter() for traffic in Traffic}
        self._pause_until = float("-inf")
        self._resume_at: float | None = None
        """When what is due may go on, where it was stopped."""
        self._writes_taken = 0
        self._keys: dict[S, set[ObjectKey]] = {}
        """Which objects each session has reported of."""
        self._ledgers: Ledgers[S] = Ledgers()
        self._troubled: dict[S, dict[str, None]] = {}
        """Events of each session that were handed back: they are tried once when they come again, after all others."""

    def __len__(self) -> int:
        """Objects with something to write, under way, or written so recently that their next turn is not yet."""
        return len(self._targets)

    def accept(self, node: Node, session: S, report: Report) -> list[Acknowledgement[S]]:
        """
        Take a Report in. Its numbers follow the session's last; the peer has checked that.

        Gives acknowledgements of what needs no write, as of what is refused. What is beyond MAX_FRAME_VALUES is handed
        back unread: no edge of ours says so much at once.
        """
        first, entries, traffic = report
        keys, said = self._keys.setdefault(session, set()), 0
        for number, entry in enumerate(entries, first):
            said += len(entry.value)
            if said > MAX_FRAME_VALUES and number > first:
                self._ledgers.hand_back(session, traffic, (number,))
                self.handed_back += 1
                continue
            try:
                if traffic_of(entry.key) is not traffic:
                    raise ValueError(f"{entry.key.resource.collection} is not reported among {traffic.value}")
                slot: _Slot[S] = _Slot(entry.key, entry.field, self._parsed(node, entry))
            except ValueError as exc:
                self.refused[NOT_ITS_OWN if isinstance(exc, _NotItsOwn) else MALFORMED] += 1
                refused = RefusedReport(entry.key, entry.field, str(exc))
                self._ledgers.refuse(session, traffic, (number,), refused)
                continue
            slot.claims[session].append(number)
            is_event = isinstance(slot.value, KubeEvent)
            key, field = (events_of(node), path_of(entry.key)) if is_event else (entry.key, entry.field)
            keys.add(key)
            self._put(node, key, field, slot)
        return self._ledgers.told()

    def _parsed(self, node: Node, entry: ReportEntry) -> Value:
        """Raises ValueError with why it is refused."""
        if entry.field == EVENT_FIELD:
            event = parse(entry)
            subject = event.about if isinstance(event, KubeEvent) else entry.key
            if (reason := self._admit(node, subject, EVENT_FIELD)) is not None:
                raise _NotItsOwn(reason)
            return event
        if (reason := self._admit(node, entry.key, entry.field)) is not None:
            raise _NotItsOwn(reason)
        return parse(entry)

    def touch(self, key: ObjectKey, at: float = 0.0, node: Node = NOBODY) -> None:
        """
        Bring this object's status up to date, though nothing was reported: give it a Write.

        node: in whose turns that is.
        at: no earlier than then, unless a report comes first. One that is coming anyway then costs no write of its own.
        """
        target = self._targets.setdefault(key, _Target())
        if target.touched:
            return
        target.touched = True
        if target.flying is None and not target.pending and not target.is_due:
            target.node = node
            self._agenda.set(key, max(target.not_before, at))

    def close(self, session: S) -> None:
        """Nobody waits for this session's acknowledgements any more."""
        self._ledgers.close(session)
        self._troubled.pop(session, None)
        for key in self._keys.pop(session, ()):
            target = self._targets.get(key)
            if target is None:
                continue
            for slot in (target.flying or {}).values():
                slot.claims.pop(session, None)
            for field, slot in list(target.pending.items()):
                slot.claims.pop(session, None)
                if not slot.claims:
                    del target.pending[field]

    def came_round(self, seconds: float) -> None:
        """How long a round of the loop took: where it is long, fewer writes of devices are given at once."""
        self._pace.came_round(seconds)

    def due(self, now: float, most: int) -> list[Write]:
        """Up to `most` objects to write now. Each must be finished()."""
        while (key := self._agenda.take(now)) is not None:
            target = self._targets[key]
            assert target.flying is None, "what is under way stands on no agenda"
            target.is_due = True
            self._turns[traffic_of(key)].put(target.node, key)
        writes: list[Write] = []
        is_paused = now < self._pause_until
        self._resume_at = self._pause_until if is_paused and any(self._turns.values()) else None
        while len(writes) < most and not is_paused and (key := self._next(now)) is not None:
            target = self._targets[key]
            target.is_due = False
            is_events = key.resource == EVENTS
            if not target.pending and (is_events or not target.touched):
                del self._targets[key]
                continue
            if is_events:
                if (event := _next_event(target.pending, now)) is None:
                    self._agenda.set(key, min(slot.not_before for slot in target.pending.values()))
                    continue
                slot = target.pending.pop(event)
                target.flying = {event: slot}
                if slot.taken_before < 0:
                    slot.taken_before = self._writes_taken
            elif target.one_by_one and len(target.pending) > 1:
                first = next(iter(target.pending))
                target.flying = {first: target.pending.pop(first)}
            else:
                target.flying, target.pending = target.pending, {}
            target.touched = False
            target.not_before = now + (self._event_interval_s if is_events else self._min_interval_s)
            if not target.failures:
                target.taken_before = self._writes_taken
            values = {field: slot.value for field, slot in target.flying.items()}
            traffic = traffic_of(key)
            self._flying[traffic][target.node] += 1
            if traffic is Traffic.DEVICES:
                self._pace.begin(key, now)
                self._rests.begin(target.node, key, now)
            writes.append(Write(key, target.node if values else NOBODY, values, target.failures, target.node))
        self._paced_until = self._next_room(now) if self._turns[Traffic.DEVICES] else None
        return writes

    def _next(self, now: float) -> ObjectKey | None:
        """The object whose turn it is."""
        infrastructure, devices = self._turns[Traffic.INFRASTRUCTURE], self._turns[Traffic.DEVICES]
        others, flying = self._flying[Traffic.INFRASTRUCTURE], self._flying[Traffic.DEVICES]
        kept = min(KEPT_FOR_DEVICES, self._pace.allowed) if devices else 0
        if infrastructure and others.total() < WRITES - kept:
            return infrastructure.take(lambda _: True)
        if not self._pace.has_room(now):
            return None
        yields = self._yields()
        return devices.take(
            lambda node: (
                (flying[node] < NODE_WRITES or len(devices) == 1) and (not yields or self._rests.may_begin(node, now))
            )
        )

    def _next_room(self, now: float) -> float | None:
        """When a device may be written that may not now, though no write ends before."""
        times = (self._pace.next_room(now), self._rests.next_deadline(now))
        return min((at for at in times if at is not None), default=None)

    def next_deadline(self) -> float | None:
        """When due() may give something; None when only a report, or the end of a write, can change that."""
        deadlines = (self._agenda.next_deadline(), self._resume_at, self._paced_until)
        return min((each for each in deadlines if each is not None), default=None)

    def finished(self, write: Write, outcome: Outcome, now: float) -> list[Acknowledgement[S]]:
        """What became of a write that due() gave."""
        target = self._targets[write.key]
        flown = target.flying
        assert flown is not None, "a write is finished once"
        target.flying = None
        target.failures, troubles, target.troubles = 0, target.troubles, 0
        self._flying[traffic_of(write.key)] -= Counter((write.turn,))
        self._pace.end(write.key)
        self._rests.end(write.turn, write.key, now)
        match outcome:
            case Taken(refused, is_written):
                self._writes_taken += is_written
                target.is_given_up = False
                for name, slot in flown.items() if self._troubled else ():
                    for session in slot.claims:
                        self._troubled.get(session, {}).pop(name, None)
                self._settle_all(flown, refused)
            case Refused(reason, divisible, cause) if not divisible or len(flown) <= 1:
                self._settle_all(flown, dict.fromkeys(flown, reason), cause)
                # Without the value that was to blame the rest of the status can be brought up to date.
                target.touched = target.touched or (divisible and bool(flown))
            case Refused():
                target.one_by_one = True
                target.not_before = now
                self._put_back(write, target, flown)
            case Retry(after_s, is_everybody, is_conflict):
                after_s = min(after_s, MAX_PAUSE_S)
                # Who was told it again, while others were taken, is meant by it: by an admission webhook, say.
                is_everybody = is_everybody and not (troubles and self._writes_taken > target.taken_before)
                if is_everybody:
                    self._pause_until = max(self._pause_until, now + after_s)
                if (
                    write.key.resource == EVENTS
                    and not is_everybody
                    and self._is_own_trouble(target, flown, after_s, now)
                ):
                    after_s = min(after_s, EVENT_PAUSE_S)
                # At once is for a conflict: our copy was old. All else keeps its distance, however small the jitter.
                target.not_before = max(target.not_before, now + after_s) if after_s else now
                target.failures = write.failures + 1
                target.troubles = troubles + (not is_conflict)
                target.touched = target.touched or not flown
                self._put_back(write, target, flown)
                is_its_own = not is_everybody and self._writes_taken > target.taken_before
                is_its_own = is_its_own and write.key.resource != EVENTS
                if is_its_own and target.troubles >= HAND_BACK_AFTER:
                    self._hand_back(target)
            case _:
                assert_never(outcome)
        if not target.pending:
            target.one_by_one = False
        self._schedule(write.key, target)
        return self._ledgers.told()

    def _is_own_trouble(self, target: _Target[S], flown: dict[str, _Slot[S]], after_s: float, now: float) -> bool:
        """Whether an Event fails while others are taken; it waits by itself then, and is handed back at last."""
        [(name, slot)] = flown.items()
        slot.failures += 1
        slot.not_before = now + after_s
        if slot.failures >= HAND_BACK_AFTER and self._writes_taken > slot.taken_before:
            del flown[name]
            self._leave(slot)
            for session in slot.claims:
                troubled = self._troubled.setdefault(session, {})
                troubled.pop(name, None)
                troubled[name] = None
                if len(troubled) > MAX_TROUBLED:
                    del troubled[next(iter(troubled))]
        return self._writes_taken > target.taken_before

    def _hand_back(self, target: _Target[S]) -> None:
        """Leave an object's values to the edge. The object is brought up to date without them as soon as that works."""
        target.is_given_up = target.touched = True
        for slot in target.pending.values():
            self._leave(slot)
        target.pending.clear()

    def _leave(self, slot: _Slot[S]) -> None:
        for session, numbers in slot.claims.items():
            self._ledgers.hand_back(session, traffic_of(slot.key), numbers)
            self.handed_back += len(numbers)

    def _put(self, node: Node, key: ObjectKey, field: str, slot: _Slot[S]) -> None:
        target = self._targets.setdefault(key, _Target())
        if target.node != node:
            self._settle_all(target.pending, dict.fromkeys(target.pending, MOVED))
            target.pending.clear()
            target.node = node
        if target.is_given_up:
            self._leave(slot)
            return
        if (older := target.pending.pop(field, None)) is not None:
            slot.inherit(older)
        if self._troubled and any(field in self._troubled.get(session, ()) for session in slot.claims):
            slot.failures = HAND_BACK_AFTER - 1
        target.pending[field] = slot
        self._schedule(key, target)

    def _put_back(self, write: Write, target: _Target[S], flown: dict[str, _Slot[S]]) -> None:
        if target.node != write.node and flown:
            self._settle_all(flown, dict.fromkeys(flown, MOVED))
            return
        for field, slot in flown.items():
            if (newer := target.pending.get(field)) is not None:
                newer.inherit(slot)
            elif slot.claims:
                target.pending[field] = slot
            else:
                # Whoever reported it has gone and will report it again. A touch may have gone with it.
                target.touched = True

    def _schedule(self, key: ObjectKey, target: _Target[S]) -> None:
        if target.flying is None and not target.is_due:
            self._agenda.set(key, target.not_before)

    def _settle_all(self, slots: Mapping[str, _Slot[S]], reasons: Mapping[str, str], cause: str = NOT_ITS_OWN) -> None:
        """These values are done with; `reasons` says which of them are refused."""
        for name, slot in slots.items():
            for session, numbers in slot.claims.items():
                traffic = traffic_of(slot.key)
                if name in reasons:
                    refused = RefusedReport(slot.key, slot.field, reasons[name])
                    self._ledgers.refuse(session, traffic, numbers, refused)
                    self.refused[cause] += len(numbers)
                else:
                    self._ledgers.settle(session, traffic, numbers)
                    self.taken_count += len(numbers)


def _next_event(pending: "Mapping[str, _Slot[S]]", now: float) -> str | None:
    """The first that may be tried; what has failed goes after what has not. None where all have to wait."""
    ready = (name for name, slot in pending.items() if slot.not_before <= now)
    return min(ready, key=lambda name: pending[name].failures, default=None)


def events_of(node: Node) -> ObjectKey:
    """What stands for all Events of a node, as the target of writes."""
    return ObjectKey(EVENTS, "", node)
