"""What the doorkeeper does about whom it turned away, and about who came twice."""

import asyncio
from datetime import UTC, datetime

import pytest

from apimachinery.errors import Unavailable
from apimachinery.keys import Node
from apimachinery.kubeevents import KubeEvent
from apimachinery.watchcache import WatchCache
from cloudhub import doorkeeper
from cloudhub.clones import PROVEN
from cloudhub.doorkeeper import MOST_TO_BAN, Doorkeeper
from tests.harness.background import running

EDGE = Node("edge-1")


class Banning:
    """Keeps bans; fails `failures` times before."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.bans: dict[Node, str] = {}
        self.done = asyncio.Event()

    async def __call__(self, node: Node, reason: str, now: datetime) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("soon")
        assert now.tzinfo is UTC
        self.bans[node] = reason
        self.done.set()


async def test_a_pair_is_told_and_banned_where_the_policy_is_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorkeeper, "RETRY_S", 0.01)
    banning, events = Banning(failures=2), list[KubeEvent]()
    door = Doorkeeper(WatchCache(), banning, events.append, bans_clones=True)
    async with running(door.run(), "door"):
        door.superseded(EDGE, ["192.0.2.1:5", "192.0.2.2:5"])
        door.superseded(EDGE, ["192.0.2.1:6"])
        async with asyncio.timeout(5):
            await banning.done.wait()
    assert [event.reason for event in events] == ["CertificateUsedTwice"]
    assert "used from two places: 192.0.2.2, 192.0.2.1" in banning.bans[EDGE]


async def test_where_the_policy_is_to_warn_nobody_is_banned() -> None:
    banning, events = Banning(), list[KubeEvent]()
    door = Doorkeeper(WatchCache(), banning, events.append)
    async with running(door.run(), "door"):
        for _ in range(PROVEN):
            door.superseded(EDGE, ["192.0.2.1:5"])
        await asyncio.sleep(0)
    assert (len(events), banning.bans) == (1, {})


async def test_how_many_wait_to_be_banned_is_bounded() -> None:
    banning = Banning()
    door = Doorkeeper(WatchCache(), banning, lambda _: None, bans_clones=True)
    for number in range(MOST_TO_BAN + 1):
        for _ in range(PROVEN):
            door.superseded(Node(f"n{number}"), [])
    async with running(door.run(), "door"):
        async with asyncio.timeout(5):
            while len(banning.bans) < MOST_TO_BAN:
                await asyncio.sleep(0)
    assert f"n{MOST_TO_BAN}" not in banning.bans
