"""
One edgecore process on one disk, and the devices that speak to it.

EdgeSession, Fleet with everything under it, and what the store makes of deltas are the shipped ones. What stands
here for the shells keeps their rules: commit, then acknowledge (edgehub/connector.py); the running commit ends
before the next Hello is built; make durable, then publish and acknowledge to the device (devicetwin/service.py);
delete a report's row only when the cloud has it.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from apimachinery.events import Change, EventType
from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import revision_of
from devicetwin.documents import read_documents
from devicetwin.fleet import Fleet, Moment, Outcome
from devicetwin.messages import Channel, Delta, DeviceTopic, StateUpdate, TwinEntry, TwinUpdate, Value, parse_topic
from devicetwin.wire import Publication, id_of, key_of
from edgehub.backlog import Backlog
from edgehub.session import EdgeSession
from link.errors import LinkClosed, LinkError, RemoteProtocolError
from link.frames import Batch, GoodbyeCode, Interest, Position, Refusal, Traffic
from link.pushcodec import decode_delta
from tests.sim.access import STEADY, STEADY_KEY
from tests.sim.clock import MachineClock
from tests.sim.disk import DiskFull, SimDisk
from tests.sim.network import SimTransport
from tests.sim.surroundings import Surroundings

FULL_DISK_RETRY_S = 0.3


class Said(NamedTuple):
    """A reading."""

    uid: str
    """The Device's."""
    value: str


