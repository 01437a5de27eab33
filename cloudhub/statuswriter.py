"""
Writes what nodes report: into the status of Devices and Nodes, and as Events. Keeps the Devices' conditions true.

One object's status has one writer here: a report and a change of the Device, its model or its node both
end in the same write, which computes the whole status from what is known and sends what differs. When
nothing differs nothing is sent, so that a hub that starts over a settled cluster sends nothing.

Twice the same values, on purpose: DeviceStatus is where KubeEdge's users look, Device.status is where
kubectl and every other controller look. Where the Device's definition has no status subresource (KubeEdge's
own) only the first is written.

A status is changed with the resourceVersion it was read at. After a Conflict it is read and written again at once; two
replicas that write the same Device end with the same conditions and both their twins. What a node reported is written
over a status only while the node's Lease says that no other replica has a newer session of it (cloudhub.fences).

The watch lags behind our own writes, by seconds where there is much to tell: what it says of a Device is passed over
where an answer of the apiserver has said something newer. Else each write would be made at a version that is gone.

The core is cloudhub/reports.py, what is written is computed in cloudhub/devices.py.
"""

import asyncio
import contextlib
import datetime
import json
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, NoReturn, TypeVar

from apimachinery.devices import PROPERTY_FIELD, PropertyReport
from apimachinery.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from apimachinery.events import Change, EventType
from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import KubeEvent
from apimachinery.objects import JSON, Object, canonical, lookup
from apimachinery.resources import DEVICE_MODELS, DEVICE_STATUSES, DEVICES, EVENTS, NODES, PODS
from apimachinery.watchcache import WatchCache
from cloudhub.announcer import validity_event
from cloudhub.attachments import Attachments
from cloudhub.backoff import write_delay_s
from cloudhub.conditions import ready_of
from cloudhub.devices import StateReport, model_of, node_of, property_names, reported_after
from cloudhub.devicestatus import status_after
from cloudhub.fences import Fences, Permit
from cloudhub.horizon import number
from cloudhub.ledgers import Acknowledgement
from cloudhub.reading import Sent
from cloudhub.reports import MIN_INTERVAL_S, MOVED, NOBODY, WRITES, Outcome, Refused, Reports, Retry, Taken, Write
from cloudhub.reportvalues import NodeReport, Value
from cloudhub.tally import Client, CountedClient, RefusedWrite, Tally
from link.frames import Report, ReportAck

logger = logging.getLogger(__name__)

STATUSES_REMEMBERED = 4096  # DeviceStatus objects whose state we know from our own writes; beyond, each costs a GET
# An edit is pushed first and then written about. By then the node has mostly said that it knows it, and one write says
# both; kubectl takes longer to start, so whoever waits right after an edit still finds the edit's status.
TOUCH_DELAY_S = 0.05
ATTEMPTS = 3  # of one write, each after another reading, where somebody else changes the object at the same time
NO_STATUS_S = 600.0  # a definition without a status subresource may be replaced by one that has it

S = TypeVar("S", bound=Hashable)


class _Known(NamedTuple):
    """An object's status as the apiserver last said it is."""

    uid: str
    """The Device's; for a DeviceStatus that of the Device which owns it."""
    node: str
    """Where the Device was at this version; "" for a DeviceStatus, which does not say."""
    resource_version: str
    status: bytes
    """Canonical JSON: a third of the memory that the decoded one takes."""
    told: str
    """The version that the watch told last, which is this one or older; "" for none, and for a DeviceStatus."""
    learned: int
    """When it was read or told by the watch, as a tick of Fences; our own writes hand it on to what comes of them."""


class _Stale(Conflict):
    """What we knew of the object was old, and is forgotten: to read it is the cure."""


Permitted = Callable[[int], Awaitable[None]]
"""Returns when what is to be written may follow a status that was learned at this tick; raises when it never may."""


