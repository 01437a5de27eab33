"""SQLite's result codes in words for whoever must act."""

import sqlite3
from pathlib import Path

import pytest

from metamanager.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreReadOnly, from_sqlite


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_FULL, StoreFull, "free some space"),
        (sqlite3.SQLITE_CORRUPT, StoreCorrupt, "damaged"),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreCorrupt, "damaged"),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt, "damaged"),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreReadOnly, "writable"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy, "another process"),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreError, "the disk failed"),
        (sqlite3.SQLITE_CANTOPEN, StoreError, "cannot be opened"),
        (sqlite3.SQLITE_ERROR, StoreError, "some words"),
    ],
)
def test_each_code_is_told_by_what_to_do(code: int, kind: type[StoreError], words: str) -> None:
    error = from_sqlite(Path("x/edge.db"), code, "some words")
    assert type(error) is kind
    assert str(error).startswith("x/edge.db: ")
    assert words in str(error)
