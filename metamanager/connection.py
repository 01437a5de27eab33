"""
One SQLite connection through SQLAlchemy Core, set up to lose nothing, with errors in our own words.

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

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from metamanager.errors import StoreError, from_sqlite

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

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=64)
            is_new = connection.execute("PRAGMA page_count").fetchone() == (0,)
            for pragma in (*_NEW_PRAGMAS, *_PRAGMAS) if is_new else _PRAGMAS:
                connection.execute(pragma).close()
            if max_bytes is not None:
                (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
                connection.execute(f"PRAGMA max_page_count = {max(1, max_bytes // page_bytes)}").close()
            return connection

        self._engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)
        # sqlite3's own transactions begin too late for a consistent read, and not at all for tables.
        event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        with self._translated():
            self._connection: Connection = self._engine.connect()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or none of it; for reads, one moment. Raises a StoreError."""
        with self._translated(), self._connection.begin():
            yield

    def rows(self, statement: str, parameters: tuple[object, ...] = ()) -> Iterator[Row]:
        """The rows of a SELECT or PRAGMA, read as they are asked for, inside the transaction."""
        return iter(self._connection.exec_driver_sql(statement, parameters))

    def row(self, statement: str, parameters: tuple[object, ...] = ()) -> Row | None:
        """The first row, None when there is none."""
        return self._connection.exec_driver_sql(statement, parameters).first()

    def number(self, statement: str) -> int:
        """The only value of the only row."""
        row = self.row(statement)
        return 0 if row is None else int(row[0])

    def run(self, statement: str, parameters: tuple[object, ...] = ()) -> int:
        """A statement that changes something; how many rows it changed."""
        return self._connection.exec_driver_sql(statement, parameters).rowcount

    def run_many(self, statement: str, parameters: list[tuple[object, ...]]) -> None:
        """One statement for each of `parameters`; none for none."""
        if parameters:
            self._connection.exec_driver_sql(statement, parameters)

    def inserted(self, statement: str, parameters: tuple[object, ...]) -> int:
        """An INSERT of one row; the number that the row got."""
        return int(self._connection.exec_driver_sql(statement, parameters).lastrowid)

    def give_back(self, pages: int) -> None:
        """Return up to so many free pages to the file system."""
        with self._translated():
            driver = self._connection.connection.driver_connection
            assert driver is not None, "connected since __init__"
            # It frees a page per step and has no columns; only executescript steps such a statement to its end.
            driver.executescript(f"PRAGMA incremental_vacuum({int(pages)})")

    def close(self) -> None:
        """Checkpoint the log and close. The log is gone afterwards, unless the disk did not let it."""
        with contextlib.suppress(StoreError), self._translated():
            self._connection.close()
        self._engine.dispose()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as exc:
            raise _error(self.path, exc.orig) from exc
        except sqlite3.Error as exc:
            raise _error(self.path, exc) from exc


def _error(path: Path, exc: BaseException | None) -> StoreError:
    code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return from_sqlite(path, code, str(exc))
