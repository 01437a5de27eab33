"""Subscribe, then list: nothing is missed, nothing older comes after, and who falls behind starts anew."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from apimachinery.events import Change, EventType
from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import canonical, revision_of
from apimachinery.resources import CONFIG_MAPS, DEVICE_MODELS, DEVICES
from devicetwin.feed import Snapshot, StoreFeed
from link.frames import Batch, Cursor, Delta
from metamanager.store import Store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "edge.db")
    yield store
    await store.close()


@contextlib.asynccontextmanager
async def following(store: Store) -> AsyncIterator[AsyncIterator[Snapshot | Sequence[Change]]]:
    news = StoreFeed(store).follow()
    yield news
    await news.aclose()  # type: ignore[attr-defined]


async def put(store: Store, seq: int, resource: Resource, name: str, value: int, *, synced: bool = True) -> None:
    body = canonical({"metadata": {"name": name, "namespace": "default"}, "value": value})
    delta = Delta(ObjectKey(resource, "default", name), ObjectVersion("u", revision_of(body)), body)
    await store.apply([Batch(Cursor("e", seq), (delta,), synced)])


async def test_all_there_is_comes_first_then_what_changes(store: Store) -> None:
    await put(store, 1, DEVICE_MODELS, "m", 1)
    await put(store, 2, DEVICES, "d", 1)
    await put(store, 3, CONFIG_MAPS, "c", 1)
    async with following(store) as news:
        first = await anext(news)
        assert isinstance(first, Snapshot)
        assert sorted(each.key.name for each in first.objects) == ["d", "m"]
        await put(store, 4, CONFIG_MAPS, "c", 2)
        await put(store, 5, DEVICES, "d", 2)
        changes = await anext(news)
        assert not isinstance(changes, Snapshot)
        assert [(each.type, each.object.parse()["value"]) for each in changes] == [(EventType.MODIFIED, 2)]


async def test_nothing_is_said_before_the_first_sync(store: Store) -> None:
    await put(store, 1, DEVICES, "d", 1, synced=False)
    async with following(store) as news:
        first = asyncio.ensure_future(anext(news))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await asyncio.shield(first)
        await put(store, 2, DEVICES, "e", 1)
        snapshot = await first
        assert isinstance(snapshot, Snapshot)
        assert len(snapshot.objects) == 2


async def test_who_falls_behind_gets_everything_again(store: Store) -> None:
    await put(store, 1, DEVICES, "d", 0)
    async with following(store) as news:
        assert isinstance(await anext(news), Snapshot)
        many = []
        for number in range(3000):
            body = canonical({"metadata": {"name": f"d{number}", "namespace": "default"}})
            key = ObjectKey(DEVICES, "default", f"d{number}")
            many.append(Delta(key, ObjectVersion("u", revision_of(body)), body))
        await store.apply([Batch(Cursor("e", 2), tuple(many), True)])
        again = await anext(news)
        assert isinstance(again, Snapshot)
        assert len(again.objects) == 3001


async def test_a_closed_store_ends_the_feed(store: Store) -> None:
    await put(store, 1, DEVICES, "d", 0)
    async with following(store) as news:
        await anext(news)
        await store.close()
        with pytest.raises(StopAsyncIteration):
            await anext(news)
