"""
What stands for cloudhub/statuswriter.py: the shipped Reports and the shipped computation of a status, and
requests to the simulated apiserver in between that are slow, refused, in conflict, or done and never answered.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from apimachinery.devices import PROPERTY_FIELD, PropertyReport
from apimachinery.errors import ApiError, BadRequest, Conflict, Invalid, TooLarge, Unavailable
from apimachinery.events import Change, EventType
from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import JSON
from apimachinery.resources import DEVICE_MODELS, DEVICES, NODES
from cloudhub.backoff import write_delay_s
from cloudhub.devices import StateReport, model_of, node_of, property_names
from cloudhub.devicestatus import status_after
from cloudhub.fences import Permit
from cloudhub.ledgers import Acknowledgement
from cloudhub.reports import MOVED, WRITES, Outcome, Refused, Reports, Retry, Taken, Write
from cloudhub.reportvalues import Value
from cloudhub.session import Session
from link.frames import Report
from tests.sim.surroundings import Surroundings

if TYPE_CHECKING:
    from tests.sim.hub import SimHub

MIN_INTERVAL_S = 0.1


class Reporter(NamedTuple):
    """A session by number: what is kept in sets must have the same order in every process."""

    number: int


class _Known(NamedTuple):
    """A Device as the apiserver last said it is."""

    uid: str
    node: str
    resource_version: str
    status: Mapping[str, JSON]
    learned: int


class SimWriter:
    """Is a cloudhub.session.ReportSink."""

    def __init__(self, world: Surroundings, owner: "SimHub") -> None:
        self._world = world
        self._owner = owner
        self._generation = owner.generation
        self._clock = owner.clock
        self.core: Reports[Reporter] = Reports(self._problem_with, min_interval_s=MIN_INTERVAL_S)
        self._reporters: dict[Session, Reporter] = {}
        self._sessions: dict[Reporter, Session] = {}
        self._known: dict[ObjectKey, _Known] = {}
        self._armed_at: float | None = None
        self._busy = 0
        self._fences = owner.leases.fences

    @property
    def is_alive(self) -> bool:
        return self._owner.generation == self._generation

    # From the links

    def accept(self, node: Node, session: Session, report: Report) -> None:
        if session not in self._reporters:
            reporter = self._reporters[session] = Reporter(len(self._reporters))
            self._sessions[reporter] = session
        self._settle(self.core.accept(node, self._reporters[session], report))
        self._arm()

    def session_closed(self, session: Session) -> None:
        if session in self._reporters:
            self.core.close(self._reporters[session])

    def _problem_with(self, node: Node, key: ObjectKey, field: str) -> str | None:
        item = self._owner.cache.get(key)
        device = None if item is None else item.parse()
        if device is None or node_of(device) != node:
            return f"there is no such device on node {node}"
        if field.startswith(PROPERTY_FIELD) and field.removeprefix(PROPERTY_FIELD) not in property_names(device):
            return "the Device does not list this property"
        return None

    def _settle(self, settled: Iterable[Acknowledgement[Reporter]]) -> None:
        for reporter, ack, _ in settled:
            self._owner.hub.reported(self._sessions[reporter], ack)

    # From the watches

    def observe(self, key: ObjectKey, body: Mapping[str, JSON]) -> None:
        if key.resource != DEVICES:
            return
        known, metadata = self._known.get(key), body["metadata"]
        if known is not None and (known.uid, known.resource_version) == (metadata["uid"], metadata["resourceVersion"]):
            return
        is_same = known is not None and (known.uid, known.status) == (metadata["uid"], body.get("status") or {})
        self._remember(key, body, known.learned if known and is_same else self._fences.tick())

    def changed(self, changes: Iterable[Change]) -> None:
        for change in changes:
            key = change.object.key
            if key.resource == DEVICES:
                if change.type is EventType.DELETED:
                    self._known.pop(key, None)
                else:
                    self.core.touch(key)
            elif key.resource == DEVICE_MODELS:
                for item in self._owner.cache.list(DEVICES)[0]:
                    if model_of(item.parse()) == key.name:
                        self.core.touch(item.key)
        self._arm()

    # What is done about it

    def _arm(self) -> None:
        deadline = self.core.next_deadline() if self._busy < WRITES else None
        if deadline is None or (self._armed_at is not None and self._armed_at <= deadline):
            return
        self._armed_at = deadline
        self._clock.call_at(deadline, self._turn)

    def _turn(self) -> None:
        self._armed_at = None
        if not self.is_alive:
            return
        for write in self.core.due(self._clock.time(), WRITES - self._busy):
            self._busy += 1
            self._perform(write, self._fences.term(write.node))
        self._arm()

    def _finish(self, write: Write, outcome: Outcome) -> None:
        self._busy -= 1
        self._settle(self.core.finished(write, outcome, self._clock.time()))
        self._arm()

    def _fail(self, write: Write, error: ApiError) -> None:
        delay_s = write_delay_s(error, write.failures + 1, self._world.rng.random())
        if delay_s is None:
            self._finish(write, Refused(str(error), divisible=isinstance(error, BadRequest | Invalid | TooLarge)))
        else:
            self._finish(write, Retry(delay_s))

    def _perform(self, write: Write, term: int) -> None:
        """Read the Device where that is needed, compute its status, patch what differs."""
        item = self._owner.cache.get(write.key)
        if item is None:
            self._finish(write, Refused("the Device is gone"))
            return
        device = item.parse()
        if write.values and node_of(device) != write.node:
            self._finish(write, Refused(MOVED))
            return
        known = self._known.get(write.key)
        if known is not None and known.uid == item.version.uid:
            self._patch(write, term, device, known)
            return

        def answered(answer: dict[str, JSON] | ApiError) -> None:
            if not self.is_alive:
                return
            if isinstance(answer, ApiError):
                self._fail(write, answer)
            elif (fresh := self._remember(write.key, answer, self._fences.tick())).uid != item.version.uid:
                self._fail(write, Conflict("the Device was deleted and made again"))
            else:
                self._patch(write, term, device, fresh)

        self._world.request(self._owner.name, lambda: self._world.api.get(write.key), answered)

    def _patch(self, write: Write, term: int, device: Mapping[str, JSON], known: _Known) -> None:
        if write.values and known.node != node_of(device):
            self._fail(write, Conflict("the Device belongs to another node now"))
            return
        key, listed = write.key, property_names(device)
        properties: dict[str, PropertyReport] = {}
        state: StateReport | None = None
        carried: dict[str, Value] = {}
        refused: dict[str, str] = {}
        for field, value in write.values.items():
            if isinstance(value, StateReport):
                state = value
                carried[field] = value
            elif isinstance(value, PropertyReport) and (name := field.removeprefix(PROPERTY_FIELD)) in listed:
                properties[name] = value
                carried[field] = value
            else:
                refused[field] = "the Device does not list this property"
        cache = self._owner.cache
        model = cache.get(ObjectKey(DEVICE_MODELS, key.namespace, model_of(device)))
        node = cache.get(ObjectKey(NODES, "", node_of(device)))
        now = str(self._clock.wall_ms() // 1000)
        after = status_after(
            device,
            None if model is None else model.parse(),
            None if node is None else node.parse(),
            known.status,
            properties,
            state,
            now,
        )
        changes = {field: value for field, value in after.items() if known.status.get(field) != value}
        if not changes:
            self._finish(write, Taken(refused))
            return

        def answered(answer: dict[str, JSON] | ApiError) -> None:
            if not self.is_alive:
                return
            if isinstance(answer, ApiError):
                if isinstance(answer, Conflict) and self._known.get(key) is known:
                    del self._known[key]
                self._fail(write, answer)
            else:
                self._remember(key, answer, known.learned)
                self._finish(write, Taken(refused))

        def send() -> None:
            self._world.request(
                self._owner.name,
                lambda: self._world.api.patch_status(key, known.resource_version, changes, carried),
                answered,
            )

        self._permitted(write, term, known.learned, send)

    def _permitted(self, write: Write, term: int, learned: int, send: Callable[[], None], *, ask: bool = True) -> None:
        """Send what may follow a status that was learned at this tick."""
        permit = self._fences.permit(write.node, term, learned) if write.values else Permit.WRITE
        if permit is Permit.WRITE:
            send()
        elif permit is Permit.NEVER:
            self._fail(write, Conflict("a newer session has taken over"))
        elif not ask:
            self._fail(write, Unavailable("the Lease is not taken yet"))
        else:

            def confirmed(error: ApiError | None) -> None:
                if error is not None:
                    self._fail(write, error)
                else:
                    self._permitted(write, term, learned, send, ask=False)

            self._owner.leases.confirm(write.node, term, learned, confirmed)

    def _remember(self, key: ObjectKey, body: Mapping[str, JSON], learned: int) -> _Known:
        metadata, status = body["metadata"], body.get("status") or {}
        known = self._known[key] = _Known(metadata["uid"], node_of(body), metadata["resourceVersion"], status, learned)
        return known
