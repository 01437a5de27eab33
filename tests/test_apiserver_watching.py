"""Watches: what enters, changes and leaves a selection, resuming, bookmarks, ends."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apimachinery.keys import ObjectKey, Resource
from apimachinery.resources import CONFIG_MAPS, PODS
from apiserver import watching
from apiserver.plans import Plan, Put, Remove, View
from apiserver.requests import ApiRequest, parse
from apiserver.storage import Storage

PATH = "/api/v1/namespaces/d/configmaps"


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with Storage.open(f"sqlite:///{tmp_path / 'a.db'}", window=16) as opened:
        yield opened


def watch(storage: Storage, query: str = "", accept: str = "") -> AsyncIterator[bytes]:
    asked: ApiRequest = parse("GET", f"{PATH}?watch=1&{query}", storage.catalogue().resolve, accept)
    definition = storage.catalogue().of(asked.resource)
    assert definition is not None
    return watching.watch(storage, asked, definition)


async def put(
    storage: Storage,
    name: str,
    colour: str = "red",
    namespace: str = "d",
    resource: Resource = CONFIG_MAPS,
    **rest: Any,
) -> None:
    metadata = {"name": name, "namespace": namespace, "uid": name, "labels": {"colour": colour}}
    plan = Plan(200, (Put(ObjectKey(resource, namespace, name), {"metadata": metadata, **rest}),))
    await storage.commit(lambda _: plan)


async def remove(storage: Storage, name: str) -> None:
    def make(view: View) -> Plan:
        found = view.get(ObjectKey(CONFIG_MAPS, "d", name))
        assert found is not None
        return Plan(200, (Remove(found.key, found.parse()),))

    await storage.commit(make)


class Lines:
    """A watch's events, one by one, with a deadline."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self.stream = stream
        self._pending: list[Any] = []

    async def next(self) -> tuple[str, Any]:
        async with asyncio.timeout(5):
            while not self._pending:
                chunk = await anext(self.stream)
                assert chunk.endswith(b"\n")
                self._pending = [json.loads(line) for line in chunk.splitlines()]
        event = self._pending.pop(0)
        return event["type"], event["object"]

    async def short(self) -> str:
        kind, item = await self.next()
        return f"{kind} {item['metadata'].get('name', '')} {item['metadata']['resourceVersion']}"

    async def rest(self) -> list[str]:
        found = []
        with contextlib.suppress(StopAsyncIteration):
            while True:
                found.append(await self.short())
        return found


async def test_other_kinds_changes_wake_no_watch_and_take_nothing_from_its_window(storage: Storage) -> None:
    await put(storage, "first")
    lines = Lines(watch(storage, f"resourceVersion={storage.revision}"))
    told = asyncio.create_task(lines.short())
    woken = asyncio.create_task(storage.wait(storage.revision, CONFIG_MAPS))
    for _ in range(40):
        await put(storage, "pod", resource=PODS)
    assert not woken.done()
    await put(storage, "second")
    await woken
    assert await told == f"ADDED second {storage.revision}"


async def test_without_a_version_a_watch_begins_with_what_there_is(storage: Storage) -> None:
    await put(storage, "b")
    await put(storage, "a")
    lines = Lines(watch(storage))
    assert [await lines.short(), await lines.short()] == ["ADDED a 2", "ADDED b 1"]
    await put(storage, "c")
    assert await lines.short() == "ADDED c 3"


async def test_from_a_version_a_watch_tells_what_came_after(storage: Storage) -> None:
    await put(storage, "a")
    await put(storage, "b")
    lines = Lines(watch(storage, "resourceVersion=1"))
    assert await lines.short() == "ADDED b 2"
    await put(storage, "a", data={"x": "1"})
    await remove(storage, "b")
    assert [await lines.short(), await lines.short()] == ["MODIFIED a 3", "DELETED b 4"]


async def test_other_namespaces_and_kinds_are_not_told(storage: Storage) -> None:
    await put(storage, "a", namespace="e")
    await put(storage, "b")
    assert await Lines(watch(storage, "resourceVersion=0")).short() == "ADDED b 2"
    assert await Lines(watch(storage, "resourceVersion=0&fieldSelector=metadata.name%3Db")).short() == "ADDED b 2"


async def test_what_enters_and_leaves_a_selection_is_added_and_deleted(storage: Storage) -> None:
    lines = Lines(watch(storage, "labelSelector=colour%3Dred"))
    first = asyncio.create_task(lines.short())
    await asyncio.sleep(0)
    await put(storage, "a", "blue")
    await put(storage, "a", "red")
    assert await first == "ADDED a 2"
    await put(storage, "a", "red", data={"x": "1"})
    await put(storage, "a", "blue")
    assert await lines.short() == "MODIFIED a 3"
    kind, item = await lines.next()
    assert (kind, item["metadata"]["resourceVersion"], item["metadata"]["labels"]) == (
        "DELETED",
        "4",
        {"colour": "red"},
    )


@pytest.mark.parametrize("version", [3, 999])
async def test_a_version_out_of_the_window_ends_with_410(storage: Storage, version: int) -> None:
    for number in range(30):
        await put(storage, "a", data={"n": str(number)})
    lines = Lines(watch(storage, f"resourceVersion={version}"))
    kind, status = await lines.next()
    assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
    assert await lines.rest() == []


async def test_a_watcher_that_falls_behind_is_told_410(storage: Storage) -> None:
    lines = Lines(watch(storage, "resourceVersion=0"))
    await put(storage, "a")
    assert await lines.short() == "ADDED a 1"
    for number in range(40):
        await put(storage, "a", data={"n": str(number)})
    kind, status = await lines.next()
    assert (kind, status["code"]) == ("ERROR", 410)


