"""
A small world: an apiserver, a hub with a lagging watch, a few edges, and everything that can go wrong.

The hub's Hub, Outbox, Placement, WatchCache, the edge's EdgeSession, and the Pump, Peer and codec of both
are the shipped ones; the network, the disk, the clock and the apiserver are simulated. A run is decided
by its seed alone.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Node, ObjectKey, ObjectVersion, Resource
from apimachinery.objects import JSON, Object, from_json
from apimachinery.resources import CONFIG_MAPS, DEVICE_MODELS, DEVICES, NODES, PODS
from apimachinery.watchcache import WatchCache
from cloudhub.patches import Patches
from cloudhub.placement import Placement
from cloudhub.projection import project
from cloudhub.sessions import Hub, Session
from edgehub.session import EdgeSession
from link.frames import Batch, Refusal, ReportEntry
from tests.sim.clock import SimClock
from tests.sim.disk import SimDisk
from tests.sim.network import SimNetwork, SimTransport

WATCHED = (NODES, PODS, CONFIG_MAPS, DEVICES, DEVICE_MODELS)


class SimApi:
    """An apiserver: objects, a resource version, a history that can be trimmed, status patches."""

    def __init__(self) -> None:
        self.objects: dict[ObjectKey, dict[str, JSON]] = {}
        self.version = 0
        self.uids = 0
        self.history: list[WatchEvent] = []
        self.existed: dict[ObjectKey, set[ObjectVersion]] = defaultdict(set)
        """Every version of every object that a node could ever rightly see."""
        self.statuses: dict[tuple[ObjectKey, str], list[bytes]] = defaultdict(list)
        """What was reported, in the order in which it was taken."""
        self.requests = 0

    def put(self, resource: Resource, namespace: str, name: str, content: dict[str, JSON]) -> None:
        self.version += 1
        key = ObjectKey(resource, namespace, name)
        old = self.objects.get(key)
        if old is None:
            self.uids += 1
        body: dict[str, JSON] = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"u{self.uids}" if old is None else old["metadata"]["uid"],
                "resourceVersion": str(self.version),
            },
            **content,
        }
        self.objects[key] = body
        self._record(EventType.ADDED if old is None else EventType.MODIFIED, key, body)

    def delete(self, key: ObjectKey) -> None:
        self.version += 1
        body = self.objects.pop(key)
        body["metadata"]["resourceVersion"] = str(self.version)
        self._record(EventType.DELETED, key, body)

    def patch_status(self, key: ObjectKey, field: str, value: bytes) -> None:
        self.requests += 1
        self.statuses[key, field].append(value)
        if key in self.objects:
            self.version += 1
            body = self.objects[key]
            body["metadata"]["resourceVersion"] = str(self.version)
            body["status"] = {"reported": value.decode()}
            self._record(EventType.MODIFIED, key, body)

    def _record(self, kind: EventType, key: ObjectKey, body: dict[str, JSON]) -> None:
        item = from_json(key.resource, body)
        if kind is not EventType.DELETED:
            self.existed[key].add(project(item).version)
        self.history.append(WatchEvent(kind, item, str(self.version)))

    def list(self, resource: Resource) -> tuple[list[Object], str]:
        self.requests += 1
        found = [from_json(resource, body) for key, body in self.objects.items() if key.resource == resource]
        return found, str(self.version)

    def trim(self) -> None:
        self.history.clear()


class SimHub:
    """One cloudcore process: dies and starts again with nothing but the apiserver to remember by."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.generation = 0
        self.hub: Hub
        self.start()

    def start(self) -> None:
        self.generation += 1
        self.cache = WatchCache()
        self.placement = Placement()
        self.sessions: list[SimTransport] = []
        self._woken = False
        generation = self.generation
        self.hub = Hub(
            self.cache,
            self.placement,
            SimReportSink(self._world, self),
            SimNodeWatcher(),
            clock=self._world.clock,
            new_epoch=lambda: f"{self._world.rng.getrandbits(48):x}",
            wake=lambda: self._wake(generation),
            grace_s=self._world.rng.choice([5.0, 60.0]),
            patches=Patches(max_bytes=4000, min_body_bytes=0),
        )
        self._position = self._world.api.version
        for resource in WATCHED:
            objects, version = self._world.api.list(resource)
            self.hub.changed(self.cache.replace(resource, [project(item) for item in objects], version))

    def _wake(self, generation: int) -> None:
        def work() -> None:
            self._woken = False
            if generation == self.generation and self.hub.work(2):
                self._wake(generation)

        if not self._woken:
            self._woken = True
            self._world.clock.call_later(0.001, work)

    def watch(self) -> None:
        """Take in what the watch has brought, some of it or all; after a trimmed history, list again."""
        world = self._world
        missing = [event for event in world.api.history if int(event.resume_version) > self._position]
        oldest = int(world.api.history[0].resume_version) if world.api.history else world.api.version + 1
        if oldest > self._position + 1:
            self._position = world.api.version
            for resource in WATCHED:
                objects, version = world.api.list(resource)
                self.hub.changed(self.cache.replace(resource, [project(item) for item in objects], version))
            return
        for event in missing[: world.rng.randint(0, len(missing))]:
            self._position = int(event.resume_version)
            assert event.object is not None, "this history has no bookmarks"
            seen = event._replace(object=project(event.object))
            self.hub.changed(self.cache.apply(seen))

    def accept(self, end: SimTransport) -> None:
        self.sessions = [session for session in self.sessions if session.open]
        self.sessions.append(end)
        end.receiving = self.hub.opened(end)

    def crash(self) -> None:
        self.generation += 1
        for end in self.sessions:
            if end.open:
                self._world.network.kill(end)
        self.start()


