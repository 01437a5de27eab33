"""The storage: one dense sequence, nothing visible that is not durable, and the same again after a restart."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apimachinery.errors import AlreadyExists, Expired, NotFound, TooManyRequests, Unavailable
from apimachinery.events import EventType
from apimachinery.keys import ObjectKey
from apimachinery.objects import NotJSON, canonical
from apimachinery.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS
from apimachinery.selectors import ALL_FIELDS, EVERYTHING, parse_fields, parse_labels
from apiserver import storage as storage_module
from apiserver.database import Durability, StorageError
from apiserver.largebodies import LARGE_BYTES, SPARE, is_pointer
from apiserver.plans import Plan, Put, Remove, View
from apiserver.storage import Storage
from tests.harness.small_disk import SmallDisk
from tests.test_apiserver_crds import crd

NOW = "2027-01-15T08:00:00Z"


def url(directory: Path) -> str:
    return f"sqlite:///{directory / 'a.db'}"


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    async with Storage.open(url(tmp_path), window=8) as opened:
        yield opened


def key(name: str, namespace: str = "d") -> ObjectKey:
    return ObjectKey(CONFIG_MAPS, namespace, name)


def put(name: str, namespace: str = "d", **rest: Any) -> Callable[[View], Plan]:
    def make(_: View) -> Plan:
        metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}"} | rest.pop("metadata", {})
        return Plan(200, (Put(key(name, namespace), {"metadata": metadata, **rest}),))

    return make


def remove(name: str) -> Callable[[View], Plan]:
    def make(view: View) -> Plan:
        found = view.get(key(name))
        if found is None:
            raise NotFound(name)
        return Plan(200, (Remove(key(name), found.parse()),))

    return make


async def listed(storage: Storage, **options: Any) -> list[tuple[str, int]]:
    wanted: dict[str, Any] = {"namespace": "", "labels": EVERYTHING, "fields": ALL_FIELDS, "limit": 0, "after": None}
    wanted |= options
    page = await storage.list(CONFIG_MAPS, **wanted)
    return [(item.object.key.name, item.revision) for item in page.items]


async def test_each_change_takes_the_next_revision_and_stands_in_the_object(storage: Storage) -> None:
    for name in ("b", "a", "b"):
        await storage.commit(put(name))
    assert storage.revision == 3
    assert await listed(storage) == [("a", 2), ("b", 3)]
    found = await storage.get(key("a"))
    assert found is not None
    assert found.object.parse()["metadata"]["resourceVersion"] == "2"


async def test_the_history_says_what_was_before(storage: Storage) -> None:
    for make in (put("a"), put("a", data={"x": "1"}), remove("a")):
        await storage.commit(make)
    changes = storage.since(0)
    assert [change.type for change in changes] == [EventType.ADDED, EventType.MODIFIED, EventType.DELETED]
    assert changes[1].previous == changes[0].object
    assert changes[2].object.version.revision == "3"


async def test_lists_are_selected_ordered_and_cut(storage: Storage) -> None:
    await storage.commit(put("b", "e", metadata={"labels": {"x": "1"}}))
    await storage.commit(put("c"))
    await storage.commit(put("a"))
    assert [name for name, _ in await listed(storage)] == ["a", "c", "b"]
    assert [name for name, _ in await listed(storage, namespace="e")] == ["b"]
    assert [name for name, _ in await listed(storage, labels=parse_labels("x=1"))] == ["b"]
    assert [name for name, _ in await listed(storage, fields=parse_fields("metadata.name!=c"))] == ["a", "b"]
    assert [name for name, _ in await listed(storage, limit=1, after=("d", "a"))] == ["c"]


async def test_an_error_of_a_plan_reaches_its_caller_and_nobody_else(storage: Storage) -> None:
    results = await asyncio.gather(
        storage.commit(put("a")), storage.commit(remove("nothing")), storage.commit(put("b")), return_exceptions=True
    )
    assert isinstance(results[1], NotFound)
    assert [name for name, _ in await listed(storage)] == ["a", "b"]
    assert storage.revision == 2


async def test_of_a_plan_that_cannot_be_written_nothing_is(storage: Storage) -> None:
    def two(view: View) -> Plan:
        return Plan(200, (*put("a")(view).writes, *put("b", data={"x": "\ud800"})(view).writes))

    results = await asyncio.gather(storage.commit(two), storage.commit(put("c")), return_exceptions=True)
    assert isinstance(results[0], NotJSON)
    assert await listed(storage) == [("c", 1)]


async def test_between_two_plans_that_wait_together_others_get_on(storage: Storage) -> None:
    turns, seen = 0, []

    def note(view: View) -> Plan:
        seen.append(turns)
        return put(f"n{len(seen)}")(view)

    async def take_turns() -> None:
        nonlocal turns
        while len(seen) < 5:
            turns += 1
            await asyncio.sleep(0)

    await asyncio.gather(*(storage.commit(note) for _ in range(5)), take_turns())
    assert len(set(seen)) == 5


async def test_plans_that_wait_together_see_each_others_writes(storage: Storage) -> None:
    seen: list[int] = []

    def count(view: View) -> Plan:
        seen.append(len(view.all_of(CONFIG_MAPS)))
        return put(f"n{len(seen)}")(view)

    await asyncio.gather(*(storage.commit(count) for _ in range(5)))
    assert seen == [0, 1, 2, 3, 4]


async def test_who_hears_that_a_name_is_taken_finds_who_has_it(storage: Storage) -> None:
    """The two creates share a batch: the second is refused for what the first has not yet committed."""

    def create(view: View) -> Plan:
        if view.get(key("a")) is not None:
            raise AlreadyExists("a is taken")
        return put("a")(view)

    async def second() -> None:
        with pytest.raises(AlreadyExists):
            await storage.commit(create)
        assert await storage.get(key("a")) is not None

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(storage.commit(create), name="first")
        tasks.create_task(second(), name="second")


async def test_a_rehearsal_writes_nothing(storage: Storage) -> None:
    plan = await storage.rehearse(put("a"))
    assert len(plan.writes) == 1
    assert storage.revision == 0
    assert await storage.get(key("a")) is None


async def test_a_watcher_wakes_for_a_change_and_can_be_cancelled(storage: Storage) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await storage.wait(0)
    async with asyncio.TaskGroup() as group, asyncio.timeout(5):
        waiting = group.create_task(storage.wait(0), name="waiter")
        await storage.commit(put("a"))
        await waiting
    await storage.wait(0)


async def test_what_fell_out_of_the_window_is_expired(storage: Storage) -> None:
    for number in range(12):
        await storage.commit(put(f"n{number}"))
    assert len(storage.since(4)) == 8
    with pytest.raises(Expired):
        storage.since(3)
    with pytest.raises(Expired):
        storage.since(13)


async def test_a_restart_goes_on_where_it_stopped_and_knows_no_older_history(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as first:
        for name in ("a", "b", "c", "b"):
            await first.commit(put(name))
        await first.commit(remove("a"))
        before = await listed(first)
    async with Storage.open(url(tmp_path)) as second:
        assert second.revision == 5
        assert await listed(second) == before == [("b", 4), ("c", 3)]
        assert second.since(5) == []
        with pytest.raises(Expired):
            second.since(4)
        await second.commit(put("d"))
        assert [change.revision for change in second.since(5)] == [6]


async def test_definitions_are_served_as_soon_as_they_are_committed_and_after_a_restart(tmp_path: Path) -> None:
    body = crd()
    body["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    place = ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", "lamps.example.com")
    async with Storage.open(url(tmp_path)) as first:
        assert first.catalogue().resolve("example.com", "v1", "lamps") is None
        await first.commit(lambda _: Plan(201, (Put(place, body),)))
        lamps = first.catalogue().resolve("example.com", "v1", "lamps")
        assert lamps is not None
        lamp = {"metadata": {"name": "l", "namespace": "d"}}
        await first.commit(lambda _: Plan(201, (Put(ObjectKey(lamps, "d", "l"), lamp),)))
    async with Storage.open(url(tmp_path)) as second:
        assert await second.get(ObjectKey(lamps, "d", "l")) is not None
        await second.commit(lambda _: Plan(200, (Remove(place, body),)))
        assert second.catalogue().resolve("example.com", "v1", "lamps") is None


async def test_dependents_are_found_by_their_owners(storage: Storage) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "uid-a"}
    await storage.commit(put("a"))
    await storage.commit(put("b", metadata={"ownerReferences": [owner]}))
    assert storage.view().lives("uid-a")
    assert storage.view().dependents("uid-a") == [key("b")]
    await storage.commit(put("b"))
    assert storage.view().dependents("uid-a") == []
    await storage.commit(remove("a"))
    assert not storage.view().lives("uid-a")


async def test_too_many_waiting_writes_are_told_to_come_back(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    results = await asyncio.gather(
        *(storage.commit(put(f"n{number}")) for number in range(storage_module.MAX_WAITING + 5)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) == 5
    assert all(isinstance(error, TooManyRequests) for error in refused)


async def test_a_failed_commit_shows_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        await storage.commit(put("a"))
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON objects BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
            )
            with pytest.raises(Unavailable, match="disk is full") as caught:
                await storage.commit(put("b"))
            assert caught.value.retry_after_s
            assert await listed(storage) == [("a", 1)]
            other.execute("DROP TRIGGER refuse")
        await storage.commit(put("b"))
        assert await listed(storage) == [("a", 1), ("b", 2)]


async def test_what_the_block_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Storage.open(url(tmp_path)):
            raise KeyError("mine")


# ---- what is large


LARGE = "x" * (LARGE_BYTES + 1)


def edit(name: str, calls: list[str] | None = None, **data: str) -> Callable[[View], Plan]:
    """The object with these data added to what it has."""

    def make(view: View) -> Plan:
        if calls is not None:
            calls.append(name)
        found = view.get(key(name))
        before = found.parse().get("data", {}) if found is not None else {}
        return put(name, data=before | data)(view)

    return make


async def large(storage: Storage, name: str, calls: list[str] | None = None, **data: str) -> None:
    """Put a large object in the place of one that is there."""
    if await storage.get(key(name)) is None:
        await storage.commit(put(name))
    make = edit(name, calls, text=LARGE, **data)
    await storage.commit(make, again=make)


async def data_of(storage: Storage, name: str) -> dict[str, str]:
    found = await storage.get(key(name))
    assert found is not None
    assert found.object.parse()["metadata"]["resourceVersion"] == str(found.revision)
    data: dict[str, str] = found.object.parse().get("data", {})
    return data


def row(directory: Path, name: str) -> bytes:
    with contextlib.closing(sqlite3.connect(directory / "a.db")) as database:
        body: bytes = database.execute("SELECT body FROM objects WHERE name = ?", (name,)).fetchone()[0]
    return body


def putting(place: ObjectKey, body: dict[str, Any]) -> Callable[[View], Plan]:
    return lambda _: Plan(200, (Put(place, body),))


def large_files(directory: Path) -> list[Path]:
    return [*(directory / "a.db-large").iterdir()] if (directory / "a.db-large").exists() else []


async def test_a_large_object_is_written_ahead_of_its_turn_and_others_do_not_wait(tmp_path: Path) -> None:
    calls: list[str] = []
    async with Storage.open(url(tmp_path)) as storage:
        await storage.commit(put("a"))
        await asyncio.gather(large(storage, "a", calls), storage.commit(put("b")))
        assert await listed(storage) == [("a", 3), ("b", 2)]
        assert calls == ["a"], "what it looked at has not changed"
        assert is_pointer(row(tmp_path, "a"))
        (file,) = large_files(tmp_path)
        assert file.stat().st_size > LARGE_BYTES
        before = await storage.get(key("a"))
    async with Storage.open(url(tmp_path)) as storage:
        assert await storage.get(key("a")) == before
        assert await data_of(storage, "a") == {"text": LARGE}


async def test_a_plan_is_made_anew_where_what_it_looked_at_has_changed(tmp_path: Path) -> None:
    calls: list[str] = []
    async with Storage.open(url(tmp_path)) as storage:
        await storage.commit(put("a"))
        await asyncio.gather(large(storage, "a", calls), storage.commit(edit("a", other="1")))
        assert calls == ["a", "a"]
        assert await data_of(storage, "a") == {"text": LARGE, "other": "1"}
        assert not is_pointer(row(tmp_path, "a"))
        await large(storage, "a", more="1")
        assert is_pointer(row(tmp_path, "a"))
        assert len(large_files(tmp_path)) == 1, "the one that was of no use was used again"


@pytest.mark.parametrize("make", [put("a", data={"x": "small"}), remove("a")], ids=["a small one", "a removal"])
async def test_what_turns_out_not_to_be_large_is_written_as_ever(tmp_path: Path, make: Callable[[View], Plan]) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        await storage.commit(put("a"))
        await storage.commit(make, again=make)
        assert storage.revision == 2
    assert not large_files(tmp_path)


async def test_who_may_make_a_large_object_is_asked_at_its_turn(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        make = put("a", data={"text": LARGE})
        await storage.commit(make, again=make)
        assert not is_pointer(row(tmp_path, "a"))


async def test_an_error_of_a_large_plan_is_told_at_its_turn(storage: Storage) -> None:
    for make, error in ((remove("nothing"), NotFound), (put("a", data={"x": "\ud800" + LARGE}), NotJSON)):
        with pytest.raises(error):
            await storage.commit(make, again=make)
    assert storage.revision == 0


async def test_large_definitions_are_served_after_a_restart_and_what_lost_its_own_is_kept(
    tmp_path: Path,
) -> None:
    place, body = ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", "lamps.example.com"), crd()
    body["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    body["metadata"]["annotations"] = {"text": LARGE}
    async with Storage.open(url(tmp_path)) as storage:
        await storage.commit(lambda _: Plan(200, (Put(place, crd()),)))
        make = putting(place, body)
        await storage.commit(make, again=make)
        lamps = storage.catalogue().resolve("example.com", "v1", "lamps")
        assert lamps is not None
        lamp = {"metadata": {"name": "l", "namespace": "d"}, "text": LARGE}
        desk = ObjectKey(lamps, "d", "l")
        await storage.commit(lambda _: Plan(200, (Put(desk, {"metadata": {"name": "l", "namespace": "d"}}),)))
        make = putting(desk, lamp)
        await storage.commit(make, again=make)
        assert len(large_files(tmp_path)) == 2
    async with Storage.open(url(tmp_path)) as storage:
        assert await storage.get(ObjectKey(lamps, "d", "l")) is not None
        await storage.commit(lambda _: Plan(200, (Remove(place, body),)))
    async with Storage.open(url(tmp_path)) as storage:
        assert len(large_files(tmp_path)) == 1
        await storage.commit(lambda _: Plan(200, (Put(place, crd() | {"status": body["status"]}),)))
    async with Storage.open(url(tmp_path)) as storage:
        assert await storage.get(ObjectKey(lamps, "d", "l")) is not None


async def test_an_object_that_changes_a_hundred_times_takes_two_files(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        for number in range(100):
            await large(storage, "a", n=str(number))
        assert len(large_files(tmp_path)) == 2
        await storage.commit(put("a"))
        await large(storage, "b")
        assert len(large_files(tmp_path)) == 2
    async with Storage.open(url(tmp_path)) as storage:
        assert len(large_files(tmp_path)) == 1, "nobody names the other"
        await storage.commit(remove("b"))
    async with Storage.open(url(tmp_path)):
        assert not large_files(tmp_path)


async def test_what_was_written_ahead_of_a_commit_that_never_came_is_removed(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        await large(storage, "a")
    (named,) = large_files(tmp_path)
    (named.parent / "0123-1").write_bytes(b"of a process that was killed")
    async with Storage.open(url(tmp_path)) as storage:
        assert large_files(tmp_path) == [named]
        assert await data_of(storage, "a") == {"text": LARGE}


async def test_a_file_of_a_commit_that_failed_is_left_alone_until_another_has_come(tmp_path: Path) -> None:
    """What SQLite could not flush is in its log still, and a restart may bring it back: with the file's name."""
    async with Storage.open(url(tmp_path)) as storage:
        await large(storage, "a")
        await storage.commit(put("b"))
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute(
                "CREATE TRIGGER refuse BEFORE UPDATE ON objects BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
            )
            contents: dict[Path, bytes] = {}
            for number in range(4):
                with pytest.raises(Unavailable, match="disk is full"):
                    await large(storage, "ab"[number % 2], n=str(number))
                for path, content in contents.items():
                    assert path.read_bytes() == content
                contents |= {path: path.read_bytes() for path in large_files(tmp_path)}
            assert len(contents) == 2 + SPARE, "and then no more are put into files"
            assert await data_of(storage, "a") == {"text": LARGE}
            other.execute("DROP TRIGGER refuse")
        await storage.commit(put("c"))
        await large(storage, "a", more="1")
        assert is_pointer(row(tmp_path, "a"))
        assert {*large_files(tmp_path)} <= {*contents}, "those of before are used again"
    async with Storage.open(url(tmp_path)) as storage:
        assert await data_of(storage, "a") == {"text": LARGE, "more": "1"}


