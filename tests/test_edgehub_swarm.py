"""What hollow nodes share, what each must have made for itself, and what is left of a link that is lost."""

import asyncio
import gc
import weakref
from pathlib import Path

from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import Object, canonical, revision_of
from apimachinery.resources import CONFIG_MAPS
from edgehub.swarm import COMMON_BYTES, COMMONS, Swarm
from link.frames import Delta, Refusal
from link.packing import pack_against
from link.peer import Role
from link.websocket import listen
from metamanager.intake import intake
from tests.harness.heap import Hole, anonymous_kb
from tests.harness.sides import Side
from tests.harness.tls import contexts

KEY = ObjectKey(CONFIG_MAPS, "default", "c")


def state(value: str, name: str = "c") -> Object:
    metadata = {"name": name, "namespace": "default", "uid": "u"}
    body = canonical({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"v": value * 300}})
    return Object(KEY._replace(name=name), ObjectVersion("u", revision_of(body)), {}, body)


def swarm() -> Swarm:
    return Swarm((), "127.0.0.1", 1, intake, agent="test", draw=lambda: 0.0)


async def test_what_one_node_was_told_the_next_one_shares() -> None:
    new = state("b")
    one = swarm()
    first, second = (one.take(Delta(KEY, new.version, new.body), None) for _ in range(2))
    assert first == new
    assert second is first


async def test_a_difference_is_taken_only_by_a_node_that_holds_what_it_differs_from() -> None:
    old, new = state("a"), state("b")
    told = Delta(KEY, new.version, pack_against(new.body, old.body), old.version.revision, len(new.body))
    one = swarm()
    made = one.take(told, old)
    assert made == new
    assert one.take(told, old) is made
    for held in (None, new):
        refused = one.take(told, held)
        assert isinstance(refused, Refusal)
        assert refused.whole


async def test_a_body_that_is_not_what_its_version_says_is_refused_by_each() -> None:
    new = state("b")
    one = swarm()
    for _ in range(2):
        refused = one.take(Delta(KEY, new.version, b"nonsense", size=8), None)
        assert isinstance(refused, Refusal)


async def test_what_is_shared_is_bounded() -> None:
    one = swarm()
    for number in range(COMMONS + 10):
        each = state("x", f"c{number}")
        one.take(Delta(each.key, each.version, each.body), None)
    assert len(one._commons) == COMMONS
    largest = 0
    for number in range(60):
        each = state("x" * 300, f"large{number}")
        largest = len(each.body)
        for _ in range(2):
            one.take(Delta(each.key, each.version, each.body), None)
    assert COMMON_BYTES - largest < sum(len(each.body) for each in one._commons.values()) <= COMMON_BYTES


async def test_a_link_that_is_lost_is_gone_at_once_and_so_are_the_pages_of_what_it_left(tmp_path: Path) -> None:
    hub_context, [edge_context] = contexts(tmp_path, ["127.0.0.1"], ["n1"])
    listener = await listen("127.0.0.1", 0, hub_context, Side(Role.HUB).opened)
    one = Swarm([(Node("n1"), edge_context)], "127.0.0.1", listener.port, intake, agent="test", draw=lambda: 1.0)
    running = asyncio.ensure_future(one.run())
    gc.disable()
    try:
        async with asyncio.timeout(10):
            while not one.connected:
                await asyncio.sleep(0.01)
            session = one.nodes[0]._session
            assert session is not None
            left = [weakref.ref(each) for each in (session, session.pump, session.pump.transport)]
            del session
            with Hole() as hole:
                before = anonymous_kb()
                await listener.close()
                while one.connected or any(each() is not None for each in left):
                    await asyncio.sleep(0.01)
                while before - anonymous_kb() < hole.kb * 0.9:
                    await asyncio.sleep(0.01)
    finally:
        gc.enable()
        running.cancel()
        await asyncio.wait([running])
