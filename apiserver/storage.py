"""
The embedded apiserver's storage: everything in memory to read, every write in a database before it shows.

Reads never touch the database. Writes are plans, made one after another by one writer task, so there is
no lock and no lost update; those that wait together are committed in one transaction, and become
visible, in their order, once it is durable.

Invariants
    the revision is one dense sequence over all kinds: the n-th change has revision n, also across restarts
    an object's metadata.resourceVersion is the revision of the change that made it so
    what a reader or a watcher saw is in the database
    of two processes on one database at most one writes, and the other notices before it shows anything

All SQL is here. The statements are SQLAlchemy Core, so that SQLite and PostgreSQL are two URLs; what is one
database's own is in `_tuning_sqlite`, `_tuning_postgresql` and `_lock`. One thread owns the connection.

A commit whose answer did not come (the database was killed) may have happened or not. Such changes are held
in doubt: reads go on, writes are refused, and what became of them is read from the database once it is back.
"""

import asyncio
import contextlib
import enum
import json
import logging
import os
import secrets
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from apimachinery.errors import Expired, TooManyRequests, Unavailable
from apimachinery.events import Change, EventType, WatchEvent
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, Object, from_json
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS
from apimachinery.selectors import FieldSelector, LabelSelector
from apimachinery.watchcache import WatchCache
from apiserver.builtins import BUILT_IN, REVIEWS
from apiserver.crds import defined_by, is_established
from apiserver.definitions import Catalogue, Definition
from apiserver.metadata import owner_uids
from apiserver.plans import Plan, Remove, View
from apiserver.protocols import Page, Stored
from apiserver.selection import order, selects
from apiserver.writes import Committed
from componentbase.jsonbytes import sorted_

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

WINDOW = 4096  # changes kept for watches to resume; a hub restarted amid 500 edits/s of 2 KB has 8 s to come back
MAX_WAITING = 256  # writes; more get 429, which every client waits for and repeats
MAX_BATCH = 64  # writes in one transaction: an fsync costs as much as making some fifty plans
SCHEMA_VERSION = 1
PAGE_BYTES = 16 << 10  # of SQLite's file
LOG_BYTES = 8 << 20  # of its log between two checkpoints
LARGE_BYTES = 256 << 10  # of a body
RETRY_S = 1.0  # between looks at a database that is away
CONNECT_S = 5
ANSWER_S = 20.0  # a database in another process that has not answered by then is taken for lost
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


class _Row(NamedTuple):
    """One object as the database keeps it."""

    group: str
    plural: str
    namespace: str
    name: str
    body: bytes


class _Database:
    """The database, used from one thread only. Every method may raise StorageError."""

    def __init__(self, url: str, durability: Durability) -> None:
        self._own = secrets.randbits(62)
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

    def load(self) -> tuple[int, list[_Row]]:
        """Make the tables if they are missing; the last revision and all rows."""
        with self._errors(), self._connection.begin():
            _tables.create_all(self._connection)
            counters = dict(self._connection.execute(_COUNTERS).all())
            schema = counters.setdefault("schema", SCHEMA_VERSION)
            if schema != SCHEMA_VERSION:
                raise StorageError(
                    f"{self._shown} was written by a newer version of this program (schema {schema}, "
                    f"this one knows {SCHEMA_VERSION}): use that version, or another data directory"
                )
            counters.setdefault("revision", 0)
            counters["writer"] = self._own
            self._connection.execute(sa.delete(_counters))
            rows = [{"name": name, "value": value} for name, value in counters.items()]
            self._connection.execute(sa.insert(_counters), rows)
            columns = _objects.c
            query = sa.select(columns.api_group, columns.plural, columns.namespace, columns.name, columns.body)
            objects = [_Row(*row) for row in self._connection.execute(query.order_by(columns.revision))]
        return counters["revision"], objects

    def write(self, changes: Sequence[Change]) -> None:
        """Store the changes in one transaction. Returns once they are durable."""
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
                    new = {"new_revision": change.revision, "new_body": change.object.body}
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


@dataclass(eq=False, slots=True)
class _Waiting:
    """A write in the queue."""

    make: Callable[[View], Plan]
    done: asyncio.Future[Committed]
    rehearsal: bool


