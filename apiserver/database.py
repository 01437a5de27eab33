"""
The embedded apiserver's database: what is committed, in SQLite or in PostgreSQL.

All SQL is here. The statements are SQLAlchemy Core, so that SQLite and PostgreSQL are two URLs; what is one
database's own is in `_tuning_sqlite` and `_tuning_postgresql`. One thread owns the connection.

What a row has of a large object may be the name of a file instead (apiserver.largebodies).

Invariants
    the revision is one dense sequence over all kinds: the n-th change has revision n, also across restarts
    of two processes on one database at most one writes, and the other notices at its next commit
"""

import contextlib
import enum
import os
import secrets
import socket
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from apimachinery.events import Change, EventType
from apimachinery.objects import JSON

SCHEMA_VERSION = 2
"""1 has every body in its row, as PostgreSQL always has."""
PAGE_BYTES = 16 << 10  # of SQLite's file
LOG_BYTES = 8 << 20  # of its log between two checkpoints
CONNECT_S = 5
LOCK_S = 3  # a database needs a moment to notice that the process before this one was killed
LOCK_ID = 0x6661_6972_6C65_6164  # any number will do, as long as each version of this program takes the same

_tables = sa.MetaData()
_objects = sa.Table(
    "objects",
    _tables,
    sa.Column("api_group", sa.Text, primary_key=True),
    sa.Column("plural", sa.Text, primary_key=True),
    sa.Column("namespace", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
_counters = sa.Table(
    "counters",
    _tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# Made once: building a statement costs more than running it.
_at = sa.and_(
    _objects.c.api_group == sa.bindparam("at_group"),
    _objects.c.plural == sa.bindparam("at_plural"),
    _objects.c.namespace == sa.bindparam("at_namespace"),
    _objects.c.name == sa.bindparam("at_name"),
)
_new: dict[str, sa.BindParameter[JSON]] = {"revision": sa.bindparam("new_revision"), "body": sa.bindparam("new_body")}
_INSERT = sa.insert(_objects).values(
    api_group=sa.bindparam("at_group"),
    plural=sa.bindparam("at_plural"),
    namespace=sa.bindparam("at_namespace"),
    name=sa.bindparam("at_name"),
    **_new,
)
_UPDATE = sa.update(_objects).where(_at).values(**_new)
_DELETE = sa.delete(_objects).where(_at)
_writer = sa.alias(_counters)
_COUNT = (
    sa.update(_counters)
    .where(_counters.c.name == "revision", _counters.c.value == sa.bindparam("old_revision"))
    .where(sa.exists().where(_writer.c.name == "writer", _writer.c.value == sa.bindparam("own_writer")))
    .values(value=sa.bindparam("new_revision"))
)
"""Touches a row only for the process that opened the database last, and only at the revision it knows."""
_COUNTERS = sa.select(_counters.c.name, _counters.c.value)
_ROWS = sa.select(_objects).order_by(_objects.c.revision)


class Durability(enum.StrEnum):
    """What an answered write survives."""

    POWER_CUT = "power-cut"
    """Every commit is flushed to the disk before it is answered."""
    CRASH = "crash"
    """The process may be killed at any time; what a power cut leaves is whole, but may be some seconds old."""


class StorageError(Exception):
    """The database cannot be used; the text says which and why."""


class Superseded(StorageError):
    """The database is not where this process left it: it must stop, for what it has in memory is not so."""


class Row(NamedTuple):
    """One object as the database keeps it: the columns of its table, in their order."""

    group: str
    plural: str
    namespace: str
    name: str
    revision: int
    body: bytes


class Database:
    """The database, used from one thread only. Every method may raise StorageError."""

    def __init__(self, url: str, durability: Durability) -> None:
        self._own = secrets.randbits(62)
        self.aside: Path | None = None
        """The directory for what is not in the database itself; None where there is none beside it."""
        self._line: socket.socket | None = None
        """A second handle on the connection to a database server, to cut it from another thread."""
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError:
            raise StorageError(f"the database's URL cannot be read: write {_EXAMPLE_URL}") from None
        self._shown = parsed.render_as_string(hide_password=True)
        options: dict[str, JSON] = {}
        tuning = _tuning_sqlite(durability)
        if parsed.get_backend_name() == "postgresql":
            tuning, options = _tuning_postgresql, {"connect_timeout": CONNECT_S, **_KEEP_ALIVE}
        elif parsed.get_backend_name() != "sqlite":
            raise StorageError(f"{self._shown}: SQLite and PostgreSQL are supported: write {_EXAMPLE_URL}")
        elif parsed.database and parsed.database != ":memory:":
            self.aside = Path(f"{parsed.database}-large")
        with self._errors():
            try:
                self._engine = sa.create_engine(parsed, connect_args=options)
            except ModuleNotFoundError as exc:
                raise StorageError(
                    f"{self._shown}: the driver {exc.name} is not installed: "
                    "pip install 'fairlead[apiserver-postgresql]', which has psycopg"
                ) from exc
            sa.event.listen(self._engine, "connect", tuning)
            self._connection = self._connect()

    def _connect(self) -> sa.Connection:
        """A connection that has this database for itself, where the database can say so."""
        connection = self._engine.connect()
        if self._engine.dialect.name == "postgresql":
            try:
                with connection.begin():
                    connection.execute(sa.select(sa.func.pg_advisory_lock(LOCK_ID)))
            except sa.exc.OperationalError as exc:
                connection.close()
                if getattr(exc.orig, "sqlstate", "") == _LOCK_NOT_AVAILABLE:
                    raise StorageError(
                        f"{self._shown}: in use by another apiserver; stop that one or choose another database"
                    ) from exc
                raise
            driven: JSON = connection.connection.driver_connection
            self._hang_up()
            self._line = socket.socket(fileno=os.dup(driven.fileno()))
        return connection

    def cut(self) -> None:
        """End a call that waits for a database server, from any thread: it fails, as where the server was killed."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None

    def load(self) -> tuple[int, list[Row]]:
        """Make the tables if they are missing; the last revision and all rows."""
        with self._errors(), self._connection.begin():
            _tables.create_all(self._connection)
            counters = dict(self._connection.execute(_COUNTERS).all())
            schema = counters.setdefault("schema", 1)
            if schema > SCHEMA_VERSION:
                raise StorageError(
                    f"{self._shown} was written by a newer version of this program (schema {schema}, "
                    f"this one knows {SCHEMA_VERSION}): use that version, or another data directory"
                )
            counters.setdefault("revision", 0)
            counters |= {"schema": 1 if self.aside is None else SCHEMA_VERSION, "writer": self._own}
            self._connection.execute(sa.delete(_counters))
            rows = [{"name": name, "value": value} for name, value in counters.items()]
            self._connection.execute(sa.insert(_counters), rows)
            objects = [Row(*row) for row in self._connection.execute(_ROWS)]
        return counters["revision"], objects

    def write(self, changes: Sequence[Change], pointers: Mapping[int, bytes]) -> None:
        """
        Store the changes in one transaction. Returns once they are durable.

        pointers: what a change of this revision has in its row instead of its body.
        """
        with self._errors(), self._connection.begin():
            for change in changes:
                key = change.object.key
                place = {
                    "at_group": key.resource.group,
                    "at_plural": key.resource.plural,
                    "at_namespace": key.namespace,
                    "at_name": key.name,
                }
                if change.type is EventType.DELETED:
                    self._connection.execute(_DELETE, place)
                else:
                    statement = _INSERT if change.type is EventType.ADDED else _UPDATE
                    body = pointers.get(change.revision, change.object.body)
                    new = {"new_revision": change.revision, "new_body": body}
                    self._connection.execute(statement, place | new)
            count = {
                "old_revision": changes[0].revision - 1,
                "new_revision": changes[-1].revision,
                "own_writer": self._own,
            }
            if self._connection.execute(_COUNT, count).rowcount != 1:
                raise StorageError(f"{self._shown}: it was changed by somebody else")

    def settle(self, changes: Sequence[Change]) -> bool:
        """Whether changes whose write failed are in the database after all. Raises Superseded or StorageError."""
        with self._errors():
            if self._connection.closed or self._connection.invalidated:
                self._connection.close()
                self._connection = self._connect()
            with self._connection.begin():
                counters = dict(self._connection.execute(_COUNTERS).all())
        if counters.get("writer") != self._own:
            raise Superseded(f"{self._shown}: another apiserver has taken the database over; this one stops")
        before, after, found = changes[0].revision - 1, changes[-1].revision, counters.get("revision")
        if found not in (before, after):
            raise Superseded(
                f"{self._shown}: it is at revision {found} instead of {before}: was a backup restored, or does the "
                "database lose commits (fsync off)? start again to go on from there"
            )
        return bool(found == after)

    def close(self) -> None:
        with self._errors():
            self._connection.close()
            self._engine.dispose()
            self._hang_up()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as exc:
            cause = exc.orig if isinstance(exc, sa.exc.DBAPIError) else exc
            raise StorageError(f"{self._shown}: {_said(cause)}") from exc


_EXAMPLE_URL = "postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
_LOCK_NOT_AVAILABLE = "55P03"  # postgresql.org/docs/current/errcodes-appendix.html
_KEEP_ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20_000}


def _said(cause: BaseException | None) -> str:
    """A database's error in one line; SQLite calls a lack of space by two names (sqlite.org/rescode.html)."""
    code = getattr(cause, "sqlite_errorcode", 0)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE):
        return "the file system is full, free some space"
    return " ".join(str(cause).split())


def _tuning_sqlite(durability: Durability) -> Callable[[JSON, object], None]:
    """
    SQLite with a write-ahead log, flushed to the disk at every commit unless the owner wants it otherwise.

    Unflushed, a power cut takes the revision back: clients that saw the lost changes then take new states
    for old ones, and an edge that was told "stored" has deleted its report.
    """
    synchronous = "FULL" if durability is Durability.POWER_CUT else "NORMAL"

    def tune(connection: JSON, _record: object) -> None:
        cursor = connection.cursor()
        # The next write waits for the one that is under way, and 3 MB in pages of 4 KiB take half as long again;
        # a small one costs the same. A file that was made with another size keeps it.
        for pragma in (
            f"page_size={PAGE_BYTES}",
            "journal_mode=WAL",
            f"wal_autocheckpoint={LOG_BYTES // PAGE_BYTES}",
            f"synchronous={synchronous}",
            "busy_timeout=2000",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return tune


def _tuning_postgresql(connection: JSON, _record: object) -> None:
    """
    PostgreSQL, with every commit flushed: unflushed, killing the server alone would take the revision back.

    It looks every ten seconds whether this process is still there, so that its lock does not outlive it for hours.
    """
    cursor = connection.cursor()
    for setting in (
        "synchronous_commit = on",
        f"lock_timeout = '{LOCK_S}s'",
        "tcp_keepalives_idle = 10",
        "tcp_keepalives_interval = 5",
        "tcp_keepalives_count = 3",
    ):
        cursor.execute(f"SET {setting}")
    cursor.close()
    connection.commit()
