"""Tests for cloudhub.reflector, against a server that speaks the real protocol over real sockets."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import Expired, Forbidden, NotFound, Unavailable
from apimachinery.events import Change, EventType, WatchEvent
from apimachinery.keys import ObjectKey, Resource
from apimachinery.resources import BUILT_IN, CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, DEVICES, NODES, PODS
from apimachinery.watchcache import WatchCache
from apiserver.messages import Request
from cloudhub.apiclient import ApiClient
from cloudhub.buckets import Rate
from cloudhub.conflation import Conflation
from cloudhub.horizon import Advance
from cloudhub.projection import Projection
from cloudhub.reading import Sent
from cloudhub.reflector import GATHERED, LARGE_BYTES, TURN_S, Phase, Reflector, Selection
from tests.harness.devapi import apply_device_definitions, dev_api
from tests.harness.tinyapi import TinyApi, kubeconfig, tiny_api


class Recorder:
    """A consumer that remembers."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def changed(self, changes: list[Change]) -> None:
        assert changes, "nothing is told when nothing changed"
        self.changes += changes

    def told(self) -> list[tuple[str, str]]:
        return [(change.type.value, change.object.key.name) for change in self.changes]


class Followed:
    """A reflector that runs, and all around it."""

    def __init__(self, api: TinyApi, client: ApiClient, resource: Resource, **options: Any) -> None:
        self.api = api
        self.cache = WatchCache()
        self.consumer = Recorder()
        self.reflector = Reflector(client, resource, self.cache, self.consumer, jitter=lambda: 0.05, **options)

    def names(self) -> set[str]:
        return {item.key.name for item in self.cache.list(self.reflector.resource)[0]}


@asynccontextmanager
async def follow(
    tmp_path: Path, resource: Resource = PODS, api: TinyApi | None = None, **options: Any
) -> AsyncIterator[Followed]:
    path = tmp_path / "kubeconfig"
    async with tiny_api(api) as api:
        path.write_text(kubeconfig(api.url))
        async with ApiClient.from_kubeconfig(path) as client:
            followed = Followed(api, client, resource, **options)
            task = asyncio.create_task(followed.reflector.run(), name="reflector")
            try:
                yield followed
            finally:
                assert not task.done(), "a reflector ends only when it is cancelled"
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task


async def until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def pod(name: str, **spec: object) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": spec}


async def test_lists_then_watches(tmp_path: Path) -> None:
    api = TinyApi()
    await api.put(PODS, pod("a"), "ns")
    async with follow(tmp_path, api=api) as f:
        await f.reflector.wait_synced()
        assert f.names() == {"a"}
        await api.put(PODS, pod("b"), "ns")
        await api.put(PODS, pod("a", x=1), "ns")
        await api.delete(ObjectKey(PODS, "ns", "b"))
        await until(lambda: len(f.consumer.changes) == 4)
        assert f.consumer.told() == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
        assert f.reflector.status().phase is Phase.WATCHING
        assert (f.reflector.status().lists, f.reflector.status().watches) == (1, 1)


async def test_a_watch_that_ends_or_breaks_goes_on_without_a_list(tmp_path: Path) -> None:
    async with follow(tmp_path) as f:
        await f.reflector.wait_synced()
        for number in range(5):
            await until(lambda: f.api.watchers == 1)
            await f.api.break_watches()
            await f.api.put(PODS, pod(f"p{number}"), "ns")
            await until(lambda number=number: f"p{number}" in f.names())  # type: ignore[misc]
        assert f.reflector.status().lists == 1
        assert f.reflector.status().watches >= 6
        assert f.consumer.told() == [("ADDED", f"p{number}") for number in range(5)]