class StatusWriter(Generic[S]):
    """
    Is a cloudhub.session.ReportSink and a cloudhub.reflector.Consumer. S is whatever stands for a session.

    Give the reflector of Devices `observe`: their status is not in the cache, and without it each Device costs a GET.
    """

    def __init__(
        self,
        client: Client,
        cache: WatchCache,
        acknowledge: Callable[[S, ReportAck], None],
        fences: Fences,
        confirm: Callable[[Node, int, int], Awaitable[None]],
        *,
        announce: Callable[[KubeEvent], object] = lambda _: None,
        min_interval_s: float = MIN_INTERVAL_S,
        yields: Callable[[], bool] = lambda: False,
        jitter: Callable[[], float] = random.random,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        """
        acknowledge: says to the session what became of some of its entries.
        confirm: asks the apiserver for what Fences.permit(node, term, learned) wants to know.
        announce: told of each Event that a write of ours gives cause for, see cloudhub.announcer.
        min_interval_s: between two writes of one object. yields: see cloudhub.reports.Reports.
        jitter: gives numbers uniform in [0, 1).
        """
        self._tally = Tally()
        self._client = CountedClient(client, self._tally)
        self._cache = cache
        self._acknowledge = acknowledge
        self._announce = announce
        self._fences = fences
        self._confirm = confirm
        self._jitter = jitter
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._reports: Reports[S] = Reports(self._problem_with, min_interval_s=min_interval_s, yields=yields)
        self._settled: list[Acknowledgement[S]] = []
        self._woken = asyncio.Event()
        self._busy = 0
        self._speakers: dict[S, Node] = {}
        """Whose session each is, of those that reported something."""
        self._attached = Attachments()
        self._models: dict[ObjectKey, tuple[Object, dict[str, JSON]]] = {}
        self._ready: dict[Node, str] = {}
        """The status of each Node's Ready condition, to tell when it changes."""
        self._devices: dict[ObjectKey, _Known] = {}
        self._statuses: OrderedDict[ObjectKey, _Known] = OrderedDict()
        self._no_status_until = 0.0

    def counters(self) -> Mapping[str, int]:
        """What was done since the start; see cloudhub.tally.Tally. The first three count values."""
        return {
            "reports_taken": self._reports.taken_count,
            "reports_refused": self._reports.refused.total(),
            "reports_handed_back": self._reports.handed_back,
            "writes": self._tally.writes,
            "writes_skipped": self._tally.writes_skipped,
            "conflicts": self._tally.conflicts,
            "retries": self._tally.retries,
            "requests": self._tally.requests,
        }

    def refused(self) -> Mapping[str, int]:
        """Values that were refused for good, by cause: the apiserver's reason, or one of ours (cloudhub.reports)."""
        usual = dict.fromkeys((Forbidden.reason, Invalid.reason, NotFound.reason), 0)
        return {**usual, **self._reports.refused}

    def refusals(self) -> Sequence[RefusedWrite]:
        """The last reports that were refused for good, newest last."""
        return tuple(self._tally.refusals)

    # From the links

    def accept(self, node: Node, session: S, report: Report) -> None:
        """Take a Report in; its entries are acknowledged when the apiserver has them."""
        self._speakers[session] = node
        self._settled += self._reports.accept(node, session, report)
        self._woken.set()

    def session_closed(self, session: S) -> None:
        """Nobody waits for this session's acknowledgements any more."""
        self._reports.close(session)
        self._speakers.pop(session, None)

    def _problem_with(self, node: Node, key: ObjectKey, field: str) -> str | None:
        """Why a node may not report this; None when it may. A node reports of itself, its devices and its pods."""
        if key.resource == NODES:
            return None if key.name == node else "a node may report of no other node"
        if key.resource == PODS:
            pod = self._cache.get(key)
            is_here = pod is not None and lookup(pod.parse(), "spec.nodeName") == node
            return None if is_here else f"there is no such pod on node {node}"
        attachment = self._attached.get(key)
        # Whose device it is stays untold: a node need not learn of devices that are not its own.
        if attachment is None or attachment.node != node:
            return f"there is no such device on node {node}"
        if field.startswith(PROPERTY_FIELD) and field.removeprefix(PROPERTY_FIELD) not in attachment.properties:
            return _NOT_LISTED
        return None

    # From the reflectors

    def observe(self, device: Object | Sent) -> None:
        """A Device as the apiserver has it, with its status."""
        if device.key.resource != DEVICES:
            return
        known, version = self._devices.get(device.key), device.version.revision
        if known is not None and known.uid == device.version.uid and _is_no_news(version, known):
            self._devices[device.key] = known._replace(told=version)
            return
        body = device.parse()
        is_same = known is not None and (known.uid, known.status) == (_uid(body), _status(body))
        self._remember_device(device.key, body, known.learned if known and is_same else self._fences.tick(), version)

    def changed(self, changes: list[Change]) -> None:
        """Devices, models and Nodes decide on conditions; other kinds are no business of ours."""
        for change in changes:
            key = change.object.key
            if key.resource == DEVICES:
                if change.type is EventType.DELETED:
                    self._attached.detach(key)
                    self._devices.pop(key, None)
                    self._statuses.pop(key, None)
                else:
                    self._attached.attach(key, change.object.parse())
                    self._touch([key])
            elif key.resource == DEVICE_MODELS:
                self._models.pop(key, None)
                self._touch(self._attached.of_model(key))
            elif key.resource == NODES and self._is_news(change):
                self._touch(self._attached.of_node(Node(key.name)))
        self._woken.set()

    def _is_news(self, change: Change) -> bool:
        """Whether a change of a Node matters to its devices: it comes, goes, or its Ready condition turns."""
        node = Node(change.object.key.name)
        before = self._ready.pop(node, "")
        if change.type is EventType.DELETED:
            return True
        self._ready[node] = ready = ready_of(change.object.parse())
        return change.type is EventType.ADDED or ready != before

    def _touch(self, keys: Iterable[ObjectKey]) -> None:
        at = self._loop.time() + TOUCH_DELAY_S
        for key in keys:
            attachment = self._attached.get(key)
            self._reports.touch(key, at, NOBODY if attachment is None else attachment.node)

    # What is done about it

    async def run(self) -> NoReturn:
        """
        Run it once the reflectors of Devices, DeviceModels and Nodes are in step; ends only when cancelled.

        Before that, a model that has not been listed yet would count as missing.
        """
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._look_round()
                self._woken.clear()
                settled, self._settled = self._settled, []
                for session, ack, refused in settled:
                    node = self._speakers.get(session, Node(""))
                    self._tally.refusals += (RefusedWrite(node, *each) for each in refused)
                    self._acknowledge(session, ack)
                for write in self._reports.due(self._loop.time(), WRITES - self._busy):
                    self._busy += 1
                    # Whose session the values came in, now: there may be another one when they are written.
                    term = self._fences.term(write.node)
                    tasks.create_task(self._perform(write, term), name=f"status[{write.key}]")
                deadline = self._reports.next_deadline() if self._busy < WRITES else None
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._woken.wait()
                except TimeoutError:
                    pass

    async def _look_round(self) -> None:
        """How long does whoever is next on the loop wait?"""
        began = self._loop.time()
        await asyncio.sleep(0)
        self._reports.came_round(self._loop.time() - began)

    async def _perform(self, write: Write, term: int) -> None:
        asked = self._tally.requests
        try:
            outcome = await self._insisting(write, lambda learned: self._permitted(write, term, learned))
        except ApiError as error:
            outcome = self._after(write, error)
        finally:
            self._busy -= 1
        if self._tally.requests == asked and isinstance(outcome, Taken):
            self._tally.writes_skipped += 1
            outcome = outcome._replace(is_written=False)
        self._settled += self._reports.finished(write, outcome, self._loop.time())
        self._woken.set()

    async def _insisting(self, write: Write, permitted: Permitted) -> Outcome:
        """A status that somebody else has changed is read and written again here, before others have their turn."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._written(write, permitted)
            except _Stale:
                self._tally.conflicts += 1
        return await self._written(write, permitted)

    async def _written(self, write: Write, permitted: Permitted) -> Outcome:
        if write.key.resource == NODES:
            return await self._write_node(write, permitted)
        if write.key.resource == EVENTS:
            return await self._write_events(write)  # written twice it is there once, and none undoes another
        return await self._write_device(write, permitted)

    async def _permitted(self, write: Write, term: int, learned: int) -> None:
        if not write.values:
            return  # computed from the objects alone: any replica may
        permit = self._fences.permit(write.node, term, learned)
        if permit is Permit.ASK:
            await self._confirm(write.node, term, learned)
            permit = self._fences.permit(write.node, term, learned)
        if permit is Permit.ASK:
            raise Unavailable(f"the Lease of {write.node} is not taken yet")
        if permit is Permit.NEVER:
            # Nobody waits for it: cloudhub.reports drops what a session that is over leaves behind.
            raise Conflict(f"a newer session of {write.node} has taken over")

    def _after(self, write: Write, error: ApiError) -> Outcome:
        self._tally.conflicts += isinstance(error, Conflict)
        delay_s = write_delay_s(error, write.failures + 1, self._jitter())
        extra = {"key": str(write.key), "node": write.node, "problem": str(error)}
        if delay_s is None:
            logger.warning("the apiserver refuses a status", extra=extra)
            return Refused(str(error), isinstance(error, BadRequest | Invalid | TooLarge), error.reason)
        # The first failures may be a passing thing, and the tenth is no news.
        level = logging.WARNING if write.failures == 2 else logging.DEBUG
        logger.log(level, "cannot write a status, trying again", extra={**extra, "in_s": round(delay_s, 2)})
        self._tally.retries += 1
        return Retry(delay_s, isinstance(error, TooManyRequests), isinstance(error, Conflict))

    async def _write_device(self, write: Write, permitted: Permitted) -> Outcome:
        item = self._cache.get(write.key)
        if item is None:
            return Refused("the Device is gone")
        device = item.parse()
        if write.values and node_of(device) != write.node:
            return Refused(MOVED)
        listed = property_names(device)
        properties: dict[str, PropertyReport] = {}
        state: StateReport | None = None
        refused: dict[str, str] = {}
        for field, value in write.values.items():
            if isinstance(value, StateReport):
                state = value
            elif isinstance(value, PropertyReport) and (name := field.removeprefix(PROPERTY_FIELD)) in listed:
                properties[name] = value
            else:
                refused[field] = _NOT_LISTED
        # The Device first: its version says, too, whose it is. What another node's replica wrote is later than that.
        kept = await self._write_own_status(item.key, device, properties, state, permitted)
        if properties or state is not None:
            kept = await self._write_device_status(item.key, device, properties, state, permitted) or kept
        if not kept and (properties or state is not None):
            raise Unavailable("neither DeviceStatus nor Device.status is served: apply what `cloudcore crds` prints")
        return Taken(refused)

    # Device.status

    async def _write_own_status(
        self,
        key: ObjectKey,
        device: Mapping[str, JSON],
        properties: Mapping[str, PropertyReport],
        state: StateReport | None,
        permitted: Permitted,
    ) -> bool:
        """Whether Device.status holds the values now; False when Devices have no status subresource."""
        if self._loop.time() < self._no_status_until:
            return False
        known = self._devices.get(key)
        if known is None or known.uid != _uid(device):
            body = await self._client.get(key)
            known = self._remember_device(key, body, self._fences.tick(), "")
            if known.uid != _uid(device):
                raise Conflict("the Device was deleted and made again")  # the watch will say so
        if (properties or state is not None) and known.node != node_of(device):
            raise Conflict(f"the Device is on another node now: {known.node}")  # the watch will say so
        status = _decode(known.status)
        node, now = self._cache.get(ObjectKey(NODES, "", node_of(device))), _seconds(self._now())
        after = status_after(
            device,
            self._model(ObjectKey(DEVICE_MODELS, key.namespace, model_of(device))),
            None if node is None else node.parse(),
            status,
            properties,
            state,
            now,
        )
        changes = {field: value for field, value in after.items() if status.get(field) != value}
        if not changes:
            return True
        await permitted(known.learned)
        patch = {"metadata": {"resourceVersion": known.resource_version}, "status": changes}
        try:
            answer = await self._client.patch(key, patch, subresource="status")
        except Conflict as exc:
            # The watch may have said something else meanwhile, and lag all the same.
            self._devices.pop(key, None)
            raise _Stale(str(exc)) from exc
        except NotFound:
            # An apiserver says the same of a Device that is gone and of a subresource that there is not.
            await self._client.get(key)
            logger.warning("Devices have no status subresource: conditions cannot be shown (see `cloudcore crds`)")
            self._no_status_until = self._loop.time() + NO_STATUS_S
            return False
        if (event := validity_event(key, device, status, after, now)) is not None:
            self._announce(event)
        if key in self._attached:  # else it was deleted meanwhile, and nobody would forget it
            self._remember_device(key, answer, known.learned, known.told)
        return True

    def _remember_device(self, key: ObjectKey, device: Mapping[str, JSON], learned: int, told: str) -> _Known:
        known = _Known(_uid(device), node_of(device), _version(device), _status(device), told, learned)
        self._devices[key] = known
        return known

    def _model(self, key: ObjectKey) -> dict[str, JSON] | None:
        """The decoded model, decoded once per version."""
        item = self._cache.get(key)
        if item is None:
            return None
        held = self._models.get(key)
        if held is None or held[0] is not item:
            held = self._models[key] = (item, item.parse())
        return held[1]

    # DeviceStatus

    async def _write_device_status(
        self,
        device_key: ObjectKey,
        device: Mapping[str, JSON],
        properties: Mapping[str, PropertyReport],
        state: StateReport | None,
        permitted: Permitted,
    ) -> bool:
        """Whether the DeviceStatus holds the values now; False when there is no such resource."""
        key = device_key._replace(resource=DEVICE_STATUSES)
        owner = _owner(device)
        known = self._statuses.get(device_key)
        if known is None:
            with contextlib.suppress(NotFound):
                known = self._remember_status(device_key, await self._client.get(key), self._fences.tick())
        metadata: dict[str, JSON] = {"ownerReferences": [owner]}
        if known is None:
            learned = self._fences.tick()
            value = {
                "apiVersion": DEVICE_STATUSES.api_version,
                "kind": DEVICE_STATUSES.kind,
                "metadata": {"name": key.name, "namespace": key.namespace, **metadata},
                "spec": {},
                "status": reported_after(device, {}, properties, state),
            }
            await permitted(learned)
            try:
                made = await self._client.create(key.resource, key.namespace, value)
            except AlreadyExists as exc:
                raise _Stale(str(exc)) from exc
            except NotFound:
                return False
            self._remember_status(device_key, made, learned)
            return True
        # What a Device of this name that was deleted reported is none of this one's.
        inherited = known.uid not in ("", _uid(device))
        status = _decode(known.status)
        after = dict.fromkeys(status.keys() & _REPORTED) if inherited else {}
        after |= reported_after(device, {} if inherited else status, properties, state)
        changes = {field: value for field, value in after.items() if status.get(field) != value}
        if known.uid == _uid(device):
            if not changes:
                return True
            metadata = {}
        await permitted(known.learned)
        patch = {"metadata": {"resourceVersion": known.resource_version, **metadata}, "status": changes}
        try:
            self._remember_status(device_key, await self._client.patch(key, patch), known.learned)
        except (Conflict, NotFound) as exc:
            self._statuses.pop(device_key, None)
            raise _Stale(str(exc)) from exc
        return True

    def _remember_status(self, device_key: ObjectKey, value: Mapping[str, JSON], learned: int) -> _Known:
        owners = lookup(value, "metadata.ownerReferences") or ()
        uid = next((str(owner.get("uid")) for owner in owners if owner.get("kind") == DEVICES.kind), "")
        known = _Known(uid, "", _version(value), _status(value), "", learned)
        if device_key not in self._attached:
            return known  # it was deleted meanwhile, and nobody would forget it
        self._statuses[device_key] = known
        self._statuses.move_to_end(device_key)
        if len(self._statuses) > STATUSES_REMEMBERED:
            self._statuses.popitem(last=False)
        return known

    # Node.status

    async def _write_node(self, write: Write, permitted: Permitted) -> Outcome:
        item = self._cache.get(write.key)
        if item is None:
            raise Unavailable(f"the Node {write.key.name} is not there yet")
        if _node_changes(item.parse(), write.values.values()):
            # The cache has it without a version; it is reported so rarely that a look costs nothing.
            body = await self._client.get(write.key)
            await permitted(self._fences.tick())
            patch = {
                "metadata": {"resourceVersion": _version(body)},
                "status": _node_changes(body, write.values.values()),
            }
            if patch["status"]:
                try:
                    await self._client.patch(write.key, patch, subresource="status")
                except Conflict as exc:
                    raise _Stale(str(exc)) from exc
        return Taken()

    # Events

    async def _write_events(self, write: Write) -> Outcome:
        """One Event, as a rule. The name was given at the edge, so that a second attempt finds the first."""
        for event in write.values.values():
            assert isinstance(event, KubeEvent), "parse() gives an Event for an Event"
            try:
                await self._client.create(EVENTS, event.key.namespace, event.to_json(write.node))
            except AlreadyExists:
                logger.debug("an Event is there already", extra={"key": str(event.key), "node": write.node})
        return Taken()


_REPORTED = frozenset({"twins", "state", "lastOnlineTime"})
"""The fields of a DeviceStatus that are ours; null in a merge patch removes one."""
_NOT_LISTED = "the Device does not list this property"


def _node_changes(node: Mapping[str, JSON], values: Iterable[Value]) -> dict[str, JSON]:
    """What a Node's status lacks of what was reported."""
    status = node.get("status") or {}
    changes: dict[str, JSON] = {}
    for value in values:
        assert isinstance(value, NodeReport), "parse() gives a Node's fields for a Node"
        wanted = {
            "nodeInfo": {**(status.get("nodeInfo") or {}), **value.node_info},
            "addresses": [{"type": kind, "address": address} for kind, address in value.addresses],
            "capacity": dict(value.capacity),
            "allocatable": dict(value.capacity),
        }
        changes = {field: part for field, part in wanted.items() if part and status.get(field) != part}
    return changes


def _decode(status: bytes) -> dict[str, JSON]:
    value: dict[str, JSON] = json.loads(status)
    return value


def _owner(device: Mapping[str, JSON]) -> dict[str, JSON]:
    return {
        "apiVersion": DEVICES.api_version,
        "kind": DEVICES.kind,
        "name": lookup(device, "metadata.name"),
        "uid": _uid(device),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _is_no_news(version: str, known: _Known) -> bool:
    """
    Whether the watch says here what is known, or something older: our own write comes back, or the one before it.

    Where it goes back behind what it told itself, the apiserver has gone back, as after a restore. Versions are
    compared as numbers, see cloudhub.horizon; what is no number is news.
    """
    at, newest = number(version), number(known.resource_version)
    if at is None or newest is None:
        return version == known.resource_version
    return (number(known.told) or 0) <= at <= newest


def _uid(body: Mapping[str, JSON]) -> str:
    return str(lookup(body, "metadata.uid") or "")


def _version(body: Mapping[str, JSON]) -> str:
    return str(lookup(body, "metadata.resourceVersion") or "")


def _status(body: Mapping[str, JSON]) -> bytes:
    return canonical(body.get("status") or {})


def _seconds(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
