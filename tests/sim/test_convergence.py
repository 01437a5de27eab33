"""Seeded schedules of edits and faults: whatever happened, everything must come right once it is quiet."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from apimachinery.resources import PODS
from link.frames import Interest
from tests.sim.__main__ import batches
from tests.sim.access import GADGETS, STEADY
from tests.sim.checks import is_subsequence, problems, run
from tests.sim.clock import MachineClock, SimClock
from tests.sim.world import Shape, World

SEEDS = int(os.environ.get("FAIRLEAD_SIM_SEEDS", "600"))
FIRST = int(os.environ.get("FAIRLEAD_SIM_FIRST", "0"))
SOAK_S = float(os.environ.get("FAIRLEAD_SOAK_S", "600"))
CHUNK = 50


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, CHUNK))
def test_any_history_of_edits_and_faults_converges(first: int) -> None:
    for seed in range(first, min(first + CHUNK, FIRST + SEEDS)):
        found = problems(run(seed))
        assert not found, f"seed {seed} (python -m tests.sim run {seed}): {found}"


@pytest.mark.soak
def test_as_many_histories_as_time_allows(capsys: pytest.CaptureFixture[str]) -> None:
    """FAIRLEAD_SOAK_S seconds, from seed FAIRLEAD_SIM_FIRST on."""
    schedules = 0
    wrong: dict[int, list[str]] = {}
    for each in batches(SOAK_S, FIRST):
        schedules += each.schedules
        wrong |= each.wrong
    with capsys.disabled():
        print(f"\n{schedules} schedules, {schedules / SOAK_S:.0f} per second")
    assert not wrong, f"python -m tests.sim run {min(wrong)}: {wrong}"


# What is wanted of a seed: that it always says the same.


def trace(seed: int) -> str:
    world = run(seed)
    images = [edge.disk.image for edge in world.edges]
    return f"{world.network.bytes_carried} {world.clock.time()} {world.api.version} {images}"


def test_a_seed_replays_exactly() -> None:
    assert trace(7) == trace(7)


def test_a_seed_replays_exactly_in_a_process_that_hashes_otherwise() -> None:
    code = "from tests.sim.test_convergence import trace; print(hash('a'), *map(trace, (7, 8, 9)), sep='\\n')"
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for seed in ("1", "2")
    ]
    assert told[0][0] != told[1][0]
    assert told[0][1:] == told[1][1:]


def test_the_faults_do_happen() -> None:
    """A simulation in which nothing breaks proves nothing."""
    happened: Counter[str] = Counter()
    for world in (run(seed) for seed in range(40)):
        happened.update(world.happened)
        happened["objects held"] += sum(len(edge.disk.image.objects) for edge in world.edges)
        happened["dials"] += sum(edge.dials for edge in world.edges)
        happened["set back"] += sum(edge.ahead for edge in world.edges)
        happened["reports"] += sum(map(len, world.reports.values()))
        happened["reports taken"] += sum(map(len, world.api.taken.values()))
        happened["expected"] += len(world.expected)
        happened["relists"] += world.api.requests
        for hub in world.hubs:
            counters = hub.hub.counters
            happened["resumed"] += counters.resumed
            happened["surveyed"] += counters.surveyed
            happened["superseded"] += counters.superseded
            happened["patches"] += counters.patches
            happened["nacks"] += counters.nacks
    rare = [name.__name__ for name in (*World.EDITS, *World.FAULTS) if happened[name.__name__] < 10]
    assert not rare, f"these hardly happen: {rare}"
    for name in ("objects held", "dials", "reports", "reports taken", "expected", "resumed", "surveyed", "superseded"):
        assert happened[name] > 20, f"{name}: {happened[name]}"
    assert happened["patches"] > 20
    assert happened["nacks"] > 5
    assert happened["set back"], "a clock that jumps by two years is one in many"


# Promise 2: bytes of a reconnect after which nothing changed do not grow with the objects held.


def quiet(objects: int) -> World:
    world = World(1, Shape(nodes=1))
    for number in range(objects):
        world.api.put(PODS, "default", f"pod-{number}", {"spec": {"nodeName": "n0"}})
    world.settle(lambda _: True)
    assert len(world.edges[0].disk.image.objects) == objects + 1
    return world


def test_quiet_reconnect_costs_the_same_however_many_objects() -> None:
    def cost(objects: int) -> int:
        world = quiet(objects)
        requests, leases, before = world.api.requests, world.api.lease_requests, world.network.bytes_carried
        world.network.cut(world.network.connections[0], edge_notices_s=0.0, hub_notices_s=0.0)
        world.clock.run_for(1.5)
        assert world.api.requests == requests, "a reconnect asks nothing of the apiserver"
        assert world.api.lease_requests == leases + 1, "but that the node's Lease be its own"
        return world.network.bytes_carried - before

    few, many = cost(5), cost(500)
    assert few > 0
    assert abs(many - few) <= 8, f"{few} bytes with 5 objects, {many} with 500"  # integers grow by a byte or two


def test_quiet_hub_restart_costs_the_same_however_many_objects() -> None:
    def cost(objects: int) -> int:
        world = quiet(objects)
        before = world.network.bytes_carried
        world.hubs[0].crash(0.1)
        world.clock.run_for(2.0)
        return world.network.bytes_carried - before

    few, many = cost(5), cost(500)
    assert few > 0
    assert abs(many - few) <= 8, f"{few} bytes with 5 objects, {many} with 500"


def interested(objects: int) -> World:
    world = World(1, Shape(nodes=1, interests=True))
    world.edges[0].want((STEADY, Interest(GADGETS)))
    for number in range(objects):
        world.api.put(GADGETS, "default", f"gadget-{number}", {"x": number})
    world.settle(lambda _: True)
    assert len(world.edges[0].disk.image.objects) == objects + 2
    return world


@pytest.mark.parametrize("is_crash", [False, True])
def test_quiet_costs_the_same_however_many_objects_are_held_by_interest(is_crash: bool) -> None:
    def cost(objects: int) -> int:
        world = interested(objects)
        before = world.network.bytes_carried
        if is_crash:
            world.hubs[0].crash(0.1)
        else:
            world.network.cut(world.network.connections[0], edge_notices_s=0.0, hub_notices_s=0.0)
        world.clock.run_for(8.0)
        counters = world.hubs[0].hub.counters
        assert counters.undecided == 0
        assert (counters.identical, counters.surveyed) == ((1, 0) if is_crash else (0, 0))
        return world.network.bytes_carried - before

    few, many = cost(5), cost(500)
    assert few > 0
    assert abs(many - few) <= 16, f"{few} bytes with 5 objects, {many} with 500"


# The parts that the others lean on.


@pytest.mark.parametrize(
    ("told", "states", "is_one"),
    [
        ([], [None], True),
        ([1, 1, 3], [None, 1, 2, 3], True),
        ([1, 2, 1], [None, 1, 2, 1], True),
        ([2, 1], [None, 1, 2], False),
        ([1, None], [None, 1], False),
        ([4], [1, 2], False),
    ],
)
def test_a_subsequence_may_leave_out_and_repeat(told: list[object], states: list[object], is_one: bool) -> None:
    assert is_subsequence(told, states) is is_one


def test_a_machine_that_runs_fast_keeps_its_deadlines() -> None:
    world = SimClock()
    world.run_until(100.0)
    fast = MachineClock(world, start=5.0, rate=2.0, wall_ahead_ms=0)
    went_off: list[float] = []

    def note() -> None:
        went_off.append(fast.time())

    assert fast.call_at(9.0, note).when() == 9.0
    world.run_until(101.9)
    assert not went_off
    world.run_until(102.1)
    assert went_off[0] == pytest.approx(9.0, abs=1e-3)
    assert went_off[0] >= 9.0


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    """A schedule logs hundreds of lines that nobody reads."""
    import logging

    logging.disable()
    yield
    logging.disable(logging.NOTSET)
