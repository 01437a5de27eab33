"""
A small world: an apiserver, hubs with lagging watches, edges with devices, and everything that can go wrong.

A run is decided by its seed alone, in any process. The cores are the shipped ones; docs/simulation.md tells which,
what is simulated around them, and what is checked (checks.py).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar
from unittest.mock import patch

import cloudhub.wires
import edgehub.session
import link.peer
import link.transfers
from apimachinery.errors import ApiError, InternalError, TooManyRequests, Unavailable
from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.resources import CONFIG_MAPS, DEVICE_MODELS, DEVICES, NODES, PODS, SECRETS
from cloudhub.reportvalues import Value, parse
from cloudhub.wires import ASIDE_BYTES
from link.frames import BULK, CHUNK_BYTES, LARGE_BYTES, PUSHES, WINDOW_BYTES, WINDOW_FRAMES, Interest, ReportEntry
from tests.sim.access import GADGETS, POOL, STEADY, STEADY_KEY
from tests.sim.apiserver import SimApi
from tests.sim.clock import MachineClock, SimClock
from tests.sim.edge import SimEdge
from tests.sim.hub import SHARED, SimHub
from tests.sim.network import SimNetwork, SimTransport

T = TypeVar("T")

STEPS = 60
ROUNDS = 30
"""Of calming down; each is a few seconds of virtual time."""
KEYS = 3 + 4 + 2 * 2 + 2 + 3 + 2 + 3
"""How many objects there ever are, by name: nodes, pods, config maps of two namespaces, secrets, devices, models, and
gadgets."""


class Shape(NamedTuple):
    """What a seed decides once for its whole run."""

    nodes: int = 3
    hubs: int = 1
    delays_s: tuple[float, ...] = (0.05,)
    chunk: int = 1000
    window_frames: int = WINDOW_FRAMES
    window_bytes: int = WINDOW_BYTES
    commits_s: tuple[float, ...] = (0.0, 0.001, 0.02)
    """How long a commit takes: one of these."""
    large: int = LARGE_BYTES
    """Longer deltas go in parts of a quarter of this."""
    aside: bool = True
    """Whether what is longer is packed in a thread, and so later."""
    interests: bool = False
    """Whether nodes are interested in more than what is placed on them."""
    lanes: bool = False
    """Whether connections are QUIC's, on which lanes overtake each other."""

    @classmethod
    def drawn(cls, rng: random.Random) -> "Shape":
        return cls(
            hubs=rng.choice([1, 2, 2]),
            delays_s=rng.choice([(0.05,), (0.01, 0.3), (0.05, 2.0)]),
            chunk=rng.choice([1000, 1, 3]),
            window_frames=rng.choice([WINDOW_FRAMES, 3]),
            window_bytes=rng.choice([WINDOW_BYTES, 700]),
            commits_s=rng.choice([(0.0, 0.001, 0.02), (0.02, 0.3, 1.5)]),
            interests=rng.random() < 0.7,
            large=rng.choice([LARGE_BYTES, 160, 130]),
        )


class Expectation(NamedTuple):
    """What a node reported last of a field, as long as nothing else may rightly stand in the apiserver."""

    value: Value
    node: Node