async def test_a_bookmark_moves_on_where_the_next_watch_starts(tmp_path: Path) -> None:
    api = TinyApi()
    api.bookmark_every_s = 0.01
    async with follow(tmp_path, api=api) as f:
        await until(lambda: api.watchers == 1)
        await api.put(NODES, {"metadata": {"name": "n"}})  # another resource: no event for pods
        await until(lambda: f.cache.resume_version(PODS) == str(api.revision))
        api.compact()
        await api.break_watches()
        await until(lambda: f.reflector.status().watches >= 2 and api.watchers == 1)
        assert f.reflector.status().lists == 1


async def test_after_410_a_list_is_not_older_than_what_was_seen(tmp_path: Path) -> None:
    api = TinyApi()
    await api.put(PODS, pod("gone"), "ns")
    await api.put(PODS, pod("kept"), "ns")
    async with follow(tmp_path, api=api) as f:
        await until(lambda: api.watchers == 1)
        seen = f.cache.resume_version(PODS)
        api.answer = lambda request: Unavailable("down") if "/pods" in request.path else None
        await api.break_watches()
        await api.delete(ObjectKey(PODS, "ns", "gone"))
        await api.put(PODS, pod("new"), "ns")
        api.compact()
        api.answer = lambda request: None
        await until(lambda: "new" in f.names())
        assert f.consumer.told() == [("ADDED", "gone"), ("ADDED", "kept"), ("DELETED", "gone"), ("ADDED", "new")]
        lists = api.asked("GET", "/pods")
        assert "resourceVersion" not in lists[0].query
        assert (lists[1].query["resourceVersion"], lists[1].query["resourceVersionMatch"]) == (seen, "NotOlderThan")


async def test_a_server_restored_from_a_backup_is_asked_for_its_newest_state(tmp_path: Path) -> None:
    api = TinyApi()
    await api.put(PODS, pod("lost"), "ns")

    def younger(request: Request) -> Exception | None:
        query = dict(request.query)
        if query.get("watch") and int(query["resourceVersion"]) > 50:
            return Expired("too large resource version")
        if query.get("resourceVersionMatch"):
            return Unavailable("Too large resource version")
        return None

    async with follow(tmp_path, api=api) as f:
        await until(lambda: api.watchers == 1)
        api.objects.clear()
        api._history.clear()
        api._compacted, api.revision = 5, 10
        api.answer = younger  # type: ignore[assignment]
        await api.break_watches()
        await until(lambda: f.names() == set() and api.watchers == 1)
        assert f.cache.resume_version(PODS) == "10"


async def test_what_projection_removes_makes_no_change(tmp_path: Path) -> None:
    seen: list[str] = []

    def observe(item: Sent) -> None:
        seen.append(item.version.revision)

    async with follow(tmp_path, DEVICES, observe=observe) as f:
        await f.reflector.wait_synced()
        await f.api.put(DEVICES, {"metadata": {"name": "d"}, "spec": {}}, "ns")
        await f.api.put(DEVICES, {"metadata": {"name": "d"}, "spec": {}, "status": {"state": "online"}}, "ns")
        await until(lambda: len(seen) == 2)
        await f.api.put(DEVICES, {"metadata": {"name": "d"}, "spec": {"nodeName": "n"}}, "ns")
        await until(lambda: len(f.consumer.changes) == 2)
        assert f.consumer.told() == [("ADDED", "d"), ("MODIFIED", "d")]
        assert seen == ["101", "102", "103"]


async def test_observers_see_what_is_listed_but_not_what_is_deleted(tmp_path: Path) -> None:
    api = TinyApi()
    await api.put(PODS, pod("a"), "ns")
    seen: list[str] = []
    async with follow(tmp_path, api=api, observe=lambda item: seen.append(item.key.name)) as f:
        await until(lambda: api.watchers == 1)
        await api.delete(ObjectKey(PODS, "ns", "a"))
        await until(lambda: not f.names())
        assert seen == ["a"]


