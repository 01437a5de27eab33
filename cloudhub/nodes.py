"""
The Node object, its Ready condition and its Lease, as the link to the node comes and goes.

What is to be done is decided in cloudhub.presence; here it is done. A Node's conditions are read, changed
and written back with the resourceVersion they were read at, so that whoever else writes conditions (a
kubelet, the node lifecycle controller) loses nothing. So is the Lease, which says, too, whose session is the
last one of the node (cloudhub.fences): one small request per node and interval, as a kubelet makes.
"""

import asyncio
import datetime
import logging
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn, Protocol, assert_never

from apimachinery.errors import AlreadyExists, ApiError, Conflict, NotFound, Unavailable
from apimachinery.events import Change, EventType
from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.objects import JSON, Object, lookup
from apimachinery.resources import LEASES, NAMESPACES, NODE_LEASE_NAMESPACE, NODES
from cloudhub.backoff import full_jitter_s, write_delay_s
from cloudhub.devices import entries
from cloudhub.fences import Claim, Fences, Permit, Standing, claim_of
from cloudhub.identities import EDGE_LABEL
from cloudhub.presence import Duty, Presence, Task
from cloudhub.reading import Sent

logger = logging.getLogger(__name__)

CONCURRENCY = 8
LEASE_DURATION_S = 40  # the kubelet's nodeLeaseDurationSeconds, at the least
LEASE_RENEWALS = 4  # in a Lease's duration, as the kubelet has them
LEASE_ATTEMPTS = 4  # one, one after a look at what it conflicted with, and two for those who renew at that moment

READY = "Ready"
CONNECTED = ("True", "EdgeConnected", "the node is connected to cloudcore")
DISCONNECTED = ("Unknown", "EdgeDisconnected", "no cloudcore has heard of the node for the grace period")


class Client(Protocol):
    """The requests that this needs; cloudhub.apiclient.ApiClient has them."""

    async def get(self, key: ObjectKey) -> dict[str, JSON]: ...

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, JSON]) -> dict[str, JSON]: ...

    async def patch(
        self, key: ObjectKey, body: Mapping[str, JSON], patch_type: str = "merge", subresource: str = ""
    ) -> dict[str, JSON]: ...


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


async def _no_labels(_: Node) -> Mapping[str, str]:
    return {}


