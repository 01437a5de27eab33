"""The edge's connector and the hub's server over real TLS, on the real store: push, report, restart, full disk."""

import asyncio
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import BadRequest, TooLarge, TooManyRequests
from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import from_json
from apimachinery.resources import CONFIG_MAPS, DEVICES, NODES, PODS
from apimachinery.watchcache import WatchCache
from cloudhub.interests import GRANTED, Decision
from cloudhub.placement import Placement
from cloudhub.projection import project
from cloudhub.server import HubServer
from cloudhub.session import Session
from edgehub import redial
from edgehub.connector import MAX_WAITING, Connector, Hubs, LinkStatus
from edgehub.quicchoice import IN_ROW, RETRY_S, Files, QuicChoice, _remembered
from link.errors import CallLost, LinkClosed
from link.frames import (
    MAX_CALL_BYTES,
    MAX_CALLS,
    MAX_INTERESTS,
    MAX_TARGET_BYTES,
    MAX_TERM,
    AnswerHead,
    Batch,
    CallHead,
    Delta,
    Interest,
    Refusal,
    RefusedEntry,
    Report,
    ReportAck,
    ReportEntry,
    Span,
)
from link.peer import Role
from link.pump import Pump, Transport
from link.quic import Quic
from metamanager.errors import StoreError, StoreFull
from metamanager.intake import prepared
from metamanager.store import Store
from tests.harness.hubsite import Desk, Rights
from tests.harness.linked_edge import Book
from tests.harness.quic import Certificates, quic_hub
from tests.harness.sides import Side
from tests.harness.tls import contexts

NODE = Node("n1")
POD = ObjectKey(PODS, "default", "web")


class Sink:
    """Takes every report at once, but for those of a field it refuses."""

    def __init__(self) -> None:
        self.server: HubServer
        self.values: dict[tuple[ObjectKey, str], bytes] = {}

    def accept(self, node: Node, session: Session, report: Report) -> None:
        numbered = list(enumerate(report.entries, report.first))
        self.values |= {(entry.key, entry.field): entry.value for entry in report.entries}
        refused = tuple(RefusedEntry(number, "no") for number, entry in numbered if entry.field == "bad")
        settled = tuple(Span(number, number) for number, entry in numbered if entry.field not in ("bad", "later"))
        later = tuple(Span(number, number) for number, entry in numbered if entry.field == "later")
        ack = ReportAck(report.traffic, settled, refused, later)
        asyncio.get_running_loop().call_soon(self.server.hub.reported, session, ack)

    def session_closed(self, session: Session) -> None: ...


class Nodes:
    def __init__(self) -> None:
        self.terms: list[int] = []
        self.elsewhere = 0
        """The term that another replica has taken up."""

    def session_up(self, node: Node, term: int) -> None:
        self.terms.append(term)

    def session_down(self, node: Node) -> None: ...

    def last_term(self, node: Node) -> int:
        return max([self.elsewhere, *self.terms])


