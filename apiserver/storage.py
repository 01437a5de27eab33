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

The database is apiserver.database's, in a thread of its own.

A commit whose answer did not come (the database was killed) may have happened or not. Such changes are held
in doubt: reads go on, writes are refused, and what became of them is read from the database once it is back.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from apimachinery.errors import ApiError, Expired, TooManyRequests, Unavailable
from apimachinery.events import Change, EventType, WatchEvent
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, NotJSON, Object, from_json
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS
from apimachinery.selectors import FieldSelector, LabelSelector
from apimachinery.watchcache import WatchCache
from apiserver.builtins import BUILT_IN, REVIEWS
from apiserver.crds import defined_by, is_established
from apiserver.database import Database, Durability, Row, StorageError, Superseded
from apiserver.definitions import Catalogue, Definition
from apiserver.largebodies import LARGE_BYTES, SPARE, LargeBodies, Place, is_pointer
from apiserver.looking import Looking
from apiserver.metadata import owner_uids
from apiserver.plans import Plan, Remove, View
from apiserver.protocols import Page, Stored
from apiserver.selection import order, selects
from apiserver.writes import Committed
from componentbase.files import Unusable
from componentbase.jsonbytes import sorted_

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

WINDOW = 4096  # changes kept for watches to resume; a hub restarted amid 500 edits/s of 2 KB has 8 s to come back
MAX_WAITING = 256  # writes; more get 429, which every client waits for and repeats
MAX_BATCH = 64  # writes in one transaction: an fsync costs as much as making some fifty plans
RETRY_S = 1.0  # between looks at a database that is away
ANSWER_S = 20.0  # a database in another process that has not answered by then is taken for lost


@dataclass(eq=False, slots=True)
class _Waiting:
    """A write in the queue."""

    make: Callable[[View], Plan]
    done: asyncio.Future[Committed]
    rehearsal: bool
    ahead: "_Ahead | None" = None


@dataclass(eq=False, slots=True)
class _Ahead:
    """A plan of one large object that was made before its turn, and where the object's bytes are by now."""

    plan: Plan
    looked: Looking
    file: str
    pointer: bytes
    is_used: bool = False