class SimNodeWatcher:
    def session_up(self, node: Node, agent: str) -> None: ...

    def session_down(self, node: Node) -> None: ...


class SimReportSink:
    """Takes reports to the apiserver some time later, in order, if the hub is still alive then."""

    def __init__(self, world: "World", owner: SimHub) -> None:
        self._world = world
        self._owner = owner
        self._generation = owner.generation

    def accept(self, node: Node, session: Session, seq: int, entries: tuple[ReportEntry, ...]) -> None:
        def take() -> None:
            if self._owner.generation != self._generation:
                return
            for entry in entries:
                self._world.api.patch_status(entry.key, entry.field, entry.value)
            self._owner.hub.reports_taken(session, seq, ())

        self._world.clock.call_later(0.01, take)

    def session_closed(self, session: Session) -> None: ...


class SimEdge:
    """One edgecore process on one disk."""

    def __init__(self, world: "World", node: Node) -> None:
        self._world = world
        self.node = node
        self.disk = SimDisk()
        self.alive = True
        self.generation = 0
        self.session: EdgeSession | None = None
        self.end: SimTransport | None = None
        self._woken = False
        self._sent_row = 0
        self.reported = 0
        self.last_reported: dict[tuple[ObjectKey, str], bytes] = {}
        """What was made durable here last; forgotten when the disk is rolled back, which may undo it."""
        self.seen: dict[ObjectKey, list[ObjectVersion | None]] = defaultdict(list)
        """Every state of every object this edge ever committed, roll-backs apart."""
        self.dial()

    def dial(self) -> None:
        world, generation = self._world, self.generation
        if not self.alive or world.partitioned:
            world.clock.call_later(0.5, lambda: self._redial(generation))
            return
        self.session = EdgeSession(
            self.node,
            self.disk.image.cursor,
            self.disk.digest(),
            agent="sim",
            clock=world.clock,
            wake=lambda: self._wake(generation),
        )
        self._sent_row = 0
        self.end, hub_end = world.network.connect(self.node)
        world.hub.accept(hub_end)
        self.end.receiving = self.session.opened(self.end)

    def _redial(self, generation: int) -> None:
        if generation == self.generation:
            self.dial()

    def _wake(self, generation: int) -> None:
        if not self._woken:
            self._woken = True
            self._world.clock.call_later(self._world.rng.random() * 0.02, lambda: self._work(generation))

    def _work(self, generation: int) -> None:
        self._woken = False
        if generation != self.generation or self.session is None:
            return
        session = self.session
        if session.error is not None:
            self.session = None
            self.generation += 1
            again = self.generation
            self._world.clock.call_later(self._world.rng.random() * 0.5, lambda: self._redial(again))
            return
        if session.wants_inventory:
            session.send_inventory(self.disk.held())
        batches = session.take_batches()
        if batches:
            crash = self._world.crash_at_commit(self)
            if crash == "before":
                return
            refusals = self._commit(batches)
            if crash == "after":
                self.crash()
                return
            session.committed(batches, refusals)
        if session.settled_row:
            self.disk.settle_reports(session.settled_row)
        self.send_reports()

    def _commit(self, batches: Sequence[Batch]) -> dict[int, list[Refusal]]:
        refusals = self.disk.apply(batches)
        for batch in batches:
            for delta in batch.deltas:
                if delta.key not in {refusal.key for refusal in refusals.get(batch.cursor.seq, ())}:
                    self.seen[delta.key].append(delta.version)
        return refusals

    def report(self, key: ObjectKey, field: str) -> None:
        self.reported += 1
        entry = ReportEntry(key, field, str(self.reported).encode())
        self.disk.put_report(entry)
        self.last_reported[key, field] = entry.value
        self.send_reports()

    def send_reports(self) -> None:
        session = self.session
        if session is None or not session.report_room():
            return
        rows = self.disk.pending_reports(self._sent_row)
        if rows:
            self._sent_row = rows[-1][0]
            session.report(rows)

    def crash(self) -> None:
        """kill -9, and start again."""
        self.generation += 1
        self.session = None
        self._woken = False
        if self.end is not None and self.end.open:
            self._world.network.kill(self.end)
        again = self.generation
        self._world.clock.call_later(self._world.rng.random(), lambda: self._redial(again))


