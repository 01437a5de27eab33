"""
The store call by call. Histories are in test_store_conformance.py, kills in test_store_crashes.py.
"""

import asyncio
import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from apimachinery.events import EventType
from apimachinery.resources import CONFIG_MAPS
from apimachinery.selectors import parse_fields, parse_labels
from link.frames import MAX_HORIZON, MAX_TERM, Cursor, Position
from metamanager.errors import StoreClosed, StoreCorrupt, StoreFull
from metamanager.intake import take
from metamanager.store import Store
from tests.harness.store_history import GADGETS, batch, broken, event_of, removal, report_of, upsert


@asynccontextmanager
async def opened(directory: Path, max_bytes: int | None = None) -> AsyncIterator[Store]:
    store = await Store.open(directory / "edge.db", max_bytes=max_bytes)
    try:
        yield store
    finally:
        await store.close()


async def test_refused_objects_do_not_stop_the_others(tmp_path: Path) -> None:
    good, bad = upsert(CONFIG_MAPS, "good", 1), upsert(CONFIG_MAPS, "bad", 1)
    async with opened(tmp_path) as store:
        applied = await store.apply([batch(1, broken(bad), good), batch(2, good, synced=True)])
        assert [refusal.key for refusal in applied.refusals[1]] == [bad.key]
        assert "not JSON" in applied.refusals[1][0].reason
        assert 2 not in applied.refusals
        assert await store.cursor() == Cursor("epoch", 2)
        assert await store.get(bad.key) is None
        assert await store.is_synced()


async def test_an_object_made_again_under_its_name_is_seen_to_go_and_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.apply([batch(1, upsert(CONFIG_MAPS, "a", 1, uid="first"))])
        applied = await store.apply([batch(2, upsert(CONFIG_MAPS, "a", 1, uid="second"))])
        gone, come = applied.changes
        assert (gone.type, gone.object.version.uid) == (EventType.DELETED, "first")
        assert (come.type, come.object.version.uid, come.previous) == (EventType.ADDED, "second", None)


