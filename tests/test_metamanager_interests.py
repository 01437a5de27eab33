"""Interest on demand: what comes from the cloud once somebody reads it, and stays."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apimachinery.resources import CONFIG_MAPS, EVENTS, PODS, SERVICES
from link.frames import MAX_INTERESTS, Interest
from metamanager import interests as module
from tests.harness.edgeapi import CONFIG, EdgeApi, edge_and_cloud, started

SERVICE = "/api/v1/namespaces/default/services"
ALL_SERVICES = Interest(SERVICES, "default")


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[EdgeApi]:
    async with edge_and_cloud(tmp_path) as edge:
        yield edge


async def make_service(edge: EdgeApi, name: str) -> None:
    await edge.cloud.ask("POST", SERVICE, {"metadata": {"name": name, "labels": {"app": name}}})


async def test_a_list_of_what_is_not_held_is_fetched_and_pushed_from_then_on(edge: EdgeApi) -> None:
    await make_service(edge, "a")
    assert (await edge.get(SERVICE)).names == ["a"]
    async with edge.watch(f"{SERVICE}?labelSelector=app%3Db") as event:
        await make_service(edge, "b")
        assert (await event())["object"]["metadata"]["name"] == "b"
    assert edge.link.interests.selections == [ALL_SERVICES]


async def test_clients_with_different_selectors_share_one_selection(edge: EdgeApi) -> None:
    await make_service(edge, "a")
    await make_service(edge, "b")
    assert (await edge.get(f"{SERVICE}?labelSelector=app%3Da")).names == ["a"]
    assert (await edge.get(f"{SERVICE}?labelSelector=app%3Db")).names == ["b"]
    assert edge.link.interests.selections == [ALL_SERVICES]


async def test_what_was_granted_is_served_offline_also_after_a_restart(tmp_path: Path) -> None:
    async with edge_and_cloud(tmp_path) as edge:
        await make_service(edge, "a")
        await edge.get(SERVICE)
        await edge.until(lambda: _is_complete(edge, ALL_SERVICES))
        edge.cloud.go()
        cloud = edge.cloud
        assert (await edge.get(SERVICE)).names == ["a"]
        await edge.store.close()
        async with started(tmp_path, cloud) as again:
            assert (await again.get(SERVICE)).names == ["a"]
            assert again.link.interests.selections == [ALL_SERVICES]
            never = await again.get("/api/v1/namespaces/default/endpoints")
            assert (never.status, "retry-after" in never.headers) == (503, False)
            assert "not connected to the cloud" in never.body["message"]


async def _is_complete(edge: EdgeApi, interest: Interest) -> bool:
    return [each.complete for each in await edge.store.interests() if each[:4] == interest] == [True]


async def test_what_does_not_come_soon_is_to_be_asked_for_again(edge: EdgeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.05)
    edge.cloud.holds_back = True
    answer = await edge.get(SERVICE)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "is being fetched" in answer.body["message"]
    assert answer.body.get("items") is None
    edge.cloud.holds_back = False
    edge.cloud.refusals[ALL_SERVICES] = (503, "the hub may not list services")
    edge.cloud.come_back()
    async with asyncio.timeout(5):
        while "the hub may not list services" not in (await edge.get(SERVICE)).body["message"]:
            await asyncio.sleep(0.01)


async def test_a_refusal_is_the_callers_and_counts_for_some_seconds(
    edge: EdgeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.cloud.refusals[ALL_SERVICES] = (403, "no rule allows it")
    answer = await edge.get(SERVICE)
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert 'cannot list resource "services" in API group "" in the namespace "default"' in answer.body["message"]
    assert edge.link.interests.selections == []
    del edge.cloud.refusals[ALL_SERVICES]
    assert (await edge.get(SERVICE)).status == 403
    monkeypatch.setattr(module, "REFUSED_S", 0.0)
    assert (await edge.get(SERVICE)).status == 200


async def test_a_right_that_is_taken_back_ends_watches_and_takes_the_objects_away(edge: EdgeApi) -> None:
    await make_service(edge, "a")
    await edge.get(SERVICE)
    async with edge.watch(f"{SERVICE}?resourceVersion=0") as event:
        assert (await event())["type"] == "ADDED"
        edge.cloud.refusals[ALL_SERVICES] = (403, "not any more")
        edge.cloud.come_back()
        assert (await event())["type"] == "DELETED"
        with pytest.raises(StopAsyncIteration):
            await event()
    assert (await edge.get(SERVICE)).status == 403


async def test_what_the_cluster_does_not_have_is_not_found(edge: EdgeApi) -> None:
    edge.cloud.refusals[ALL_SERVICES] = (404, "the server could not find the requested resource")
    assert (await edge.get(SERVICE)).status == 404


async def test_one_name_is_asked_for_by_itself_until_all_are(edge: EdgeApi) -> None:
    await make_service(edge, "a")
    assert (await edge.get(f"{SERVICE}/a")).body["metadata"]["name"] == "a"
    missing = await edge.get(f"{SERVICE}/b")
    assert (missing.status, missing.body["message"]) == (404, 'services "b" not found')
    one = Interest(SERVICES, "default", "a")
    assert set(edge.link.interests.selections) == {one, one._replace(name="b")}
    assert (await edge.get(f"{SERVICE}?fieldSelector=metadata.name%3Da")).names == ["a"]
    assert (await edge.get(SERVICE)).names == ["a"]
    assert edge.link.interests.selections == [ALL_SERVICES], "the parts need no place of their own"


async def test_what_nobody_reads_is_given_back_and_an_open_watch_reads(tmp_path: Path) -> None:
    async with edge_and_cloud(tmp_path) as first:
        cloud = first.cloud
        await make_service(first, "a")
        await first.store.close()
        async with started(tmp_path, cloud, idle_s=0.0) as edge:
            await edge.get(SERVICE)
            async with edge.watch(f"{SERVICE}?resourceVersion=0") as event:
                assert (await event())["type"] == "ADDED"
                await asyncio.sleep(0.01)
                edge.link.interests._give_back()
                assert edge.link.interests.selections == [ALL_SERVICES]
            await asyncio.sleep(0.01)
            cloud.connected = False
            edge.link.interests._give_back()
            assert edge.link.interests.selections == [ALL_SERVICES], "without a cloud it could not be had again"
            cloud.come_back()
            edge.link.interests._give_back()
            assert edge.link.interests.selections == []
            await edge.until(lambda: _is_gone(edge))


async def _is_gone(edge: EdgeApi) -> bool:
    return SERVICES not in await edge.store.resources() and not await edge.store.interests()


async def test_there_is_room_for_one_more_where_nobody_reads(edge: EdgeApi) -> None:
    await edge.get(SERVICE)
    for number in range(MAX_INTERESTS - 1):
        edge.link.interests._want_too(Interest(CONFIG_MAPS, "default", f"c{number}"))
    assert (await edge.get("/api/v1/namespaces/default/endpoints")).status == 200
    selections = edge.link.interests.selections
    assert len(selections) == MAX_INTERESTS
    assert ALL_SERVICES not in selections, "it was read least recently"


async def test_a_selection_covers_what_is_in_it(edge: EdgeApi) -> None:
    interests = edge.link.interests
    interests._want_too(Interest(EVENTS))
    interests._want_too(Interest(CONFIG_MAPS, "default"))
    interests._want_too(Interest(SERVICES, "default", "a"))
    interests.completed(interests.selections)
    assert interests.covers(EVENTS, "", "")
    assert interests.covers(EVENTS, "x", "y")
    assert interests.covers(CONFIG_MAPS, "default", "any")
    assert not interests.covers(CONFIG_MAPS, "", "")
    assert not interests.covers(CONFIG_MAPS, "other", "any")
    assert interests.covers(SERVICES, "default", "a")
    assert not interests.covers(SERVICES, "default", "b")
    assert not interests.covers(SERVICES, "default", "")
    assert not interests.covers(PODS, "default", "")
    assert (await edge.get(f"{CONFIG}?limit=1")).status == 200


@pytest.mark.parametrize("target", [f"/api/v1/namespaces/{'n' * 254}/services", f"{SERVICE}/{'s' * 254}"])
async def test_a_name_that_the_link_cannot_say_is_refused_and_not_remembered(edge: EdgeApi, target: str) -> None:
    answer = await edge.get(target)
    assert (answer.status, "ask the cluster" in answer.body["message"]) == (400, True)
    assert edge.link.interests.selections == []
    assert (await edge.get(f"{SERVICE}/{'s' * 253}")).status == 404


async def test_refusals_are_forgotten_whoever_asks_for_whatever(edge: EdgeApi) -> None:
    interests = edge.link.interests
    for number in range(5):
        edge.cloud.refusals[Interest(SERVICES, "default", f"s{number}")] = (403, "no rule allows it")
        assert (await edge.get(f"{SERVICE}/s{number}")).status == 403
        assert len(interests._refused) == 1
        interests._refused = {each: (at - module.REFUSED_S - 1, why) for each, (at, why) in interests._refused.items()}
