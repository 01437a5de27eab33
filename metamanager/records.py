"""
The store's operations on an open database: what one transaction does, without threads or waiting.

Invariants
    the cursor is written in the transaction of the objects it covers
    every change raises the local revision by one; an object's row has the revision of its last change
    what this class remembers (revision, cursor, digest, resource numbers) is what the last commit left
    a row whose bytes are not those that were written is never given out: StoreCorrupt
    a Secret is never written plain (metamanager.confidential); one whose key is gone counts as not held, and is not
    said not to exist: KeyLost
"""

import contextlib
import heapq
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from apimachinery.events import Change, EventType
from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.kubeevents import EVENT_FIELD, KubeEvent
from apimachinery.objects import Object, canonical
from apimachinery.resources import DEVICE_GROUP, EVENTS
from apimachinery.selectors import FieldSelector, LabelSelector
from apiserver.selection import order, selects
from componentbase.sealing import Keyring, SealingError
from link.frames import (
    MAX_HORIZON,
    MAX_REPORT_ENTRIES,
    MAX_TERM,
    Batch,
    Cursor,
    Held,
    Position,
    Refusal,
    RefusedReport,
    ReportEntry,
    Traffic,
)
from metamanager import statements
from metamanager.confidential import Confidential, is_confidential, lost
from metamanager.connection import Database, Row
from metamanager.errors import KeyLost, StoreCorrupt, StoreFull
from metamanager.history import MAX_ROWS, History, Recorded, Samples
from metamanager.intake import intake
from metamanager.overlay import LocalWrite, StoredObject, shown, survives
from metamanager.parked import PARKED_DOCUMENT, Parked

TIDY_AFTER = 512  # removed objects; at about a page each, what incremental vacuum is worth a write for
TIDY_PAGES = 1024
REPORT_OVERHEAD_BYTES = 16  # around one report in a frame, generously
MAX_EVENTS = 256  # ten times what one source may tell at once at an apiserver (client-go's event spam filter: 25)
MAX_STORE_BYTES = (
    1 << 30
)  # what a node is sent may fill: some hundred times what one holds, and no disk that it runs from
MAX_LOCAL_WRITES = 1024  # a node, its 110 pods (Kubernetes' own bound) and the Leases of what runs there, with room
MAX_LOCAL_BYTES = 2 << 20  # kept in memory, too: a status of 4 KB for each pod, four times
MAX_EVENT_BYTES = 256 << 10  # four windows of the link: the node's own status waits behind at most that


class RememberedInterest(NamedTuple):
    """A selection of objects that somebody asked the local API for."""

    resource: Resource
    namespace: str
    """"" for all."""
    name: str
    """"" for all of them."""
    user: str
    """On whose behalf; "" for the node itself."""
    used_at_ms: int
    """When it was last asked for, in milliseconds since 1970, not more exact than an hour."""
    complete: bool
    """Whether it was ever held whole: then it is served, however old."""


class Look(NamedTuple):
    """One object, seen from both sides."""

    held: StoredObject | None
    """As the cloud pushed it."""
    seen: StoredObject | None
    """As clients see it."""
    writes: Mapping[str, LocalWrite]
    """By subresource."""


class TooManyWrites(Exception):
    """As many local writes wait for the cloud as are kept."""


class Applied(NamedTuple):
    """What a transaction came to."""

    changes: list[Change]
    refusals: dict[int, list[Refusal]]
    """By the number of the batch; a batch that was taken whole is not in it."""


