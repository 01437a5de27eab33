"""
What nodes report, on its way into the apiserver: the last value per field of an object, written at a
bounded rate, acknowledged when the apiserver took it.

A node may report a property a thousand times a second; the apiserver sees it twice a second and always
with the last value. A Report frame is acknowledged when each of its values was taken, or was followed by
a later value of the same field that was taken, or is refused for good.

    accept()   values come in; what nobody may report is refused at once
    due()      gives the objects whose turn it is, each at most once until finished()
    finished() tells what became of it, and gives what may be acknowledged now
    close()    a session is gone; its values go with it unless a write is already under way

Kubernetes Events are no state: each is written once, and what one hub wrote is already written for every other (its
name says so). All Events of one node are one object here, so that they have one writer and one rate however many a
node tells; due() gives them one at a time.

Why close() forgets. The node kept what was not acknowledged and reports it again, here or to another
replica, where a newer value may be written in the meantime: an older one that waited here would undo it.

Invariants
    at most one write per object is under way, and they start at least min_interval_s apart, but for what
    a conflict makes repeat
    a value is acknowledged only after a write that carried it, or a later one of its field, was taken
    acknowledgements of a session rise, and leave out no refusal
    memory is bounded by the number of objects and fields that are admitted, and by the sessions' windows

Pure state: no clock, no I/O. The shell is cloudhub/statuswriter.py.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar, assert_never

from apimachinery.devices import NODE_INFO_FIELD, PROPERTY_FIELD, STATE_FIELD, PropertyReport
from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import EVENT_FIELD, KubeEvent
from apimachinery.objects import JSON
from apimachinery.resources import DEVICES, EVENTS, NODES
from cloudhub.agenda import Agenda
from cloudhub.devices import StateReport
from link.frames import RefusedReport, ReportEntry

MIN_INTERVAL_S = 0.5  # two writes a second per device: as fast as a person can read, 1 % of what etcd does
EVENT_INTERVAL_S = 0.02  # between two Events of one node: 50 a second, as many as a kubelet tells (eventRecordQPS)
MAX_REFUSED = 1000  # in one acknowledgement, but for those of one Report, which the link bounds: each is at most 2 KB
MAX_TEXT_CHARACTERS = 256
MAX_NODE_ENTRIES = 64

MOVED = "the object belongs to another node now"

# Causes of refusals, in the style of the apiserver's own, which are the others there are (apimachinery.errors).
MALFORMED = "Malformed"
NOT_ITS_OWN = "NotItsOwn"

S = TypeVar("S", bound=Hashable)


class NodeReport(NamedTuple):
    """What an edge reports of its machine; the fields of a Node's status by these names."""

    node_info: Mapping[str, str]
    addresses: tuple[tuple[str, str], ...]
    """Type and address, for example ("InternalIP", "192.0.2.7")."""
    capacity: Mapping[str, str]


Value = PropertyReport | StateReport | NodeReport | KubeEvent


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


class Taken(NamedTuple):
    """The apiserver has the values, but for those refused for good."""

    refused: Mapping[str, str] = {}
    """Field to reason."""


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


Outcome = Taken | Refused | Retry


class Acknowledgement(NamedTuple, Generic[S]):
    """The session's reports up to `seq` are settled."""

    session: S
    seq: int
    refused: tuple[RefusedReport, ...]


class _Slot(Generic[S]):
    """One field's value, and which Reports wait for it."""

    __slots__ = ("claims", "field", "key", "value")

    def __init__(self, key: ObjectKey, field: str, value: Value) -> None:
        self.key = key
        self.field = field
        """Both as they were reported."""
        self.value = value
        self.claims: defaultdict[S, list[int]] = defaultdict(list)

    def inherit(self, older: "_Slot[S]") -> None:
        """What was waiting for an older value of the field waits for this one now."""
        for session, seqs in older.claims.items():
            self.claims[session] += seqs