class NodeLifecycle:
    """
    All nodes of one hub. Is a cloudhub.sessions.NodeWatcher and a cloudhub.reflector.Consumer.

    Give the reflector of Leases observe_lease: what makes a Lease live is not in the cache.
    """

    def __init__(
        self,
        client: Client,
        presence: Presence,
        fences: Fences,
        overtaken: Callable[[Node, int, int, bool], None],
        *,
        labels: Callable[[Node], Awaitable[Mapping[str, str]]] = _no_labels,
        jitter: Callable[[], float] = random.random,
        now: Callable[[], datetime.datetime] = _utc_now,
    ) -> None:
        """
        overtaken: a node's session of this term is not its newest; that one's term, and whether ours once was the last.
        labels: what a Node is labelled with when it is made; ApiErrors are as those of the client.
        jitter: gives numbers uniform in [0, 1). now: the wall clock, for what is written.
        """
        self._client = client
        self._presence = presence
        self._fences = fences
        self._overtaken = overtaken
        self._labels = labels
        self._jitter = jitter
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._busy = 0
        self._is_told = False
        """Somebody was warned that the Lease of some node cannot be had."""
        self._asking: defaultdict[Node, asyncio.Lock] = defaultdict(asyncio.Lock)
        """One request about a Lease at a time: who waits for another's finds it answered."""

    # What happens

    def session_up(self, node: Node, term: int) -> None:
        """A session of this node is up. An older one here has ended."""
        self._fences.opened(node, term)
        self._presence.connected(node, self._loop.time())
        self._woken.set()

    def session_down(self, node: Node) -> None:
        self._fences.closed(node)
        self._asking.pop(node, None)
        self._presence.disconnected(node, self._loop.time())
        self._woken.set()

    def changed(self, changes: list[Change]) -> None:
        """From the reflectors; other kinds than Nodes and their Leases are no business of ours."""
        for change in changes:
            key = change.object.key
            if key.resource == LEASES and key.namespace == NODE_LEASE_NAMESPACE and change.type is EventType.DELETED:
                self._fences.noticed(Node(key.name), None)
            if key.resource != NODES:
                continue
            if change.type is EventType.DELETED:
                self._presence.node_gone(Node(key.name))
            else:
                is_edge = EDGE_LABEL in change.object.labels
                ready = _ready(change.object.parse())
                self._presence.node_seen(Node(key.name), is_edge, ready, self._loop.time())
            self._woken.set()

    def last_term(self, node: Node) -> int:
        return self._fences.last_term(node)

    def _now_ms(self) -> int:
        return int(self._now().timestamp() * 1000)

    def observe_lease(self, lease: Object | Sent) -> None:
        """A Lease as the apiserver has it."""
        if lease.key.namespace == NODE_LEASE_NAMESPACE:
            node = Node(lease.key.name)
            self._fences.noticed(node, claim_of(lease.parse(), self._now_ms()))
            self._presence.lease_seen(node, lease.version.revision, self._loop.time())
            self._tell(node)

    async def confirm(self, node: Node, term: int, learned: int) -> None:
        """
        Have the Lease say whether it still is that of this session, for cloudhub.fences.Fences.permit.

        One request, for whoever asks meanwhile. Raises the ApiErrors that are worth another try.
        """
        async with self._asking[node]:
            if self._fences.permit(node, term, learned) is not Permit.ASK:
                return
            try:
                if self._fences.standing(node) is Standing.HELD:
                    await self._look(node)
                await self._hold(node)
            except ApiError as error:
                if write_delay_s(error, 1, 0.0) is not None:
                    raise
                self._give_up(node, error)

    # What is done about it

    async def run(self) -> NoReturn:
        """Run it once the reflectors of Nodes and Leases are in step; ends only when cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._woken.clear()
                for task in self._presence.due(self._loop.time(), CONCURRENCY - self._busy):
                    self._busy += 1
                    tasks.create_task(self._perform(task), name=f"node[{task.node}]")
                deadline = self._presence.next_deadline() if self._busy < CONCURRENCY else None
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._woken.wait()
                except TimeoutError:
                    pass

    async def _perform(self, task: Task) -> None:
        delay_s: float | None = None
        try:
            await self._do(task)
        except ApiError as error:
            # What is refused is asked again, less often: somebody may grant the right.
            delay_s = write_delay_s(error, task.failures + 1, self._jitter())
            if delay_s is None:
                if task.duty in (Duty.REGISTER, Duty.RENEW):
                    self._give_up(task.node, error)
                delay_s = 1.0 + full_jitter_s(task.failures + 4, self._jitter())
            # The first failure may be a passing thing, and the tenth is no news.
            level = logging.WARNING if task.failures == 2 else logging.DEBUG
            logger.log(
                level,
                "cannot tell the apiserver of node, trying again",
                extra={"node": task.node, "duty": task.duty.value, "problem": str(error), "in_s": round(delay_s, 2)},
            )
        finally:
            self._busy -= 1
        self._presence.finished(task, self._loop.time(), delay_s, self._jitter())
        self._woken.set()

    async def _do(self, task: Task) -> None:
        match task.duty:
            case Duty.REGISTER:
                await self._register(task.node)
            case Duty.READY:
                await self._set_ready(task.node, *CONNECTED)
            case Duty.RENEW:
                async with self._asking[task.node]:
                    await self._hold(task.node, renew=True)
            case Duty.GIVE_UP:
                await self._set_ready(task.node, *DISCONNECTED)
            case _:
                assert_never(task.duty)

    async def _register(self, node: Node) -> None:
        labels = {**await self._labels(node), "kubernetes.io/hostname": node, EDGE_LABEL: ""}
        value = {"apiVersion": "v1", "kind": NODES.kind, "metadata": {"name": node, "labels": labels}, "spec": {}}
        try:
            await self._client.create(NODES, "", value)
        except AlreadyExists:
            return
        logger.info("node registered", extra={"node": node})

    async def _set_ready(self, node: Node, status: str, reason: str, message: str) -> None:
        key = ObjectKey(NODES, "", node)
        try:
            body = await self._client.get(key)
        except NotFound:
            return  # deleted in the meantime: the watch will say so
        if _ready(body) == status:
            return  # somebody else was quicker
        at = _seconds(self._now())
        condition = {
            "type": READY,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": at,
            "lastTransitionTime": at,
        }
        others = [entry for entry in entries(lookup(body, "status.conditions"), "type") if entry["type"] != READY]
        patch = {
            "metadata": {"resourceVersion": lookup(body, "metadata.resourceVersion")},
            "status": {"conditions": [*others, condition]},
        }
        await self._client.patch(key, patch, subresource="status")
        logger.info("node's readiness set", extra={"node": node, "ready": status, "reason": reason})

    # The Lease

    async def _hold(self, node: Node, *, renew: bool = False) -> None:
        """Take the Lease for the session here where that is to be done, or (`renew`) write it in any case."""
        for _ in range(LEASE_ATTEMPTS):
            standing = self._fences.standing(node)
            if standing is Standing.HELD and not renew:
                return
            if standing in (Standing.ABSENT, Standing.STALE, Standing.SUPERSEDED):
                self._tell(node)
                return
            began, claim = self._fences.tick(), self._fences.claim(node)
            try:
                answer = await (self._create_lease(node) if claim is None else self._patch_lease(node, claim))
            except (AlreadyExists, Conflict):
                await self._look(node)
                continue
            except NotFound:
                if claim is None:
                    raise
                await self._look(node)
                continue
            self._fences.answered(node, claim_of(answer, self._now_ms()), began)
            self._tell(node)
            return
        raise Conflict(f"somebody else writes the Lease of {node} all the time")

    async def _look(self, node: Node) -> None:
        """Read the Lease."""
        began = self._fences.tick()
        try:
            claim = claim_of(await self._client.get(_lease_key(node)), self._now_ms())
        except NotFound:
            claim = None
        self._fences.answered(node, claim, began)
        self._tell(node)

    def _tell(self, node: Node) -> None:
        """Say so where the session here is not, or not any more, the last one of its node."""
        standing, fences = self._fences.standing(node), self._fences
        if standing in (Standing.STALE, Standing.SUPERSEDED):
            self._overtaken(node, fences.term(node), fences.newest(node), standing is Standing.SUPERSEDED)

    def _give_up(self, node: Node, error: ApiError) -> None:
        if self._fences.standing(node) not in (Standing.WAITING, Standing.HELD):
            return
        logger.log(
            logging.DEBUG if self._is_told else logging.WARNING,
            "the apiserver refuses the node's Lease: where several replicas of cloudcore run, one that takes a dead "
            "connection for alive may write reports that are older than what stands there",
            extra={"node": node, "problem": str(error)},
        )
        self._is_told = True
        self._fences.give_up(node)

    def _spec(self, node: Node) -> dict[str, JSON]:
        return {
            "holderIdentity": node,
            "leaseDurationSeconds": max(LEASE_DURATION_S, round(LEASE_RENEWALS * self._presence.renew_s)),
            "renewTime": _microseconds(self._now()),
        }

    async def _patch_lease(self, node: Node, claim: Claim) -> dict[str, JSON]:
        metadata = {"resourceVersion": claim.version, "annotations": self._fences.mark(node)}
        return await self._client.patch(_lease_key(node), {"metadata": metadata, "spec": self._spec(node)})

    async def _create_lease(self, node: Node) -> dict[str, JSON]:
        try:
            owner = await self._client.get(ObjectKey(NODES, "", node))
        except NotFound as exc:
            raise Unavailable(f"the Node {node} is not there yet") from exc
        metadata = {
            "name": node,
            "namespace": NODE_LEASE_NAMESPACE,
            "annotations": self._fences.mark(node),
            # With the Node goes the Lease.
            "ownerReferences": [
                {"apiVersion": "v1", "kind": NODES.kind, "name": node, "uid": lookup(owner, "metadata.uid")}
            ],
        }
        lease = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": metadata,
            "spec": self._spec(node),
        }
        try:
            return await self._client.create(LEASES, NODE_LEASE_NAMESPACE, lease)
        except NotFound:
            # Every Kubernetes has this namespace; something smaller may not.
            namespace = {"apiVersion": "v1", "kind": NAMESPACES.kind, "metadata": {"name": NODE_LEASE_NAMESPACE}}
            await self._client.create(NAMESPACES, "", namespace)
            return await self._client.create(LEASES, NODE_LEASE_NAMESPACE, lease)


def _lease_key(node: Node) -> ObjectKey:
    return ObjectKey(LEASES, NODE_LEASE_NAMESPACE, node)


def _ready(node: Mapping[str, JSON]) -> str:
    """The status of the Ready condition; "" where there is none."""
    for entry in entries(lookup(node, "status.conditions"), "type"):
        if entry["type"] == READY:
            return str(entry.get("status") or "")
    return ""


def _seconds(moment: datetime.datetime) -> str:
    """As metav1.Time."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _microseconds(moment: datetime.datetime) -> str:
    """As metav1.MicroTime, which refuses anything shorter."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
