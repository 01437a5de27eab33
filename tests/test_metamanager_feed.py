"""The feed: bounded, never waits for anybody, and who subscribes before listing misses nothing."""

import asyncio

import pytest

from apimachinery.errors import Expired
from apimachinery.events import Change, EventType
from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import Object
from apimachinery.resources import CONFIG_MAPS, DEVICES, PODS
from metamanager.feed import RESTING, RESTING_BYTES, ChangeFeed, FeedClosed


def change(revision: int, size: int = 10) -> Change:
    key = ObjectKey(CONFIG_MAPS, "default", f"c{revision}")
    return Change(revision, EventType.ADDED, Object(key, ObjectVersion("", str(revision)), {}, b"x" * size), None)


async def test_a_subscription_gets_what_comes_after_it_in_order() -> None:
    feed = ChangeFeed(5)
    subscription = feed.subscribe()
    feed.publish([change(6), change(7)])
    feed.publish([change(8)])
    assert [found.revision for found in await anext(subscription)] == [6, 7, 8]
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.publish([change(9)])
    assert [found.revision for found in await waiting] == [9]


async def test_a_subscription_may_begin_in_the_past() -> None:
    feed = ChangeFeed()
    feed.publish([change(1), change(2), change(3)])
    assert [found.revision for found in await anext(feed.subscribe(after=1))] == [2, 3]


async def test_who_falls_out_of_the_window_is_told_to_list_again() -> None:
    feed = ChangeFeed(window=3)
    slow = feed.subscribe()
    feed.publish([change(revision) for revision in range(1, 5)])
    with pytest.raises(Expired):
        await anext(slow)
    assert [found.revision for found in feed.since(1)] == [2, 3, 4]


async def test_large_bodies_make_the_window_shorter() -> None:
    feed = ChangeFeed(window=1000, window_bytes=10_000)
    for revision in range(1, 500):
        feed.publish([change(revision, size=1000)])
        kept = next(count for count in range(12, -1, -1) if _reaches(feed, revision - count))
        assert kept <= 11
        assert kept >= min(revision, 5)


async def test_one_change_larger_than_the_window_is_kept() -> None:
    feed = ChangeFeed(window_bytes=100)
    feed.publish([change(1), change(2, size=1000)])
    assert [found.revision for found in feed.since(1)] == [2]
    feed.publish([change(3)])
    assert [found.revision for found in feed.since(2)] == [3]


async def test_small_bodies_do_not_use_up_the_bytes_over_time() -> None:
    feed = ChangeFeed(window=10, window_bytes=1000)
    for revision in range(1, 1000):
        feed.publish([change(revision, size=50)])
    assert len(feed.since(989)) == 10


async def test_what_comes_at_once_is_kept_until_the_next_commit_and_little_of_it_after_that() -> None:
    feed = ChangeFeed()
    feed.publish([change(revision) for revision in range(1, 1001)])
    assert len(feed.since(0)) == 1000, "who keeps up reads it all"
    feed.publish([change(1001)])
    assert len(feed.since(1000 - RESTING)) == RESTING + 1
    assert not _reaches(feed, 999 - RESTING)
    for revision in range(1002, 1102):
        feed.publish([change(revision, RESTING_BYTES // 10)])
    assert len(feed.since(1101 - 10)) == 10
    assert not _reaches(feed, 1101 - 13)


def of(resource: Resource, revision: int, size: int = 10) -> Change:
    key = ObjectKey(resource, "default", f"c{revision}")
    return Change(revision, EventType.ADDED, Object(key, ObjectVersion("", str(revision)), {}, b"x" * size), None)


async def test_who_follows_pods_loses_nothing_to_devices_that_change_without_end_nor_to_a_large_body() -> None:
    feed = ChangeFeed(window=20, window_bytes=1000)
    pods = feed.subscribe(resources=(PODS,))
    everything = feed.subscribe()
    feed.publish([of(PODS, 1), of(CONFIG_MAPS, 2, 5000), *(of(DEVICES, number) for number in range(3, 200))])
    feed.publish([of(CONFIG_MAPS, 200, 5000), of(PODS, 201)])
    assert [found.revision for found in await anext(pods)] == [1, 201]
    assert [found.revision for found in feed.since(198, (DEVICES, CONFIG_MAPS))] == [199, 200]
    with pytest.raises(Expired):
        feed.since(2, (DEVICES,))
    with pytest.raises(Expired):
        await anext(everything)


async def test_who_follows_one_kind_is_not_woken_by_another() -> None:
    feed = ChangeFeed()
    waiting = asyncio.ensure_future(anext(feed.subscribe(resources=(PODS,))))
    feed.publish([of(DEVICES, 1)])
    await asyncio.sleep(0.01)
    assert not waiting.done()
    feed.publish([of(PODS, 2)])
    assert [found.revision for found in await waiting] == [2]


async def test_closing_ends_subscriptions_after_what_they_have_not_read() -> None:
    feed = ChangeFeed()
    subscription, idle = feed.subscribe(), feed.subscribe(after=0)
    waiting = asyncio.ensure_future(anext(idle))
    await asyncio.sleep(0)
    feed.publish([change(1)])
    feed.close()
    assert [found.revision for batch in [await anext(subscription)] for found in batch] == [1]
    assert [found.revision for found in await waiting] == [1]
    with pytest.raises(StopAsyncIteration):
        await anext(subscription)
    with pytest.raises(FeedClosed):
        await feed.wait(1)


def _reaches(feed: ChangeFeed, revision: int) -> bool:
    try:
        feed.since(revision)
    except Expired:
        return False
    return revision >= 0