class _Target(Generic[S]):
    """One object that something is reported of."""

    __slots__ = ("failures", "flying", "node", "not_before", "one_by_one", "pending", "touched")

    def __init__(self) -> None:
        self.node = Node("")
        self.pending: dict[str, _Slot[S]] = {}
        self.flying: dict[str, _Slot[S]] | None = None
        """None when no write is under way; empty when one without values is."""
        self.touched = False
        self.not_before = 0.0
        self.failures = 0
        self.one_by_one = False
        """A write of several values was refused: find out which it was."""


class _Ledger(NamedTuple):
    """What one session waits for."""

    open: dict[int, int]
    """Values still outstanding, by Report."""
    refused: dict[int, list[RefusedReport]]
    keys: set[ObjectKey]


class _NotItsOwn(ValueError):
    """The node may not report this."""


class Reports(Generic[S]):
    """
    All reports of one hub. S is whatever stands for a session.

    admit: why this node may not report this field of this object, as a sentence; None when it may. For an Event it is
    asked about what the Event is about, and the field is "event".
    """

    def __init__(
        self,
        admit: Callable[[Node, ObjectKey, str], str | None],
        *,
        min_interval_s: float = MIN_INTERVAL_S,
        event_interval_s: float = EVENT_INTERVAL_S,
    ) -> None:
        self.taken_count = 0
        """Values that the apiserver has, or a later one of their field."""
        self.refused: Counter[str] = Counter({MALFORMED: 0, NOT_ITS_OWN: 0})
        """Values that it will never have, by cause."""
        self._admit = admit
        self._min_interval_s = min_interval_s
        self._event_interval_s = event_interval_s
        self._targets: dict[ObjectKey, _Target[S]] = {}
        self._agenda: Agenda[ObjectKey] = Agenda()
        self._ledgers: dict[S, _Ledger] = {}

    def __len__(self) -> int:
        """Objects with something to write, under way, or written so recently that their next turn is not yet."""
        return len(self._targets)

    def accept(self, node: Node, session: S, seq: int, entries: Iterable[ReportEntry]) -> list[Acknowledgement[S]]:
        """
        Take a Report in. `seq` follows the session's last; the peer has checked that.

        Gives an acknowledgement where nothing has to be written for it, as when all of it is refused.
        """
        ledger = self._ledgers.setdefault(session, _Ledger({}, {}, set()))
        assert seq not in ledger.open, "a Report's number is used once"
        ledger.open[seq] = 0
        sessions = {session}
        for entry in entries:
            try:
                slot: _Slot[S] = _Slot(entry.key, entry.field, self._parsed(node, entry))
            except ValueError as exc:
                self.refused[NOT_ITS_OWN if isinstance(exc, _NotItsOwn) else MALFORMED] += 1
                ledger.refused.setdefault(seq, []).append(RefusedReport(entry.key, entry.field, str(exc)))
                continue
            slot.claims[session].append(seq)
            ledger.open[seq] += 1
            is_event = isinstance(slot.value, KubeEvent)
            target, field = (events_of(node), _path(entry.key)) if is_event else (entry.key, entry.field)
            ledger.keys.add(target)
            self._put(node, target, field, slot, sessions)
        return self._settled(sessions)

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

    def touch(self, key: ObjectKey, at: float = 0.0) -> None:
        """
        Bring this object's status up to date, though nothing was reported: give it a Write.

        at: no earlier than then, unless a report comes first. One that is coming anyway then costs no write of its own.
        """
        target = self._targets.setdefault(key, _Target())
        if target.touched:
            return
        target.touched = True
        if target.flying is None and not target.pending:
            self._agenda.set(key, max(target.not_before, at))

    def close(self, session: S) -> None:
        """Nobody waits for this session's acknowledgements any more."""
        ledger = self._ledgers.pop(session, None)
        if ledger is None:
            return
        for key in ledger.keys:
            target = self._targets.get(key)
            if target is None:
                continue
            for slot in (target.flying or {}).values():
                slot.claims.pop(session, None)
            for field, slot in list(target.pending.items()):
                slot.claims.pop(session, None)
                if not slot.claims:
                    del target.pending[field]

    def due(self, now: float, most: int) -> list[Write]:
        """Up to `most` objects to write now. Each must be finished()."""
        writes: list[Write] = []
        while len(writes) < most and (key := self._agenda.take(now)) is not None:
            target = self._targets[key]
            if not target.pending and not target.touched:
                del self._targets[key]
                continue
            assert target.flying is None, "what is under way stands on no agenda"
            is_events = key.resource == EVENTS
            if (target.one_by_one or is_events) and len(target.pending) > 1:
                first = next(iter(target.pending))
                target.flying = {first: target.pending.pop(first)}
            else:
                target.flying, target.pending = target.pending, {}
            target.touched = False
            target.not_before = now + (self._event_interval_s if is_events else self._min_interval_s)
            values = {field: slot.value for field, slot in target.flying.items()}
            writes.append(Write(key, target.node if values else Node(""), values, target.failures))
        return writes

    def next_deadline(self) -> float | None:
        """When due() may give something; None when only a report can change that."""
        return self._agenda.next_deadline()

    def finished(self, write: Write, outcome: Outcome, now: float) -> list[Acknowledgement[S]]:
        """What became of a write that due() gave."""
        target = self._targets[write.key]
        flown = target.flying
        assert flown is not None, "a write is finished once"
        target.flying = None
        target.failures = 0
        sessions: set[S] = set()
        match outcome:
            case Taken(refused):
                self._settle_all(flown, refused, sessions)
            case Refused(reason, divisible, cause) if not divisible or len(flown) <= 1:
                self._settle_all(flown, dict.fromkeys(flown, reason), sessions, cause)
                # Without the value that was to blame the rest of the status can be brought up to date.
                target.touched = target.touched or (divisible and bool(flown))
            case Refused():
                target.one_by_one = True
                target.not_before = now
                self._put_back(write, target, flown, sessions)
            case Retry(after_s):
                target.failures = write.failures + 1
                # At once is for a conflict: our copy was old. All else keeps its distance, however small the jitter.
                target.not_before = max(target.not_before, now + after_s) if after_s else now
                target.touched = target.touched or not flown
                self._put_back(write, target, flown, sessions)
            case _:
                assert_never(outcome)
        if not target.pending:
            target.one_by_one = False
        self._schedule(write.key, target)
        return self._settled(sessions)

    def _put(self, node: Node, key: ObjectKey, field: str, slot: _Slot[S], sessions: set[S]) -> None:
        target = self._targets.setdefault(key, _Target())
        if target.node != node:
            self._settle_all(target.pending, dict.fromkeys(target.pending, MOVED), sessions)
            target.pending.clear()
            target.node = node
        if (older := target.pending.pop(field, None)) is not None:
            slot.inherit(older)
        target.pending[field] = slot
        self._schedule(key, target)

    def _put_back(self, write: Write, target: _Target[S], flown: dict[str, _Slot[S]], sessions: set[S]) -> None:
        if target.node != write.node and flown:
            self._settle_all(flown, dict.fromkeys(flown, MOVED), sessions)
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
        if target.flying is None:
            self._agenda.set(key, target.not_before)

    def _settle_all(
        self, slots: Mapping[str, _Slot[S]], reasons: Mapping[str, str], sessions: set[S], cause: str = NOT_ITS_OWN
    ) -> None:
        """These values are done with; `reasons` says which of them are refused. Adds whom that concerns."""
        for name, slot in slots.items():
            for session, seqs in slot.claims.items():
                ledger = self._ledgers[session]
                for seq in seqs:
                    ledger.open[seq] -= 1
                    if name in reasons:
                        refused = RefusedReport(slot.key, slot.field, reasons[name])
                        ledger.refused.setdefault(seq, []).append(refused)
                if name in reasons:
                    self.refused[cause] += len(seqs)
                else:
                    self.taken_count += len(seqs)
                sessions.add(session)

    def _settled(self, sessions: Iterable[S]) -> list[Acknowledgement[S]]:
        """Reports are acknowledged in their order: up to the first that still waits for something."""
        found: list[Acknowledgement[S]] = []
        for session in sessions:
            ledger = self._ledgers[session]
            through = 0
            refused: list[RefusedReport] = []
            while ledger.open and not ledger.open[oldest := next(iter(ledger.open))]:
                more = ledger.refused.pop(oldest, [])
                if refused and len(refused) + len(more) > MAX_REFUSED:
                    found.append(Acknowledgement(session, through, tuple(refused)))
                    refused = []
                through = oldest
                del ledger.open[oldest]
                refused += more
            if through:
                found.append(Acknowledgement(session, through, tuple(refused)))
        return found