async def test_where_a_file_cannot_be_written_the_object_goes_into_the_database(tmp_path: Path) -> None:
    (tmp_path / "a.db-large").write_text("somebody else's")
    async with Storage.open(url(tmp_path)) as storage:
        await large(storage, "a")
        assert not is_pointer(row(tmp_path, "a"))
        assert await data_of(storage, "a") == {"text": LARGE}


async def test_a_full_disk_refuses_a_large_object_and_leaves_nothing_of_it() -> None:
    with SmallDisk() as disk:
        if not disk.is_mounted:
            pytest.skip("only root may mount a small disk")
        async with Storage.open(url(disk.path)) as storage:
            await storage.commit(put("a"))
            disk.fill()
            with pytest.raises(Unavailable, match="the file system is full, free some space"):
                await large(storage, "a")
            assert not large_files(disk.path)
            disk.free()
            await large(storage, "a")
            assert is_pointer(row(disk.path, "a"))


async def test_without_its_file_an_object_is_missed_at_the_start(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        await large(storage, "a")
    (file,) = large_files(tmp_path)
    file.unlink()
    with pytest.raises(StorageError, match=r"configmaps d/a is in a file .*No such file.* restore that directory"):
        async with Storage.open(url(tmp_path)):
            pass


async def test_a_file_of_another_moment_than_the_database_is_noticed_at_the_start(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        await large(storage, "a", n="1")
    (file,) = large_files(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"n":"1"', b'"n":"2"'))
    with pytest.raises(StorageError, match="does not have what was written to it; restore that directory"):
        async with Storage.open(url(tmp_path)):
            pass


async def test_a_write_that_is_cancelled_while_its_file_is_written_leaves_the_file_to_the_next(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        await storage.commit(put("a"))
        for _ in range(10):
            writing = asyncio.create_task(large(storage, "a"))
            await asyncio.sleep(0)  # now it waits for its thread
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
        async with asyncio.timeout(10):
            while len(large_files(tmp_path)) > SPARE:
                await asyncio.sleep(0.01)
        assert storage.revision == 1
        await large(storage, "a", more="1")
        assert len(large_files(tmp_path)) <= 1 + SPARE
        assert await data_of(storage, "a") == {"text": LARGE, "more": "1"}


async def test_unflushed_nothing_is_put_into_files_and_none_is_touched(tmp_path: Path) -> None:
    """A power cut takes such a database some commits back, and to rows that name what was written over since."""
    async with Storage.open(url(tmp_path)) as storage:
        await large(storage, "a")
    (named,) = large_files(tmp_path)
    content = named.read_bytes()
    async with Storage.open(url(tmp_path), durability=Durability.CRASH) as storage:
        assert await data_of(storage, "a") == {"text": LARGE}
        for number in range(3):
            await large(storage, "a", n=str(number))
            await large(storage, "b", n=str(number))
        assert large_files(tmp_path) == [named]
        assert named.read_bytes() == content
    async with Storage.open(url(tmp_path)) as storage:
        assert await data_of(storage, "a") == {"text": LARGE, "n": "2"}
        assert not large_files(tmp_path)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(("small", "large", "gone"))), max_size=20))
@settings(max_examples=25, deadline=None)
def test_after_any_history_a_restart_holds_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]]
) -> None:
    directory = tmp_path_factory.mktemp("history")

    async def run() -> None:
        async with Storage.open(url(directory)) as storage:
            for number, (name, what) in enumerate(steps):
                data = {"n": str(number), "text": LARGE if what == "large" else ""}
                with contextlib.suppress(NotFound):
                    make = remove(name) if what == "gone" else put(name, data=data)
                    await storage.commit(make, again=make if what == "large" else None)
            revision = storage.revision
            page = await storage.list(CONFIG_MAPS, "", EVERYTHING, ALL_FIELDS, 0, None)
        async with Storage.open(url(directory)) as storage:
            assert storage.revision == revision
            again = await storage.list(CONFIG_MAPS, "", EVERYTHING, ALL_FIELDS, 0, None)
            assert again == page
            assert all(item.object.body == canonical(item.object.parse()) for item in again.items)

    asyncio.run(run())
