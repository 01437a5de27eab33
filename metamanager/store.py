"""
What the node holds and what it has to report, durable, for everybody in this process.

The store is the node's memory of itself: the cursor that it committed is all that a hub needs to go on
where it was, so it is written with the objects or not at all. Everything here waits for a disk, which on
an SD card takes tens of milliseconds; one thread does that and nothing else.

What the cluster says, and what clients on the node write, goes before what devices say: a slow disk is shared by all,
and devices can always bring more than it takes. So a pod's change waits for the one transaction that is under way, and
not for those that wait, however many they are. While both wait, devices get a share of the thread's time
(metamanager.handover), so that nobody starves: of its time and not of its calls, or three quick reads of a pod would
send its commit behind devices'.

Invariants
    when apply() or save() has returned, what they were given survives a power cut
    a call that raised changed nothing; after StoreFull the same call succeeds once there is space
    changes reach the feed after their commit, in its order, also when the caller of apply() was cancelled
    at most QUEUE calls of each class wait for the thread; more wait before it
    calls of one class are done in the order in which they were made
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from apimachinery.keys import ObjectKey, Resource
from apimachinery.kubeevents import KubeEvent
from apimachinery.objects import Object
from apimachinery.selectors import ALL_FIELDS, EVERYTHING, FieldSelector, LabelSelector
from componentbase.sealing import Keyring
from link.frames import Batch, Cursor, Held, Position, RefusedReport, ReportEntry, Traffic
from metamanager.connection import Database
from metamanager.errors import StoreClosed, StoreCorrupt
from metamanager.feed import ChangeFeed
from metamanager.handover import Handover
from metamanager.history import MAX_ROWS, Recorded, Samples
from metamanager.interestrows import RememberedInterest
from metamanager.opening import mark_corrupt, open_records
from metamanager.overlay import LocalWrite, StoredObject
from metamanager.parked import Parked
from metamanager.records import Applied, Look, Records

QUEUE = 64
REST = 3  # times as long as a piece of a large object took, for others' turns
REST_MOST_S = 0.05  # a disk whose syncs take longer than that has the object seconds later as it is

T = TypeVar("T")


class Store:
    """An open store. Make one with `Store.open`."""

    def __init__(self, path: Path, database: Database, records: Records, thread: Handover) -> None:
        self.path = path
        self.feed = ChangeFeed(records.revision)
        self._database = database
        self._records = records
        self._thread = thread
        self._room = {urgent: asyncio.BoundedSemaphore(QUEUE) for urgent in (True, False)}
        self._closed = False
        self._damaged = asyncio.Event()
        # What the last commit left, as far as callers need to know without asking the thread.
        self._cursor = records.cursor
        self._horizon = records.horizon
        self._synced_at_ms = records.synced_at_ms
        self._counts = records.outbox.counts

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        keys: Keyring | None = None,
        max_bytes: int | None = None,
        history_rows: int = MAX_ROWS,
    ) -> "Store":
        """
        Open the store, make it, or begin it anew where it is damaged (metamanager.opening).

        keys: what Secrets are sealed with; by default those of metamanager.secretkeys.file_of. max_bytes: how large the
        file may grow; None for as large as the disk allows. history_rows: how many samples of devices are kept; 0 for
        none. Raises a StoreError.
        """
        thread = Handover("store")
        try:
            database, records = await thread.do(partial(open_records, path, max_bytes, history_rows, keys))
        except BaseException:
            thread.end()
            raise
        return cls(path, database, records, thread)

    async def close(self) -> None:
        """Let what was asked for finish, then close the file. The feed's subscriptions end."""
        if self._closed:
            return
        self._closed = True
        self.feed.close()
        await self._thread.close(self._database.close)

    async def wait_damaged(self) -> None:
        """
        Return once any call met damage (StoreCorrupt), whoever made it.

        The process is then to end and be started again: opening sets the file aside and begins anew.
        """
        await self._damaged.wait()

    # Down

    async def cursor(self) -> Cursor | None:
        """How far the hub's pushes are committed; None before the first."""
        return self._cursor

    async def horizon(self) -> tuple[Position, ...]:
        """How far the hub that told of what is held had seen the apiserver."""
        return self._horizon

    async def held(self) -> list[Held]:
        """Keys and versions of everything. Bodies are not read."""
        return await self._run(self._records.held)

    async def digest(self) -> bytes:
        """apimachinery.inventory.digest of what is held."""
        return await self._run(self._records.digest)

    async def next_term(self, above: int = 0, *, now_ms: int | None = None, is_reset: bool = False) -> int:
        """
        The term of the next connection: higher than any before and than `above`, kept over restarts.

        now_ms: the wall clock in milliseconds since 1970, the least it is: a node that is set up anew need not be told
        where its predecessor was. is_reset: the one after `above`, whatever was before: a hub takes no higher one.
        """
        at_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        return await self._run(lambda: self._records.next_term(above, at_ms, is_reset=is_reset))

    async def apply(self, batches: Sequence[Batch], *, now_ms: int | None = None) -> Applied:
        """
        Commit batches and the cursor of the last, in one transaction.

        Objects that cannot be taken are refused, the rest is applied; the cursor moves all the same. now_ms: the
        wall clock in milliseconds since 1970, kept as the time of being in sync if a batch says `synced`.
        """
        if not batches:
            return Applied([], {})
        at_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms

        def commit() -> Applied:
            applied = self._records.apply(batches, at_ms)
            # Told to the loop before the caller is, and whether or not the caller still waits.
            records = self._records
            self._thread.tell(partial(self._committed, applied, records.cursor, records.horizon, records.synced_at_ms))
            return applied

        return await self._run(commit)

    async def put_ahead(self, item: Object, goes_on: Callable[[], bool]) -> None:
        """
        Write what can be written of a large object before the batch that brings it, which then commits quickly.

        In turns with everybody else, and with rests in which the disk is theirs; where goes_on() says no it ends. One
        object at a time: what was put ahead of another, and has not come, is forgotten. Raises a StoreError, after
        which the batch is as good as without this.
        """
        place, is_more = 0, True
        while is_more and goes_on():

            def put(place: int = place) -> tuple[bool, float]:
                began = time.perf_counter()
                return self._records.put_ahead(item, place), time.perf_counter() - began

            is_more, took_s = await self._run(put, urgent=False)
            place += 1
            if is_more:
                await asyncio.sleep(min(REST * took_s, REST_MOST_S))

    async def is_synced(self) -> bool:
        """Whether a batch that said `synced` was ever committed. Before, what is held may be a part only."""
        return self._synced_at_ms is not None

    async def last_synced_at_ms(self) -> int | None:
        """When the node last held all that the hub had for it, by the wall clock; None: never."""
        return self._synced_at_ms

    async def note_in_sync(self, now_ms: int) -> None:
        """
        Remember that the node is in sync now, though nothing was pushed: for when the link goes away.

        One small write; without it a restart without a network would count from the last push.
        """
        await self._run(lambda: self._records.note_in_sync(now_ms), urgent=False)
        self._synced_at_ms = self._records.synced_at_ms

    # Reads

    async def get(self, key: ObjectKey) -> StoredObject | None:
        return await self._run(lambda: self._records.get(key))

    async def resources(self) -> list[Resource]:
        """Resources that have objects."""
        return await self._run(self._records.resources)

    async def known_resources(self) -> list[Resource]:
        """Resources that have or once had objects or reports."""
        return await self._run(self._records.known_resources)

    async def object_count(self) -> int:
        return await self._run(self._records.count)

    async def lost_count(self) -> int:
        """How many Secrets are held that cannot be read, because their key is gone; the cloud is asked for them."""
        return self._records.lost_count

    # Local writes and interests

    async def look(self, key: ObjectKey) -> Look:
        """The object as the cloud pushed it, as clients see it, and what makes the difference."""
        return await self._run(lambda: self._records.look(key))

    async def write_locally(self, write: LocalWrite, expected: int | None) -> int | None:
        """
        Keep a write that the cloud does not have, durably; clients see it at once. The revision at which they do.

        write: its seq and revision are given here. expected: the revision of the object, as clients see it, that the
        write was made from, None for a new object; where it is another by now nothing is done, and None returned.
        Raises TooManyWrites.
        """

        def commit() -> int | None:
            changes = self._records.write_locally(write, expected)
            if changes is None:
                return None
            self._thread.tell(partial(self.feed.publish, changes))
            return changes[-1].revision

        return await self._run(commit)

    async def settle_locally(self, seq: int) -> None:
        """Forget a local write, because the cloud has it or never will. One made since has another number and stays."""

        def commit() -> None:
            changes = self._records.settle_locally(seq)
            self._thread.tell(partial(self.feed.publish, changes))

        await self._run(commit)

    async def local_writes(self) -> list[LocalWrite]:
        """Those that the cloud does not have, oldest first."""
        return await self._run(self._records.local_writes)

    async def interests(self) -> list[RememberedInterest]:
        """What the local API was asked for beyond what the node is sent by itself."""
        return await self._run(self._records.interests.all)

    async def remember(self, interests: Sequence[RememberedInterest], gone: Sequence[RememberedInterest] = ()) -> None:
        """Keep these, in the place of those with the same selection and user, and forget those that are `gone`."""
        await self._run(lambda: self._records.interests.remember(interests, gone))

    # Up

    async def save(
        self,
        documents: Mapping[str, bytes | None],
        reports: Sequence[ReportEntry],
        events: Sequence[KubeEvent] = (),
        samples: Samples = MappingProxyType({}),
        gone: Sequence[ObjectKey] = (),
    ) -> None:
        """
        Write documents (None deletes one), put reports and add Events, in one transaction.

        A report takes the place of the last one of the same object and field, and the next number. An Event takes
        nobody's place; where there are too many (metamanager.outbox) the oldest are dropped, and counted. samples: for
        the history (metamanager.history). gone: devices whose history goes.
        """
        await self._run(lambda: self._records.outbox.save(documents, reports, events, samples, gone), urgent=False)
        self._count()

    async def add_event(self, event: KubeEvent) -> None:
        """Add one Event to go up."""
        await self.save({}, (), (event,))

    async def history(self, device: ObjectKey, name: str, since_ms: int) -> Recorded:
        """What a device's property was from `since_ms` on, in milliseconds since 1970."""
        return await self._run(lambda: self._records.outbox.history(device, name, since_ms), urgent=False)

    async def documents(self, prefix: str = "") -> dict[str, bytes]:
        """Documents whose names begin with `prefix`, in the order of their names."""
        return await self._run(lambda: self._records.outbox.documents(prefix), urgent=False)

    async def pending_reports(
        self, after: int, limit_bytes: int, traffic: Traffic | None = None
    ) -> list[tuple[int, ReportEntry]]:
        """
        Reports and Events numbered after `after`, oldest first: about `limit_bytes` of them, but at least one if any.

        No more than MAX_REPORT_ENTRIES, which a frame may have: more may wait even where `limit_bytes` is large.
        The field of an Event is "event" and its key its own. traffic: of this class only.
        """
        is_urgent = traffic is Traffic.INFRASTRUCTURE
        return await self._run(lambda: self._records.outbox.pending(after, limit_bytes, traffic), urgent=is_urgent)

    async def settle_reports(
        self, rows: Sequence[int], refused: Sequence[RefusedReport] = (), *, now_ms: int | None = None
    ) -> None:
        """
        The cloud has the reports and Events of these numbers, but for those `refused`, which it will never take.

        Refused ones are parked: see `parked`. One put again since then has another number and stays. now_ms: the wall
        clock in milliseconds since 1970.
        """
        at_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        await self._run(lambda: self._records.outbox.settle(rows, refused, at_ms), urgent=False)
        self._count()

    async def parked(self) -> Parked:
        """Reports that were refused for good: their number, and the last of them."""
        return await self._run(self._records.outbox.parked, urgent=False)

    async def report_count(self) -> int:
        """How many reports wait to go up, Events not among them."""
        return self._counts[0]

    async def event_count(self) -> int:
        """How many Events wait to go up."""
        return self._counts[1]

    async def events_dropped(self) -> int:
        """How many Events were given up for later ones, since the database was made."""
        return self._counts[2]

    # Inner parts

    async def _run(self, work: Callable[[], T], *, urgent: bool = True) -> T:
        """
        Have the thread do something. Raises what it raises.

        urgent: before what devices want; for all that is not theirs.
        """
        async with self._room[urgent]:
            if self._closed:
                raise StoreClosed(self.path, "the store is closed")
            try:
                return await self._thread.do(work, urgent=urgent)
            except StoreCorrupt:
                mark_corrupt(self.path)
                self._damaged.set()
                raise

    def _count(self) -> None:
        self._counts = self._records.outbox.counts

    def _committed(
        self, applied: Applied, cursor: Cursor | None, horizon: tuple[Position, ...], synced_at_ms: int | None
    ) -> None:
        self._cursor = cursor
        self._horizon = horizon
        self._synced_at_ms = synced_at_ms
        self.feed.publish(applied.changes)

    # Last in the class: after it the name `list` means this method.
    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        labels: LabelSelector = EVERYTHING,
        fields: FieldSelector = ALL_FIELDS,
        limit: int = 0,
        after: ObjectKey | None = None,
    ) -> tuple[list[StoredObject], int]:
        """
        Selected objects in the order of their keys, and the revision they are of.

        namespace: "" for all. limit: most objects, 0 for all. after: only keys that follow this one.
        """
        return await self._run(lambda: self._records.list(resource, namespace, labels, fields, limit, after))