def events_of(node: Node) -> ObjectKey:
    """What stands for all Events of a node, as the target of writes."""
    return ObjectKey(EVENTS, "", node)


def _path(key: ObjectKey) -> str:
    return f"{key.namespace}/{key.name}"


def parse(entry: ReportEntry) -> Value:
    """The value of a report. Raises ValueError with what is wrong; the sender is a peer, so all of it is checked."""
    try:
        text = entry.value.decode()
        value = json.loads(text)
        if "\\u" in text:  # an escape can still make half a surrogate pair, which no request to an apiserver can carry
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("the value is not JSON: it has half a surrogate pair") from None
    except (ValueError, RecursionError):
        raise ValueError("the value is not JSON") from None
    collection = entry.key.resource.collection
    if collection == DEVICES.collection and entry.field.startswith(PROPERTY_FIELD):
        return PropertyReport.from_json(value)
    if collection == DEVICES.collection and entry.field == STATE_FIELD:
        return _state(value)
    if collection == NODES.collection and entry.field == NODE_INFO_FIELD:
        return _node_report(value)
    if entry.key.resource == EVENTS and entry.field == EVENT_FIELD:
        event = KubeEvent.from_json(value)
        if event.key != entry.key:
            raise ValueError(f"the Event is {_path(event.key)}, not what its report says")
        return event
    raise ValueError(f'{collection} has no field "{entry.field}" to report')