class Cloud:
    """A hub whose cache is fed by hand."""

    def __init__(self, directory: Path) -> None:
        self.context, [self.edge_context] = contexts(directory, ["127.0.0.1"], [NODE])
        self.cache, self.placement, self.sink, self.nodes = WatchCache(), Placement(), Sink(), Nodes()
        self.port = 0
        self.rights: Rights | None = None
        self.desk: Desk | None = None

    def put(self, name: str, **content: Any) -> None:
        resource = PODS if "spec" in content else CONFIG_MAPS
        body = {"metadata": {"name": name, "namespace": "default", "uid": name}, **content}
        changes = self.cache.apply(WatchEvent(EventType.MODIFIED, project(from_json(resource, body)), "1"))
        self.sink.server.hub.changed(changes)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """One hub process's life; what is in the cache is known from the start."""
        self.sink.server = HubServer(
            self.cache, Placement(), self.sink, self.nodes, access=self.rights, calls=self.desk, heartbeat_s=1.0
        )
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
    cloud: Cloud,
    store: Store,
    fail: Callable[[], None] = lambda: None,
    check_s: float = 600.0,
    selections: Book | None = None,
    quic: QuicChoice | None = None,
    unfold: Callable[[Delta], Delta] = prepared,
) -> AsyncIterator[Connector]:
    async def commit(batches: Sequence[Batch]) -> Mapping[int, Sequence[Refusal]]:
        fail()
        return (await store.apply(batches)).refusals

    connector = Connector(
        NODE,
        Hubs("127.0.0.1", cloud.port, cloud.edge_context, quic),
        store,
        commit,
        agent="test",
        draw=lambda: 0.02,
        status=LinkStatus(),
        selections=selections,
        store_errors=(StoreError,),
        check_s=check_s,
        unfold=unfold,
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
        node = ReportEntry(ObjectKey(NODES, "", NODE), "nodeInfo", b"{}")
        await store.save({}, [report, report._replace(field="later"), report._replace(field="bad"), node])
        connector.reports_waiting()
        await until(lambda: connector.status.refused_reports)
        async with asyncio.timeout(5):
            while await store.report_count() > 1:
                await asyncio.sleep(0.01)
        assert cloud.sink.values[report.key, "state"] == report.value
        assert (node.key, "nodeInfo") in cloud.sink.values
        [(_, left)] = await store.pending_reports(0, 1000)
        assert left.field == "later", "what is handed back stays"
    async with connected(cloud, store) as connector:
        await until(lambda: connector.status.attempts > 1)
        assert "cannot connect" in connector.status.last_error
        cloud.cache.apply(WatchEvent(EventType.DELETED, cloud.cache.get(POD), "2"))
        async with cloud.serving():
            await until(lambda: connector.status.synced)
            assert (await store.get(POD)) is None
            assert not await store.held()
    await store.close()


async def test_the_outbox_is_not_looked_into_for_what_comes_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look is a turn of the store's thread, before or behind a pod's commit."""
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    cloud.cache.replace(PODS, [], "1")
    pending, looks = store.pending_reports, 0

    async def counted(*arguments: Any) -> list[tuple[int, ReportEntry]]:
        nonlocal looks
        looks += 1
        return await pending(*arguments)

    monkeypatch.setattr(store, "pending_reports", counted)
    async with cloud.serving(), connected(cloud, store) as connector:
        await until(lambda: connector.status.synced)
        await until(lambda: looks)
        for number in range(20):
            revision = store.feed.revision
            cloud.put("web", spec={"nodeName": NODE, "x": number})
            await until(lambda: store.feed.revision > revision)  # noqa: B023
        before, looks = looks, 0
        assert before <= 6, "until the link is there, and each class was read to its end"
        report = ReportEntry(ObjectKey(DEVICES, "default", "d"), "state", b'{"state":"online"}')
        await store.save({}, [report])
        connector.reports_waiting()
        await until(lambda: (report.key, "state") in cloud.sink.values)
        assert 1 <= looks <= 6
    await store.close()


async def test_of_a_silent_hub_it_is_known_since_when(tmp_path: Path) -> None:
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    cloud.cache.replace(PODS, [], "1")
    hub = AsyncExitStack()
    await hub.enter_async_context(cloud.serving())
    async with connected(cloud, store) as connector:
        status = connector.status
        await until(lambda: status.synced and status.silent_s() > 0.3)
        cloud.put("web", spec={"nodeName": NODE})
        await until(lambda: status.silent_s() < 0.2)
        await hub.aclose()
        await until(lambda: not status.connected)
        frozen = status.silent_s()
        await asyncio.sleep(0.05)
        assert status.silent_s() == frozen < 10
    await store.close()


async def test_where_links_over_quic_carry_nothing_the_websocket_is_next(tmp_path: Path) -> None:
    """Their handshake passes, and then they are gone, without a word from a hub: at the third dial that is believed."""
    cloud, store, certificates = Cloud(tmp_path), await Store.open(tmp_path / "edge.db"), Certificates()
    cloud.cache.replace(PODS, [], "1")
    began: list[Transport] = []

    def opened(transport: Transport) -> Pump:
        began.append(transport)
        assert isinstance(transport, Quic)
        asyncio.get_running_loop().call_soon(transport.give_up, "nothing passes")
        return Side(Role.HUB, answer=False).opened(transport)

    async with quic_hub(opened, certificates) as listener, cloud.serving():
        files = Files(*certificates.files(tmp_path, NODE))
        memory = tmp_path / "link-quic.json"
        port = listener.port
        quic = QuicChoice(port, files, is_only=False, memory=memory, draw=lambda: 0.5)
        async with connected(cloud, store, quic=quic) as connector:
            await until(lambda: connector.status.synced)
            assert connector.status.transport == "websocket"
        assert len(began) == IN_ROW
        assert _remembered(memory, port) > time.time() + RETRY_S / 2
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
            newest = cloud.nodes.elsewhere = 10**15
            hub.overtaken(NODE, cloud.nodes.terms[-1], newest, was_last=False)
            await until(lambda: cloud.nodes.terms[-1] == newest + 1)
            await until(lambda: connector.status.synced)
            assert hub.counters.stale == 1
    await store.close()


async def test_a_node_whose_terms_are_of_the_future_goes_on_from_where_the_hub_says(tmp_path: Path) -> None:
    """Its clock was wrong for a while, or somebody with its certificate said the last term that there is."""
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    now_ms = time.time_ns() // 1_000_000
    assert await store.next_term(MAX_TERM) == MAX_TERM
    async with cloud.serving():
        hub = cloud.sink.server.hub
        async with connected(cloud, store) as connector:
            await until(lambda: connector.status.synced)
        assert hub.counters.ahead == 1
        assert now_ms < cloud.nodes.terms[-1] < now_ms + 60_000
        async with connected(cloud, store) as connector:
            await until(lambda: connector.status.synced)
        assert (hub.counters.ahead, len(cloud.nodes.terms)) == (1, 2), "it has forgotten what was before"
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


async def test_a_pod_does_not_wait_for_a_large_object_that_is_unpacked_and_written_ahead(tmp_path: Path) -> None:
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    may_go_on, threads = threading.Event(), list[str]()

    def unfold(delta: Delta) -> Delta:
        threads.append(threading.current_thread().name)
        assert may_go_on.wait(10)
        return prepared(delta)

    bulk, text = ObjectKey(CONFIG_MAPS, "default", "bulk"), random.Random(1).randbytes(200_000).hex()
    async with cloud.serving():
        cloud.put("web", spec={"nodeName": NODE, "volumes": [{"name": "v", "configMap": {"name": "bulk"}}]})
        async with connected(cloud, store, unfold=unfold) as connector:
            await until(lambda: connector.status.synced)
            cloud.put("bulk", data={"text": text})
            await until(lambda: threads)
            cloud.put("web", spec={"nodeName": NODE, "volumes": [{"name": "v", "configMap": {"name": "bulk"}}], "n": 2})
            revision = store.feed.revision
            await until(lambda: store.feed.revision > revision)
            assert await store.get(bulk) is None
            may_go_on.set()
            async with asyncio.timeout(10):
                await store.feed.wait(revision + 1)
            held = await store.get(bulk)
            assert held is not None
            assert held.object.parse()["data"]["text"] == text
            assert threads == ["unfold"]
    await store.close()
    connection = sqlite3.connect(tmp_path / "edge.db")
    assert connection.execute("SELECT sum(length(body)) FROM pieces").fetchone() == (len(held.object.body),)
    connection.close()


# ---- interests and calls

CALL = CallHead("GET", "/version")


async def test_what_is_wanted_is_decided_then_complete_and_wanted_again_after_a_restart(tmp_path: Path) -> None:
    cloud, store, book = Cloud(tmp_path), await Store.open(tmp_path / "edge.db"), Book()
    cloud.cache.replace(CONFIG_MAPS, [], "1")
    cloud.rights = Rights()
    mine, other = Interest(CONFIG_MAPS, "default"), Interest(PODS, "secret")
    cloud.rights.decisions |= {mine: Decision(GRANTED, resource=CONFIG_MAPS), other: Decision(403, "no")}
    async with cloud.serving(), connected(cloud, store, selections=book) as connector:
        cloud.put("conf", data={"a": "1"})
        await until(lambda: connector.status.synced)
        assert await store.held() == []
        connector.want([mine, other, mine])
        await until(lambda: mine in book.completed_)
        assert [held.key.name for held in await store.held()] == ["conf"]
        assert (book.granted, book.refused[other].code) == ({mine}, 403)
        assert book.resources == (CONFIG_MAPS,)
        with pytest.raises(ValueError, match="a node may have 256"):
            connector.want([Interest(PODS, str(number)) for number in range(MAX_INTERESTS + 1)])
    connector.want([mine])
    async with connected(cloud, store, selections=book) as connector:
        connector.want([mine])
        book.completed_.clear()
        async with cloud.serving():
            await until(lambda: mine in book.completed_)
            assert cloud.rights.wanted[NODE] == (mine,)
            assert cloud.sink.server.hub.counters.identical == 1
    await store.close()


async def test_a_hub_that_serves_what_is_placed_only_says_so(tmp_path: Path) -> None:
    cloud, store, book = Cloud(tmp_path), await Store.open(tmp_path / "edge.db"), Book()
    async with cloud.serving(), connected(cloud, store, selections=book) as connector:
        connector.want([Interest(PODS)])
        await until(lambda: Interest(PODS) in book.refused)
        assert (await connector.call(CALL)).head.status == book.refused[Interest(PODS)].code == 403
    await store.close()


async def test_calls_are_answered_in_any_order_and_the_ninth_waits_its_turn(tmp_path: Path) -> None:
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    desk = cloud.desk = Desk()
    async with cloud.serving(), connected(cloud, store) as connector:
        with pytest.raises(LinkClosed):
            await connector.call(CALL)
        await until(lambda: connector.status.synced)
        [session] = cloud.sink.server.hub._sessions.values()
        tasks = [asyncio.create_task(connector.call(CALL._replace(base=str(n))), name=str(n)) for n in range(9)]
        await until(lambda: len(desk.calls) == MAX_CALLS)
        large = bytes(MAX_CALL_BYTES)
        for call in reversed(desk.calls):
            session.answer(call.number, AnswerHead(200, revision=call.head.base), large if call.number == 3 else b"")
        await until(lambda: len(desk.calls) == 9)
        session.answer(desk.calls[8].number, AnswerHead(200, revision=desk.calls[8].head.base), b"")
        answers = [await task for task in tasks]
        assert [answer.head.revision for answer in answers] == [str(n) for n in range(9)]
        assert [len(answer.body) for answer in answers] == [0, 0, MAX_CALL_BYTES, *[0] * 6]
        with pytest.raises(TooLarge):
            await connector.call(CALL, large + b"x")
    await store.close()


async def test_a_call_that_the_hub_would_end_the_link_over_is_refused_here(tmp_path: Path) -> None:
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    desk = cloud.desk = Desk()
    async with cloud.serving(), connected(cloud, store) as connector:
        await until(lambda: connector.status.synced)
        with pytest.raises(TooLarge, match="path and query"):
            await connector.call(CALL._replace(target="/" + MAX_TARGET_BYTES * "x"))
        for user in ("system:serviceaccount:d:" + "a" * 600, "system:serviceaccount:d:\ud800"):
            with pytest.raises(BadRequest):
                await connector.call(CALL._replace(user=user))
        task = asyncio.create_task(
            connector.call(CALL._replace(target="/" + "x" * (MAX_TARGET_BYTES - 1))), name="call"
        )
        await until(lambda: desk.calls)
        [session] = cloud.sink.server.hub._sessions.values()
        session.answer(desk.calls[0].number, AnswerHead(404), b"")
        assert (await task).head.status == 404
        assert cloud.sink.server.hub.counters.sessions == 1
    await store.close()


async def test_who_waits_too_long_or_gives_up_hears_and_tells_what_that_means(tmp_path: Path) -> None:
    cloud, store = Cloud(tmp_path), await Store.open(tmp_path / "edge.db")
    desk = cloud.desk = Desk()
    serving = AsyncExitStack()
    await serving.enter_async_context(cloud.serving())
    async with connected(cloud, store) as connector:
        async with serving:
            await until(lambda: connector.status.synced)
            with pytest.raises(CallLost, match="no answer in time"):
                await connector.call(CALL, timeout_s=0.05)
            await until(lambda: desk.cancelled == [1])
            task = asyncio.create_task(connector.call(CALL), name="given up")
            await until(lambda: len(desk.calls) == 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: desk.cancelled == [1, 2])
            tasks = [asyncio.create_task(connector.call(CALL), name="waits") for _ in range(MAX_CALLS + MAX_WAITING)]
            await until(lambda: len(desk.calls) == 2 + MAX_CALLS)
            with pytest.raises(TooManyRequests):
                await connector.call(CALL)
            tasks.pop().cancel()
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                await connector.call(CALL, timeout_s=0.05)
        ends = await asyncio.wait_for(asyncio.wait(tasks), 5)
        errors = [type(task.exception()) for task in ends[0]]
        assert (errors.count(CallLost), errors.count(LinkClosed)) == (MAX_CALLS, MAX_WAITING - 1)
    await store.close()


async def test_a_copy_of_a_node_is_noticed_and_a_node_that_reconnects_is_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redial, "REFUSED_S", 0.2)
    cloud, store, copy = Cloud(tmp_path), await Store.open(tmp_path / "edge.db"), await Store.open(tmp_path / "copy.db")
    cloud.cache.replace(PODS, [], "1")
    async with cloud.serving():
        counters = cloud.sink.server.hub.counters
        async with connected(cloud, store) as connector:
            for times in range(1, 4):
                await until(lambda times=times: counters.sessions == times and connector.status.synced)  # type: ignore[misc]
                assert connector.resync()
            assert counters.clones == 0
            async with connected(cloud, copy):
                await until(lambda: counters.clones >= 2)
        told = counters.clones
        async with connected(cloud, store) as connector:
            await until(lambda: connector.status.synced)
        assert counters.clones == told
    await store.close()
    await copy.close()
