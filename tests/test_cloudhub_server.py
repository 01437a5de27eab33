"""The asyncio around the hub: turns of work, and a clean stop. The whole line: test_connector.py."""

import asyncio
import gc
import os
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Node
from apimachinery.objects import from_json
from apimachinery.resources import PODS
from apimachinery.watchcache import WatchCache
from cloudhub.placement import Placement
from cloudhub.server import PACKER_NICENESS, HubServer
from cloudhub.session import Session
from cloudhub.wholes import Known
from cloudhub.wires import AS_IT_IS, Parts
from edgehub.session import EdgeSession
from link.frames import GoodbyeCode, Report
from link.websocket import dial
from tests.harness.heap import Hole, anonymous_kb
from tests.harness.tls import contexts


class Nobody:
    """Neither reports nor nodes interest it."""

    def accept(self, node: Node, session: Session, report: Report) -> None: ...

    def session_closed(self, session: Session) -> None: ...

    def session_up(self, node: Node, term: int) -> None: ...

    def session_down(self, node: Node) -> None: ...

    def last_term(self, node: Node) -> int:
        return 0


async def test_changes_are_pushed_in_turns_and_a_stop_says_goodbye(tmp_path: Path) -> None:
    hub_context, [edge_context] = contexts(tmp_path, ["127.0.0.1"], ["n1"])
    cache = WatchCache()
    server = HubServer(cache, Placement(), Nobody(), Nobody())
    listener = await server.listen("127.0.0.1", 0, hub_context)
    running = asyncio.create_task(server.run(listener), name="hub")
    woken = asyncio.Event()
    loop = asyncio.get_running_loop()
    edge = EdgeSession(Node("n1"), agent="test", clock=loop, wake=woken.set)

    async def heard() -> None:
        await woken.wait()
        woken.clear()

    async with asyncio.timeout(10):
        await dial("127.0.0.1", listener.port, edge_context, edge.opened)
        edge.greet(None, b"", 1)
        while not edge.wants_inventory:
            await heard()
        edge.send_inventory([])
        pushed: dict[str, Any] = {}
        for number in range(200):
            body = {"metadata": {"name": f"p{number}", "namespace": "default"}, "spec": {"nodeName": "n1"}}
            server.hub.changed(cache.apply(WatchEvent(EventType.ADDED, from_json(PODS, body), "1")))
        while len(pushed) < 200:
            await heard()
            batches = edge.take_batches()
            pushed |= {delta.key.name: delta for batch in batches for delta in batch.deltas}
            if batches:
                edge.committed(batches, {})
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        while edge.error is None:
            await heard()
    assert getattr(edge.error, "code", None) is GoodbyeCode.SHUTDOWN


async def test_a_taken_port_is_an_os_error(tmp_path: Path) -> None:
    hub_context, _ = contexts(tmp_path, ["127.0.0.1"], [])
    server = HubServer(WatchCache(), Placement(), Nobody(), Nobody())
    listener = await server.listen("127.0.0.1", 0, hub_context)
    with pytest.raises(OSError, match="in use"):
        await server.listen("127.0.0.1", listener.port, hub_context)
    await listener.close()


async def test_what_takes_long_is_made_in_a_thread_and_told_in_the_loops() -> None:
    server = HubServer(WatchCache(), Placement(), Nobody(), Nobody())
    threads: list[str] = []
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def work() -> Parts:
        threads.append(threading.current_thread().name)
        return Parts(b"made", Known(False))

    def done(parts: Parts) -> None:
        told.set_result(f"{parts.patch!r} in {threading.current_thread().name}")

    server._aside(work, done)
    assert not told.done(), "never at once"
    assert await asyncio.wait_for(told, 10) == f"{b'made'!r} in {threading.current_thread().name}"
    assert threads == ["packer_0"]
    server._packer.shutdown()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
async def test_the_packer_gives_way_and_nothing_else_does() -> None:
    server = HubServer(WatchCache(), Placement(), Nobody(), Nobody())
    told = asyncio.get_running_loop().create_future()
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def work() -> Parts:
        return Parts(str(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).encode(), Known(False))

    server._aside(work, told.set_result)
    assert int((await asyncio.wait_for(told, 10.0)).patch) == min(19, before + PACKER_NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    server._packer.shutdown()


async def test_what_could_not_be_packed_is_told_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    server = HubServer(WatchCache(), Placement(), Nobody(), Nobody())
    told = asyncio.get_running_loop().create_future()

    def work() -> Parts:
        raise MemoryError

    server._aside(work, told.set_result)
    assert await asyncio.wait_for(told, 10.0) == AS_IT_IS
    assert "cannot pack an object: it goes as it is" in caplog.text
    server._packer.shutdown()


async def test_what_waits_to_be_packed_when_the_hub_stops_is_given_up() -> None:
    server = HubServer(WatchCache(), Placement(), Nobody(), Nobody())
    loop, started = asyncio.get_running_loop(), asyncio.Event()
    done: list[Parts] = []
    problems: list[object] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))

    def work() -> Parts:
        loop.call_soon_threadsafe(started.set)
        while not server._is_stopping:
            time.sleep(0.001)
        return AS_IT_IS

    def next_one(parts: Parts) -> None:
        done.append(parts)
        server._aside(work, done.append)

    running = asyncio.create_task(server.run(), name="hub")
    async with asyncio.timeout(10):
        server._aside(work, next_one)
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        while not done:
            await asyncio.sleep(0)
    assert (done, problems) == ([AS_IT_IS], []), "what was under way came to its end, and nothing after it"


class Leavetaker(Nobody):
    """Knows who was there."""

    def __init__(self) -> None:
        self.closed: list[weakref.ref[object]] = []

    def session_closed(self, session: Session) -> None:
        self.closed += map(weakref.ref, (session, session.pump, session.pump.transport))


async def test_a_session_that_is_over_is_gone_at_once_and_so_are_the_pages_of_what_it_left(tmp_path: Path) -> None:
    hub_context, [edge_context] = contexts(tmp_path, ["127.0.0.1"], ["n1"])
    reports = Leavetaker()
    server = HubServer(WatchCache(), Placement(), reports, Nobody())
    listener = await server.listen("127.0.0.1", 0, hub_context)
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    edge = EdgeSession(Node("n1"), agent="test", clock=loop, wake=changed.set)
    gc.disable()
    try:
        async with asyncio.timeout(10):
            connection = await dial("127.0.0.1", listener.port, edge_context, edge.opened)
            edge.greet(None, b"", 1)
            while not server.hub.connected:
                await asyncio.sleep(0.01)
            with Hole() as hole:
                before = anonymous_kb()
                connection.close()
                while not reports.closed or any(each() is not None for each in reports.closed):
                    await asyncio.sleep(0.01)
                while before - anonymous_kb() < hole.kb * 0.9:
                    await asyncio.sleep(0.01)
    finally:
        gc.enable()
        await listener.close()