async def test_it_tells_how_far_it_has_come_after_the_cache_and_the_consumer_know(tmp_path: Path) -> None:
    told: list[tuple[Advance, str]] = []

    def advanced(resource: Resource, advance: Advance) -> None:
        assert resource == PODS
        told.append((advance, f.cache.resume_version(PODS)))

    api = TinyApi()
    api.bookmark_every_s = 0.05
    listed = (await api.put(PODS, pod("one"), "ns"))["metadata"]["resourceVersion"]
    async with follow(tmp_path, api=api, advanced=advanced) as f:
        await until(lambda: told)
        assert told[0] == (Advance(listed), listed)
        event = (await api.put(PODS, pod("two"), "ns"))["metadata"]["resourceVersion"]
        await until(lambda: (Advance(event), event) in told)
        await until(lambda: any(advance.is_bookmark for advance, _ in told))
        gone = ObjectKey(PODS, "ns", "two")
        await api.delete(gone)
        await until(lambda: (Advance(str(api.revision)), str(api.revision)) in told)


async def test_a_resource_that_is_not_defined_yet_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "cloudhub.reflector"):
        async with follow(tmp_path, DEVICES, TinyApi(BUILT_IN)) as f:
            await f.reflector.wait_synced()
            assert f.reflector.status().phase is Phase.ABSENT
            assert f.cache.is_synced(DEVICES)
            await until(lambda: f.reflector.status().lists >= 4)
            assert [record.levelname for record in caplog.records] == ["WARNING"]
            assert "cloudcore crds" in caplog.text
            await f.api.define(DEVICES)
            await f.api.put(DEVICES, {"metadata": {"name": "d"}}, "ns")
            f.reflector.wake()
            await until(lambda: f.names() == {"d"})
            assert f.reflector.status().phase is Phase.WATCHING


async def test_a_resource_whose_definition_goes_is_forgotten_and_may_come_back(tmp_path: Path) -> None:
    api = TinyApi()
    await api.define(DEVICES)
    await api.put(DEVICES, {"metadata": {"name": "d"}}, "ns")
    async with follow(tmp_path, DEVICES, api) as f:
        await until(lambda: api.watchers == 1)
        # The hard way: no DELETED events, as when the watch was broken meanwhile.
        await api.break_watches()
        api.objects.clear()
        api._history.clear()
        api.served.discard(DEVICES)
        await until(lambda: f.reflector.status().phase is Phase.ABSENT)
        assert f.consumer.told() == [("ADDED", "d"), ("DELETED", "d")]
        await api.define(DEVICES)
        await api.put(DEVICES, {"metadata": {"name": "d"}}, "ns")
        await until(lambda: f.names() == {"d"})
        assert "resourceVersion" not in api.asked("GET", "/devices")[-1].query


@pytest.mark.parametrize("proof", ["defined", "forbidden", "unknown path"])
async def test_a_404_alone_forgets_nothing(tmp_path: Path, proof: str) -> None:
    api = TinyApi()
    await api.define(DEVICES)
    await api.put(DEVICES, {"metadata": {"name": "d"}}, "ns")
    refusals = 0

    def starting(request: Request) -> Exception | None:
        nonlocal refusals
        if "/devices" in request.path and "customresource" not in request.path:
            refusals += 1
            return NotFound("the server could not find the requested resource")
        if "customresource" in request.path and proof != "defined":
            return Forbidden("no") if proof == "forbidden" else NotFound("404 page not found")
        return None

    async with follow(tmp_path, DEVICES, api) as f:
        await until(lambda: api.watchers == 1)
        api.answer = starting  # type: ignore[assignment]
        await api.break_watches()
        await until(lambda: refusals >= 3)
        assert f.names() == {"d"}
        assert f.reflector.status().phase is Phase.FAILING
        api.answer = lambda request: None
        await until(lambda: api.watchers == 1)
        assert f.consumer.told() == [("ADDED", "d")]


