"""The edge's connector and the hub's server over real TLS, on the real store: push, report, restart, full disk."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import from_json
from apimachinery.resources import CONFIG_MAPS, DEVICES, PODS
from apimachinery.watchcache import WatchCache
from cloudhub.placement import Placement
from cloudhub.projection import project
from cloudhub.server import HubServer
from cloudhub.sessions import Session
from edgehub.connector import Connector, Hubs, LinkStatus
from link.frames import Batch, Delta, Refusal, RefusedReport, ReportEntry
from metamanager.errors import StoreError, StoreFull
from metamanager.store import Store
from tests.harness.tls import contexts

NODE = Node("n1")
POD = ObjectKey(PODS, "default", "web")


class Sink:
    """Takes every report at once, but for those of a field it refuses."""

    def __init__(self) -> None:
        self.server: HubServer
        self.values: dict[tuple[ObjectKey, str], bytes] = {}

    def accept(self, node: Node, session: Session, seq: int, entries: tuple[ReportEntry, ...]) -> None:
        refused = tuple(RefusedReport(entry.key, entry.field, "no") for entry in entries if entry.field == "bad")
        self.values |= {(entry.key, entry.field): entry.value for entry in entries}
        asyncio.get_running_loop().call_soon(self.server.hub.reports_taken, session, seq, refused)

    def session_closed(self, session: Session) -> None: ...


class Nodes:
    def __init__(self) -> None:
        self.terms: list[int] = []

    def session_up(self, node: Node, term: int) -> None:
        self.terms.append(term)

    def session_down(self, node: Node) -> None: ...


class Cloud:
    """A hub whose cache is fed by hand."""

    def __init__(self, directory: Path) -> None:
        self.context, [self.edge_context] = contexts(directory, ["127.0.0.1"], [NODE])
        self.cache, self.placement, self.sink, self.nodes = WatchCache(), Placement(), Sink(), Nodes()
        self.port = 0

    def put(self, name: str, **content: Any) -> None:
        resource = PODS if "spec" in content else CONFIG_MAPS
        body = {"metadata": {"name": name, "namespace": "default", "uid": name}, **content}
        changes = self.cache.apply(WatchEvent(EventType.MODIFIED, project(from_json(resource, body)), "1"))
        self.sink.server.hub.changed(changes)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """One hub process's life; what is in the cache is known from the start."""
        self.sink.server = HubServer(self.cache, Placement(), self.sink, self.nodes, heartbeat_s=1.0)
        listed = WatchCache()
        for resource in list(self.cache.resources()):
            objects, _ = self.cache.list(resource)
            self.sink.server.hub.changed(listed.replace(resource, objects, "1"))
        listener = await self.sink.server.listen("127.0.0.1", self.port, self.context)
        self.port = listener.port
        task = asyncio.create_task(self.sink.server.run(listener), name="hub")
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


@asynccontextmanager
async def connected(
    cloud: Cloud, store: Store, fail: Callable[[], None] = lambda: None, check_s: float = 600.0
) -> AsyncIterator[Connector]:
    async def commit(batches: Sequence[Batch]) -> Mapping[int, Sequence[Refusal]]:
        fail()
        return (await store.apply(batches)).refusals

    connector = Connector(
        NODE,
        Hubs("127.0.0.1", cloud.port, cloud.edge_context),
        store,
        commit,
        agent="test",
        draw=lambda: 0.02,
        status=LinkStatus(),
        store_errors=(StoreError,),
        check_s=check_s,
    )
    task = asyncio.create_task(connector.run(), name="connector")
    try:
        yield connector
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_line_down_up_and_through_a_restart_of_the_hub(tmp_path: Path) -> None:
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    cloud.cache.replace(PODS, [], "1")
    async with cloud.serving(), connected(cloud, store) as connector:
        await until(lambda: connector.status.synced)
        before = store.feed.revision
        cloud.put("web", spec={"nodeName": NODE, "volumes": [{"configMap": {"name": "conf"}}]})
        cloud.put("conf", data={"a": "1"})
        await until(lambda: store.feed.revision == before + 2)
        assert (await store.get(POD)) is not None
        report = ReportEntry(ObjectKey(DEVICES, "default", "d"), "state", b'{"state":"online"}')
        await store.save({}, [report, report._replace(field="bad")])
        connector.reports_waiting()
        await until(lambda: connector.status.refused_reports)
        async with asyncio.timeout(5):
            while await store.report_count():
                await asyncio.sleep(0.01)
        assert cloud.sink.values[report.key, "state"] == report.value
    async with connected(cloud, store) as connector:
        await until(lambda: connector.status.attempts > 1)
        assert "cannot connect" in connector.status.last_error
        cloud.cache.apply(WatchEvent(EventType.DELETED, cloud.cache.get(POD), "2"))
        async with cloud.serving():
            await until(lambda: connector.status.synced)
            assert (await store.get(POD)) is None
            assert not await store.held()
    await store.close()


async def test_a_store_that_diverged_is_noticed_and_healed(tmp_path: Path) -> None:
    """Nothing we know of does this; a hand in the database does."""
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    async with cloud.serving():
        cloud.put("web", spec={"nodeName": NODE})
        async with connected(cloud, store, check_s=0.1) as connector:
            await until(lambda: connector.status.synced)
            await asyncio.sleep(0.05)
            cursor = await store.cursor()
            assert cursor is not None
            await store.apply([Batch(cursor, (Delta(POD, None, b""),), True)])
            assert (await store.get(POD)) is None
            counters = cloud.sink.server.hub.counters
            await until(lambda: counters.divergences)
            await until(lambda: connector.status.synced and counters.surveyed == 1)
            async with asyncio.timeout(5):
                while (await store.get(POD)) is None:
                    await asyncio.sleep(0.01)
            assert counters.divergences == 1
            assert connector.resync()
            await until(lambda: counters.surveyed == 2)
    await store.close()


async def test_a_node_that_was_set_up_anew_goes_on_where_its_predecessor_was(tmp_path: Path) -> None:
    """Its clock is behind: the hub tells it the term, and it comes back at once with a higher one."""
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    async with cloud.serving():
        hub = cloud.sink.server.hub
        async with connected(cloud, store) as connector:
            await until(lambda: connector.status.synced)
            newest = 10**15
            hub.overtaken(NODE, cloud.nodes.terms[-1], newest, was_last=False)
            await until(lambda: cloud.nodes.terms[-1] == newest + 1)
            await until(lambda: connector.status.synced)
            assert hub.counters.stale == 1
    await store.close()


async def test_a_store_that_is_full_ends_the_link_and_loses_nothing(tmp_path: Path) -> None:
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    failures = 3

    def fail() -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreFull(store.path, "no space left")

    async with cloud.serving():
        cloud.put("web", spec={"nodeName": NODE})
        async with connected(cloud, store, fail) as connector:
            await until(lambda: "no space left" in connector.status.last_error)
            await until(lambda: connector.status.synced)
            assert failures == 0
            assert (await store.get(POD)) is not None
    await store.close()
