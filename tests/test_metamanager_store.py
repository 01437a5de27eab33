"""
The store against a specification in a few lines, with crashes; against SIGKILL; and against full disks.
"""

import asyncio
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from apimachinery.events import EventType
from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import CONFIG_MAPS, NODES
from apimachinery.selectors import parse_fields, parse_labels
from link.frames import Batch, Cursor, Delta, Held, ReportEntry
from metamanager.errors import StoreClosed, StoreCorrupt, StoreFull
from metamanager.store import Store
from tests.harness.store_history import BROKEN, GADGETS, batch, broken, deltas_of, removal, report_of, upsert

ROOT = Path(__file__).resolve().parent.parent


@asynccontextmanager
async def opened(directory: Path, max_bytes: int | None = None) -> AsyncIterator[Store]:
    store = await Store.open(directory / "edge.db", max_bytes=max_bytes)
    try:
        yield store
    finally:
        await store.close()


class StoreModel:
    """What the store must do, without a disk: the specification that the simulation of the link relies on too."""

    def __init__(self) -> None:
        self.cursor: Cursor | None = None
        self.objects: dict[ObjectKey, tuple[ObjectVersion, bytes]] = {}
        self.documents: dict[str, bytes] = {}
        self.reports: dict[tuple[ObjectKey, str], tuple[int, bytes]] = {}
        self.synced_at_ms: int | None = None
        self.revisions = 0
        """How many changes there were."""
        self._last_report = 0

    def apply(self, batches: Sequence[Batch], now_ms: int) -> list[tuple[EventType, ObjectKey]]:
        changes = []
        for each in batches:
            for delta in each.deltas:
                if delta.version is not None and delta.body.endswith(BROKEN):
                    continue  # refused
                changes += self._put(delta)
            if each.synced:
                self.synced_at_ms = now_ms
        self.cursor = batches[-1].cursor
        self.revisions += len(changes)
        return changes

    def _put(self, delta: Delta) -> list[tuple[EventType, ObjectKey]]:
        held = self.objects.get(delta.key)
        if delta.version is None:
            return [(EventType.DELETED, delta.key)] if self.objects.pop(delta.key, None) else []
        if held is not None and held[0] == delta.version:
            return []
        self.objects[delta.key] = (delta.version, delta.body)
        if held is None:
            return [(EventType.ADDED, delta.key)]
        if held[0].uid != delta.version.uid:
            return [(EventType.DELETED, delta.key), (EventType.ADDED, delta.key)]
        return [(EventType.MODIFIED, delta.key)]

    def save(self, documents: dict[str, bytes | None], reports: Sequence[ReportEntry]) -> None:
        for name, value in documents.items():
            if value is None:
                self.documents.pop(name, None)
            else:
                self.documents[name] = value
        for key, field, text in reports:
            self._last_report += 1
            self.reports[key, field] = (self._last_report, text)

    def settle(self, through: int) -> None:
        self.reports = {name: row for name, row in self.reports.items() if row[0] > through}

    def pending(self) -> list[tuple[int, ReportEntry]]:
        return sorted((seq, ReportEntry(key, field, value)) for (key, field), (seq, value) in self.reports.items())


RESOURCES = (CONFIG_MAPS, NODES, GADGETS)
DELTAS = st.builds(
    lambda resource, name, value, uid, form: form(upsert(resource, name, value, uid)),
    st.sampled_from(RESOURCES),
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 2),
    st.sampled_from(["u1", "u1", "u1", "u2"]),
    st.sampled_from([lambda delta: delta] * 4 + [removal, broken]),
)
REPORTS = st.builds(
    ReportEntry,
    st.builds(ObjectKey, st.sampled_from([GADGETS]), st.just("default"), st.sampled_from(["a", "b"])),
    st.sampled_from(["state", "property/x"]),
    st.sampled_from([b'"on"', b'"off"']),
)