async def test_everybody_else_has_turns_amid_many_events(tmp_path: Path) -> None:
    seen: list[int] = []

    def observe(_: Sent) -> None:
        seen.append(1)
        until = time.perf_counter() + TURN_S / 2
        while time.perf_counter() < until:
            pass

    async with follow(tmp_path, observe=observe) as f:
        await until(lambda: f.api.watchers == 1)
        for number in range(100):
            await f.api.put(PODS, pod(f"p{number}"), "ns")
        most = before = 0
        while len(seen) < 100:
            await asyncio.sleep(0)
            most, before = max(most, len(seen) - before), len(seen)
        assert most <= 4


async def test_what_is_large_is_projected_aside_and_keeps_its_place(tmp_path: Path) -> None:
    where: dict[str, list[bool]] = {}

    def look(item: Sent, before: object, same: Collection[str]) -> object:
        where.setdefault(item.key.name, []).append(threading.current_thread() is threading.main_thread())
        return None

    large = {"data": {"text": "x" * LARGE_BYTES}}
    async with follow(tmp_path, CONFIG_MAPS, projection=Projection(CONFIG_MAPS, look)) as f:
        await until(lambda: f.api.watchers == 1)
        await f.api.put(CONFIG_MAPS, {"metadata": {"name": "large"}, **large}, "ns")
        await f.api.put(CONFIG_MAPS, {"metadata": {"name": "small"}}, "ns")
        await f.api.put(CONFIG_MAPS, {"metadata": {"name": "large"}, **large, "immutable": True}, "ns")
        await f.api.delete(ObjectKey(CONFIG_MAPS, "ns", "large"))
        await until(lambda: len(f.consumer.changes) == 4)
        told = [("ADDED", "large"), ("ADDED", "small"), ("MODIFIED", "large"), ("DELETED", "large")]
        assert f.consumer.told() == told
    assert where == {"large": [False] * 3, "small": [True]}


async def test_troubles_are_told_once_and_outlasted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    api = TinyApi()
    attempts = 0

    def refusing(request: Request) -> Exception:
        nonlocal attempts
        attempts += 1
        return Forbidden('pods is forbidden: User "x" cannot list resource "pods"')

    api.answer = refusing  # type: ignore[assignment]
    with caplog.at_level(logging.INFO, "cloudhub.reflector"):
        async with follow(tmp_path, api=api) as f:
            await until(lambda: attempts >= 4)
            assert not f.cache.is_synced(PODS)
            assert f.reflector.status().problem.startswith("pods is forbidden")
            api.answer = lambda request: None
            await f.reflector.wait_synced()
            await until(lambda: f.reflector.status().phase is Phase.WATCHING)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_watch_that_ends_at_once_is_not_repeated_in_a_loop(tmp_path: Path) -> None:
    api = TinyApi()
    api.watch_most_s = 0.0
    async with follow(tmp_path, api=api) as f:
        f.reflector._jitter = lambda: 1.0
        await f.reflector.wait_synced()
        await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)
        assert f.reflector.status().watches <= 2


async def test_only_what_is_selected_is_asked_for(tmp_path: Path) -> None:
    select = Selection(namespace="kube-node-lease", labels="a=b", fields="metadata.name=x")
    async with follow(tmp_path, select=select) as f:
        await until(lambda: f.api.watchers == 1)
        for entry in (*f.api.asked("GET"), *f.api.asked("WATCH")):
            assert "/namespaces/kube-node-lease/" in entry.path
            assert (entry.query["labelSelector"], entry.query["fieldSelector"]) == ("a=b", "metadata.name=x")


async def test_watches_are_asked_to_end_at_different_times(tmp_path: Path) -> None:
    async with follow(tmp_path) as f:
        await until(lambda: f.api.watchers == 1)
        assert f.api.asked("WATCH")[0].query["timeoutSeconds"] == str(round(300 * (0.8 + 0.4 * 0.05)))


