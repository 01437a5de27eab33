"""
The store against SIGKILL at any moment: while it opens, recovers, migrates, commits, settles, and while a damaged
one is begun anew. `make soak` kills thousands of times.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from apimachinery.resources import CONFIG_MAPS
from link.frames import RefusedReport
from metamanager.opening import mark_corrupt
from metamanager.rebuilt import REBUILT_DOCUMENT
from metamanager.store import Store
from tests.harness.store_history import SETTLE_EVERY, batch, deltas_of, event_of, report_of, settled_at, upsert
from tests.harness.store_model import StoreModel
from tests.harness.store_victims import Victims

SEED = 7
KILL_WITHIN_S = 0.12  # opening takes 10 ms, a number of the history 3


@pytest.fixture
def victims() -> Iterator[Victims]:
    with Victims() as victims:
        yield victims


def kills(few: int, many: int) -> pytest.MarkDecorator:
    marks = [pytest.mark.soak, pytest.mark.timeout(0)]
    return pytest.mark.parametrize("kills", [few, pytest.param(many, marks=marks)], ids=[str(few), str(many)])


def report(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Print a figure, whatever pytest captures."""
    with capsys.disabled():
        print(f"\n{line}", flush=True)


class History:
    """What the files must hold, advanced as far as they say the child came."""

    def __init__(self) -> None:
        self.model = StoreModel()
        self.applied = self.saved = self.settled = 0

    def advance(self, applied: int, saved: int, settled: int) -> None:
        assert saved in (applied, applied - 1), "a number is saved after it is applied, and before the next is"
        assert settled in (saved // SETTLE_EVERY, saved // SETTLE_EVERY - 1)
        for seq in range(self.applied + 1, applied + 1):
            self.model.apply([batch(seq, *deltas_of(SEED, seq), synced=seq % 3 == 0)], seq)
        # A settling that the last look found undone is done before anything is saved.
        for number in range(self.settled + 1, min(settled, self.saved // SETTLE_EVERY) + 1):
            self._settle(number * SETTLE_EVERY)
        for seq in range(self.saved + 1, saved + 1):
            self.model.save({"last": str(seq).encode()}, [report_of(seq)], [event_of(seq)])
            if seq % SETTLE_EVERY == 0 and seq // SETTLE_EVERY <= settled:
                self._settle(seq)
        self.applied, self.saved, self.settled = applied, saved, settled

    def _settle(self, seq: int) -> None:
        key, field, _ = report_of(seq)
        self.model.settle(settled_at(seq), [RefusedReport(key, field, str(seq))], seq)


async def check(directory: Path, history: History, said: dict[str, int], kill: int) -> None:
    store = await Store.open(directory / "edge.db")
    try:
        cursor = await store.cursor()
        applied = cursor.seq if cursor else 0
        assert applied >= said["applied"], f"kill {kill}: an acknowledged batch is gone"
        saved = int((await store.documents()).get("last", b"0"))
        assert saved >= said["saved"], f"kill {kill}: a saved report is gone"
        parked = await store.parked()
        assert parked.total * SETTLE_EVERY >= said["settled"], f"kill {kill}: a settled row is back"
        history.advance(applied, saved, parked.total)
        model = history.model
        found, _ = await store.list(CONFIG_MAPS)
        assert {item.object.key: (item.object.version, item.object.body) for item in found} == model.objects, kill
        assert await store.last_synced_at_ms() == model.synced_at_ms, kill
        assert await store.pending_reports(0, 1 << 20) == model.pending(), kill
        assert parked == model.parked, kill
    finally:
        await store.close()


@kills(40, 3000)
async def test_a_killed_process_leaves_everything_of_one_moment(
    kills: int, victims: Victims, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance, history = random.Random(SEED), History()
    said = {"applied": 0, "saved": 0, "settled": 0}
    for kill in range(kills):
        answer = victims.kill(tmp_path, SEED, work="write", after_s=chance.random() * KILL_WITHIN_S)
        assert not answer["failed"], "the child ended by itself"
        said = {word: answer[word] or number for word, number in said.items()}
        # Not every time: a process that recovers from a kill is to be killed as well.
        if chance.random() < 0.4 or kill == kills - 1:
            await check(tmp_path, history, said, kill)
    assert history.applied, "the children came to nothing"
    report(capsys, f"{kills} kills -9 of a writing store, {history.applied} batches committed, nothing lost or torn")


async def damaged(directory: Path) -> None:
    """Files as a crash leaves them, the reports in the log only, and the mark that a damaged row was met."""
    store = await Store.open(directory / "edge.db")
    await store.apply([batch(1, *(upsert(CONFIG_MAPS, f"c{i}", "x" * 500) for i in range(50)), synced=True)])
    await store.save({"twin/a": b"{}"}, [report_of(i) for i in range(5)], [event_of(1)])
    crashed = directory.with_name(f"{directory.name}-crashed")
    shutil.copytree(directory, crashed, ignore=shutil.ignore_patterns("*-shm"))
    await store.close()
    mark_corrupt(crashed / "edge.db")


@kills(40, 2000)
async def test_a_rebuild_that_is_killed_keeps_the_reports(
    kills: int, victims: Victims, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    await damaged(tmp_path / "first")
    interrupted = 0
    for kill in range(kills):
        directory = tmp_path / str(kill)
        shutil.copytree(tmp_path / "first-crashed", directory)
        rounds = 0
        while rounds < 3 and (directory / "edge.db.damaged").exists():
            rounds += 1
            answer = victims.kill(directory, 1, work="reopen", after_s=chance.random() * 0.04)
            assert not answer["failed"], "the child ended by itself"
            interrupted += not answer["opened"]
        store = await Store.open(directory / "edge.db")
        try:
            assert await store.held() == [], kill
            assert await store.cursor() is None, kill
            documents = await store.documents()
            assert documents.pop(REBUILT_DOCUMENT), kill
            assert documents == {"twin/a": b"{}"}, kill
            entries = [entry for _, entry in await store.pending_reports(0, 1 << 20)]
            assert entries[:5] == [report_of(i) for i in range(5)], kill
            assert [entry.key for entry in entries[5:]] == [event_of(1).key], kill
        finally:
            await store.close()
        assert not (directory / "edge.db.rebuilt").exists()
        shutil.rmtree(directory)
    report(capsys, f"{kills} damaged stores begun anew, {interrupted} kills -9 on the way, every report kept")