async def test_a_timeout_ends_a_watch_with_a_last_bookmark(storage: Storage) -> None:
    await put(storage, "other", namespace="e")
    assert await Lines(watch(storage, "resourceVersion=0&timeoutSeconds=1&allowWatchBookmarks=true")).rest() == [
        "BOOKMARK  1"
    ]


async def test_a_watch_without_bookmarks_sleeps_until_there_is_something(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Once the time of a bookmark that nobody wants had come, the watch went round and round: a third of a core each.
    monkeypatch.setattr(watching, "BOOKMARK_S", 0.01)
    looks = 0
    since = storage.since

    def counted(revision: int, resource: Resource | None = None) -> Any:
        nonlocal looks
        looks += 1
        return since(revision, resource)

    monkeypatch.setattr(storage, "since", counted)
    assert await Lines(watch(storage, f"resourceVersion={storage.revision}&timeoutSeconds=1")).rest() == []
    assert looks <= 3


async def test_bookmarks_come_from_time_to_time_to_those_who_asked(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_S", 0.01)
    lines = Lines(watch(storage, "allowWatchBookmarks=true"))
    assert [await lines.short(), await lines.short()] == ["BOOKMARK  0", "BOOKMARK  0"]
    silent = Lines(watch(storage, "timeoutSeconds=1"))
    assert await silent.rest() == []


async def test_initial_events_end_with_a_marked_bookmark(storage: Storage) -> None:
    await put(storage, "a")
    query = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&resourceVersion=0"
    lines = Lines(watch(storage, query))
    assert await lines.short() == "ADDED a 1"
    kind, item = await lines.next()
    assert (kind, item["metadata"]["annotations"]) == ("BOOKMARK", {"k8s.io/initial-events-end": "true"})


async def test_initial_events_can_be_left_out(storage: Storage) -> None:
    await put(storage, "a")
    lines = Lines(watch(storage, "sendInitialEvents=false&resourceVersionMatch=NotOlderThan"))
    first = asyncio.create_task(lines.short())
    await asyncio.sleep(0)
    await put(storage, "b")
    assert await first == "ADDED b 2"


async def test_tables_name_their_columns_once(storage: Storage) -> None:
    await put(storage, "a")
    await put(storage, "b")
    lines = Lines(watch(storage, "", "application/json;as=Table;v=v1;g=meta.k8s.io"))
    tables = [(await lines.next())[1] for _ in range(2)]
    assert [len(table["columnDefinitions"]) for table in tables] == [3, 0]
    assert [table["rows"][0]["cells"][0] for table in tables] == ["a", "b"]


async def test_metadata_only(storage: Storage) -> None:
    await put(storage, "a", data={"x": "1"})
    lines = Lines(watch(storage, "", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"))
    _, item = await lines.next()
    assert (item["kind"], "data" in item) == ("PartialObjectMetadata", False)


async def test_many_events_come_in_bounded_chunks(storage: Storage) -> None:
    for number in range(40):
        await put(storage, f"n{number}", data={"x": "y" * 4000})
    sizes = []
    stream = watch(storage, "timeoutSeconds=1")
    async for chunk in stream:
        sizes.append(len(chunk))
    assert sum(sizes) > 40 * 4000
    assert max(sizes) < 2 * watching.CHUNK_BYTES


async def test_a_long_event_comes_in_pieces_between_which_others_have_a_turn(storage: Storage) -> None:
    texts = {"a": "x", "b": "y" * 10 * watching.CHUNK_BYTES, "c": "z"}
    for name, text in texts.items():
        await put(storage, name, data={"text": text})
    turns, stream, chunks = 0, watch(storage), list[bytes]()

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        other = group.create_task(turn(), name="other")
        while not chunks or b'"z"' not in chunks[-1]:
            chunks.append(await anext(stream))
        other.cancel()
    assert max(map(len, chunks)) <= watching.LONG_BYTES
    assert turns >= len(chunks) - 1 > 10
    events = [json.loads(line) for line in b"".join(chunks).splitlines()]
    assert {each["object"]["metadata"]["name"]: each["object"]["data"]["text"] for each in events} == texts


@given(
    steps=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["red", "blue", "gone"])), max_size=12),
    start=st.integers(0, 12),
)
@settings(max_examples=40, deadline=None)
def test_a_list_and_the_watch_after_it_lead_to_the_list_now(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]], start: int
) -> None:
    """The client's cache is rebuilt from an old list and the events since, for any history and selection."""
    directory = tmp_path_factory.mktemp("watch")

    async def run() -> None:
        async with Storage.open(f"sqlite:///{directory / 'a.db'}") as storage:
            mirror: dict[str, str] = {}
            state: dict[str, str] = {}
            since = 0
            for number, (name, colour) in enumerate(steps):
                if number == start:
                    mirror = {key: value for key, value in state.items() if value == "red"}
                    since = storage.revision
                if colour == "gone":
                    if state.pop(name, None) is not None:
                        await remove(storage, name)
                else:
                    state[name] = colour
                    await put(storage, name, colour, data={"n": str(number)})
            if start >= len(steps):
                return
            await put(storage, "end", "red")
            lines = Lines(watch(storage, f"resourceVersion={since}&labelSelector=colour%3Dred"))
            if since == 0:
                mirror = {}
            while True:
                kind, item = await lines.next()
                if item["metadata"]["name"] == "end":
                    break
                if kind == "DELETED":
                    del mirror[item["metadata"]["name"]]
                else:
                    assert (kind == "ADDED") == (item["metadata"]["name"] not in mirror)
                    mirror[item["metadata"]["name"]] = item["metadata"]["labels"]["colour"]
            assert mirror == {key: value for key, value in state.items() if value == "red"}

    asyncio.run(run())
