"""
An apiserver as the hub knows one: objects, resource versions, watches that lag and expire, lists that may be
old, status patches that conflict and fail, and a restore from a backup.

Its log never forgets, so that a list can be answered as of any version and the checkers know everything that
ever was; what watchers may still ask for is another matter (`trim`).

What is taken for granted of a restore: every watch ends and must list again, as etcd's documentation asks of
whoever restores a snapshot (`--bump-revision --mark-compacted`). A watch that went on over numbers that are
given a second time would miss changes, whoever watches.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from apimachinery.errors import Conflict, Expired, InternalError, Invalid, NotFound
from apimachinery.events import EventType
from apimachinery.keys import Node, ObjectKey, ObjectVersion, Resource
from apimachinery.objects import JSON, Object, from_json
from cloudhub.fences import Claim
from cloudhub.projection import project
from cloudhub.reportvalues import Value

POISON = "13"
"""A reported value that ends so is Invalid: what a schema refuses."""


class Logged(NamedTuple):
    """One step of the cluster's history."""

    version: int
    type: EventType
    item: Object
    """As nodes see it; projected once for all hubs, as the projection is a pure function."""
    body: dict[str, JSON]
    """As the apiserver has it; never changed once it stands here."""


class State(NamedTuple):
    """What an object was from one step to the next."""

    version: ObjectVersion | None
    """None: it did not exist."""
    node: str
    """Where its own spec places it; "" for nowhere, or where that is not for the object to say."""