class World:
    """Everything, and the faults."""

    def __init__(self, seed: int, nodes: int = 2) -> None:
        self.rng = random.Random(seed)
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, self.rng)
        self.api = SimApi()
        self.partitioned = False
        self.faults = True
        self.crash_once: dict[Node, str] = {}
        self.hub = SimHub(self)
        self.nodes = [Node(f"n{number}") for number in range(nodes)]
        for node in self.nodes:
            self.api.put(NODES, "", node, {"spec": {}})
        self.edges = [SimEdge(self, node) for node in self.nodes]

    def crash_at_commit(self, edge: SimEdge) -> str:
        """Whether the edge dies around this commit: "before" it, "after" it but before the ack, or not: ""."""
        fault = self.crash_once.pop(edge.node, "")
        if fault == "before":
            edge.crash()
        return fault

    # What people and faults do

    def step(self) -> None:
        """One thing happens, then some time passes."""
        self.rng.choice(self.EDITS if not self.faults or self.rng.random() < 0.7 else self.FAULTS)(self)
        if self.rng.random() < 0.8:
            self.hub.watch()
        self.clock.run_until(self.clock.time() + self.rng.choice([0.0, 0.01, 0.05, 0.3]))

    def edit_pod(self) -> None:
        name = f"p{self.rng.randrange(4)}"
        volumes = [{"configMap": {"name": f"c{self.rng.randrange(3)}"}} for _ in range(self.rng.randrange(3))]
        spec = {"nodeName": self.rng.choice([*self.nodes, ""]), "volumes": volumes, "x": self.rng.randrange(99)}
        self.api.put(PODS, "default", name, {"spec": spec})

    def edit_config_map(self) -> None:
        self.api.put(CONFIG_MAPS, "default", f"c{self.rng.randrange(3)}", {"data": {"v": str(self.rng.randrange(99))}})

    def edit_device(self) -> None:
        spec = {
            "nodeName": self.rng.choice(self.nodes),
            "deviceModelRef": {"name": f"m{self.rng.randrange(2)}"},
            "properties": [{"name": "t", "desired": {"value": str(self.rng.randrange(99))}}],
        }
        self.api.put(DEVICES, "default", f"d{self.rng.randrange(3)}", {"spec": spec})

    def edit_model(self) -> None:
        self.api.put(DEVICE_MODELS, "default", f"m{self.rng.randrange(2)}", {"spec": {"x": self.rng.randrange(99)}})

    def delete_something(self) -> None:
        deletable = [key for key in self.api.objects if key.resource != NODES]
        if deletable:
            self.api.delete(self.rng.choice(sorted(deletable)))

    def report_something(self) -> None:
        edge = self.rng.choice(self.edges)
        edge.report(ObjectKey(DEVICES, "default", f"d{self.rng.randrange(3)}"), f"property/{edge.node}")

    def lose_connection(self) -> None:
        if self.network.connections:
            edge = self.rng.choice(self.network.connections)
            late = self.rng.choice([0.0, 0.2, 5.0])
            if self.rng.random() < 0.5:
                self.network.cut(edge, edge_notices_s=0.0, hub_notices_s=late)
            else:
                self.network.cut(edge, edge_notices_s=late, hub_notices_s=0.0)

    def toggle_partition(self) -> None:
        self.partitioned = not self.partitioned

    def crash_hub(self) -> None:
        self.hub.crash()

    def crash_edge(self) -> None:
        edge = self.rng.choice(self.edges)
        fault = self.rng.choice(["now", "before", "after"])
        if fault == "now":
            edge.crash()
        else:
            self.crash_once[edge.node] = fault

    def roll_back_disk(self) -> None:
        edge = self.rng.choice(self.edges)
        edge.crash()
        edge.disk.roll_back(self.rng.randint(1, 4))
        edge.seen.clear()
        edge.last_reported.clear()

    def trim_history(self) -> None:
        self.api.trim()

    EDITS = (edit_pod, edit_pod, edit_config_map, edit_device, edit_model, delete_something, report_something)
    FAULTS = (lose_connection, lose_connection, toggle_partition, crash_hub, crash_edge, roll_back_disk, trim_history)

    def settle(self) -> None:
        """No more faults, and time enough for everything to calm down."""
        self.faults = False
        self.partitioned = False
        self.crash_once.clear()
        for _ in range(40):
            self.clock.run_until(self.clock.time() + 5.0)
            for _ in range(4):
                self.hub.watch()
                self.clock.run_until(self.clock.time() + 0.5)

    # What must be true

    def expected(self, node: Node) -> dict[ObjectKey, ObjectVersion]:
        """What the apiserver says this node should hold, computed the slow way from the objects alone."""
        found: dict[ObjectKey, ObjectVersion] = {}
        referred: set[ObjectKey] = set()
        for key, body in self.api.objects.items():
            spec = body.get("spec") or {}
            if (key.resource == NODES and key.name == node) or spec.get("nodeName") == node:
                found[key] = project(from_json(key.resource, body)).version
                referred |= {
                    ObjectKey(CONFIG_MAPS, key.namespace, volume["configMap"]["name"])
                    for volume in spec.get("volumes", ())
                }
                if "deviceModelRef" in spec:
                    referred.add(ObjectKey(DEVICE_MODELS, key.namespace, spec["deviceModelRef"]["name"]))
        for key in referred & self.api.objects.keys():
            found[key] = project(from_json(key.resource, self.api.objects[key])).version
        return found

    def problems(self) -> list[str]:
        """Every promise that is broken, in words."""
        found: list[str] = []
        for edge in self.edges:
            held = {key: version for key, (version, _) in edge.disk.image.objects.items()}
            expected = self.expected(edge.node)
            if held != expected:
                wrong = [str(key) for key in held.keys() | expected.keys() if held.get(key) != expected.get(key)]
                found.append(f"{edge.node} differs from the apiserver in {sorted(wrong)}")
            if not edge.disk.image.synced:
                found.append(f"{edge.node} was never told that it is in sync")
            for key, versions in edge.seen.items():
                unreal = [version for version in versions if version and version not in self.api.existed[key]]
                if unreal:
                    found.append(f"{edge.node} saw versions of {key} that never were: {unreal}")
            for (key, field), value in edge.last_reported.items():
                if self.api.statuses[key, field][-1:] != [value]:
                    found.append(f"{edge.node} reported {value!r} last for {key} {field}, the apiserver has otherwise")
            if edge.disk.image.reports:
                found.append(f"{edge.node} has reports left: {sorted(name for _, name in edge.disk.image.reports)}")
        return found


def run(seed: int, steps: int = 60) -> World:
    """One schedule; the world as it is when everything has calmed down."""
    world = World(seed)
    for _ in range(steps):
        world.step()
    world.settle()
    return world