class World:
    """Everything, and the faults."""

    def __init__(self, seed: int, shape: Shape) -> None:
        self.rng = random.Random(seed)
        self.shape = shape
        self.commits_s = shape.commits_s
        self.clock = SimClock()
        self.network = SimNetwork(self.clock, self.rng, delays_s=shape.delays_s, lanes=shape.lanes)
        self.api = SimApi()
        self.has_faults = True
        self.happened: dict[str, int] = {}
        """How often each edit and fault was done."""
        self.partitioned: set[Node] = set()
        self.avoided: dict[Node, str] = {}
        """The replica that a node will not dial next."""
        self.moods: dict[str, str] = {}
        """How a replica finds the apiserver, by name, where not well: "slow"; "refusing" with 429 and 5xx; "lossy":
        done, but not answered."""
        self.readings = 0
        self.reports: dict[tuple[ObjectKey, str], list[Value]] = {}
        """Every report that became durable at an edge, in order."""
        self.expected: dict[tuple[ObjectKey, str], Expectation] = {}
        self.unordered: set[tuple[ObjectKey, str]] = set()
        """Fields of which an older report may rightly come again, or from somebody else."""
        self.moved: set[ObjectKey] = set()
        self.faulty_bounds: list[str] = []
        self.nodes = [Node(f"n{number}") for number in range(self.shape.nodes)]
        for node in self.nodes:
            self.api.put(NODES, "", node, {"spec": {}})
        self.forbidden: set[tuple[Node, Interest]] = set()
        """What may not be read, in the order of nothing: nobody iterates over it."""
        if shape.interests:
            self.api.put(STEADY_KEY.resource, STEADY_KEY.namespace, STEADY_KEY.name, {"x": 0})
        self.api.back_up()
        self.hubs = [SimHub(self, f"hub{number}") for number in range(self.shape.hubs)]
        self.edges = [SimEdge(self, node) for node in self.nodes]
        if shape.interests:
            self.edges[0].disk.image.interests = (STEADY,)

    # What its processes see of it

    def new_machine(self) -> MachineClock:
        rng = self.rng
        rate = rng.choice([1.0, 0.9, 1.1])
        return MachineClock(self.clock, start=rng.random() * 1e6, rate=rate, wall_ahead_ms=rng.randint(-(10**9), 10**9))

    def request(self, hub: str, ask: Callable[[], T], answered: Callable[[T | ApiError], None]) -> None:
        rng = self.rng
        mood = self.moods.get(hub, "")

        def arrive() -> None:
            answer: T | ApiError
            if mood == "refusing" and rng.random() < 0.8:
                answer = rng.choice([TooManyRequests, InternalError, Unavailable])("not now")
            else:
                try:
                    answer = ask()
                except ApiError as error:
                    answer = error
                if mood == "lossy" and rng.random() < 0.6:
                    answer = Unavailable("the connection was lost before the answer")
            self.clock.call_later(rng.random() * 0.02, lambda: answered(answer))

        self.clock.call_later(rng.random() * (2.0 if mood == "slow" else 0.02), arrive)

    def dial(self, node: Node) -> tuple[SimTransport, Callable[[], None], str] | None:
        avoided = self.avoided.pop(node, "")
        hub = self.rng.choice([hub for hub in self.hubs if hub.name != avoided] or self.hubs)
        if node in self.partitioned or not hub.is_up:
            return None
        edge_end, hub_end = self.network.connect(node)
        return edge_end, lambda: hub.accept(hub_end), hub.name

    def is_allowed(self, node: Node, interest: Interest) -> bool:
        return (node, interest) not in self.forbidden

    def reported(self, node: Node, entries: Sequence[ReportEntry]) -> None:
        for entry in entries:
            name, value = (entry.key, entry.field), parse(entry)
            self.reports.setdefault(name, []).append(value)
            held = self.edges[self.nodes.index(node)].disk.image.objects.get(entry.key)
            is_placed = held is not None and self._is_placed_since(entry.key, held[0], node)
            # A hub that has not noticed a restore may refuse for good what there was not before.
            is_known = all(hub.knows_this_cluster for hub in self.hubs)
            if is_known and is_placed:
                self.expected[name] = Expectation(value, node)
            else:
                self.expected.pop(name, None)

    def _is_placed_since(self, key: ObjectKey, version: ObjectVersion, node: Node) -> bool:
        """
        Whether the object was on this node ever since it was in this version, and is.

        A hub whose watch lags may know of a moment at which it was not, and refuse what is reported, rightly.
        """
        for state in reversed(self.api.history[key]):
            if state.version is None or state.node != node:
                return False
            if state.version == version:
                return True
        return False

    # What happens

    def step(self) -> None:
        """One thing happens, then some time passes."""
        if self.has_faults and self.rng.random() < 0.3:
            self.do(self.rng.choice(self.FAULTS))
        else:
            self.do(self.rng.choice(self.EDITS))
        for hub in self.hubs:
            if self.rng.random() < 0.7:
                hub.watch()
        self.clock.run_for(self.rng.choice([0.0, 0.01, 0.05, 0.3, 1.0]))
        self.check_bounds()

    def do(self, what: "Callable[[World], None]") -> None:
        self.happened[what.__name__] = self.happened.get(what.__name__, 0) + 1
        what(self)

    def check_bounds(self) -> None:
        devices = sum(key.resource == DEVICES for key in self.api.history)
        for hub in self.hubs:
            if len(hub.writer.core) > devices:
                self.faulty_bounds.append(f"{hub.name} keeps reports of {len(hub.writer.core)} objects")
            for node, outbox in hub.hub._outboxes.items():
                if outbox.dirty_count > KEYS:
                    self.faulty_bounds.append(f"{hub.name} has {outbox.dirty_count} dirty keys for {node}")
                if len(outbox._flights) > 2 * self.shape.window_frames:
                    self.faulty_bounds.append(f"{hub.name} has {len(outbox._flights)} pushes under way to {node}")
        for edge in self.edges:
            if len(edge.disk.image.reports) > 3 * devices:
                self.faulty_bounds.append(f"{edge.node} keeps {len(edge.disk.image.reports)} reports")

    def _serial(self) -> str:
        """A value that was never before."""
        self.readings += 1
        return str(self.readings)

    def edit_pod(self) -> None:
        rng = self.rng
        sources = [("configMap", "name", "c"), ("secret", "secretName", "s")]
        volumes = [
            {kind: {field: f"{prefix}{rng.randrange(2)}"}}
            for kind, field, prefix in (rng.choice(sources) for _ in range(rng.randrange(3)))
        ]
        spec = {"nodeName": rng.choice([*self.nodes, ""]), "volumes": volumes, "x": rng.randrange(99)}
        self.api.put(PODS, "default", f"p{rng.randrange(4)}", {"spec": spec})

    def edit_config_map(self) -> None:
        name = f"c{self.rng.randrange(2)}"
        data = {"v": self._serial() if self.rng.random() < 0.7 else "again", "padding": "what stays " * 5}
        self.api.put(CONFIG_MAPS, self.rng.choice(["default", "default", SHARED]), name, {"data": data})

    def edit_often(self) -> None:
        """Somebody edits one object several times within a round trip."""
        kind, namespace = self.rng.choice([(CONFIG_MAPS, SHARED), (CONFIG_MAPS, "default"), (SECRETS, "default")])
        name = f"{'c' if kind == CONFIG_MAPS else 's'}{self.rng.randrange(2)}"
        for _ in range(3):
            self.api.put(kind, namespace, name, {"data": {"v": self._serial(), "padding": "what stays " * 5}})
            for hub in self.hubs:
                hub.watch()
            self.clock.run_for(0.01)

    def edit_secret(self) -> None:
        self.api.put(SECRETS, "default", f"s{self.rng.randrange(2)}", {"data": {"v": self._serial()}})

    def edit_node(self) -> None:
        self.api.put(NODES, "", self.rng.choice(self.nodes), {"spec": {"x": self._serial()}})

    def edit_device(self) -> None:
        rng = self.rng
        key = ObjectKey(DEVICES, "default", f"d{rng.randrange(3)}")
        old = self.api.objects.get(key)
        node = rng.choice(self.nodes) if old is None or rng.random() < 0.2 else old["spec"]["nodeName"]
        if old is not None and node != old["spec"]["nodeName"]:
            self._void(key)
            self.moved.add(key)
        spec = {
            "nodeName": node,
            "deviceModelRef": {"name": f"m{rng.randrange(2)}"},
            "properties": [{"name": "t", "desired": {"value": self._serial()}}, {"name": "u"}],
        }
        self.api.put(DEVICES, "default", key.name, {"spec": spec})

    def edit_gadget(self) -> None:
        if self.shape.interests:
            name = self.rng.choice(["g0", "g1", STEADY_KEY.name])
            self.api.put(GADGETS, "default", name, {"x": self._serial()})

    def change_interests(self) -> None:
        """Something else is read at a node; what it was interested in is dropped."""
        if self.shape.interests:
            edge = self.rng.choice(self.edges)
            always = (STEADY,) if edge is self.edges[0] else ()
            edge.want((*always, *(each for each in POOL if self.rng.random() < 0.5)))

    def change_rights(self) -> None:
        """An admin gives a right, or takes one back."""
        if self.shape.interests:
            self.forbidden ^= {(self.rng.choice(self.nodes), self.rng.choice(POOL))}

    def edit_model(self) -> None:
        properties = [{"name": name, "type": "INT", "accessMode": "ReadWrite"} for name in ("t", "u")]
        spec = {"properties": properties, "x": self.rng.randrange(99)}
        self.api.put(DEVICE_MODELS, "default", f"m{self.rng.randrange(2)}", {"spec": spec})

    def delete_something(self) -> None:
        deletable = [key for key in self.api.objects if key.resource != NODES and key != STEADY_KEY]
        if deletable:
            key = self.rng.choice(sorted(deletable))
            self._void(key)
            self.api.delete(key)

    def device_speaks(self) -> None:
        edge = self.rng.choice(self.edges)
        for key in _devices_of(edge)[:2]:
            if self.rng.random() < 0.2:
                edge.says_state(key, self.rng.choice(["online", "offline"]))
            else:
                edge.says(key, self.rng.choice("tu"), self._serial())

    def _void(self, key: ObjectKey) -> None:
        """What was reported of this object so far binds nobody any more."""
        for name in [name for name in self.reports if name[0] == key]:
            self.expected.pop(name, None)
            self.unordered.add(name)

    # Faults of the network

    def cut_connection(self) -> None:
        if self.network.connections:
            edge = self.rng.choice(self.network.connections)
            late = self.rng.choice([0.0, 0.2, 5.0])
            first, second = self.rng.choice([(0.0, late), (late, 0.0)])
            self.network.cut(edge, edge_notices_s=first, hub_notices_s=second)

    def half_open(self) -> None:
        if self.network.connections:
            edge = self.rng.choice(self.network.connections)
            self.network.mute(self.rng.choice([edge, edge.other]))

    def dial_again(self) -> None:
        if self.network.connections:
            self.network.abandon(self.rng.choice(self.network.connections))

    def elope(self) -> None:
        """
        A node leaves for another replica while what it said is on its way into the apiserver, which the one that it
        left finds unwell for a moment; perhaps it is soon back. Nobody tells the one that was left.
        """
        rng = self.rng
        lively = [edge for edge in self.edges if edge.end is not None and edge.end.open and _devices_of(edge)]
        if not lively:
            return
        edge = rng.choice(lively)
        key, name = rng.choice(_devices_of(edge)), rng.choice("tu")
        for hub in self.hubs:
            is_left = hub.name == edge.replica
            if mood := rng.choice(["slow", "refusing", "lossy"] if is_left else ["slow", "slow", ""]):
                self.moods[hub.name] = mood
                self.clock.call_later(rng.random() * 4, partial(self._feel_better, hub.name))
        for _ in range(rng.choice([1, 2])):
            edge.says(key, name, self._serial())
            self.clock.run_for(rng.choice([0.1, 0.3, 1.0]))
            if edge.end is not None and edge.end.open:
                self.avoided[edge.node] = edge.replica
                self.network.abandon(edge.end)
            self.clock.run_for(rng.choice([0.0, 0.1, 0.5]))
        edge.says(key, name, self._serial())

    def _feel_better(self, replica: str) -> None:
        self.moods.pop(replica, None)

    def partition(self) -> None:
        node = self.rng.choice(self.nodes)
        self.partitioned ^= {node}

    # Faults of machines

    def crash_hub(self) -> None:
        self.rng.choice(self.hubs).crash(self.rng.choice([0.0, 0.1, 2.0]), is_silent=self.rng.random() < 0.2)

    def crash_edge(self) -> None:
        edge = self.rng.choice(self.edges)
        fault = self.rng.choice(["now", "during", "after"])
        if fault == "now":
            edge.crash(is_silent=self.rng.random() < 0.3)
        else:
            edge.crash_at = fault

    def fill_disk(self) -> None:
        edge = self.rng.choice(self.edges)
        edge.disk.is_full = not edge.disk.is_full

    def roll_back_disk(self) -> None:
        edge = self.rng.choice(self.edges)
        edge.crash(is_silent=self.rng.random() < 0.3)
        if edge.roll_back(self.rng.randint(1, 4)):
            for name in [name for name, known in self.expected.items() if known.node == edge.node]:
                del self.expected[name]
            self.unordered |= self.reports.keys()

    def refuse_objects(self) -> None:
        edge = self.rng.choice(self.edges)
        edge.disk.refusing = "" if edge.disk.refusing else self.rng.choice(["0123456", "0123456789ab"])

    def jump_wall_clock(self) -> None:
        edges = [edge.clock for edge in self.edges]
        clock = self.rng.choice([*edges, *(hub.clock for hub in self.hubs)])
        # Hubs may be days apart. That of a node may be anything; its terms are of the future then, and set back.
        furthest = 2 * 365 * 86_400_000 if clock in edges else 86_400_000
        clock.wall_ahead_ms += self.rng.choice([-86_400_000, -1_000, 1_000, furthest])

    # Faults of the apiserver

    def trim_history(self) -> None:
        self.api.trim()

    def back_up(self) -> None:
        self.api.back_up()

    def restore_backup(self) -> None:
        self.api.restore()
        for key in list(self.api.history):
            self._void(key)

    def interfere(self) -> None:
        devices = sorted(key for key in self.api.objects if key.resource == DEVICES)
        if devices:
            self.api.interfere(self.rng.choice(devices))

    def change_mood(self) -> None:
        """The apiserver is not well, for all replicas or as far as one of them can see; or it is again."""
        rng = self.rng
        names = [hub.name for hub in self.hubs]
        mood = rng.choice(["slow", "refusing", "lossy"])
        self.moods = {} if self.moods else dict.fromkeys(rng.choice([names, [rng.choice(names)]]), mood)

    def a_status_fails(self) -> None:
        """The apiserver takes no status of some device, and all others; or takes them again."""
        devices = sorted(key for key in self.api.objects if key.resource == DEVICES)
        if devices:
            self.api.failing ^= {self.rng.choice(devices)}

    EDITS: tuple[Callable[["World"], None], ...] = (
        edit_pod,
        edit_pod,
        edit_config_map,
        edit_often,
        edit_secret,
        edit_node,
        edit_device,
        edit_device,
        edit_model,
        edit_gadget,
        change_interests,
        change_rights,
        delete_something,
        device_speaks,
        device_speaks,
        device_speaks,
    )
    FAULTS: tuple[Callable[["World"], None], ...] = (
        cut_connection,
        cut_connection,
        half_open,
        elope,
        elope,
        elope,
        dial_again,
        dial_again,
        partition,
        a_status_fails,
        crash_hub,
        crash_hub,
        crash_edge,
        crash_edge,
        fill_disk,
        roll_back_disk,
        refuse_objects,
        jump_wall_clock,
        trim_history,
        back_up,
        restore_backup,
        interfere,
        change_mood,
    )

    def settle(self, is_calm: "Callable[[World], bool]") -> None:
        """No more faults, and time enough for everything to calm down: until `is_calm` twice in a row."""
        self.has_faults = False
        self.partitioned.clear()
        self.moods.clear()
        self.api.failing.clear()
        for edge in self.edges:
            edge.crash_at = ""
            edge.disk.is_full = False
            edge.disk.refusing = ""
        calm = 0
        for _ in range(ROUNDS):
            for _ in range(3):
                self.clock.run_for(1.0)
                for hub in self.hubs:
                    hub.watch(fully=True)
                    hub.upkeep()
            calm = calm + 1 if is_calm(self) else 0
            if calm == 2:
                return


def _devices_of(edge: SimEdge) -> list[ObjectKey]:
    """Those that the node holds."""
    return sorted(key for key in edge.disk.image.objects if key.resource == DEVICES)


@contextmanager
def tuned(shape: Shape) -> Iterator[None]:
    """Small windows and chunks, so that few objects are many frames."""
    pushes, devices = PUSHES
    pushes = pushes._replace(frames=shape.window_frames, bytes=shape.window_bytes)
    devices = devices._replace(frames=shape.window_frames, bytes=min(shape.window_bytes, devices.bytes))
    with (
        patch.object(link.peer, "PUSHES", (pushes, devices)),
        patch.object(edgehub.session, "INVENTORY_CHUNK", shape.chunk),
        patch.object(cloudhub.wires, "LARGE_BYTES", shape.large),
        patch.object(cloudhub.wires, "ASIDE_BYTES", min(ASIDE_BYTES, shape.large) if shape.aside else ASIDE_BYTES),
        patch.object(link.transfers, "CHUNK_BYTES", min(CHUNK_BYTES, shape.large // 4)),
        patch.object(link.peer, "BULK", BULK._replace(bytes=min(BULK.bytes, shape.large // 2), growth=1)),
    ):
        yield