class SimApi:
    """One cluster's state. Every request that a hub makes is counted."""

    numbers: ClassVar[dict[ObjectVersion, int]] = {}
    """The resource version of each state of the latest world: what a hub that orders versions would go by."""

    def __init__(self) -> None:
        self.objects: dict[ObjectKey, dict[str, JSON]] = {}
        self.version = 0
        self.incarnation = 0
        """Counts the restores; a watch of an earlier one has ended."""
        self.requests = 0
        self.history: defaultdict[ObjectKey, list[State]] = defaultdict(lambda: [State(None, "")])
        """All states of each object in their order."""
        self.taken: defaultdict[tuple[ObjectKey, str], list[Value]] = defaultdict(list)
        """What was reported, in the order in which it was taken."""
        self.failing: set[ObjectKey] = set()
        """Objects whose status cannot be written for now, as where a webhook answers 500 for them."""
        self.echoes: list[ObjectKey] = []
        """Devices that nodes would see changed because of what they reported; must stay empty."""
        self.leases: dict[Node, Claim] = {}
        self.lease_log: list[tuple[Node, Claim]] = []
        """How the Leases came about since the last restore, for those who watch them."""
        self.lease_requests = 0
        SimApi.numbers = {}
        self._uids = 0
        self._log: defaultdict[Resource, list[Logged]] = defaultdict(list)
        self._trimmed: defaultdict[Resource, int] = defaultdict(int)
        self._lease_version = 0
        """Of its own, and unlike those of objects never given a second time: see put_lease()."""
        self._backup: tuple[int, dict[ObjectKey, dict[str, JSON]], dict[Node, Claim]] = (0, {}, {})

    # People

    def put(self, resource: Resource, namespace: str, name: str, content: Mapping[str, JSON]) -> None:
        """Create or replace; a status stays as it is."""
        key = ObjectKey(resource, namespace, name)
        old = self.objects.get(key)
        if old is None:
            self._uids += 1
        metadata = {"name": name, "uid": f"u{self._uids}" if old is None else old["metadata"]["uid"]}
        if namespace:
            metadata["namespace"] = namespace
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **content}
        if old is not None and "status" in old:
            body["status"] = old["status"]
        self._record(EventType.ADDED if old is None else EventType.MODIFIED, key, body)

    def delete(self, key: ObjectKey) -> None:
        self._record(EventType.DELETED, key, self.objects.pop(key))

    def interfere(self, key: ObjectKey) -> None:
        """Somebody else writes the object's status: whoever patches it next by an older version has a Conflict."""
        body = self.objects[key]
        foreign = {"type": "Foreign", "status": "True", "note": str(self.version)}
        status = body.get("status") or {}
        kept = [each for each in status.get("conditions", ()) if each["type"] != "Foreign"]
        self._record(EventType.MODIFIED, key, {**body, "status": {**status, "conditions": [*kept, foreign]}})

    def _record(self, kind: EventType, key: ObjectKey, body: dict[str, JSON]) -> Object:
        self.version += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        item = project(from_json(key.resource, body))
        if kind is not EventType.DELETED:
            self.objects[key] = body
            SimApi.numbers[item.version] = self.version
        self._log[key.resource].append(Logged(self.version, kind, item, body))
        self._remember(key, None if kind is EventType.DELETED else item.version, body)
        return item

    def _remember(self, key: ObjectKey, version: ObjectVersion | None, body: Mapping[str, JSON]) -> None:
        node = (body.get("spec") or {}).get("nodeName", "") if version is not None else ""
        state = State(version, node)
        if self.history[key][-1] != state:
            self.history[key].append(state)

    # Whoever runs it

    def trim(self) -> None:
        """Forget the recent past: a watch that lags gets 410."""
        for resource in self._log:
            self._trimmed[resource] = self.version

    def back_up(self) -> None:
        self._backup = (self.version, dict(self.objects), dict(self.leases))

    def restore(self) -> None:
        """Everything is as it was at the backup, and numbers since then are given a second time."""
        version, objects, leases = self._backup
        for key in sorted(self.objects.keys() | objects.keys()):
            if (body := objects.get(key)) is None:
                self._remember(key, None, {})
            elif body is not self.objects.get(key):
                self._remember(key, project(from_json(key.resource, body)).version, body)
        for log in self._log.values():
            while log and log[-1].version > version:
                log.pop()
        self.objects, self.version, self.leases = dict(objects), version, dict(leases)
        self.lease_log = []
        self.incarnation += 1
        self._trimmed = defaultdict(lambda: version)

    # Hubs

    def listed(self, resource: Resource, at: int) -> dict[ObjectKey, Logged]:
        """The objects as of a version, which is the newest or an older one: servers answer from caches."""
        self.requests += 1
        found: dict[ObjectKey, Logged] = {}
        for step in self._log[resource]:
            if step.version > at:
                break
            if step.type is EventType.DELETED:
                found.pop(step.item.key, None)
            else:
                found[step.item.key] = step
        return found

    def watch(self, resource: Resource, since: int, incarnation: int) -> list[Logged]:
        """What came after a version. Raises Expired."""
        if incarnation != self.incarnation or since > self.version or since < self._trimmed[resource]:
            raise Expired("too old or too large a resource version")
        log = self._log[resource]
        first = len(log)
        while first and log[first - 1].version > since:
            first -= 1
        return log[first:]

    def get(self, key: ObjectKey) -> dict[str, JSON]:
        self.requests += 1
        if key not in self.objects:
            raise NotFound(f"{key} not found")
        return self.objects[key]

    def get_lease(self, node: Node) -> Claim | None:
        self.lease_requests += 1
        return self.leases.get(node)

    def put_lease(self, node: Node, base: Claim | None, term: int, replica: str) -> Claim:
        """
        Make or renew a Lease that is still as it was known. Raises Conflict.

        That a version names one state of it is what every compare-and-swap rests on. After a restore without
        --bump-revision a replica might by chance know a version that another has been given since.
        """
        self.lease_requests += 1
        held = self.leases.get(node)
        if (held and held.version) != (base and base.version):
            raise Conflict(f"the Lease of {node} has changed")
        self._lease_version += 1
        claim = self.leases[node] = Claim(str(self._lease_version), term, replica)
        self.lease_log.append((node, claim))
        return claim

    def patch_status(
        self, key: ObjectKey, base: str, changes: Mapping[str, JSON], values: Mapping[str, Value]
    ) -> dict[str, JSON]:
        """
        Change fields of a status if the object is still at resource version `base`.

        values: the reports that this carries, for the checkers. Raises NotFound, Conflict, Invalid.
        """
        body = self.get(key)
        if body["metadata"]["resourceVersion"] != base:
            raise Conflict(f"{key} has changed")
        if key in self.failing:
            raise InternalError("a webhook failed")
        for twin in changes.get("twins", ()):
            if twin.get("reported", {}).get("value", "").endswith(POISON):
                raise Invalid(f"{key}: a value is refused by the schema")
        for field, value in values.items():
            self.taken[key, field].append(value)
        before = self.history[key][-1].version
        item = self._record(EventType.MODIFIED, key, {**body, "status": {**(body.get("status") or {}), **changes}})
        if item.version != before:
            self.echoes.append(key)
        return self.objects[key]