class Storage:
    """`apiserver.protocols.Storage` and `apiserver.writes.Committer` in one, over one database."""

    def __init__(
        self,
        database: Database,
        thread: ThreadPoolExecutor,
        window: int,
        bodies: LargeBodies | None,
        filler: ThreadPoolExecutor | None,
    ) -> None:
        """bodies: None where all are in their rows. filler: writes further ones; None where none may be."""
        self._database = database
        self._thread = thread
        self._bodies = bodies
        self._filler = filler
        self._putting = asyncio.Lock()
        self._files: dict[int, str] = {}
        """By revision the file that its row names, of the write under way or in doubt."""
        self._disputed: list[str] = []
        """Files of writes that failed, since the last that did not."""
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
        with ThreadPoolExecutor(1, "database") as thread, ThreadPoolExecutor(1, "bodies") as filler:
            database = await loop.run_in_executor(thread, Database, url, durability)
            try:
                bodies = None if database.aside is None else LargeBodies(database.aside)
                # Unflushed, a power cut takes the database back, and to files that are something else by then.
                ahead = bodies is not None and durability is Durability.POWER_CUT
                storage = cls(database, thread, window, bodies, filler if ahead else None)
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

    async def commit(self, make: Callable[[View], Plan], *, again: Callable[[View], Plan] | None = None) -> Committed:
        ahead = None
        if (
            again is not None
            and self._filler is not None
            and not self._putting.locked()
            and len(self._disputed) < SPARE
        ):
            # One at a time, for each is megabytes: where there are more they wait for their turns as all others do.
            async with self._putting:
                ahead = await self._put_ahead(make)
            make = again
        try:
            return await self._enqueue(make, rehearsal=False, ahead=ahead)
        finally:
            if ahead is not None and not ahead.is_used:
                self._large.give_back(ahead.file)

    async def rehearse(self, make: Callable[[View], Plan]) -> Plan:
        return (await self._enqueue(make, rehearsal=True)).plan

    @property
    def _large(self) -> LargeBodies:
        assert self._bodies is not None, "there is a directory for them"
        return self._bodies

    async def _put_ahead(self, make: Callable[[View], Plan]) -> _Ahead | None:
        """Make the plan and write its object while others have their turns; None where that is of no use."""
        looked = Looking(self.view(), self.revision)
        try:
            plan = make(looked)
            writes = plan.writes
            # Who may make an object is asked of no view, and so at its turn.
            if len(writes) != 1 or isinstance(writes[0], Remove) or looked.get(writes[0].key) is None:
                return None
            body = _object_at(writes[0].key.resource, writes[0].body, self.revision).body
        except (ApiError, NotJSON):
            return None  # for its turn to find out, and to tell
        if len(body) <= LARGE_BYTES:
            return None
        name = self._large.take()
        filling = asyncio.get_running_loop().run_in_executor(self._filler, self._large.fill, name, body)
        try:
            pointer = await asyncio.shield(filling)
        except asyncio.CancelledError:
            filling.add_done_callback(partial(self._filled, name))  # until then its thread is writing
            raise
        except (OSError, Unusable) as exc:
            self._large.give_back(name)
            logger.warning("cannot write a large object ahead", extra={"problem": str(exc)})
            return None
        return _Ahead(plan, looked, name, pointer)

    def _filled(self, name: str, filling: asyncio.Future[bytes]) -> None:
        """Nobody waits for this any more."""
        self._large.give_back(name)
        if not filling.cancelled() and (problem := filling.exception()) is not None:
            logger.warning("cannot write a large object ahead", extra={"problem": str(problem)})

    async def _enqueue(
        self, make: Callable[[View], Plan], *, rehearsal: bool, ahead: _Ahead | None = None
    ) -> Committed:
        waiting = _Waiting(make, asyncio.get_running_loop().create_future(), rehearsal, ahead)
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
        else:
            # Until another commit has taken its place, a restart may bring this one back from SQLite's log.
            self._disputed += self._files.values()
            self._files.clear()
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
        pointers: dict[int, bytes] = {}
        for waiting in batch:
            if planned or refused:
                await asyncio.sleep(0)  # each plan takes a millisecond or two, and others wait for the loop
            if waiting.done.done():
                continue  # its client has left
            try:
                if (ahead := waiting.ahead) is not None and self._is_so(ahead.looked, staged):
                    plan, objects = ahead.plan, staged.take(ahead.plan)
                    revision = int(objects[0].version.revision)
                    self._files[revision], pointers[revision], ahead.is_used = ahead.file, ahead.pointer, True
                else:
                    plan = waiting.make(staged)
                    objects = [] if waiting.rehearsal else staged.take(plan)
                planned.append((waiting, Committed(plan, objects)))
            except Exception as exc:  # an ApiError for the client, or a bug that its handler reports
                # Told after the commit: who hears that a name is taken must then find who has it.
                refused.append((waiting, exc))
        if staged.changes:
            try:
                await self._ask(lambda changes: self._database.write(changes, pointers), staged.changes)
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

    def _is_so(self, looked: Looking, staged: "_Staged") -> bool:
        """Whether a plan that has looked at this is as good as a new one."""
        try:
            return looked.is_so(staged.catalogue, (*self.since(looked.revision), *staged.changes))
        except Expired:
            return False

    def _show(self, changes: Iterable[Change]) -> None:
        """Let readers see what has become durable."""
        while self._disputed:
            self._large.give_back(self._disputed.pop())
        redefined = False
        moved: set[Resource | None] = {None}
        self._cache.shorten()
        for change in changes:
            shown = self._cache.apply(WatchEvent(change.type, change.object, change.object.version.revision))
            assert [step.revision for step in shown] == [change.revision], "the cache counts as the database does"
            self._owners.observe(change)
            self.large_writes += len(change.object.body) > LARGE_BYTES
            if self._filler is not None:
                self._large.named(_place(change.object.key), self._files.pop(change.revision, None))
            moved.add(change.object.key.resource)
            redefined = redefined or change.object.key.resource == CUSTOM_RESOURCE_DEFINITIONS
        if redefined:
            crds = self._cache.list(CUSTOM_RESOURCE_DEFINITIONS)[0]
            self._catalogue = _catalogue_of(crd.parse() for crd in crds)
            moved.update(self._moved)  # a watch ends with its definition
        for resource in moved:
            if (waiting := self._moved.pop(resource, None)) is not None:
                waiting.set()

    def _restore(self, revision: int, rows: Iterable[Row]) -> None:
        """Take the database's content in."""
        by_place: dict[tuple[str, str], list[Row]] = {}
        for row in map(self._whole, rows):
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
            # What was written ahead of its turn says another revision.
            objects = [_object_at(resource, json.loads(row.body), row.revision) for row in held]
            for change in self._cache.replace(resource, objects, "0"):
                self._owners.observe(change)
        assert self._cache.revision == revision, "every object took a revision to come about"
        self._floor = revision
        if self._filler is not None:
            self._large.clear()

    def _whole(self, row: Row) -> Row:
        """The row with its body, wherever that is. Raises StorageError."""
        if self._bodies is None or not is_pointer(row.body):
            return row
        try:
            body, file = self._bodies.read(row.body)
        except (OSError, ValueError) as exc:
            raise StorageError(
                f"{row.plural} {row.namespace}/{row.name} is in a file beside the database, which cannot be read: "
                f"{exc}; restore that directory from the same backup as the database"
            ) from exc
        if self._filler is not None:
            self._bodies.named(row[:4], file)
        return row._replace(body=body)


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


def _place(key: ObjectKey) -> Place:
    return key.resource.group, key.resource.plural, key.namespace, key.name


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