class SimEdge:
    """One node."""

    def __init__(self, world: Surroundings, node: Node) -> None:
        self._world = world
        self.node = node
        self.disk = SimDisk()
        self.crash_at = ""
        """Where the next commit is interrupted: "during" it, "after" it but before the ack, or not at all: ""."""
        self.generation = 0
        self.dials = 0
        self.seen: defaultdict[tuple[str, ObjectKey], list[ObjectVersion | None]] = defaultdict(list)
        """By replica and object: every state that this replica had this edge commit."""
        self.lived: defaultdict[tuple[int, ObjectKey], list[ObjectVersion | None]] = defaultdict(list)
        """The same of all replicas, by how often the disk had been rolled back by then."""
        self.rolled_back = 0
        self.terms_lost = 0
        """How often it died with a term that a full disk had not kept, and began behind it, as after a roll-back."""
        self.untaken: set[ObjectKey] = set()
        """What could not be taken in when it came last."""
        self.incomplete: list[ObjectKey] = []
        """What was not here when it was said to be; must stay empty."""
        self.unlike: list[ObjectKey] = []
        """Objects that ever stood here with a body that is not the version it says; must stay empty."""
        self.said: dict[tuple[ObjectKey, str], Said] = {}
        """The last reading of each property that its device was told to be durable."""
        self.inbox: deque[tuple[str, bytes, tuple[ObjectKey, str, str] | None]] = deque()
        """What devices have said and were not yet told that it is durable. The broker keeps it."""
        self.end: SimTransport | None = None
        self.handed_back = 0
        """How many reports came back, to be sent later."""
        self.broken: list[str] = []
        """Complaints about the protocol, of either end; must stay empty."""
        self.superseded = 0
        """How often it heard of the connection that it had that another took over."""
        self.start()

    def start(self) -> None:
        self.generation += 1
        self.clock: MachineClock = self._world.new_machine()
        self.session: EdgeSession | None = None
        self.replica = ""
        self._term = 0
        self._known_term = 0
        self._is_ahead = False
        self.ahead = 0
        """How often a hub said that a term is of the future."""
        self._woken = False
        self._committing = False
        self._backlog = Backlog()
        self._fleet: Fleet | None = None
        self.complete: set[Interest] = set()
        """As this process was told."""
        self._changes: list[Change] = []
        self._unsaved: tuple[Outcome, int] | None = None
        self._twins_due = False
        self._ids = 0
        self._later(self._world.rng.choice([0.0, 0.05, 0.5]), self.dial)
        self.twins_soon()

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Unless this process is dead by then."""
        generation = self.generation
        self._world.clock.call_later(delay_s, lambda: call() if generation == self.generation else None)

    # The link

    def dial(self) -> None:
        reached = self._world.dial(self.node)
        if reached is None:
            self._later(0.5, self.dial)
            return
        self.end, hand_over, self.replica = reached
        self.dials += 1
        session = self.session = EdgeSession(self.node, agent="sim", clock=self.clock, wake=self._wake, unfolds=True)
        self._backlog = Backlog()
        hand_over()
        self.end.receiving = session.opened(self.end)
        cursor, digest = self.disk.image.cursor, self.disk.digest()
        self._term = self.disk.next_term(self._term, self._known_term, self.clock.wall_ms(), is_reset=self._is_ahead)
        horizon = tuple(map(Position._make, self.disk.image.horizon.items()))
        session.greet(cursor, digest, self._term, horizon, self.disk.image.interests)

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._later(self._world.rng.random() * 0.02, self._work)

    def _work(self) -> None:
        self._woken = False
        session = self.session
        if session is None:
            return
        if session.error is not None:
            if self._may_leave():
                if isinstance(session.error, LinkClosed):
                    self._is_ahead = session.error.code is GoodbyeCode.AHEAD
                    self.ahead += self._is_ahead
                    self._known_term = max(0 if self._is_ahead else self._known_term, session.error.term)
                    self.superseded += session.error.code is GoodbyeCode.SUPERSEDED
                if isinstance(session.error, RemoteProtocolError) or _is_complaint(session.error):
                    self.broken.append(str(session.error))
                self.session = None
                self._later(self._world.rng.choice([0.0, 0.05, 0.5]), self.dial)
            return
        if (body := session.take_arrived()) is not None:
            made = decode_delta(body)
            self._later(self._world.rng.random() * 0.05, lambda: session.unfolded(made))
        self._hear_of_interests(session)
        if session.wants_inventory and not self._committing:
            session.send_inventory(self.disk.held())
        if not self._committing and (batches := session.take_batches()):
            self._commit(session, batches)
        try:
            self._settle_rows(session)
        except DiskFull:
            session.pump.close(GoodbyeCode.SHUTDOWN, "the disk is full")
            return
        self.send_reports()

    def _may_leave(self) -> bool:
        """Everything that a session started has ended before the next Hello is built."""
        return not self._committing

    # Down

    def _commit(self, session: EdgeSession, batches: list[Batch]) -> None:
        self._committing = True
        self._later(self._world.rng.choice(self._world.commits_s), lambda: self._commit_ends(session, batches))

    def _commit_ends(self, session: EdgeSession, batches: list[Batch]) -> None:
        self._committing = False
        fault, self.crash_at = self.crash_at, ""
        if fault == "during":
            self.crash()
            return
        try:
            refusals = self._apply(session, batches)
        except DiskFull:
            if session.error is None:
                session.pump.close(GoodbyeCode.SHUTDOWN, "the disk is full")
        else:
            if fault == "after":
                self.crash()
                return
            session.committed(batches, refusals)
            self._hear_of_interests(session)
            self._check(session)
        self._wake()

    # Interests

    def want(self, interests: tuple[Interest, ...]) -> None:
        """What is read here is something else from now on: remembered first, then told (metamanager's to keep)."""
        try:
            self.disk.want(interests)
        except DiskFull:
            return
        self.complete = self.complete & set(interests)
        if self.session is not None:
            self.session.want(interests)

    def _hear_of_interests(self, session: EdgeSession) -> None:
        for decided in session.take_decided():
            self.complete = self.complete & set(decided.granted)
        for completed in session.take_completed():
            self.complete = self.complete | set(completed)
            if STEADY in completed and STEADY_KEY not in self.disk.image.objects and STEADY_KEY not in self.untaken:
                self.incomplete.append(STEADY_KEY)

    def _check(self, session: EdgeSession) -> None:
        """Ask now and then whether hub and node agree; the checkers count it as a fault where they do not."""
        cursor = self.disk.image.cursor
        if cursor is not None and self._world.rng.random() < 0.1:
            session.check(cursor, self.disk.digest())

    def _apply(self, session: EdgeSession, batches: Sequence[Batch]) -> dict[int, list[Refusal]]:
        replica = self.replica
        changes, refusals = self.disk.apply(batches)
        for batch in batches:
            refused = {refusal.key for refusal in refusals.get(batch.cursor.seq, ())}
            self.untaken = (self.untaken - {delta.key for delta in batch.deltas}) | refused
            for delta in batch.deltas:
                if delta.key not in refused:
                    self.seen[replica, delta.key].append(delta.version)
                    self.lived[self.rolled_back, delta.key].append(delta.version)
                held = self.disk.image.objects.get(delta.key)
                if held is not None and revision_of(held[1]) != held[0].revision:
                    self.unlike.append(delta.key)
        for change in changes:
            if change.type is EventType.DELETED:
                self._forget_said(change.object.key)
        if changes:
            self._changes += changes
            self.twins_soon()
        elif self._fleet is None:
            self.twins_soon()
        return refusals

    # Up

    def _settle_rows(self, session: EdgeSession) -> None:
        done, _, later = session.take_reported(Traffic.DEVICES)
        self.disk.settle_reports(done)
        self._backlog.settle(done)
        self._backlog.hand_back(later, self.clock.time(), self._world.rng.random)
        self.handed_back += len(later)
        if (due := self._backlog.next_look()) is not None:
            self._later(max(0.0, due - self.clock.time()) / 0.9, self._wake)

    def send_reports(self) -> None:
        session = self.session
        if session is None or not session.report_room(Traffic.DEVICES):
            return
        self._backlog.look(self.clock.time())
        read = self.disk.pending_reports(self._backlog.after)
        if read:
            if rows := self._backlog.choose(read[: self._world.rng.randint(1, len(read))], self.clock.time()):
                session.report(rows, Traffic.DEVICES)
            self._wake()

    # Twins

    def says(self, device: ObjectKey, name: str, value: str, answers: int | None = None) -> None:
        """A device has a reading."""
        self._ids += 1
        entry = TwinEntry(actual=Value(value), type="int", expected_version=answers)
        update = TwinUpdate(f"e{self._ids}", 0, {name: entry})
        self.inbox.append((Channel.TWIN_UPDATE.topic(id_of(device)), update.encode(), (device, name, value)))
        self.twins_soon()

    def says_state(self, device: ObjectKey, state: str) -> None:
        """A device's mapper says how it is."""
        self._ids += 1
        topic = Channel.STATE_UPDATE.topic(id_of(device))
        self.inbox.append((topic, StateUpdate(f"e{self._ids}", 0, state).encode(), None))
        self.twins_soon()

    def twins_soon(self) -> None:
        if not self._twins_due:
            self._twins_due = True
            self._later(self._world.rng.random() * 0.05, self._step_twins)

    def _step_twins(self) -> None:
        """One batch of news: what changed in the store, and what devices said."""
        self._twins_due = False
        if self._unsaved is not None or not self.disk.image.synced:
            return
        outcome = Outcome()
        moment = Moment(self.clock.wall_ms(), self._new_id)
        fleet = self._fleet
        changes, self._changes = self._changes, []
        if fleet is None:
            fleet = self._fleet = Fleet(self.node, read_documents(self.disk.image.documents))
            fleet.declare(fleet.take_snapshot(self.disk.objects(), moment, outcome), moment, outcome)
            fleet.declare(fleet.take_online(moment, outcome), moment, outcome)
        elif changes:
            fleet.declare(fleet.take_changes(changes, moment, outcome), moment, outcome)
        taken = len(self.inbox)
        for topic, payload, _ in self.inbox:
            fleet.take_message(topic, payload, moment, outcome)
        fleet.seal(outcome)
        self._unsaved = (outcome, taken)
        self._save()

    def _save(self) -> None:
        """Until it is committed: the twins went on already, and what they answer must be true."""
        assert self._unsaved is not None, "_step_twins comes first"
        outcome, taken = self._unsaved
        if not outcome.is_durable:
            try:
                self.disk.save(outcome.documents, outcome.reports)
            except DiskFull:
                self._later(FULL_DISK_RETRY_S, self._save)
                return
            self._world.reported(self.node, outcome.reports)
        self._unsaved = None
        self._acknowledge(taken)
        for publication in outcome.publications:
            self._publish(publication)
        if self.inbox or self._changes:
            self.twins_soon()
        self._wake()

    def _acknowledge(self, taken: int) -> None:
        """Tell devices that what they said is durable."""
        for _ in range(taken):
            reading = self.inbox.popleft()[2]
            twin = self._fleet.twins.get(id_of(reading[0])) if self._fleet and reading else None
            if reading is not None and twin is not None:
                self.said[reading[:2]] = Said(twin.uid, reading[2])

    def _new_id(self) -> str:
        self._ids += 1
        return f"i{self._ids}"

    def _publish(self, publication: Publication) -> None:
        """The device obeys what it is told, a little later."""
        match parse_topic(publication.topic):
            case DeviceTopic(device, Channel.TWIN_DELTA):
                told = Delta.decode(publication.payload)
                for name, wish in told.delta.items():
                    self._obey(key_of(device), name, wish, told.version_of(name))
            case _:
                pass

    def _obey(self, device: ObjectKey, name: str, wish: str, version: int | None) -> None:
        # Not _later: the device is no part of the process that may die meanwhile.
        delay_s = self._world.rng.random() * 0.2
        self._world.clock.call_later(delay_s, lambda: self.says(device, name, wish, version))

    def _forget_said(self, device: ObjectKey) -> None:
        self.said = {name: said for name, said in self.said.items() if name[0] != device}

    # The end

    def roll_back(self, steps: int) -> bool:
        """The disk forgets the last commits; whether there were any."""
        is_older = self.disk.roll_back(steps)
        if is_older:
            self.said.clear()
            self.rolled_back += 1
        return is_older

    def crash(self, *, is_silent: bool = False) -> None:
        """kill -9, or (`is_silent`) the power is gone; and start again."""
        if self.end is not None and self.end.open:
            self._world.network.kill(self.end, is_silent=is_silent)
        self.terms_lost += self._term > self.disk.image.term
        self.start()


def _is_complaint(error: LinkError) -> bool:
    return isinstance(error, LinkClosed) and error.code is GoodbyeCode.PROTOCOL