class Storage:
    """`apiserver.protocols.Storage` and `apiserver.writes.Committer` in one, over one database."""

    def __init__(self, database: _Database, thread: ThreadPoolExecutor, window: int) -> None:
        self._database = database
        self._thread = thread
        self._window = window
        self._cache = WatchCache()
        self._floor = 0  # no history reaches back behind the start of this process
        self._catalogue = Catalogue(())
        self._owners = _Owners()
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)
        self._moved: dict[Resource | None, asyncio.Event] = {}
        """By resource what those wait for who wait for its changes; a change of a Pod wakes nobody else's watch."""
        self.large_writes = 0
        """Bodies of more than LARGE_BYTES that were written."""
        self._doubtful: list[Change] = []
        """Changes that may or may not be in the database. While there are some, nothing else is written."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, url: str, *, durability: Durability = Durability.POWER_CUT, window: int = WINDOW
    ) -> "AsyncIterator[Storage]":
        """
        Storage over the database at a SQLAlchemy URL, for as long as the block lasts.

        window: changes kept for watches. Raises StorageError, also when the block had to be ended because the
        database is another process's now; what the block raises comes out as it is.
        """
        loop = asyncio.get_running_loop()
        failure: Exception | None = None
        with ThreadPoolExecutor(1, "database") as thread:
            database = await loop.run_in_executor(thread, _Database, url, durability)
            try:
                storage = cls(database, thread, window)
                storage._restore(*await loop.run_in_executor(thread, database.load))
                try:
                    async with asyncio.TaskGroup() as group:
                        writer = group.create_task(storage._write(), name="apiserver[writer]")
                        try:
                            yield storage
                        except Exception as exc:  # the TaskGroup would wrap it in a group that no caller expects
                            failure = exc
                        finally:
                            writer.cancel()
                except* Superseded as lost:  # from the writer, which by that has ended the block
                    failure = lost.exceptions[0]
            finally:
                await loop.run_in_executor(thread, database.close)
        if failure is not None:
            raise failure

    # Reads.

    @property
    def revision(self) -> int:
        return self._cache.revision

    def catalogue(self) -> Catalogue:
        return self._catalogue

    async def get(self, key: ObjectKey) -> Stored | None:
        found = self._cache.get(key)
        return None if found is None else _stored(found)

    async def list(
        self,
        resource: Resource,
        namespace: str,
        labels: LabelSelector,
        fields: FieldSelector,
        limit: int,
        after: tuple[str, str] | None,
    ) -> Page:
        found, revision = self._cache.list(resource, namespace, labels)
        if fields.terms:
            found = [item for item in found if selects(item, fields=fields)]
        if after is not None:
            found = [item for item in found if order(item.key) > after]
        more = bool(limit) and len(found) > limit
        return Page([_stored(item) for item in (found[:limit] if more else found)], revision, more)

    def since(self, revision: int, resource: Resource | None = None) -> Sequence[Change]:
        if revision < self._floor:
            raise Expired(f"too old resource version: {revision} ({self._floor})")
        return self._cache.since(revision, resource)

    async def wait(self, revision: int, resource: Resource | None = None) -> None:
        last = self.revision if resource is None else self._cache.last(resource)
        if last <= revision:
            await self._moved.setdefault(resource, asyncio.Event()).wait()

    def render(self, item: Object, revision: int) -> bytes:
        if item.version.revision == str(revision):
            return item.body
        return _object_at(item.key.resource, item.parse(), revision).body

    def view(self) -> View:
        """What is committed now. To look at only: a plan that is committed gets a view of its own."""
        return _Staged(self._cache, self._owners, self._catalogue)

    # Writes.

    async def commit(self, make: Callable[[View], Plan]) -> Committed:
        return await self._enqueue(make, rehearsal=False)

    async def rehearse(self, make: Callable[[View], Plan]) -> Plan:
        return (await self._enqueue(make, rehearsal=True)).plan

    async def _enqueue(self, make: Callable[[View], Plan], *, rehearsal: bool) -> Committed:
        waiting = _Waiting(make, asyncio.get_running_loop().create_future(), rehearsal)
        try:
            self._queue.put_nowait(waiting)
        except asyncio.QueueFull:
            raise TooManyRequests("too many writes are waiting, please try again later", retry_after_s=1) from None
        return await waiting.done

    async def _write(self) -> None:
        """The writer: takes what waits, and goes on until it is cancelled."""
        while True:
            try:
                async with asyncio.timeout(RETRY_S if self._doubtful else None):
                    batch = [await self._queue.get()]
            except TimeoutError:
                batch = []
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            if not self._doubtful or await self._settled(batch):
                await self._carry_out(batch)

    async def _settled(self, batch: Iterable[_Waiting]) -> bool:
        """Find out what became of the changes in doubt; where that cannot be known yet, the batch is refused."""
        try:
            committed = await self._ask(self._database.settle, self._doubtful)
        except StorageError as exc:
            for waiting in batch:
                self._refuse(waiting, exc)
            if isinstance(exc, Superseded):
                raise
            return False
        logger.info("database is back", extra={"changes": len(self._doubtful), "committed": committed})
        doubtful, self._doubtful = self._doubtful, []
        if committed:
            self._show(doubtful)
        return True

    async def _ask(self, call: Callable[[Sequence[Change]], _T], changes: Sequence[Change]) -> _T:
        """Call the database in its thread, and cut the connection where it does not answer."""
        answer = asyncio.get_running_loop().run_in_executor(self._thread, call, changes)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await asyncio.shield(answer)
        except TimeoutError:
            self._database.cut()
            return await answer

    @staticmethod
    def _refuse(waiting: _Waiting, error: StorageError) -> None:
        if not waiting.done.done():
            waiting.done.set_exception(Unavailable(f"the object cannot be stored: {error}", retry_after_s=5))

    async def _carry_out(self, batch: Iterable[_Waiting]) -> None:
        staged = _Staged(self._cache, self._owners, self._catalogue)
        planned: list[tuple[_Waiting, Committed]] = []
        refused: list[tuple[_Waiting, Exception]] = []
        for waiting in batch:
            if planned or refused:
                await asyncio.sleep(0)  # each plan takes a millisecond or two, and others wait for the loop
            if waiting.done.done():
                continue  # its client has left
            try:
                plan = waiting.make(staged)
                planned.append((waiting, Committed(plan, [] if waiting.rehearsal else staged.take(plan))))
            except Exception as exc:  # an ApiError for the client, or a bug that its handler reports
                # Told after the commit: who hears that a name is taken must then find who has it.
                refused.append((waiting, exc))
        if staged.changes:
            try:
                await self._ask(self._database.write, staged.changes)
            except StorageError as exc:
                logger.error("write failed", extra={"error": str(exc), "writes": len(staged.changes)})
                self._doubtful = staged.changes
                for waiting, _ in (*planned, *refused):
                    self._refuse(waiting, exc)
                return
            self._show(staged.changes)
        for waiting, error in refused:
            if not waiting.done.done():
                waiting.done.set_exception(error)
        for waiting, committed in planned:
            if not waiting.done.done():
                waiting.done.set_result(committed)

    def _show(self, changes: Iterable[Change]) -> None:
        """Let readers see what has become durable."""
        redefined = False
        moved: set[Resource | None] = {None}
        self._cache.shorten()
        for change in changes:
            shown = self._cache.apply(WatchEvent(change.type, change.object, change.object.version.revision))
            assert [step.revision for step in shown] == [change.revision], "the cache counts as the database does"
            self._owners.observe(change)
            self.large_writes += len(change.object.body) > LARGE_BYTES
            moved.add(change.object.key.resource)
            redefined = redefined or change.object.key.resource == CUSTOM_RESOURCE_DEFINITIONS
        if redefined:
            crds = self._cache.list(CUSTOM_RESOURCE_DEFINITIONS)[0]
            self._catalogue = _catalogue_of(crd.parse() for crd in crds)
            moved.update(self._moved)  # a watch ends with its definition
        for resource in moved:
            if (waiting := self._moved.pop(resource, None)) is not None:
                waiting.set()

    def _restore(self, revision: int, rows: Iterable[_Row]) -> None:
        """Take the database's content in."""
        by_place: dict[tuple[str, str], list[_Row]] = {}
        for row in rows:
            by_place.setdefault((row.group, row.plural), []).append(row)
        definitions = by_place.get((CUSTOM_RESOURCE_DEFINITIONS.group, CUSTOM_RESOURCE_DEFINITIONS.plural), [])
        self._catalogue = _catalogue_of(json.loads(row.body) for row in definitions)
        found = {place: by_place.pop((place.group, place.plural), []) for place in self._catalogue.places()}
        for (group, plural), lost in by_place.items():
            logger.warning("objects without a definition", extra={"group": group, "plural": plural, "count": len(lost)})
        # The cache counts each object it takes in as a change, so it starts that much lower, and its
        # history of them is hidden behind the floor.
        self._cache = WatchCache(revision - sum(map(len, found.values())), self._window)
        for resource, held in found.items():
            objects = (from_json(resource, json.loads(row.body)) for row in held)
            for change in self._cache.replace(resource, objects, "0"):
                self._owners.observe(change)
        assert self._cache.revision == revision, "every object took a revision to come about"
        self._floor = revision


