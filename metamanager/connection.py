"""
One SQLite connection, set up to lose nothing, with errors in our own words.

The settings and why: docs/why/sqlite.md. All of this belongs to the thread that opened it; sqlite3
itself refuses any other.

Invariants
    what transaction() was left without an exception is on the disk (synchronous=FULL), otherwise it did not happen
    no error, and so no log line, carries a statement's parameters: they may be secrets
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metamanager.errors import StoreCorrupt, StoreError, from_sqlite

Row = Sequence[Any]
"""Values by column, of the types that the table gives them."""

BUSY_TIMEOUT_S = 5.0  # somebody with the sqlite3 shell on the file; we are the only writer
PAGE_CACHE_KIB = 1024  # half of SQLite's default: the store is read by key and rarely twice
WAL_PAGES = 1000  # SQLite's default; 4 MiB written ahead between two checkpoints
WAL_BYTES = 4 << 20  # what a checkpoint leaves of a log that a burst made larger

# Counts only before the first table is made, and before WAL; said again it would cost a write at every start.
_NEW_PRAGMAS = ("PRAGMA auto_vacuum = INCREMENTAL",)
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # in WAL mode NORMAL would lose the last commits in a power cut
    "PRAGMA secure_delete = ON",  # a Secret that was taken from this node is not left in the file
    "PRAGMA foreign_keys = OFF",  # rows are made and removed here only, in an order that keeps them whole
    "PRAGMA temp_store = MEMORY",
    f"PRAGMA cache_size = -{PAGE_CACHE_KIB}",
    f"PRAGMA wal_autocheckpoint = {WAL_PAGES}",
    f"PRAGMA journal_size_limit = {WAL_BYTES}",
)


class Database:
    """An open file. Opening raises a StoreError, among them StoreCorrupt for what is no database."""

    def __init__(self, path: Path, max_bytes: int | None = None) -> None:
        """max_bytes: how large the file may grow, None for as large as the disk allows."""
        self.path = path
        with self._translated():
            self._connection = _connect(path, max_bytes)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or none of it; for reads, one moment. Raises a StoreError."""
        connection = self._connection
        with self._translated():
            # sqlite3's own transactions begin too late for a consistent read, and not at all for tables.
            connection.execute("BEGIN")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself what it could not write at all.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def rows(self, statement: str, parameters: tuple[object, ...] = ()) -> Iterator[Row]:
        """The rows of a SELECT or PRAGMA, read as they are asked for, inside the transaction."""
        return self._connection.execute(statement, parameters)

    def row(self, statement: str, parameters: tuple[object, ...] = ()) -> Row | None:
        """The first row, None when there is none."""
        with contextlib.closing(self._connection.execute(statement, parameters)) as cursor:
            found: Row | None = cursor.fetchone()
        return found

    def number(self, statement: str) -> int:
        """The only value of the only row."""
        row = self.row(statement)
        return 0 if row is None else int(row[0])

    @property
    def used_bytes(self) -> int:
        """Of the file, without its free pages; as of the transaction."""
        pages = self.number("PRAGMA page_count") - self.number("PRAGMA freelist_count")
        return pages * self.number("PRAGMA page_size")

    def run(self, statement: str, parameters: tuple[object, ...] = ()) -> int:
        """A statement that changes something; how many rows it changed."""
        return self._connection.execute(statement, parameters).rowcount

    def run_many(self, statement: str, parameters: list[tuple[object, ...]]) -> None:
        """One statement for each of `parameters`; none for none."""
        if parameters:
            self._connection.executemany(statement, parameters)

    def inserted(self, statement: str, parameters: tuple[object, ...]) -> int:
        """An INSERT of one row; the number that the row got."""
        return int(self._connection.execute(statement, parameters).lastrowid or 0)

    @contextlib.contextmanager
    def left_as_it_is(self) -> Iterator[None]:
        """What is deleted in the block is not overwritten in the file; of a Secret nothing may be."""
        self._connection.execute("PRAGMA secure_delete = OFF").close()
        try:
            yield
        finally:
            self._connection.execute("PRAGMA secure_delete = ON").close()

    def check(self, is_whole: bool, what: str) -> None:
        """Raises StoreCorrupt where `what` was read and is not what was written."""
        if not is_whole:
            raise StoreCorrupt(self.path, f"the database is damaged ({what} is not what was written)")

    def give_back(self, pages: int) -> None:
        """Return up to so many free pages to the file system."""
        with self._translated():
            # It frees a page per step and has no columns; only executescript steps such a statement to its end.
            self._connection.executescript(f"PRAGMA incremental_vacuum({int(pages)})")

    def scrub(self) -> None:
        """
        Write the whole file anew and empty its log, so that neither has a byte of what is no longer in a table.

        secure_delete zeroes what is deleted; what a page was left with when its rows were moved is another matter.
        Takes as much room again as the file. Raises a StoreError; to be called outside a transaction.
        """
        with self._translated():
            # The copy is as large as the file, which is more than an edge should hold in memory.
            self._connection.execute("PRAGMA temp_store = FILE").close()
            try:
                self._connection.execute("VACUUM").close()
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.execute("PRAGMA temp_store = MEMORY").close()

    def close(self) -> None:
        """Checkpoint the log and close. The log is gone afterwards, unless the disk did not let it."""
        with contextlib.suppress(StoreError), self._translated():
            self._connection.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            raise from_sqlite(self.path, code, str(exc)) from exc


def _connect(path: Path, max_bytes: int | None) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=64)
    try:
        is_new = connection.execute("PRAGMA page_count").fetchone() == (0,)
        for pragma in (*_NEW_PRAGMAS, *_PRAGMAS) if is_new else _PRAGMAS:
            connection.execute(pragma).close()
        if max_bytes is not None:
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}").close()
    except BaseException:
        connection.close()
        raise
    return connection