class Records:
    """The content of one database."""

    def __init__(self, database: Database, keys: Keyring, history_rows: int = MAX_ROWS) -> None:
        """
        Reads what is remembered, and with it the key of every row: damage shows here. Raises a StoreError.

        keys: what Secrets are sealed with. history_rows: how many samples of devices are kept.
        """
        self._database = database
        self._confidential = Confidential(keys)
        self._history = History(database, history_rows)
        self._ids: dict[Resource, int] = {}
        self._resources: dict[int, Resource] = {}
        self._digest: bytes | None = None
        self._removed = 0
        with database.transaction():
            state = database.row(statements.SELECT_STATE)
            if state is None:
                raise StoreCorrupt(database.path, "the database is damaged (its state is missing)")
            self.revision = int(state[0])
            self.cursor = None if state[1] is None else Cursor(str(state[1]), int(state[2]))
            self.synced_at_ms = None if state[3] is None else int(state[3])
            """When the node last held all that the hub had for it, in milliseconds since 1970; None: never."""
            self.events_dropped = int(state[4])
            """Events that were given up for later ones, since this database was made."""
            self.term = int(state[5])
            """That of the last connection to a hub; 0 before the first."""
            self.horizon = _horizon(str(state[6]))
            """What was last said of how far the hub had seen each collection, the newest last."""
            self._load_resources()
            self._lost = lost(database, self._resources, self._confidential)
            if self._lost:
                self._give_up_cursor()
            self._local: dict[ObjectKey, dict[str, LocalWrite]] = {}
            self._local_size = (0, 0)
            self._load_local()
            self.report_count = database.number(statements.CHECK_REPORTS)
            self.event_count = database.number(statements.CHECK_EVENTS)
            database.number(statements.CHECK_DOCUMENTS)
        self.digest()

    @property
    def lost_count(self) -> int:
        """Secrets that are held and cannot be read: their key is not at hand."""
        return len(self._lost)

    # Objects

    def apply(self, batches: Sequence[Batch], now_ms: int) -> Applied:
        """Commit batches in one transaction. now_ms: the wall clock, kept when a batch says `synced`."""
        applied = Applied([], {})
        latest: dict[ObjectKey, StoredObject | None] = {}
        revision = self.revision
        synced_at_ms = now_ms if any(batch.synced for batch in batches) else self.synced_at_ms
        cursor, horizon = batches[-1].cursor, _followed(self.horizon, batches)
        local = dict(self._local)
        given_up: list[LocalWrite] = []
        with self._writing():
            room = MAX_STORE_BYTES - self._database.used_bytes
            for batch in batches:
                for delta in batch.deltas:
                    key = delta.key
                    held = latest[key] if key in latest else self._stored(key)
                    before = None if held is None else held.object
                    wanted = None if delta.version is None else intake(delta, before)
                    if isinstance(wanted, Object):
                        grows = max(0, len(wanted.body) - (len(before.body) if before else 0))
                        if grows > room:
                            wanted = Refusal(
                                key, f"there is no room: the node's store may have {MAX_STORE_BYTES} bytes"
                            )
                        else:
                            room -= grows
                    if isinstance(wanted, Refusal):
                        applied.refusals.setdefault(batch.cursor.seq, []).append(wanted)
                        continue
                    writes = local.get(key, _NO_WRITES)
                    lost = [write for write in writes.values() if not survives(write, wanted)]
                    if lost:
                        given_up += lost
                        local[key] = {write.subresource: write for write in writes.values() if write not in lost}
                    seen = shown(held, writes)
                    # Where clients see no difference the object keeps the revision at which they saw it last.
                    at = revision if seen is None else seen.revision
                    will_be_held = None if wanted is None else StoredObject(wanted, at)
                    will_be_seen = shown(will_be_held, local.get(key, _NO_WRITES))
                    if lost or (before and before.version) != (wanted and wanted.version):
                        latest[key] = will_be_held
                    for kind, item, previous in _steps(seen and seen.object, will_be_seen and will_be_seen.object):
                        revision += 1
                        applied.changes.append(Change(revision, kind, item, previous))
                        latest[key] = None if wanted is None else StoredObject(wanted, revision)
            if any(batch.synced for batch in batches):
                # The hub was asked for all that cannot be read, and has sent what still belongs here.
                latest |= dict.fromkeys(self._lost - latest.keys())
            removed = self._write(latest)
            self._database.run_many(statements.DELETE_LOCAL, [(write.seq,) for write in given_up])
            state = (revision, cursor.epoch, cursor.seq, synced_at_ms, json.dumps(dict(horizon)))
            self._database.run(statements.UPDATE_STATE, state)
        self.revision, self.cursor, self.synced_at_ms, self.horizon = revision, cursor, synced_at_ms, horizon
        if latest:
            self._digest = None
            self._lost -= latest.keys()
        if given_up:
            self._take_local({key: writes for key, writes in local.items() if writes})
        self._tidy(removed)
        return applied

    def note_in_sync(self, now_ms: int) -> None:
        """Remember that the node held all that the hub had at this time. Nothing before the first `synced`."""
        if self.synced_at_ms is None:
            return
        with self._writing():
            self._database.run(statements.UPDATE_SYNCED, (now_ms,))
        self.synced_at_ms = now_ms

    def next_term(self, above: int, now_ms: int, *, is_reset: bool = False) -> int:
        """
        A term higher than any before and than `above`; of later connections also after a crash.

        Where the disk is full it is remembered by this process only: a report can go up all the same, and a hub that
        knows of a higher one says so. is_reset: the one after `above`, whatever was before and whatever the clock says.
        """
        self.term = min(above + 1 if is_reset else max(self.term + 1, above + 1, now_ms), MAX_TERM)
        with contextlib.suppress(StoreFull), self._writing():
            self._database.run(statements.UPDATE_TERM, (self.term,))
        return self.term

    def held(self) -> list[Held]:
        """Keys and versions of everything that can be read, in no order. Bodies are not read."""
        with self._database.transaction():
            return [
                Held(key, self._version(key, uid, version))
                for number, namespace, name, uid, version in self._database.rows(statements.SELECT_HELD)
                if (key := ObjectKey(self._resource(number), namespace, name)) not in self._lost
            ]

    def digest(self) -> bytes:
        """apimachinery.inventory.digest of what is held; computed once per change of it."""
        if self._digest is None:
            self._digest = digest(self.held())
        return self._digest

    def count(self) -> int:
        with self._database.transaction():
            return self._database.number(statements.COUNT_OBJECTS) - len(self._lost)

    def get(self, key: ObjectKey) -> StoredObject | None:
        """The object as clients see it. Raises KeyLost for a Secret that is held and cannot be read."""
        self._check_key(key)
        with self._database.transaction():
            return self._shown(key)

    def look(self, key: ObjectKey) -> Look:
        """
        The object as the cloud pushed it, as clients see it, and what makes the difference.

        A Secret that cannot be read counts as one that was not pushed, as it does for the cloud.
        """
        with self._database.transaction():
            return Look(self._stored(key), self._shown(key), self._local.get(key, _NO_WRITES))

    def resources(self) -> list[Resource]:
        """Those that have objects."""
        with self._database.transaction():
            return sorted(self._resource(row[0]) for row in self._database.rows(statements.SELECT_RESOURCES_IN_USE))

    def known_resources(self) -> list[Resource]:
        """Those that have or once had objects or reports."""
        return sorted(self._ids)

    # Local writes and interests

    def write_locally(self, write: LocalWrite, expected: int | None) -> list[Change] | None:
        """
        Keep a write that the cloud does not have; its seq and revision are given here.

        expected: the revision of the object, as clients see it, that the write was made from, None for a new object;
        where it is another by now nothing is done, and None returned. Raises TooManyWrites.
        """
        key = write.key
        assert not is_confidential(key.resource), "what may be written offline has no Secrets, and is not encrypted"
        count, size = self._local_size
        with self._writing():
            before = self._shown(key)
            if (None if before is None else before.revision) != expected:
                return None
            if write.subresource not in self._local.get(key, _NO_WRITES) and count >= MAX_LOCAL_WRITES:
                raise TooManyWrites
            if size + len(write.value) > MAX_LOCAL_BYTES:
                raise TooManyWrites
            revision = self.revision + 1
            kept = self._put_local(write._replace(revision=revision))
            self._database.run(statements.UPDATE_REVISION, (revision,))
            writes = {**self._local.get(key, _NO_WRITES), write.subresource: kept}
            after = shown(self._stored(key), writes)
        self.revision = revision
        self._take_local({**self._local, key: writes})
        assert after is not None, "a write makes an object or changes one"
        kind = EventType.ADDED if before is None else EventType.MODIFIED
        return [Change(revision, kind, after.object, before and before.object)]

    def restore(self, writes: Sequence[LocalWrite]) -> None:
        """Take over the local writes of a database that is not used again, in which their objects are gone."""
        local: dict[ObjectKey, dict[str, LocalWrite]] = {}
        with self._writing():
            for write in writes:
                local.setdefault(write.key, {})[write.subresource] = self._put_local(
                    write._replace(revision=self.revision)
                )
        self._take_local(local)

    def settle_locally(self, seq: int) -> list[Change]:
        """Forget a write, because the cloud has it or never will. One made since has another number and stays."""
        found = next((each for writes in self._local.values() for each in writes.values() if each.seq == seq), None)
        if found is None:
            return []
        key = found.key
        rest = {name: each for name, each in self._local[key].items() if each.seq != seq}
        changes: list[Change] = []
        with self._writing():
            held, before = self._stored(key), self._shown(key)
            after = shown(held, rest)
            revision, at = self.revision, before.revision if before else self.revision
            for kind, item, previous in _steps(before and before.object, after and after.object):
                revision = at = revision + 1
                changes.append(Change(revision, kind, item, previous))
            if held is not None:
                self._write({key: StoredObject(held.object, at)})
            self._database.run(statements.DELETE_LOCAL, (seq,))
            self._database.run(statements.UPDATE_REVISION, (revision,))
        self.revision = revision
        self._take_local({**self._local, key: rest} if rest else {k: v for k, v in self._local.items() if k != key})
        return changes

    def local_writes(self) -> list[LocalWrite]:
        """Those that the cloud does not have, oldest first."""
        return sorted(write for writes in self._local.values() for write in writes.values())

    def interests(self) -> list[RememberedInterest]:
        """What the local API was asked for beyond what the node is sent by itself."""
        with self._database.transaction():
            return [
                RememberedInterest(self._resource(number), namespace, name, user, used_at_ms, bool(complete))
                for number, namespace, name, user, used_at_ms, complete in self._database.rows(
                    statements.SELECT_INTERESTS
                )
            ]

    def remember(self, interests: Sequence[RememberedInterest], gone: Sequence[RememberedInterest] = ()) -> None:
        """Keep these, in the place of those with the same selection and user, and forget those that are `gone`."""
        with self._writing():
            self._database.run_many(
                statements.PUT_INTEREST, [(self._id(each.resource), *each[1:]) for each in interests]
            )
            self._database.run_many(
                statements.DELETE_INTEREST, [(self._id(each.resource), *each[1:4]) for each in gone]
            )

    # Documents and reports

    def save(
        self,
        documents: Mapping[str, bytes | None],
        reports: Sequence[ReportEntry],
        events: Sequence[KubeEvent] = (),
        samples: Samples = MappingProxyType({}),
        gone: Sequence[ObjectKey] = (),
    ) -> None:
        """
        Write and delete (None) documents, put reports and add Events, in one transaction.

        samples: for the history. gone: devices whose history goes; what `samples` has of them is of their successors.
        """
        dropped = self.events_dropped
        with self._writing():
            self._write_documents(documents)
            self._database.run_many(
                statements.PUT_REPORT,
                [
                    (self._id(key.resource), key.namespace, key.name, field, zlib.crc32(value), value, _is_device(key))
                    for key, field, value in reports
                ],
            )
            for device in gone:
                self._history.forget(device)
            self._history.record(samples)
            if events:
                dropped += self._add_events(events)
                self._database.run(statements.UPDATE_EVENTS_DROPPED, (dropped,))
            counts = self._counts()
        self.report_count, self.event_count = counts
        self.events_dropped = dropped

    def documents(self, prefix: str) -> dict[str, bytes]:
        with self._database.transaction():
            return self._documents(prefix)

    def history(self, device: ObjectKey, name: str, since_ms: int) -> Recorded:
        """What is remembered of a device's property."""
        with self._database.transaction():
            return self._history.read(device, name, since_ms)

    def parked(self) -> Parked:
        """The reports that were refused for good."""
        return Parked.from_bytes(self.documents(PARKED_DOCUMENT).get(PARKED_DOCUMENT))

    def pending_reports(
        self, after: int, limit_bytes: int, traffic: Traffic | None = None
    ) -> list[tuple[int, ReportEntry]]:
        """Reports and Events of a class, numbered after `after`, oldest first: about `limit_bytes`, at least one."""
        found: list[tuple[int, ReportEntry]] = []
        with self._database.transaction():
            if traffic is None:
                rows = self._database.rows(statements.SELECT_REPORTS, (after,))
            elif traffic is Traffic.DEVICES:
                rows = self._database.rows(statements.SELECT_DEVICE_REPORTS, (after, DEVICE_GROUP))
            else:
                rows = self._database.rows(statements.SELECT_OTHER_REPORTS, (after,))
            reports = map(self._report, rows)
            has_events = traffic is not Traffic.DEVICES
            events = map(self._event, self._database.rows(statements.SELECT_EVENTS, (after,)) if has_events else ())
            for seq, entry in heapq.merge(reports, events, key=lambda row: row[0]):
                limit_bytes -= len(entry.value) + len(entry.field) + len(entry.key.name) + REPORT_OVERHEAD_BYTES
                if found and (limit_bytes < 0 or len(found) == MAX_REPORT_ENTRIES):
                    break
                found.append((seq, entry))
        return found

    def settle_reports(self, rows: Sequence[int], refused: Sequence[RefusedReport], now_ms: int) -> None:
        """
        Forget the reports and Events of these numbers, and park those that were refused, in one transaction.

        One that was put again since then has another number and stays.
        """
        numbers: list[tuple[object, ...]] = [(row,) for row in rows]
        with self._writing():
            self._database.run_many(statements.DELETE_REPORT, numbers)
            self._database.run_many(statements.DELETE_EVENT, numbers)
            if refused:
                parked = Parked.from_bytes(self._documents(PARKED_DOCUMENT).get(PARKED_DOCUMENT))
                self._write_documents({PARKED_DOCUMENT: parked.plus(refused, now_ms).to_bytes()})
            counts = self._counts()
        self.report_count, self.event_count = counts

    # Parts of the above, inside its transaction

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction after whose failure the numbers of resources are forgotten that it would have given."""
        known = len(self._ids)
        try:
            with self._database.transaction():
                yield
        except BaseException:
            for resource in list(self._ids)[known:]:
                del self._resources[self._ids.pop(resource)]
            raise

    def _write_documents(self, documents: Mapping[str, bytes | None]) -> None:
        self._database.run_many(
            statements.UPSERT_DOCUMENT,
            [(name, zlib.crc32(value), value) for name, value in documents.items() if value is not None],
        )
        self._database.run_many(
            statements.DELETE_DOCUMENT, [(name,) for name, value in documents.items() if value is None]
        )

    def _documents(self, prefix: str) -> dict[str, bytes]:
        found = {}
        for name, checksum, value in self._database.rows(statements.SELECT_DOCUMENTS, (prefix, prefix)):
            self._check(checksum == zlib.crc32(value), "a document")
            found[str(name)] = bytes(value)
        return found

    def _counts(self) -> tuple[int, int]:
        """Reports and Events that wait."""
        return self._database.number(statements.COUNT_REPORTS), self._database.number(statements.CHECK_EVENTS)

    def _add_events(self, events: Sequence[KubeEvent]) -> int:
        """Add Events with the next numbers, and drop the oldest where there are too many; how many were dropped."""
        for event in events:
            row = self._database.row(statements.NEXT_ROW)
            self._check(row is not None, "the numbers of reports")
            assert row is not None, "checked in the line above"
            value = canonical(event.to_json())
            namespace, name = event.key[1:]
            self._database.run(statements.PUT_EVENT, (row[0], namespace, name, zlib.crc32(value), value))
        rows = list(self._database.rows(statements.SELECT_EVENT_SIZES))
        count, size, dropped = len(rows), sum(row[1] for row in rows), 0
        for _, length in rows:
            if count - dropped <= MAX_EVENTS and size <= MAX_EVENT_BYTES:
                break
            dropped += 1
            size -= length
        if dropped:
            self._database.run(statements.DELETE_EVENTS, (rows[dropped - 1][0],))
        return dropped

    def _write(self, latest: Mapping[ObjectKey, StoredObject | None]) -> int:
        """Each object's last state, however many deltas led there; how many are gone."""
        upserts: list[tuple[object, ...]] = []
        removals: list[tuple[object, ...]] = []
        for key, stored in latest.items():
            place = (self._id(key.resource), key.namespace, key.name)
            if stored is None:
                removals.append(place)
                continue
            item, revision = stored
            labels = json.dumps(item.labels) if item.labels else ""
            version, body = item.version.revision, item.body
            if is_confidential(key.resource):
                version, body = self._confidential.closed(item)
            checksum = row_checksum(key, item.version.uid, version, labels, body)
            upserts.append((*place, item.version.uid, version, revision, labels, checksum, body))
        self._database.run_many(statements.UPSERT_OBJECT, upserts)
        self._database.run_many(statements.DELETE_OBJECT, removals)
        return len(removals)

    def _stored(self, key: ObjectKey) -> StoredObject | None:
        """As the cloud pushed it; None also for what cannot be read, which the cloud does not take for held either."""
        number = self._ids.get(key.resource)
        if number is None or key in self._lost:
            return None
        row = self._database.row(statements.SELECT_OBJECT, (number, key.namespace, key.name))
        return None if row is None else self._object(key.resource, row)

    def _shown(self, key: ObjectKey) -> StoredObject | None:
        held = self._stored(key)
        return shown(held, self._local[key]) if key in self._local else held

    def _object(self, resource: Resource, row: Row) -> StoredObject:
        namespace, name, uid, version, revision, labels, checksum, body = row
        key = ObjectKey(resource, namespace, name)
        self._check_key(key)
        self._check(checksum == row_checksum(key, uid, version, labels, body), str(key))
        known = self._version(key, uid, version)
        if is_confidential(resource):
            with self._opening(key):
                body = self._confidential.body(key, known, body)
        return StoredObject(Object(key, known, json.loads(labels) if labels else {}, body), revision)

    def _version(self, key: ObjectKey, uid: str, stored: str) -> ObjectVersion:
        if not is_confidential(key.resource):
            return ObjectVersion(uid, stored)
        with self._opening(key):
            return self._confidential.version(key, uid, stored)

    @contextlib.contextmanager
    def _opening(self, key: ObjectKey) -> Iterator[None]:
        """What does not open though its key is here is not what was written."""
        try:
            yield
        except SealingError as exc:
            raise StoreCorrupt(self._database.path, f"the database is damaged ({key}: {exc})") from None

    def _check_key(self, key: ObjectKey) -> None:
        if key in self._lost:
            raise KeyLost(
                self._database.path,
                f"{key} cannot be read, because the key that it was sealed with is gone: put the key back and start "
                "again, or wait until the cloud has sent it anew",
            )

    def _give_up_cursor(self) -> None:
        """
        Have the hub ask for all that is held, and send what is not: what cannot be read.

        What somebody reads beyond the node's own is not held whole then.
        """
        self.cursor = None
        horizon = json.dumps(dict(self.horizon))
        self._database.run(statements.UPDATE_STATE, (self.revision, None, None, self.synced_at_ms, horizon))
        for resource, number in self._ids.items():
            if is_confidential(resource):
                self._database.run(statements.UPDATE_INTERESTS, (number,))

    def _report(self, row: Row) -> tuple[int, ReportEntry]:
        seq, resource, namespace, name, field, checksum, value = row
        self._check(checksum == zlib.crc32(value), "a report")
        return seq, ReportEntry(ObjectKey(self._resource(resource), namespace, name), field, value)

    def _event(self, row: Row) -> tuple[int, ReportEntry]:
        seq, namespace, name, checksum, value = row
        self._check(checksum == zlib.crc32(value), "an Event")
        return seq, ReportEntry(ObjectKey(EVENTS, namespace, name), EVENT_FIELD, value)

    def _id(self, resource: Resource) -> int:
        number = self._ids.get(resource)
        if number is None:
            number = self._database.inserted(statements.INSERT_RESOURCE, tuple(resource))
            self._ids[resource] = number
            self._resources[number] = resource
        return number

    def _resource(self, number: int) -> Resource:
        resource = self._resources.get(number)
        self._check(resource is not None, "the table of resources")
        assert resource is not None, "checked in the line above"
        return resource

    def _load_resources(self) -> None:
        for number, *names, namespaced in self._database.rows(statements.SELECT_RESOURCES):
            group, version, plural, kind = map(str, names)
            self._resources[number] = Resource(group, version, plural, kind, bool(namespaced))
        self._ids = {resource: number for number, resource in self._resources.items()}

    def _put_local(self, write: LocalWrite) -> LocalWrite:
        """The write with the number that it got."""
        key = write.key
        row = (
            *(self._id(key.resource), key.namespace, key.name, write.subresource, write.uid, write.creates, write.user),
            *(write.revision, write.at_ms, zlib.crc32(write.value), write.value),
        )
        return write._replace(seq=self._database.inserted(statements.PUT_LOCAL, row))

    def _load_local(self) -> None:
        local: dict[ObjectKey, dict[str, LocalWrite]] = {}
        for row in self._database.rows(statements.SELECT_LOCAL):
            seq, resource, namespace, name, subresource, uid, creates, user, revision, at_ms, checksum, value = row
            self._check(checksum == zlib.crc32(value), "a local write")
            key = ObjectKey(self._resource(resource), namespace, name)
            write = LocalWrite(seq, key, subresource, uid, bool(creates), user, revision, at_ms, value)
            local.setdefault(key, {})[subresource] = write
        self._take_local(local)

    def _take_local(self, local: dict[ObjectKey, dict[str, LocalWrite]]) -> None:
        """What the last commit left of the local writes."""
        self._local = local
        sizes = [len(write.value) for writes in local.values() for write in writes.values()]
        self._local_size = (len(sizes), sum(sizes))

    def _check(self, is_whole: bool, what: str) -> None:
        if not is_whole:
            raise StoreCorrupt(self._database.path, f"the database is damaged ({what} is not what was written)")

    def _tidy(self, removed: int) -> None:
        """Keep the file from staying as large as it ever was."""
        self._removed += removed
        if self._removed >= TIDY_AFTER:
            self._removed = 0
            with contextlib.suppress(StoreFull):  # it needs room to make room; another time
                self._database.give_back(TIDY_PAGES)

    # Last in the class: after it the name `list` means this method.
    def list(
        self,
        resource: Resource,
        namespace: str,
        labels: LabelSelector,
        fields: FieldSelector,
        limit: int,
        after: ObjectKey | None,
    ) -> tuple[list[StoredObject], int]:
        """Selected objects in the order of their keys, and the revision they are of."""
        found: list[StoredObject] = []
        number = self._ids.get(resource)
        if number is None:
            return found, self.revision
        written = {key: writes for key, writes in self._local.items() if key.resource == resource}
        name = next((value for path, value, wanted in fields.terms if wanted and path == "metadata.name"), None)
        start = ("", "") if after is None else (after.namespace, after.name)
        parameters = (number, *start, not namespace, namespace, name is None, name or "")
        with self._database.transaction():
            rows = self._database.rows(statements.SELECT_LIST, parameters)
            held = (self._object(resource, row) for row in rows)
            for stored in _with_writes(held, written, namespace, start) if written else held:
                if selects(stored.object, labels, fields):
                    found.append(stored)
                    if len(found) == limit:
                        break
        return found, self.revision