def _state(value: JSON) -> StateReport:
    if not isinstance(value, dict):
        raise ValueError("a state must be an object")  # noqa: TRY004 - the caller refuses on ValueError
    texts = {name: _text(name, value.get(name) or "") for name in ("lastOnlineTime", "problem")}
    return StateReport(_text("state", value.get("state")), texts["lastOnlineTime"], texts["problem"])


def _node_report(value: JSON) -> NodeReport:
    if not isinstance(value, dict):
        raise ValueError("nodeInfo must be an object")  # noqa: TRY004
    addresses = value.get("addresses", [])
    if not isinstance(addresses, list) or len(addresses) > MAX_NODE_ENTRIES:
        raise ValueError(f"addresses must be a list of at most {MAX_NODE_ENTRIES}")
    pairs = tuple(tuple(sorted(_texts("an address", entry).items())) for entry in addresses)
    if not all([name for name, _ in pair] == ["address", "type"] for pair in pairs):
        raise ValueError("an address has a type and an address")
    return NodeReport(
        _texts("nodeInfo", value.get("nodeInfo", {})),
        tuple((pair[1][1], pair[0][1]) for pair in pairs),
        _texts("capacity", value.get("capacity", {})),
    )


def _texts(what: str, value: JSON) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_NODE_ENTRIES:
        raise ValueError(f"{what} must be an object of at most {MAX_NODE_ENTRIES} fields")
    return {name: _text(f"{what}.{name}", text) for name, text in value.items()}


def _text(what: str, value: JSON) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"{what} must be a string of at most {MAX_TEXT_CHARACTERS} characters")
    return value
