"""
Each rule of the design, switched off. A checker that cannot fail is no checker: every one of these must be noticed.

A mutation replaces one function of a shipped core, or of what stands in for a shell where the rule is the shell's to
keep, for as long as it is switched off.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from unittest.mock import patch

import cloudhub.outbox
import cloudhub.standings
import tests.sim.disk
from apimachinery.events import Change
from apimachinery.keys import Node, ObjectKey, ObjectVersion, Resource
from apimachinery.objects import Object
from apimachinery.resources import DEVICES
from apimachinery.watchcache import WatchCache
from cloudhub import projection
from cloudhub.fences import Claim, Fences, Permit, Standing
from cloudhub.horizon import Horizon
from cloudhub.interests import Decision, Interests, Judgement, Scope, affected, judged
from cloudhub.outbox import Desired, Flight, Outbox, Verdict
from cloudhub.placement import Affected, Placement
from cloudhub.session import Session
from cloudhub.sessions import Hub
from cloudhub.transfers import Transfer, Transfers
from edgehub.backlog import Backlog
from edgehub.session import EdgeSession
from link.frames import (
    Batch,
    Cursor,
    Delta,
    Frame,
    Hello,
    Interest,
    Inventory,
    Position,
    Refusal,
    Report,
    ReportAck,
    ReportEntry,
    Span,
)
from link.lanes import Inbox
from metamanager.intake import NotHeld, unfold
from tests.sim.access import SimAccess
from tests.sim.apiserver import SimApi
from tests.sim.checks import problems, run
from tests.sim.disk import SimDisk
from tests.sim.edge import SimEdge
from tests.sim.hub import SimHub
from tests.sim.world import Shape
from tests.sim.writer import SimWriter

Wanted = Mapping[ObjectKey, ObjectVersion]

_adopt, _hear = Outbox.adopt, Outbox.hear
_hello, _frame_received = Hub.hello, Session.frame_received
_observe, _replace, _list = Placement.observe, WatchCache.replace, SimHub._list
_judge, _judged, _affected, _decision = Hub._judge, judged, affected, SimAccess.decision
_apply, _disk_save = SimDisk.apply, SimDisk.save
_permit, _put_lease = Fences.permit, SimApi.put_lease
_reported = EdgeSession._reported
_next = Inbox.next
_commit, _save, _accept = SimEdge._commit, SimEdge._save, SimWriter.accept


# ---- what is known of a node


def _forget_what_was_lost(self: Outbox, seq: int) -> None:
    self.settle(seq)
    self._flights.clear()
    self.synced_told = False


def _keep_what_was_sent(self: Outbox, seq: int) -> None:
    self.settle(seq)
    for flight in self._flights:
        for key in flight.changes:
            self.mark(key)
    self.synced_told = False


def _resume_behind_acked(self: Outbox, cursor: Cursor | None, held: bytes, desired: Wanted) -> Verdict:
    if self._known is not None and cursor and cursor.epoch == self.epoch and cursor.seq <= self.acked:
        return Verdict.RESUME
    return _hear(self, cursor, held, desired)


def _resume_any_epoch(self: Outbox, cursor: Cursor | None, held: bytes, desired: Wanted) -> Verdict:
    if cursor is not None:
        cursor = Cursor(self.epoch, cursor.seq)
    return _hear(self, cursor, held, desired)


def _resume_whatever_landed(self: Outbox, cursor: Cursor | None, held: bytes, desired: Wanted) -> Verdict:
    if (
        self._known is not None
        and cursor is not None
        and cursor.epoch == self.epoch
        and self.acked <= cursor.seq <= self.sent_seq
    ):
        return Verdict.RESUME
    return _hear(self, None, held, desired)


def _never_survey(self: Outbox, cursor: Cursor | None, held: bytes, desired: Wanted) -> Verdict:
    verdict = _hear(self, cursor, held, desired)
    return Verdict.IDENTICAL if verdict is Verdict.SURVEY else verdict


def _only_newer(desired: Wanted, known: Wanted) -> Iterator[tuple[ObjectKey, ObjectVersion | None]]:
    numbers = SimApi.numbers
    for key, version in desired.items():
        held = known.get(key)
        if held is None or numbers.get(version, 0) > numbers.get(held, 0):
            yield key, version
    for key in known:
        if key not in desired:
            yield key, None


def _known_from_the_first_chunk(self: Session, frame: Frame) -> None:
    if not isinstance(frame, Inventory):
        _frame_received(self, frame)
    elif not self._inventory:
        self._inventory.update(frame.entries)
        self._hub.surveyed(self, self._inventory)


def _remember_what_was_desired(self: Hub, session: Session, hello: Hello) -> None:
    if (known := self._outboxes.get(session.node)) is not None:
        vars(known).pop("adopt", None)
    wanted = self.desired_by(session.node)
    _hello(self, session, hello)
    if (outbox := session.outbox) is not None:
        vars(outbox)["adopt"] = lambda held, _: _adopt(outbox, held, wanted)


def _leave_the_older_alone(self: Hub, session: Session, hello: Hello) -> None:
    self._sessions.pop(session.node, None)
    _hello(self, session, hello)


def _tell_only_the_new_node(self: Placement, change: Change) -> list[Affected]:
    return [each for each in _observe(self, change) if self.is_placed(each.node, each.key)]


def _never_retry(self: Outbox) -> None: ...


def _believe_what_followed(self: Outbox, seq: int, key: ObjectKey, reason: str) -> None:
    for place, flight in enumerate(self._flights):
        if flight.seq == seq and key in flight.changes:
            changes = dict(flight.changes)
            self.refused[key] = (changes.pop(key), reason)
            self._flights[place] = Flight(seq, changes)


def _forget_nacks(self: Outbox, seq: int, key: ObjectKey, reason: str) -> None: ...


# ---- parts


def _push_what_is_not_complete(
    self: Transfers, taken: int, has_room: Callable[[ObjectKey], bool] = lambda _: True
) -> Transfer | None:
    return next((each for each in self._all if not each.seq and each.number and taken and has_room(each.key)), None)


def _await_on_any_base(self: Outbox, key: ObjectKey, held: ObjectVersion | None) -> bool:
    return key in self.large


def _drop_what_has_changed(
    self: Outbox, key: ObjectKey, version: ObjectVersion, held: ObjectVersion | None, desired: Desired
) -> bool:
    return False


def _settled_without_what_is_large(self: Outbox) -> bool:
    return bool(self._dirty)


def _forget_what_changed_meanwhile(self: Outbox, key: ObjectKey) -> None:
    self.large.pop(key, None)


# ---- interests


def _delete_the_unknown(interests: Sequence[Interest], decisions: Mapping[Interest, Decision]) -> Judgement:
    return _judged(interests, decisions)._replace(kept=frozenset())


def _mark_nothing(scopes: Iterable[Scope], cache: WatchCache, held: Iterable[ObjectKey]) -> Iterator[ObjectKey]:
    return iter(())


def _mark_what_there_is(scopes: Iterable[Scope], cache: WatchCache, held: Iterable[ObjectKey]) -> Iterator[ObjectKey]:
    return _affected(scopes, cache, ())


def _judge_once(self: Hub, node: Node) -> None:
    if node in self._lobby:
        self._lobby._unpark(self._lobby._parked[node])


def _judge_without_a_push(self: Hub, node: Node) -> None:
    outbox = self._outboxes[node]
    told = outbox.synced_told
    _judge(self, node)
    outbox.synced_told = told


def _place_only(self: Interests, key: ObjectKey) -> list[Node]:
    return []


def _grant_what_is_not_listed(self: SimAccess, node: Node, interest: Interest) -> Decision:
    found = _decision(self, node, interest)
    known = self._decisions.get((node, interest), found)
    return known if found.is_pending else found


# ---- the watch


def _any_list(self: SimHub, resource: Resource) -> int:
    return self._world.rng.randint(0, self._world.api.version)


def _watch_from_now(self: SimHub, resource: Resource, *, newest: bool) -> None:
    _list(self, resource, newest=newest)
    self._positions[resource] = self._world.api.version


def _never_wait(self: Horizon, horizon: Iterable[Position]) -> frozenset[str]:
    return frozenset()


def _keep_what_a_list_lacks(
    self: WatchCache, resource: Resource, objects: Iterable[Object], version: str
) -> list[Change]:
    kept = {item.key: item for item in self.list(resource)[0]} | {item.key: item for item in objects}
    return _replace(self, resource, kept.values(), version)


# ---- the edge's disk and link


def _cursor_before_objects(self: SimDisk, batches: Sequence[Batch]) -> tuple[list[Change], dict[int, list[Refusal]]]:
    image = self.image.copy()
    image.cursor = batches[-1].cursor
    self._commit(image)
    return _apply(self, batches)


def _ack_before_commit(self: SimEdge, session: EdgeSession, batches: list[Batch]) -> None:
    session.committed(batches, {})
    _commit(self, session, batches)


def _leave_at_once(self: SimEdge) -> bool:
    self._committing = False
    return True


def _unfold_on_anything(delta: Delta, held: Object | None) -> Delta:
    try:
        return unfold(delta, held)
    except NotHeld:
        return delta._replace(body=b"" if held is None else held.body, base="")


# ---- the way up


def _write_before_the_lease_is_taken(self: Fences, node: Node, term: int, learned: int) -> Permit:
    return Permit.WRITE if self.standing(node) is Standing.WAITING else _permit(self, node, term, learned)


def _write_whatever_was_learned(self: Fences, node: Node, term: int, learned: int) -> Permit:
    return _permit(self, node, term, -1)


def _write_when_superseded(self: Fences, node: Node, term: int, learned: int) -> Permit:
    permit = _permit(self, node, term, learned)
    return Permit.WRITE if permit is Permit.NEVER else permit


def _go_on_when_overtaken(self: Hub, node: Node, term: int, newest: int, *, was_last: bool) -> None: ...


def _take_blindly(self: SimApi, node: Node, base: Claim | None, term: int, replica: str) -> Claim:
    return _put_lease(self, node, self.leases.get(node), term, replica)


def _settle_what_was_sent(self: SimEdge, session: EdgeSession) -> None:
    self.disk.settle_reports(list(self._backlog._under_way))


def _keep_the_row(self: SimDisk, documents: Mapping[str, bytes | None], reports: Sequence[ReportEntry]) -> None:
    rows = {name: row for name, (row, _) in self.image.reports.items()}
    _disk_save(self, documents, reports)
    for entry in reports:
        if (row := rows.get((entry.key, entry.field))) is not None:
            self.image.reports[entry.key, entry.field] = (row, entry.value)


def _ack_what_came(self: SimWriter, node: Node, session: Session, report: Report) -> None:
    _accept(self, node, session, report)
    last = report.first + len(report.entries) - 1
    self._owner.hub.reported(session, ReportAck(report.traffic, (Span(report.first, last),)))
    self._reporters.pop(session)


def _settle_all_before(self: EdgeSession, ack: ReportAck) -> None:
    rows = self._rows[ack.traffic]
    last = max((span.last for span in ack.settled), default=0)
    before = [row for number, (row, _) in rows.items() if number < last]
    _reported(self, ack)
    self._outcomes[ack.traffic].done.extend(row for row in before if row not in self._outcomes[ack.traffic].done)


def _settle_what_comes_back(self: EdgeSession, ack: ReportAck) -> None:
    _reported(self, ack._replace(settled=(*ack.settled, *ack.later), later=()))


def _never_look(self: Backlog, now: float) -> None: ...


def _tell_before_saving(self: SimEdge) -> None:
    """Told the device before it was durable: what was said is gone with a crash."""
    assert self._unsaved is not None, "_step_twins comes first"
    outcome, taken = self._unsaved
    self._acknowledge(taken)
    self._unsaved = (outcome, 0)
    self._later(self._world.rng.random() * 3.0, lambda: _save(self))


def _show_everything(body: dict[str, Any]) -> None: ...


# ---- the table


def _hand_on_what_is_there(self: Inbox, is_streaming: bool) -> bytes | None:
    return _next(self, True)


class Mutation(NamedTuple):
    """A rule, and the world without it."""

    rule: str
    owner: object
    name: str
    broken: object
    shape: Shape | None = None
    """What all its schedules are like; drawn by their seeds where there is none."""


class Row(NamedTuple):
    """What became of the schedules that ran without a rule."""

    rule: str
    schedules: int
    wrong: int
    first: int | None
    """The first seed that noticed."""


_IN_PARTS = Shape(delays_s=(0.3,), commits_s=(0.3, 1.5), large=100, aside=False, interests=True)
_INTERESTED = Shape(hubs=2, delays_s=(0.01, 0.3), interests=True)
_LANES = Shape(lanes=True, interests=True)
_TWO_REPLICAS = Shape(hubs=2, delays_s=(0.01, 0.3))
"""For rules that matter only where two replicas meet within a moment: one schedule in a thousand, else."""

MUTATIONS: tuple[Mutation, ...] = (
    Mutation("what was lost is dirty again", Outbox, "rewind", _forget_what_was_lost),
    Mutation("sent := known on resume", Outbox, "rewind", _keep_what_was_sent),
    Mutation("the cursor is in the objects' transaction", SimDisk, "apply", _cursor_before_objects),
    Mutation("a cursor behind what was acked asks for the inventory", Outbox, "hear", _resume_behind_acked),
    Mutation("the epoch is checked", Outbox, "hear", _resume_any_epoch),
    Mutation("what landed without an Ack is borne out by the digest", Outbox, "hear", _resume_whatever_landed),
    Mutation("a digest that differs asks for the inventory", Outbox, "hear", _never_survey),
    Mutation("versions are compared for equality only", cloudhub.outbox, "diff", _only_newer),
    Mutation("known is void until the inventory is complete", Session, "frame_received", _known_from_the_first_chunk),
    Mutation("the inventory is compared with what is desired then", Hub, "hello", _remember_what_was_desired),
    Mutation("the old connection ends before the new Hello is acted on", Hub, "hello", _leave_the_older_alone),
    Mutation("what moves is dirty where it was, too", Placement, "observe", _tell_only_the_new_node),
    Mutation("a push names what has come whole", Transfers, "whole", _push_what_is_not_complete, _IN_PARTS),
    Mutation("a transfer ends with what it was made of", Outbox, "awaits", _await_on_any_base, _IN_PARTS),
    Mutation("what is large and has changed arrives", Outbox, "may_land", _drop_what_has_changed, _IN_PARTS),
    Mutation(
        "synced is not said while something comes in parts",
        Outbox,
        "has_dirty",
        property(_settled_without_what_is_large),
        _IN_PARTS,
    ),
    Mutation("what was dropped is looked at again", Outbox, "look_again", _forget_what_changed_meanwhile, _IN_PARTS),
    Mutation("what is not known of an interest stays", cloudhub.standings, "judged", _delete_the_unknown, _INTERESTED),
    Mutation(
        "what an interest selects is dirty once decided", cloudhub.standings, "affected", _mark_nothing, _INTERESTED
    ),
    Mutation("what a node holds of it is dirty, too", cloudhub.standings, "affected", _mark_what_there_is, _INTERESTED),
    Mutation("a decision that changes counts at once", Hub, "decided", _judge_once, _INTERESTED),
    Mutation("a synced push follows a Granted", Hub, "_judge", _judge_without_a_push, _INTERESTED),
    Mutation("a change goes to who is interested", Interests, "nodes", _place_only, _INTERESTED),
    Mutation("what is granted was listed", SimAccess, "decision", _grant_what_is_not_listed, _INTERESTED),
    Mutation("a refused object is not known to be held", Outbox, "refuse", _forget_nacks),
    Mutation("what follows a refused version is in doubt", Outbox, "refuse", _believe_what_followed),
    Mutation("a refused object is tried again", Outbox, "retry_refused", _never_retry),
    Mutation("a hub that has seen less than its node was told of waits", Horizon, "behind", _never_wait),
    Mutation("what a list lacks is deleted", WatchCache, "replace", _keep_what_a_list_lacks),
    Mutation("a list is not older than what was seen", SimHub, "not_older_than", _any_list),
    Mutation("the watch goes on from the list's version", SimHub, "_list", _watch_from_now),
    Mutation("ack after commit", SimEdge, "_commit", _ack_before_commit),
    Mutation("the running commit ends before the next Hello", SimEdge, "_may_leave", _leave_at_once),
    Mutation("the base of a patch is checked", tests.sim.disk, "unfold", _unfold_on_anything),
    Mutation("a device is told after what it said is durable", SimEdge, "_save", _tell_before_saving),
    Mutation("a report's row goes after its ReportAck only", SimEdge, "_settle_rows", _settle_what_was_sent),
    Mutation("a report put again gets a new row number", SimDisk, "save", _keep_the_row),
    Mutation(
        "reports wait until the Lease is taken", Fences, "permit", _write_before_the_lease_is_taken, shape=_TWO_REPLICAS
    ),
    Mutation(
        "what was learned is written over once the Lease is confirmed", Fences, "permit", _write_whatever_was_learned
    ),
    Mutation("a session that is over writes nothing", Fences, "permit", _write_when_superseded),
    Mutation("a session that is overtaken ends", Hub, "overtaken", _go_on_when_overtaken),
    Mutation(
        "the Lease is taken at the version that was read", SimApi, "put_lease", _take_blindly, shape=_TWO_REPLICAS
    ),
    Mutation("ReportAck after the apiserver took it", SimWriter, "accept", _ack_what_came),
    Mutation("a row goes with its own acknowledgement", EdgeSession, "_reported", _settle_all_before),
    Mutation("what is handed back stays", EdgeSession, "_reported", _settle_what_comes_back),
    Mutation("what is handed back is sent again", Backlog, "look", _never_look),
    Mutation("nothing of another lane overtakes the handshake", Inbox, "next", _hand_on_what_is_there, shape=_LANES),
    Mutation(
        "a report is no change for its node", projection, "_BY_COLLECTION", {DEVICES.collection: _show_everything}
    ),
)


def tried(mutation: Mutation, seeds: Iterable[int], *, until_noticed: bool = False) -> Row:
    """Run schedules with a rule switched off. A schedule that ends in an exception has noticed, too."""
    schedules = wrong = 0
    first: int | None = None
    with patch.object(mutation.owner, mutation.name, mutation.broken):
        for seed in seeds:
            schedules += 1
            if not is_wrong(seed, mutation.shape):
                continue
            wrong += 1
            first = seed if first is None else first
            if until_noticed:
                break
    return Row(mutation.rule, schedules, wrong, first)


def is_wrong(seed: int, shape: Shape | None = None) -> bool:
    try:
        return bool(problems(run(seed, shape=shape)))
    except Exception:  # whatever a broken rule throws, as an assertion or a refusal by the peer's state machine
        return True


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Lines of markdown."""
    yield "| rule switched off | schedules | wrong | first seed |"
    yield "|---|---:|---:|---:|"
    for rule, schedules, wrong, first in rows:
        yield f"| {rule} | {schedules} | {wrong} | {'none' if first is None else first} |"