async def test_a_bug_ends_the_reflector(tmp_path: Path) -> None:
    def broken(item: Sent) -> None:
        raise ZeroDivisionError

    async with tiny_api() as api:
        await api.put(PODS, pod("a"), "ns")
        (tmp_path / "kubeconfig").write_text(kubeconfig(api.url))
        async with ApiClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
            reflector = Reflector(client, PODS, WatchCache(), Recorder(), observe=broken)
            with pytest.raises(ZeroDivisionError):
                await reflector.run()


async def test_several_reflectors_share_a_cache_and_revisions_arrive_in_order(tmp_path: Path) -> None:
    async with tiny_api() as api:
        (tmp_path / "kubeconfig").write_text(kubeconfig(api.url))
        cache, consumer = WatchCache(), Recorder()
        async with ApiClient.from_kubeconfig(tmp_path / "kubeconfig") as client, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(Reflector(client, resource, cache, consumer).run(), name=resource.plural)
                for resource in (PODS, NODES)
            ]
            for number in range(20):
                await api.put(PODS, pod(f"p{number}"), "ns")
                await api.put(NODES, {"metadata": {"name": f"n{number}"}})
            await until(lambda: len(consumer.changes) == 40)
            assert [change.revision for change in consumer.changes] == list(range(1, 41))
            assert {change.type for change in consumer.changes} == {EventType.ADDED}
            for task in running:
                task.cancel()


async def test_following_the_embedded_apiserver_before_and_after_its_definitions(tmp_path: Path) -> None:
    async with dev_api(tmp_path / "api") as client:
        cache, consumer = WatchCache(), Recorder()
        reflector = Reflector(client, DEVICES, cache, consumer)
        task = asyncio.create_task(reflector.run(), name="reflector")
        await reflector.wait_synced()
        assert reflector.status().phase is Phase.ABSENT
        await apply_device_definitions(client)
        reflector.wake()
        body = {"apiVersion": DEVICES.api_version, "kind": "Device", "metadata": {"name": "d"}, "spec": {}}
        await client.create(DEVICES, "default", body)
        await until(lambda: consumer.told() == [("ADDED", "d")])
        definition = ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", DEVICES.collection)
        await client.delete(definition)
        await until(lambda: consumer.told() == [("ADDED", "d"), ("DELETED", "d")])
        await until(lambda: reflector.status().phase is Phase.ABSENT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


FOREVER_S = 60.0


def strict(monkeypatch: pytest.MonkeyPatch, spacing_s: float = FOREVER_S) -> Conflation:
    """Holds back whatever changes a second time within its spacing, which no pause of the machine is as long as."""
    monkeypatch.setattr("cloudhub.conflation.SPACING_S", spacing_s)
    return Conflation(asyncio.get_running_loop().time(), Rate(per_s=1e-9, burst=0.5))


def values(f: Followed) -> list[int]:
    """Of the pod "a", in the order in which the consumer was told."""
    return [change.object.parse()["spec"]["x"] for change in f.consumer.changes if change.object.key.name == "a"]


async def test_of_an_object_that_changes_all_the_time_its_last_state_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Advance] = []

    def advanced(_resource: Resource, advance: Advance) -> None:
        told.append(advance)

    async with follow(tmp_path, conflation=strict(monkeypatch, 2.0), advanced=advanced) as f:
        await until(lambda: f.api.watchers == 1)
        for number in range(30):
            await f.api.put(PODS, pod("a", x=number), "ns")
        last = str(f.api.revision)
        await f.api.put(PODS, pod("b"), "ns")
        newest = str(f.api.revision)
        await until(lambda: "b" in f.names())
        assert 29 not in values(f), "what changes seldom does not wait for it"
        assert int(f.cache.resume_version(PODS)) < int(last)
        assert told[-1] == Advance(f.cache.resume_version(PODS), ahead=newest)
        await until(lambda: f.cache.resume_version(PODS) == newest)
        assert values(f)[-1] == 29
        assert len(values(f)) <= 4, "most of its states were passed over"
        assert told[-1] == Advance(newest), "the last state of what waited is older than what was given since"