def _is_device(key: ObjectKey) -> bool:
    """Whether what is reported of it is of the class of devices."""
    return key.resource.group == DEVICE_GROUP


def _horizon(text: str) -> tuple[Position, ...]:
    """As it was written; none where it is anything else: then no hub waits."""
    try:
        return tuple(Position(str(name), int(version)) for name, version in json.loads(text).items())
    except (ValueError, TypeError, AttributeError):
        return ()


def _followed(horizon: tuple[Position, ...], batches: Sequence[Batch]) -> tuple[Position, ...]:
    """What is known after these: the latest of each collection, of as many as a Hello may say."""
    latest = dict(horizon)
    for name, version in (position for batch in batches for position in batch.horizon):
        latest.pop(name, None)
        latest[name] = version
    return tuple(map(Position._make, latest.items()))[-MAX_HORIZON:]


_NO_WRITES: Mapping[str, LocalWrite] = MappingProxyType({})


def _with_writes(
    held: Iterator[StoredObject],
    written: Mapping[ObjectKey, Mapping[str, LocalWrite]],
    namespace: str,
    after: tuple[str, str],
) -> Iterator[StoredObject]:
    """What is held of one resource as clients see it, and what was made on the node, in the order of their keys."""
    made = [
        item
        for key, writes in written.items()
        if order(key) > after and namespace in ("", key.namespace) and (item := shown(None, writes)) is not None
    ]
    made.sort(key=lambda item: order(item.object.key))
    patched = (shown(item, written[item.object.key]) or item if item.object.key in written else item for item in held)
    last: ObjectKey | None = None
    for item in heapq.merge(patched, made, key=lambda item: order(item.object.key)):
        if item.object.key != last:  # one that is held and was made here is given once, as it is held
            yield item
        last = item.object.key


def _steps(held: Object | None, wanted: Object | None) -> Iterator[tuple[EventType, Object, Object | None]]:
    """
    How an object comes from one state to the other, in events: what it is then, and what it was.

    Another uid is another object under the same name: local clients see the one go and the other come, as
    they would at the cluster's apiserver.
    """
    if held is None:
        if wanted is not None:
            yield EventType.ADDED, wanted, None
    elif wanted is None:
        yield EventType.DELETED, held, held
    elif held.version.uid != wanted.version.uid:
        yield EventType.DELETED, held, held
        yield EventType.ADDED, wanted, None
    elif held.version != wanted.version:
        yield EventType.MODIFIED, wanted, held


def row_checksum(key: ObjectKey, uid: str, version: str, labels: str, body: bytes) -> int:
    """
    CRC-32 of an object's row as it stands in its columns.

    SQLite notices damage to its pages' structure, not to their content.
    """
    words = "\0".join((key.namespace, key.name, uid, version, labels))
    return zlib.crc32(body, zlib.crc32(words.encode()))
