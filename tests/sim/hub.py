"""
One cloudcore process: it dies and starts again with nothing but the apiserver to remember by.

Hub, Outbox, Placement, Interests, WatchCache, Patches and Reports are the shipped ones. What stands here for the
shells is the least that drives them: a watch per resource that lags and expires (cloudhub/reflector.py), the turns of
work (cloudhub/server.py), the writes (writer.py) and the decisions (access.py).
"""

from collections.abc import Callable

from apimachinery.errors import Expired
from apimachinery.events import Change, EventType, WatchEvent
from apimachinery.keys import Resource
from apimachinery.resources import CONFIG_MAPS, DEVICE_MODELS, DEVICES, NODES, PODS, SECRETS
from apimachinery.watchcache import WatchCache
from cloudhub.horizon import Advance
from cloudhub.patches import Patches
from cloudhub.placement import STANDARD_RULES, By, Placement, Rule
from cloudhub.sessions import Hub
from cloudhub.wires import Parts
from tests.sim.access import NoCalls, SimAccess
from tests.sim.apiserver import Logged
from tests.sim.clock import MachineClock
from tests.sim.leases import SimLeases
from tests.sim.network import SimTransport
from tests.sim.surroundings import Surroundings
from tests.sim.writer import SimWriter

WATCHED = (NODES, PODS, CONFIG_MAPS, SECRETS, DEVICES, DEVICE_MODELS)
SHARED = "shared"
"""ConfigMaps of this namespace belong on all nodes."""
RULES = (*STANDARD_RULES, Rule(CONFIG_MAPS, By.ALL_NODES, namespace=SHARED))
HEARTBEAT_S = 2.0


