"""The database itself: what it is opened with, and what it says of a file that is not its own."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from apiserver.database import SCHEMA_VERSION, Durability, StorageError
from apiserver.storage import Storage
from tests.test_apiserver_storage import listed, put, url


async def test_a_file_that_is_no_database_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"this is no database, it only looks like a file" * 100)
    with pytest.raises(StorageError, match=r"a\.db: file is not a database"):
        async with Storage.open(url(tmp_path)):
            pass


async def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)):
        pass
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as other, other:
        other.execute("UPDATE counters SET value = 99 WHERE name = 'schema'")
    with pytest.raises(StorageError, match="newer version"):
        async with Storage.open(url(tmp_path)):
            pass


async def test_a_database_of_the_first_schema_is_read_and_is_of_this_one_from_then_on(tmp_path: Path) -> None:
    async with Storage.open(url(tmp_path)) as storage:
        await storage.commit(put("a"))
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as other:
        with other:
            other.execute("UPDATE counters SET value = 1 WHERE name = 'schema'")
        async with Storage.open(url(tmp_path)) as storage:
            assert await listed(storage) == [("a", 1)]
        found = other.execute("SELECT value FROM counters WHERE name = 'schema'").fetchone()
    assert found == (SCHEMA_VERSION,)


@pytest.mark.parametrize(("durability", "synchronous"), [(Durability.POWER_CUT, 2), (Durability.CRASH, 1)])
async def test_the_disk_is_flushed_as_often_as_was_asked(
    tmp_path: Path, durability: Durability, synchronous: int
) -> None:
    async with Storage.open(url(tmp_path), durability=durability) as storage:
        connection = storage._database._connection
        levels = await asyncio.get_running_loop().run_in_executor(
            storage._thread,
            lambda: [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")],
        )
    assert levels == ["wal", synchronous]  # sqlite.org/pragma.html: 1 is NORMAL, 2 is FULL