async def test_what_waits_when_a_watch_breaks_is_taken_in_and_not_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with follow(tmp_path, conflation=strict(monkeypatch)) as f:
        await until(lambda: f.api.watchers == 1)
        for number in range(5):
            await f.api.put(PODS, pod("a", x=number), "ns")
        await f.api.put(PODS, pod("b"), "ns")
        await until(lambda: "b" in f.names())
        await f.api.break_watches()
        await until(lambda: f.reflector.status().watches == 2 and f.api.watchers == 1)
        assert values(f)[-1] == 4
        assert f.cache.resume_version(PODS) == str(f.api.revision)
        assert values(f) == sorted(set(values(f)))
        assert f.reflector.status().lists == 1


async def test_what_waited_and_is_given_late_takes_back_nothing_of_how_far_others_were_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def advanced(_resource: Resource, advance: Advance) -> None:
        seen.append(int(advance.ahead or advance.reached))

    async with follow(tmp_path, conflation=strict(monkeypatch, 0.5), advanced=advanced) as f:
        await until(lambda: f.api.watchers == 1)
        for name in ("a", "b"):
            for number in range(3):
                await f.api.put(PODS, pod(name, x=number), "ns")
        await f.api.put(PODS, pod("c"), "ns")
        await until(lambda: f.cache.resume_version(PODS) == str(f.api.revision))
        assert values(f) == [0, 1, 2]
        assert seen == sorted(seen)