async def test_list_selects_pages_and_orders(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        deltas = [upsert(CONFIG_MAPS, f"c{i}", i, tier="a" if i % 2 else "b") for i in range(6)]
        await store.apply([batch(1, *reversed(deltas))])

        async def names(*args: object, **kwargs: object) -> list[str]:
            found, _ = await store.list(CONFIG_MAPS, *args, **kwargs)  # type: ignore[arg-type]
            return [item.object.key.name for item in found]

        assert await names() == [f"c{i}" for i in range(6)]
        assert await names(limit=2, after=deltas[1].key) == ["c2", "c3"]
        assert await names(labels=parse_labels("tier=a"), limit=2) == ["c1", "c3"]
        assert await names(labels=parse_labels("tier=a"), after=deltas[3].key) == ["c5"]
        assert await names(fields=parse_fields("metadata.name=c2")) == ["c2"]
        assert await names(fields=parse_fields("metadata.name!=c2,data.value!=3")) == ["c0", "c1", "c4", "c5"]
        assert await names("other") == []
        assert (await store.list(GADGETS))[0] == []


async def test_changes_of_a_cancelled_caller_still_reach_the_feed(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        before = store.feed.revision
        async with asyncio.TaskGroup() as group:
            first = group.create_task(store.apply([batch(1, upsert(CONFIG_MAPS, "a", 1))]), name="first")
            await asyncio.sleep(0)
            first.cancel()
            await store.apply([batch(2, upsert(CONFIG_MAPS, "b", 1))])
        held = {entry.key.name for entry in await store.held()}
        assert {change.object.key.name for change in store.feed.since(before)} == held
        assert await store.cursor() == Cursor("epoch", 2)


async def test_being_in_sync_is_remembered_over_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.note_in_sync(5)
        assert await store.last_synced_at_ms() is None
        await store.apply([batch(1, synced=True)], now_ms=10)
        await store.apply([batch(2, upsert(CONFIG_MAPS, "a", 1))], now_ms=20)
        assert await store.last_synced_at_ms() == 10
        await store.note_in_sync(30)
    async with opened(tmp_path) as store:
        assert await store.last_synced_at_ms() == 30
        assert await store.is_synced()


async def test_terms_grow_whatever_the_clock_says(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await store.next_term(now_ms=1000) == 1000
        assert await store.next_term(now_ms=10) == 1001
        assert await store.next_term(5000, now_ms=10) == 5001
    async with opened(tmp_path) as store:
        assert await store.next_term(now_ms=10) == 5002
        assert await store.next_term(MAX_TERM, now_ms=10) == MAX_TERM
        assert await store.next_term(700, now_ms=2000, is_reset=True) == 701
    async with opened(tmp_path) as store:
        assert await store.next_term(now_ms=10) == 702


async def test_a_full_disk_gives_terms_all_the_same(tmp_path: Path) -> None:
    """A report can go up; what is forgotten with the process a hub will say."""
    async with opened(tmp_path, max_bytes=1 << 20) as store:
        await fill(store)
        assert [await store.next_term(now_ms=7), await store.next_term(now_ms=7)] == [7, 8]


async def test_how_far_a_hub_had_seen_is_kept_with_what_it_covers_and_bounded(tmp_path: Path) -> None:
    first, second = batch(1), batch(2)
    async with opened(tmp_path) as store:
        assert await store.horizon() == ()
        await store.apply([first._replace(horizon=(Position("pods", 7), Position("nodes", 3)))])
        await store.apply([second, batch(3)._replace(horizon=(Position("pods", 5),))])
    async with opened(tmp_path) as store:
        # The latest and not the highest: an apiserver may have gone back.
        assert await store.horizon() == (Position("nodes", 3), Position("pods", 5))
        many = tuple(Position(f"p{place}", place) for place in range(MAX_HORIZON))
        await store.apply([batch(4)._replace(horizon=many)])
        assert await store.horizon() == many


async def test_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with opened(directory) as store:
        await store.apply([batch(1, upsert(CONFIG_MAPS, "a", 1))])
        assert directory.stat().st_mode & 0o777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
        assert modes == dict.fromkeys(("edge.db", "edge.db-wal", "edge.db-shm", "secrets-key"), 0o600)
        os.chmod(directory / "edge.db", 0o644)
    async with opened(directory):
        assert (directory / "edge.db").stat().st_mode & 0o777 == 0o600


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "edge.db")
    await store.close()
    await store.close()
    with pytest.raises(StoreClosed):
        await store.held()


async def test_the_file_shrinks_again(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        deltas = [upsert(CONFIG_MAPS, f"c{i}", "x" * 3000) for i in range(1000)]
        await store.apply([batch(1, *deltas)])
        await store.close()
        large = (tmp_path / "edge.db").stat().st_size
    async with opened(tmp_path) as store:
        await store.apply([batch(2, *map(removal, deltas))])
    assert (tmp_path / "edge.db").stat().st_size < large / 2


async def fill(store: Store) -> int:
    """Apply batches until the store is full; the number of the last that was taken."""
    for seq in itertools.count(1):
        try:
            await store.apply([batch(seq, upsert(CONFIG_MAPS, f"c{seq}", "x" * 20_000))])
        except StoreFull:
            return seq - 1
    raise AssertionError


async def check_full(store: Store, last: int) -> None:
    """A store that is full has what it took, and takes what needs no space."""
    assert await store.cursor() == Cursor("epoch", last)
    assert {entry.key.name for entry in await store.held()} == {f"c{seq}" for seq in range(1, last + 1)}
    found, revision = await store.list(CONFIG_MAPS)
    assert len(found) == last
    assert revision == store.feed.revision


async def test_a_file_at_its_limit_refuses_and_loses_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=1 << 20) as store:
        last = await fill(store)
        assert last > 10
        await check_full(store, last)
        gone = [removal(upsert(CONFIG_MAPS, f"c{seq}", 0)) for seq in range(1, 6)]
        await store.apply([batch(last + 1, *gone)])
        await store.apply([batch(last + 2, upsert(CONFIG_MAPS, "late", "x" * 20_000))])
    async with opened(tmp_path) as store:
        assert await store.cursor() == Cursor("epoch", last + 2)
        assert len(await store.held()) == last - 5 + 1


@contextmanager
def cramped(path: Path) -> Iterator[tuple[Path, int | None]]:
    """
    A directory with room for 2 MB, and what to tell the store about it.

    A file system of that size for who may mount one, otherwise a limit of the store's own.
    """
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield path, 1 << 20
        return
    try:
        yield path, None
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    with cramped(tmp_path / "disk") as (disk, max_bytes):
        ballast = disk / "ballast"
        async with opened(disk, max_bytes) as store:
            await store.apply([batch(1, upsert(CONFIG_MAPS, "c1", 1))])
            ballast.write_bytes(b"x" * 1_000_000)
            last = await fill(store)
            with pytest.raises(StoreFull):
                await store.save({"d": b"x" * 50_000}, [report_of(1)], [event_of(1)])
            await check_full(store, last)
            assert await store.pending_reports(0, 1000) == []
            ballast.unlink()
        async with opened(disk) as store:
            await store.apply([batch(last + 1, upsert(CONFIG_MAPS, f"c{last + 1}", "x" * 20_000))])
            await check_full(store, last + 1)
        async with opened(disk) as store:
            await check_full(store, last + 1)


async def test_a_store_opens_on_a_full_disk_with_what_a_killed_process_had_put_ahead(tmp_path: Path) -> None:
    with cramped(tmp_path / "disk") as (disk, max_bytes):
        large, left = upsert(CONFIG_MAPS, "large", "x" * 600_000), iter(range(2))
        async with opened(disk, max_bytes) as store:
            await store.apply([batch(1, upsert(CONFIG_MAPS, "c1", 1))])
            await store.put_ahead(take(large), lambda: next(left, None) is not None)
        found = os.statvfs(disk)
        with (disk / "ballast").open("wb") as ballast:
            if max_bytes is None:
                # What opening itself takes is an index of the log; to take pieces away takes more.
                ballast.write(bytes(found.f_bavail * found.f_frsize - (40 << 10)))
        async with opened(disk, max_bytes) as store:
            await check_full(store, 1)
        (disk / "ballast").unlink()
        async with opened(disk, max_bytes) as store:
            await store.apply([batch(2, upsert(CONFIG_MAPS, "c2", "x" * 400_000))])


# ---- Events


async def test_a_row_that_is_not_what_was_written_is_not_given_out(tmp_path: Path) -> None:
    delta = upsert(CONFIG_MAPS, "a", "the true value")
    async with opened(tmp_path) as store:
        await store.apply([batch(1, delta, synced=True)])
        await store.save({}, [report_of(1)])
    path = tmp_path / "edge.db"
    path.write_bytes(path.read_bytes().replace(b"the true value", b"some other one"))
    async with opened(tmp_path) as store:
        with pytest.raises(StoreCorrupt, match="damaged"):
            await store.get(delta.key)
        async with asyncio.timeout(10):
            await store.wait_damaged()
    async with opened(tmp_path) as store:
        assert await store.held() == []
        assert await store.cursor() is None
        assert not await store.is_synced()
        assert [entry for _, entry in await store.pending_reports(0, 1000)] == [report_of(1)]
    assert (tmp_path / "edge.db.corrupt-1").exists()
