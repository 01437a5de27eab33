"""Seeded schedules of edits and faults: whatever happened, everything must come right once it is quiet."""

import os
from collections.abc import Callable, Mapping, Sequence

import pytest

from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import PODS
from cloudhub.outbox import Outbox, Verdict
from link.frames import Batch, Cursor, Refusal
from tests.sim.disk import SimDisk
from tests.sim.world import World, run

SEEDS = int(os.environ.get("FAIRLEAD_SIM_SEEDS", "400"))
FIRST = int(os.environ.get("FAIRLEAD_SIM_FIRST", "0"))
CHUNK = 50


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, CHUNK))
def test_any_history_of_edits_and_faults_converges(first: int) -> None:
    for seed in range(first, min(first + CHUNK, FIRST + SEEDS)):
        problems = run(seed).problems()
        assert not problems, f"seed {seed}: {problems}"


def test_a_seed_replays_exactly() -> None:
    one, other = run(7), run(7)
    assert one.network.bytes_carried == other.network.bytes_carried
    assert [edge.disk.image for edge in one.edges] == [edge.disk.image for edge in other.edges]
    assert one.network.bytes_carried > 5_000


def test_the_faults_do_happen() -> None:
    """A simulation in which nothing breaks proves nothing."""
    worlds = [run(seed) for seed in range(20)]
    assert sum(world.hub.generation > 1 for world in worlds) > 10, "hubs crash"
    assert sum(edge.generation > 3 for world in worlds for edge in world.edges) > 20, "edges lose links and crash"
    assert sum(len(edge.disk.image.objects) for world in worlds for edge in world.edges) > 50, (
        "there is something to hold"
    )
    assert sum(edge.reported for world in worlds for edge in world.edges) > 50


def test_quiet_reconnect_costs_the_same_however_many_objects() -> None:
    """Promise 2: bytes of a reconnect after which nothing changed do not grow with the objects held."""

    def cost(objects: int) -> int:
        world = World(1, nodes=1)
        world.faults = False
        for number in range(objects):
            world.api.put(PODS, "default", f"pod-{number}", {"spec": {"nodeName": "n0"}})
        world.settle()
        requests, before = world.api.requests, world.network.bytes_carried
        world.network.cut(world.network.connections[0], edge_notices_s=0.0, hub_notices_s=0.0)
        world.clock.run_until(world.clock.time() + 5.0)
        assert world.api.requests == requests, "a reconnect asks nothing of the apiserver"
        assert len(world.edges[0].disk.image.objects) == objects + 1
        return world.network.bytes_carried - before

    few, many = cost(5), cost(500)
    assert few > 0
    assert abs(many - few) <= 8, f"{few} bytes with 5 objects, {many} with 500"  # integers grow by a byte or two


def test_quiet_hub_restart_costs_the_same_however_many_objects() -> None:
    def cost(objects: int) -> int:
        world = World(1, nodes=1)
        world.faults = False
        for number in range(objects):
            world.api.put(PODS, "default", f"pod-{number}", {"spec": {"nodeName": "n0"}})
        world.settle()
        before = world.network.bytes_carried
        world.hub.crash()
        world.clock.run_until(world.clock.time() + 5.0)
        return world.network.bytes_carried - before

    few, many = cost(5), cost(500)
    assert few > 0
    assert abs(many - few) <= 8, f"{few} bytes with 5 objects, {many} with 500"


# Each rule of the design, switched off, must be noticed. A checker that cannot fail is no checker.


def _forget_what_was_lost(self: Outbox, seq: int) -> None:
    self.settle(seq)
    self._flights.clear()
    self._sent.clear()
    self.synced_told = False


def _resume_behind_acked(
    self: Outbox, cursor: Cursor | None, held: bytes, desired: Mapping[ObjectKey, ObjectVersion]
) -> Verdict:
    if self._known is not None and cursor and cursor.epoch == self.epoch and cursor.seq <= self.sent_seq:
        return Verdict.RESUME
    return Verdict.IDENTICAL if held == digest(desired.items()) else Verdict.SURVEY


def _resume_any_epoch(
    self: Outbox, cursor: Cursor | None, held: bytes, desired: Mapping[ObjectKey, ObjectVersion]
) -> Verdict:
    if self._known is not None and cursor and self.acked <= cursor.seq <= self.sent_seq:
        return Verdict.RESUME
    return Verdict.IDENTICAL if held == digest(desired.items()) else Verdict.SURVEY


_apply = SimDisk.apply


def _cursor_before_objects(self: SimDisk, batches: Sequence[Batch]) -> dict[int, list[Refusal]]:
    image = self.image.copy()
    image.cursor = batches[-1].cursor
    self._commit(image)
    return _apply(self, batches)


@pytest.mark.parametrize(
    ("owner", "method", "broken"),
    [
        pytest.param(Outbox, "rewind", _forget_what_was_lost, id="what was lost is dirty again"),
        pytest.param(Outbox, "hear", _resume_behind_acked, id="a cursor behind acked is no resume"),
        pytest.param(Outbox, "hear", _resume_any_epoch, id="the epoch is checked"),
        pytest.param(SimDisk, "apply", _cursor_before_objects, id="the cursor is in the objects' transaction"),
    ],
)
def test_each_rule_is_needed(
    owner: type, method: str, broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, broken)
    assert any(run(seed).problems() for seed in range(200)), "no schedule noticed that the rule is off"