async def test_what_waited_for_the_same_turn_is_told_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little of it a turn of the loop takes: what is told one by one leaves one by one."""
    monkeypatch.setattr("cloudhub.conflation.TURNS", 1)
    monkeypatch.setattr("cloudhub.reflector.TURN_S", 1e-6)
    names = [f"lamp-{number}" for number in range(GATHERED + 4)]
    told: list[int] = []

    def advanced(_resource: Resource, _advance: Advance) -> None:
        told.append(len(f.consumer.changes))

    async with follow(tmp_path, conflation=strict(monkeypatch, 2.0), advanced=advanced) as f:
        await until(lambda: f.api.watchers == 1)
        await asyncio.sleep(2.0 - asyncio.get_running_loop().time() % 2.0)  # their turn has just been
        for number in range(3):  # each is made, changes, and is hasty
            for name in names:
                await f.api.put(PODS, pod(name, x=number), "ns")
        await until(lambda: f.cache.resume_version(PODS) == str(f.api.revision))
        assert told[-1] == 3 * len(names)
        assert [later - earlier for earlier, later in pairwise(told)][-2:] == [GATHERED, len(names) - GATHERED]


async def test_a_bookmark_that_takes_gathered_ones_with_it_is_none_to_who_is_told(tmp_path: Path) -> None:
    told: list[Advance] = []

    def advanced(_resource: Resource, advance: Advance) -> None:
        told.append(advance)

    api = TinyApi()
    await api.put(PODS, pod("a"), "ns")
    async with follow(tmp_path, api=api, advanced=advanced) as f:
        await f.reflector.wait_synced()
        held = f.cache.list(PODS)[0][0]
        f.reflector._gathered.append(WatchEvent(EventType.MODIFIED, held._replace(body=b"{}"), "6"))
        f.reflector._take_in(WatchEvent(EventType.BOOKMARK, None, "9"))
        f.reflector._take_in(WatchEvent(EventType.BOOKMARK, None, "10"))
        assert told[-2:] == [Advance("9"), Advance("10", is_bookmark=True)]


async def test_what_is_deleted_while_others_are_gathered_stays_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudhub.reflector.TURN_S", 1e-6)
    rng = random.Random(3)
    async with follow(tmp_path, conflation=strict(monkeypatch, 0.02)) as f:
        await until(lambda: f.api.watchers == 1)
        for number in range(600):
            name = f"lamp-{rng.randrange(8)}"
            key = ObjectKey(PODS, "ns", name)
            if key in f.api.objects and rng.random() < 0.1:
                await f.api.delete(key)
            else:
                await f.api.put(PODS, pod(name, x=number), "ns")
            if rng.random() < 0.1:
                await asyncio.sleep(0.01)
        await f.api.put(PODS, pod("last"), "ns")
        await until(lambda: f.cache.resume_version(PODS) == str(f.api.revision))
        assert {key.name: value["spec"]["x"] for key, value in f.api.objects.items() if key.name != "last"} == {
            item.key.name: item.parse()["spec"]["x"] for item in f.cache.list(PODS)[0] if item.key.name != "last"
        }
        for name in f.names() - {"last"}:
            of = [each.object.parse()["spec"]["x"] for each in f.consumer.changes if each.object.key.name == name]
            assert of == sorted(of)


async def test_while_what_waited_is_taken_in_at_the_end_of_a_watch_others_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[int] = []

    def advanced(_resource: Resource, _advance: Advance) -> None:
        if turns:
            time.sleep(TURN_S)

    async with follow(tmp_path, conflation=strict(monkeypatch), advanced=advanced) as f:
        await until(lambda: f.api.watchers == 1)
        for number in range(3):
            for name in range(20):
                await f.api.put(PODS, pod(f"lamp-{name}", x=number), "ns")
        await f.api.put(PODS, pod("last"), "ns")
        await until(lambda: "last" in f.names())
        at_first = len(f.consumer.changes)

        def count() -> None:
            turns.append(len(f.consumer.changes))
            if f.reflector.status().watches < 2:
                asyncio.get_running_loop().call_soon(count)

        count()
        await f.api.break_watches()
        await until(lambda: f.reflector.status().watches == 2)
        assert turns[-1] - at_first > 10, "else it shows nothing"
        assert max(later - earlier for earlier, later in pairwise(turns)) <= 2


async def test_what_cannot_be_read_when_a_watch_ends_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str] = []

    def look(item: Sent, before: object, same: Collection[str]) -> None:
        if item.member("spec") == {"x": 3} and not problems:
            raise Unavailable("the apiserver sent what is not JSON")

    def failed(_resource: Resource, problem: str) -> None:
        problems.append(problem)

    async with follow(tmp_path, conflation=strict(monkeypatch), projection=Projection(PODS, look), failed=failed) as f:
        await until(lambda: f.api.watchers == 1)
        for number in range(4):
            await f.api.put(PODS, pod("a", x=number), "ns")
        await f.api.put(PODS, pod("b"), "ns")
        await until(lambda: "b" in f.names())
        await f.api.break_watches()
        await until(lambda: problems)
        await until(lambda: values(f)[-1] == 3)
        assert problems[0] == "the apiserver sent what is not JSON"
        assert f.reflector.status().lists == 2


async def test_what_cannot_be_read_when_its_time_has_come_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems: list[str] = []

    def look(item: Sent, before: object, same: Collection[str]) -> None:
        if item.member("spec") == {"x": 3} and not problems:
            raise Unavailable("the apiserver sent what is not JSON")

    def failed(_resource: Resource, problem: str) -> None:
        problems.append(problem)

    async with follow(
        tmp_path, conflation=strict(monkeypatch, 0.5), projection=Projection(PODS, look), failed=failed
    ) as f:
        await until(lambda: f.api.watchers == 1)
        for number in range(4):
            await f.api.put(PODS, pod("a", x=number), "ns")
        await until(lambda: f.reflector._problem_held is not None)  # nothing else shows it
        await f.api.put(PODS, pod("b"), "ns")
        await until(lambda: "b" in f.names())
        assert problems == ["the apiserver sent what is not JSON"]
        assert values(f)[-1] == 3
        assert f.reflector.status().lists == 2