class StoreMachine(RuleBasedStateMachine):
    """Random histories with crashes: the store and its specification must agree after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp(prefix="store-"))
        self.lives = itertools.count()
        self.directory = self.root / "first"
        self.model = StoreModel()
        self.seq = 0
        self.store = self.runner.run(Store.open(self.directory / "edge.db"))
        self.base = self.store.feed.revision

    def teardown(self) -> None:
        self.runner.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.root)

    @rule(batches=st.lists(st.tuples(st.lists(DELTAS, max_size=5), st.booleans()), min_size=1, max_size=3))
    def apply(self, batches: list[tuple[list[Delta], bool]]) -> None:
        made = []
        for deltas, synced in batches:
            self.seq += 1
            made.append(batch(self.seq, *deltas, synced=synced))
        before = self.store.feed.revision
        applied = self.runner.run(self.store.apply(made, now_ms=self.seq))
        expected = self.model.apply(made, self.seq)
        assert [(change.type, change.object.key) for change in applied.changes] == expected
        assert [change.revision for change in applied.changes] == list(range(before + 1, before + 1 + len(expected)))
        assert self.store.feed.since(before) == applied.changes
        refused = {(seq, refusal.key) for seq, found in applied.refusals.items() for refusal in found}
        assert refused == {
            (each.cursor.seq, delta.key)
            for each in made
            for delta in each.deltas
            if delta.version is not None and delta.body.endswith(BROKEN)
        }

    @rule(
        documents=st.dictionaries(st.sampled_from(["twin/a", "twin/b", "x"]), st.sampled_from([b"1", b"2", None])),
        reports=st.lists(REPORTS, max_size=4),
    )
    def save(self, documents: dict[str, bytes | None], reports: list[ReportEntry]) -> None:
        self.runner.run(self.store.save(documents, reports))
        self.model.save(documents, reports)

    @rule(share=st.floats(0, 1))
    def settle(self, share: float) -> None:
        rows = self.model.pending()
        through = rows[int(share * (len(rows) - 1))][0] if rows else 0
        self.runner.run(self.store.settle_reports(through))
        self.model.settle(through)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.store.close())
        self.store = self.runner.run(Store.open(self.directory / "edge.db"))

    @rule()
    def crash(self) -> None:
        """What a SIGKILL leaves: the file and its log, and no orderly end."""
        elsewhere = self.root / str(next(self.lives))
        elsewhere.mkdir(0o700)
        for name in ("edge.db", "edge.db-wal"):
            if (self.directory / name).exists():
                shutil.copy(self.directory / name, elsewhere / name)
        self.runner.run(self.store.close())
        self.directory = elsewhere
        self.store = self.runner.run(Store.open(self.directory / "edge.db"))

    @invariant()
    def agrees(self) -> None:
        self.runner.run(self._agrees())

    async def _agrees(self) -> None:
        store, model = self.store, self.model
        assert await store.cursor() == model.cursor
        held = [Held(key, version) for key, (version, _) in model.objects.items()]
        assert sorted(await store.held()) == sorted(held)
        assert await store.digest() == digest(held)
        assert store.feed.revision == self.base + model.revisions
        assert await store.is_synced() is (model.synced_at_ms is not None)
        assert await store.last_synced_at_ms() == model.synced_at_ms
        assert await store.resources() == sorted({key.resource for key in model.objects})
        for resource in RESOURCES:
            found, revision = await store.list(resource)
            assert revision == store.feed.revision
            assert [(item.object.key, (item.object.version, item.object.body)) for item in found] == sorted(
                pair for pair in model.objects.items() if pair[0].resource == resource
            )
            assert all(self.base < item.revision <= revision for item in found)
        assert await store.documents() == model.documents
        assert await store.documents("twin/") == {
            name: value for name, value in model.documents.items() if name.startswith("twin/")
        }
        assert await store.pending_reports(0, 1 << 20) == model.pending()
        assert await store.report_count() == len(model.pending())


def test_store_equals_its_specification_whatever_happens() -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


# SIGKILL. The child's history is a function of the seed and the number, so that the parent can compute what the store
# must hold from the cursor alone.


CHILD = """
import asyncio, itertools, sys
from pathlib import Path
from metamanager.store import Store
from tests.harness.store_history import batch, deltas_of, report_of

