"""The operations without a thread: what is remembered equals what the last commit left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apimachinery.inventory import digest
from apimachinery.resources import CONFIG_MAPS
from apimachinery.selectors import ALL_FIELDS, EVERYTHING
from metamanager import records as bounds
from metamanager.connection import Database
from metamanager.errors import StoreFull
from metamanager.opening import open_records
from metamanager.records import Records
from tests.harness.store_history import GADGETS, batch, removal, report_of, upsert


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Database, Records]]:
    """A store that is full with 256 KiB."""
    database, records = open_records(tmp_path / "edge.db", 1 << 18)
    yield database, records
    database.close()


def remembered(records: Records) -> tuple[object, ...]:
    return records.revision, records.cursor, records.synced_at_ms, records.digest(), records.outbox.counts


def test_a_failed_transaction_leaves_nothing_remembered(small: tuple[Database, Records]) -> None:
    _, records = small
    records.apply([batch(1, upsert(CONFIG_MAPS, "a", 1))], 0)
    before = remembered(records)
    huge = upsert(GADGETS, "huge", "x" * 300_000)
    with pytest.raises(StoreFull):
        records.apply([batch(2, upsert(GADGETS, "first", 1), huge, synced=True)], 5)
    with pytest.raises(StoreFull):
        records.outbox.save({}, [report_of(1), report_of(2)._replace(value=b"x" * 300_000)])
    assert remembered(records) == before
    assert records.known_resources() == [CONFIG_MAPS]
    # The number that the failed transaction would have given to the new resource is given again.
    records.apply([batch(2, upsert(GADGETS, "first", 1))], 5)
    assert records.resources() == [CONFIG_MAPS, GADGETS]
    assert records.get(upsert(GADGETS, "first", 1).key) is not None


def test_an_objects_row_has_the_revision_of_its_last_change(small: tuple[Database, Records]) -> None:
    _, records = small
    base = records.revision
    one, two = upsert(CONFIG_MAPS, "a", 1), upsert(CONFIG_MAPS, "a", 2)
    applied = records.apply([batch(1, one, two, removal(one), one, one)], 0)
    assert [change.revision - base for change in applied.changes] == [1, 2, 3, 4]
    found, revision = records.list(CONFIG_MAPS, "", EVERYTHING, ALL_FIELDS, 0, None)
    assert [(item.object.body, item.revision) for item in found] == [(one.body, revision)]
    assert records.apply([batch(2, one)], 0).changes == []
    assert records.revision == revision


def test_the_digest_follows_what_is_held(small: tuple[Database, Records]) -> None:
    _, records = small
    assert records.digest() == digest([])
    delta = upsert(CONFIG_MAPS, "a", 1)
    records.apply([batch(1, delta)], 0)
    assert records.digest() == digest(records.held()) != digest([])
    records.apply([batch(2, removal(delta))], 0)
    assert records.digest() == digest([])
    assert records.count() == 0


def test_what_a_hub_sends_fills_a_store_up_to_a_bound_and_reports_still_find_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_STORE_BYTES", 400_000)
    database, records = open_records(tmp_path / "edge.db")
    pushed = [upsert(GADGETS, f"g{number}", "x" * 50_000) for number in range(20)]
    applied = [records.apply([batch(seq, delta)], 0) for seq, delta in enumerate(pushed, 1)]
    refused = [each.refusals[seq][0].reason for seq, each in enumerate(applied, 1) if each.refusals]
    assert 13 <= len(refused) < 20
    assert set(refused) == {"there is no room: the node's store may have 400000 bytes"}
    assert (tmp_path / "edge.db").stat().st_size <= 450_000
    records.outbox.save({}, [report_of(1)])
    assert records.outbox.report_count == 1, "what is the node's own has room"
    smaller = upsert(GADGETS, "g0", "y")
    assert not records.apply([batch(21, smaller)], 0).refusals, "what shrinks is taken"
    assert not records.apply([batch(22, removal(pushed[1]), upsert(GADGETS, "new", "z"))], 0).refusals
    database.close()