class SimHub:
    """One replica."""

    def __init__(self, world: Surroundings, name: str) -> None:
        self._world = world
        self.name = name
        self.generation = 0
        self.healed = 0
        """By earlier processes of this replica."""
        self.lagged = 0
        """Sessions that earlier processes began without having seen what the node had been told of."""
        self.is_up = False
        self.ends: list[SimTransport] = []
        self.start()

    def start(self) -> None:
        self.generation += 1
        self.is_up = True
        world = self._world
        self.clock: MachineClock = world.new_machine()
        self.cache = WatchCache()
        self.placement = Placement(RULES)
        self.leases = SimLeases(world, self)
        self.writer = SimWriter(world, self)
        self.access = SimAccess(world, self)
        self._woken = False
        generation = self.generation
        self.hub = Hub(
            self.cache,
            self.placement,
            self.writer,
            self.leases,
            access=self.access,
            calls=NoCalls(),
            clock=self.clock,
            now_ms=self.clock.wall_ms,
            new_epoch=lambda: f"{world.rng.getrandbits(48):x}",
            wake=lambda: self._wake(generation),
            heartbeat_s=HEARTBEAT_S,
            grace_s=world.rng.choice([5.0, 60.0]),
            patches=Patches(max_bytes=4000, min_body_bytes=0),
            aside=self._aside,
        )
        self._positions: dict[Resource, int] = {}
        self._incarnations: dict[Resource, int] = {}
        for resource in WATCHED:
            self._list(resource, newest=True)

    def _wake(self, generation: int) -> None:
        def work() -> None:
            self._woken = False
            if generation == self.generation and self.hub.work(2):
                self._wake(generation)

        # The timers of a dead process go off all the same.
        if generation == self.generation and not self._woken:
            self._woken = True
            self._world.clock.call_later(0.001, work)

    def _aside(self, work: Callable[[], Parts], done: Callable[[Parts], None]) -> None:
        """A thread that packs; it dies with the process."""
        generation, parts = self.generation, work()
        delay_s = self._world.rng.choice([0.0, 0.1, 1.0])
        self._world.clock.call_later(delay_s, lambda: done(parts) if generation == self.generation else None)

    # The watches

    def watch(self, *, fully: bool = False) -> None:
        """Take in what each watch has brought, some of it or all; list again where a watch has expired."""
        if not self.is_up:
            return
        for resource in list(self._positions):
            self._watch(resource, fully)
        if self._world.rng.random() < 0.1:
            self.access.recheck()
        self.leases.watch(fully=fully)

    def _watch(self, resource: Resource, fully: bool) -> None:
        world = self._world
        try:
            steps = world.api.watch(resource, self._positions[resource], self._incarnations[resource])
        except Expired:
            self._list(resource, newest=self._incarnations[resource] != world.api.incarnation)
            return
        if not steps:
            if world.rng.random() < 0.3:
                self._positions[resource] = world.api.version
                self.cache.apply(WatchEvent(EventType.BOOKMARK, None, str(world.api.version)), resource)
                self._advance(resource, Advance(str(world.api.version), is_bookmark=True))
            return
        for step in steps if fully else steps[: world.rng.randint(0, len(steps))]:
            self._positions[resource] = step.version
            self._observe(step)
            self._take(self.cache.apply(WatchEvent(step.type, step.item, str(step.version))))
            self._advance(resource, Advance(str(step.version)))

    def follows(self, resource: Resource) -> bool:
        """Whether it has been listed."""
        return resource in self._positions

    def follow(self, resource: Resource) -> None:
        """Watch something that no rule asks for."""
        self._list(resource, newest=True)

    def let_go(self, resource: Resource) -> None:
        """Watch it no more."""
        del self._positions[resource], self._incarnations[resource]
        self.cache.forget(resource)
        self._advance(resource, Advance(""))

    def _list(self, resource: Resource, *, newest: bool) -> None:
        """The newest state at first; later any that is not older than what was seen (NotOlderThan)."""
        world = self._world
        at = world.api.version if newest else self.not_older_than(resource)
        found = world.api.listed(resource, at)
        self._positions[resource] = at
        self._incarnations[resource] = world.api.incarnation
        for step in found.values():
            self._observe(step)
        self._take(self.cache.replace(resource, [step.item for step in found.values()], str(at)))
        self._advance(resource, Advance(str(at)))

    def not_older_than(self, resource: Resource) -> int:
        """As of which version a list is answered that may not be older than what was seen."""
        return self._world.rng.randint(min(self._positions[resource], self._world.api.version), self._world.api.version)

    def _advance(self, resource: Resource, advance: Advance) -> None:
        self.hub.advanced(resource, advance)

    def _observe(self, step: Logged) -> None:
        if step.type is not EventType.DELETED:
            self.writer.observe(step.item.key, step.body)

    def _take(self, changes: list[Change]) -> None:
        self.hub.changed(changes)
        self.writer.changed(changes)

    @property
    def knows_this_cluster(self) -> bool:
        """Whether every watch is of the cluster as it is since the last restore."""
        return all(each == self._world.api.incarnation for each in self._incarnations.values())

    # Connections and the end

    def accept(self, end: SimTransport) -> None:
        self.ends = [each for each in self.ends if each.open]
        self.ends.append(end)
        end.receiving = self.hub.opened(end)

    def upkeep(self) -> None:
        """What the server does now and then."""
        if self.is_up:
            self.hub.expire()
            self.hub.retry_refused()
            self.access.recheck()

    def crash(self, down_s: float, *, is_silent: bool = False) -> None:
        """kill -9, or (`is_silent`) the power is gone; somebody starts it again after `down_s`."""
        if not self.is_up:
            return
        self.is_up = False
        self.generation += 1
        self.healed += self._healed_now
        self.lagged += self.hub.counters.lagging
        for end in self.ends:
            if end.open:
                self._world.network.kill(end, is_silent=is_silent)
        self._world.clock.call_later(down_s, self.start)

    @property
    def all_healed(self) -> int:
        """How often a node did not hold what this replica took it to hold."""
        return self.healed + (self._healed_now if self.is_up else 0)

    @property
    def all_lagged(self) -> int:
        """How often this replica began a session though it had not seen what the node had been told of."""
        return self.lagged + (self.hub.counters.lagging if self.is_up else 0)

    @property
    def _healed_now(self) -> int:
        return self.hub.counters.healed + self.hub.counters.divergences
