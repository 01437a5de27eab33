"""
What can go wrong with the store, named for what the caller can do about it.

    StoreError
    ├── StoreFull       free some space, then the same call succeeds
    ├── StoreReadOnly   make the file and its directory writable
    ├── StoreBusy       somebody else holds the database: stop them
    ├── StoreNewer      run the newer release, or move the file away
    ├── KeyLost         put the key back and start again, or wait until the hub has sent the Secret
    ├── StoreCorrupt    end this process and open again: the file is then set aside and rebuilt
    └── StoreClosed     a bug of the caller's, or the process is stopping

Every error leaves what was committed as it was: a transaction that raised did not happen.
"""

import sqlite3
from pathlib import Path


class StoreError(Exception):
    """The store cannot do what was asked; the text names the file and says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class StoreFull(StoreError):
    """No space is left."""


class StoreReadOnly(StoreError):
    """The file or its directory cannot be written."""


class StoreBusy(StoreError):
    """Another process holds the database."""


class StoreNewer(StoreError):
    """A newer release wrote the database."""


class KeyLost(StoreError):
    """A Secret is held that cannot be read, because the key that it was sealed with is not at hand."""


class StoreCorrupt(StoreError):
    """The database is damaged."""


class StoreClosed(StoreError):
    """The store was closed."""


def from_sqlite(path: Path, code: int, text: str) -> StoreError:
    """
    The error that an SQLite result code stands for (sqlite.org/rescode.html).

    code: an extended code; its low byte is the primary one. text: SQLite's own words.
    """
    match code & 0xFF:
        # SQLite maps a file beside its log into memory, and calls it an I/O error when there is no room for that file.
        case _ if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
            return StoreFull(path, "the file system is full; what was not committed is not lost, free some space")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreCorrupt(path, f"the database is damaged ({text})")
        case sqlite3.SQLITE_READONLY:
            return StoreReadOnly(path, "cannot be written; make the file and its directory writable")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(path, "another process holds the database; stop it")
        case sqlite3.SQLITE_CANTOPEN:
            return StoreError(path, f"cannot be opened ({text})")
        case sqlite3.SQLITE_IOERR:
            return StoreError(path, f"the disk failed to read or write ({text}); see the system's log")
        case _:
            return StoreError(path, text)