class _Staged:
    """A View of the committed state and, on top of it, of what a batch has planned so far."""

    def __init__(self, cache: WatchCache, owners: "_Owners", catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.changes: list[Change] = []
        self._cache = cache
        self._owners = owners
        self._ahead: dict[ObjectKey, Object | None] = {}

    def get(self, key: ObjectKey) -> Object | None:
        return self._ahead[key] if key in self._ahead else self._cache.get(key)

    def all_of(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        held = {item.key: item for item in self._cache.list(resource, namespace)[0]}
        for key, item in self._ahead.items():
            if key.resource == resource and (not namespace or key.namespace == namespace):
                if item is None:
                    held.pop(key, None)
                else:
                    held[key] = item
        return list(held.values())

    def dependents(self, uid: str) -> Sequence[ObjectKey]:
        return [key for key in self._owners.dependents(uid) if self.get(key) is not None]

    def lives(self, uid: str) -> bool:
        key = self._owners.place_of(uid)
        return key is not None and self.get(key) is not None

    def take(self, plan: Plan) -> list[Object]:
        """Add a plan's writes; their objects, with the revisions they get. Raises NotJSON, and adds nothing then."""
        first = self._cache.revision + len(self.changes) + 1
        objects = [_object_at(write.key.resource, write.body, at) for at, write in enumerate(plan.writes, first)]
        for revision, (write, item) in enumerate(zip(plan.writes, objects, strict=True), first):
            previous = self.get(write.key)
            if isinstance(write, Remove):
                assert previous is not None, "a plan removes what it has seen"
                kind = EventType.DELETED
            else:
                kind = EventType.ADDED if previous is None else EventType.MODIFIED
            self.changes.append(Change(revision, kind, item, previous))
            self._ahead[write.key] = None if isinstance(write, Remove) else item
        return objects


class _Owners:
    """Which objects belong to which: uids by place, and the dependents of each uid."""

    def __init__(self) -> None:
        self._places: dict[str, ObjectKey] = {}
        self._owners: dict[ObjectKey, tuple[str, ...]] = {}
        self._dependents: dict[str, set[ObjectKey]] = {}

    def observe(self, change: Change) -> None:
        key = change.object.key
        for uid in self._owners.pop(key, ()):
            self._dependents[uid].discard(key)
            if not self._dependents[uid]:
                del self._dependents[uid]
        if change.type is EventType.DELETED:
            self._places.pop(change.object.version.uid, None)
            return
        self._places[change.object.version.uid] = key
        # Few objects have owners; a search in the bytes spares the others from being parsed.
        if b'"ownerReferences"' in change.object.body and (uids := owner_uids(change.object.parse())):
            self._owners[key] = uids
            for uid in uids:
                self._dependents.setdefault(uid, set()).add(key)

    def dependents(self, uid: str) -> list[ObjectKey]:
        return sorted(self._dependents.get(uid, ()))

    def place_of(self, uid: str) -> ObjectKey | None:
        return self._places.get(uid)


def _catalogue_of(crds: Iterable[Mapping[str, JSON]]) -> Catalogue:
    """The built-in kinds and those of established definitions, in all their served versions."""
    found: list[Definition] = [*BUILT_IN, *REVIEWS]
    for crd in crds:
        if is_established(crd):
            # One object has one key, and a key has a version: the one it is stored in.
            found += defined_by(crd)
    return Catalogue(found)


def _object_at(resource: Resource, body: dict[str, JSON], revision: int) -> Object:
    body["metadata"]["resourceVersion"] = str(revision)
    body["apiVersion"] = resource.api_version
    return from_json(resource, body, encode=sorted_)


def _stored(item: Object) -> Stored:
    return Stored(item, int(item.version.revision))
