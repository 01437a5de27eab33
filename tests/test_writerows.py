"""Local writes as rows: bounded, numbered, and in memory what the last commit left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.resources import EVENTS
from metamanager import writerows
from metamanager.connection import Database
from metamanager.errors import StoreCorrupt
from metamanager.opening import open_records
from metamanager.overlay import LocalWrite
from metamanager.resourcerows import ResourceRows
from metamanager.writerows import MAX_LOCAL_BYTES, NO_WRITES, TooManyWrites, WriteRows

KEY = ObjectKey(EVENTS, "default", "e")
WRITE = LocalWrite(0, KEY, "", "u", True, "somebody", 7, 5, b"{}")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database, _ = open_records(tmp_path / "edge.db")
    yield database
    database.close()


def opened(database: Database) -> tuple[ResourceRows, WriteRows]:
    with database.transaction():
        resources = ResourceRows(database)
        return resources, WriteRows(database, resources)


def put(rows: WriteRows, resources: ResourceRows, write: LocalWrite) -> LocalWrite:
    with resources.writing():
        kept = rows.put(write)
    rows.take({**rows.by_key, write.key: {**rows.of(write.key), write.subresource: kept}})
    return kept


def test_the_next_write_of_an_object_has_another_number_and_its_place(database: Database) -> None:
    resources, rows = opened(database)
    first = put(rows, resources, WRITE)
    second = put(rows, resources, WRITE._replace(value=b"[]"))
    beside = put(rows, resources, WRITE._replace(subresource="status"))
    assert first.seq < second.seq < beside.seq
    assert rows.all() == [second, beside]
    assert (rows.find(first.seq), rows.find(second.seq)) == (None, second)
    assert opened(database)[1].by_key == rows.by_key
    with resources.writing():
        rows.drop([second, beside])
    assert opened(database)[1].of(KEY) == NO_WRITES


def test_local_writes_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    resources, rows = opened(database)
    with pytest.raises(TooManyWrites):
        rows.check_room(WRITE._replace(value=b"x" * (MAX_LOCAL_BYTES + 1)))
    monkeypatch.setattr(writerows, "MAX_LOCAL_WRITES", 1)
    rows.check_room(WRITE)
    put(rows, resources, WRITE)
    rows.check_room(WRITE)  # it takes the place of the one there is
    with pytest.raises(TooManyWrites):
        rows.check_room(WRITE._replace(subresource="status"))


def test_a_local_write_that_is_not_what_was_written_is_damage(database: Database) -> None:
    resources, rows = opened(database)
    put(rows, resources, WRITE)
    with database.transaction():
        database.run("UPDATE local_writes SET value = ?", (b"[]",))
    with pytest.raises(StoreCorrupt, match="a local write is not what was written"):
        opened(database)