async def main(directory, seed):
    store = await Store.open(Path(directory) / "edge.db")
    cursor = await store.cursor()
    if cursor:  # the kill may have come between the two transactions
        await store.save({"last": str(cursor.seq).encode()}, [report_of(cursor.seq)])
    for seq in itertools.count(cursor.seq + 1 if cursor else 1):
        await store.apply([batch(seq, *deltas_of(seed, seq))])
        print("applied", seq, flush=True)
        await store.save({"last": str(seq).encode()}, [report_of(seq)])
        print("saved", seq, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def run_until_killed(directory: Path, seed: int, after_s: float) -> dict[str, int]:
    """Start the child, let it write for `after_s`, SIGKILL it; the last number it acknowledged, by word."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), str(seed)], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert child.stdout is not None
    said = {"applied": 0, "saved": 0}
    first = child.stdout.readline()
    try:
        child.wait(after_s)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
    with child:
        for line in (first, *child.stdout):
            word, _, number = line.partition(" ")
            if number.endswith("\n"):
                said[word] = int(number)
    return said


@pytest.mark.parametrize(
    "kills", [20, pytest.param(2000, marks=[pytest.mark.soak, pytest.mark.timeout(0)])], ids=["20", "2000"]
)
async def test_a_killed_process_leaves_cursor_and_objects_of_one_moment(tmp_path: Path, kills: int) -> None:
    seed = 7
    chance = random.Random(seed)
    model, done = StoreModel(), 0
    for kill in range(kills):
        said = run_until_killed(tmp_path, seed, chance.random() * 0.15)
        async with opened(tmp_path) as store:
            cursor = await store.cursor()
            assert cursor is not None, f"kill {kill}"
            assert cursor.seq >= said["applied"], f"kill {kill}: an acknowledged batch is gone"
            for seq in range(done + 1, cursor.seq + 1):
                model.apply([batch(seq, *deltas_of(seed, seq))], 0)
            done = cursor.seq
            found, _ = await store.list(CONFIG_MAPS)
            assert {item.object.key: (item.object.version, item.object.body) for item in found} == model.objects
            saved = int((await store.documents())["last"])
            assert max(said["saved"], cursor.seq - 1) <= saved <= cursor.seq, f"kill {kill}: a saved report is gone"
            assert {entry for _, entry in await store.pending_reports(0, 1 << 20)} == {
                report_of(seq) for seq in range(max(1, saved - 4), saved + 1)
            }


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


async def test_reports_come_in_order_and_at_least_one_at_a_time(tmp_path: Path) -> None:
    def report(name: str, value: bytes) -> ReportEntry:
        return ReportEntry(ObjectKey(GADGETS, "default", name), "state", value)

    async with opened(tmp_path) as store:
        await store.save({}, [report("a", b"1"), report("b", b"2" * 500), report("a", b"3")])
        rows = await store.pending_reports(0, 1)
        assert [(seq, entry.key.name) for seq, entry in rows] == [(2, "b")]
        rows = await store.pending_reports(2, 1000)
        assert rows == [(3, report("a", b"3"))]
        await store.settle_reports(2)
        await store.save({}, [report("a", b"4")])
        await store.settle_reports(3)
        assert await store.pending_reports(0, 1000) == [(4, report("a", b"4"))]
        await store.settle_reports(4)
    async with opened(tmp_path) as store:
        await store.save({}, [report("a", b"5")])
        assert await store.pending_reports(0, 1000) == [(5, report("a", b"5"))], "a number was given twice"


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


async def test_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    async with opened(directory) as store:
        await store.apply([batch(1, upsert(CONFIG_MAPS, "a", 1))])
        assert directory.stat().st_mode & 0o777 == 0o700
        modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
        assert modes == dict.fromkeys(("edge.db", "edge.db-wal", "edge.db-shm"), 0o600)
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
def small_file_system(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


async def test_a_full_file_system_refuses_and_loses_nothing(tmp_path: Path) -> None:
    with small_file_system(tmp_path / "disk", "2m") as disk:
        async with opened(disk) as store:
            await store.apply([batch(1, upsert(CONFIG_MAPS, "c1", 1))])
            ballast = disk / "ballast"
            ballast.write_bytes(b"x" * 1_000_000)
            last = await fill(store)
            with pytest.raises(StoreFull):
                await store.save({"d": b"x" * 50_000}, [])
            await check_full(store, last)
            ballast.unlink()
            await store.apply([batch(last + 1, upsert(CONFIG_MAPS, f"c{last + 1}", "x" * 20_000))])
            await check_full(store, last + 1)
        async with opened(disk) as store:
            await check_full(store, last + 1)


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
        async with asyncio.timeout(1):
            await store.wait_damaged()
    async with opened(tmp_path) as store:
        assert await store.held() == []
        assert await store.cursor() is None
        assert not await store.is_synced()
        assert [entry for _, entry in await store.pending_reports(0, 1000)] == [report_of(1)]
    assert (tmp_path / "edge.db.corrupt-1").exists()
