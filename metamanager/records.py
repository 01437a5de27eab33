"""
The store's operations on an open database: what one transaction does, without threads or waiting.

Here is what concerns objects: what the cloud pushes, what is written on the node, and what clients see of both. Rows
are the business of metamanager.objectrows, .writerows, .interestrows and .resourcerows; what goes up is that of
metamanager.outbox, and shares the file.

Invariants
    the cursor is written in the transaction of the objects it covers
    every change raises the local revision by one; an object's row has the revision of its last change
    what this class remembers (revision, cursor, digest) is what the last commit left
"""

import contextlib
import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from apimachinery.events import Change, EventType
from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import Object
from apimachinery.selectors import FieldSelector, LabelSelector
from apiserver.selection import order, selects
from componentbase.sealing import Keyring
from link.frames import MAX_HORIZON, MAX_TERM, Batch, Cursor, Held, Position, Refusal
from metamanager import statements
from metamanager.confidential import is_confidential
from metamanager.connection import Database
from metamanager.errors import StoreCorrupt, StoreFull
from metamanager.history import MAX_ROWS
from metamanager.intake import intake
from metamanager.interestrows import InterestRows
from metamanager.largebodies import PIECE_BYTES, is_large
from metamanager.objectrows import ObjectRows
from metamanager.outbox import Outbox
from metamanager.overlay import LocalWrite, StoredObject, shown, survives
from metamanager.resourcerows import ResourceRows
from metamanager.writerows import NO_WRITES, WriteRows

TIDY_AFTER = 512  # removed objects; at about a page each, what incremental vacuum is worth a write for
TIDY_PAGES = 1024
MAX_STORE_BYTES = 1 << 30  # what a node is sent may fill: a hundred times what one holds, and no disk it runs from


class Look(NamedTuple):
    """One object, seen from both sides."""

    held: StoredObject | None
    """As the cloud pushed it."""
    seen: StoredObject | None
    """As clients see it."""
    writes: Mapping[str, LocalWrite]
    """By subresource."""


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
            self.term = int(state[5])
            """That of the last connection to a hub; 0 before the first."""
            self.horizon = _horizon(str(state[6]))
            """What was last said of how far the hub had seen each collection, the newest last."""
            self._resources = ResourceRows(database)
            self._objects = ObjectRows(database, self._resources, keys)
            self.interests = InterestRows(database, self._resources)
            if self._objects.lost:
                self._give_up_cursor()
            self._local = WriteRows(database, self._resources)
            self.outbox = Outbox(database, self._resources, history_rows, int(state[4]))
        with contextlib.suppress(StoreFull), database.transaction():  # it needs room to make room; at another start
            self._objects.tidy()
        self.digest()

    @property
    def lost_count(self) -> int:
        """Secrets that are held and cannot be read: their key is not at hand."""
        return len(self._objects.lost)

    # What the cloud pushes

    def apply(self, batches: Sequence[Batch], now_ms: int) -> Applied:
        """Commit batches in one transaction. now_ms: the wall clock, kept when a batch says `synced`."""
        applied = Applied([], {})
        latest: dict[ObjectKey, StoredObject | None] = {}
        revision = self.revision
        synced_at_ms = now_ms if any(batch.synced for batch in batches) else self.synced_at_ms
        cursor, horizon = batches[-1].cursor, _followed(self.horizon, batches)
        local = dict(self._local.by_key)
        given_up: list[LocalWrite] = []
        with self._giving_way(), self._resources.writing():
            room = MAX_STORE_BYTES - self._database.used_bytes
            for batch in batches:
                for delta in batch.deltas:
                    key = delta.key
                    held = latest[key] if key in latest else self._objects.get(key)
                    before = None if held is None else held.object
                    wanted = None if delta.version is None else intake(delta, before)
                    if isinstance(wanted, Object):
                        grows = max(0, len(wanted.body) - (len(before.body) if before else 0))
                        if grows > room and not self._objects.has_body(wanted):  # which is among what is used
                            wanted = Refusal(
                                key, f"there is no room: the node's store may have {MAX_STORE_BYTES} bytes"
                            )
                        else:
                            room = max(0, room - grows)
                    if isinstance(wanted, Refusal):
                        applied.refusals.setdefault(batch.cursor.seq, []).append(wanted)
                        continue
                    writes = local.get(key, NO_WRITES)
                    lost = [write for write in writes.values() if not survives(write, wanted)]
                    if lost:
                        given_up += lost
                        local[key] = {write.subresource: write for write in writes.values() if write not in lost}
                    seen = shown(held, writes)
                    # Where clients see no difference the object keeps the revision at which they saw it last.
                    at = revision if seen is None else seen.revision
                    will_be_held = None if wanted is None else StoredObject(wanted, at)
                    will_be_seen = shown(will_be_held, local.get(key, NO_WRITES))
                    if lost or (before and before.version) != (wanted and wanted.version):
                        latest[key] = will_be_held
                    for kind, item, previous in _steps(seen and seen.object, will_be_seen and will_be_seen.object):
                        revision += 1
                        applied.changes.append(Change(revision, kind, item, previous))
                        latest[key] = None if wanted is None else StoredObject(wanted, revision)
            if any(batch.synced for batch in batches):
                # The hub was asked for all that cannot be read, and has sent what still belongs here.
                latest |= dict.fromkeys(self._objects.lost - latest.keys())
            removed = self._objects.write(latest)
            self._local.drop(given_up)
            state = (revision, cursor.epoch, cursor.seq, synced_at_ms, json.dumps(dict(horizon)))
            self._database.run(statements.UPDATE_STATE, state)
        self.revision, self.cursor, self.synced_at_ms, self.horizon = revision, cursor, synced_at_ms, horizon
        if latest:
            self._digest = None
            self._objects.replaced(latest)
        if given_up:
            self._local.take({key: writes for key, writes in local.items() if writes})
        self._tidy(removed)
        return applied

    def put_ahead(self, item: Object, place: int) -> bool:
        """
        Write a piece of the body of an object that a batch will bring; whether there are more.

        place: the first is 0, and each is the one after the last. There is nothing to be put ahead of an object that is
        not large, nor where there is no room: its commit will see to it.
        """
        if not is_large(item):
            return False
        with self._giving_way(), self._database.transaction():
            if self._database.used_bytes + len(item.body) - place * PIECE_BYTES > MAX_STORE_BYTES:
                return False
            if not self._objects.put_ahead(item, place):
                return False
        return not self._objects.has_put(item, place)

    def note_in_sync(self, now_ms: int) -> None:
        """Remember that the node held all that the hub had at this time. Nothing before the first `synced`."""
        if self.synced_at_ms is None:
            return
        with self._resources.writing():
            self._database.run(statements.UPDATE_SYNCED, (now_ms,))
        self.synced_at_ms = now_ms

    def next_term(self, above: int, now_ms: int, *, is_reset: bool = False) -> int:
        """
        A term higher than any before and than `above`; of later connections also after a crash.

        Where the disk is full it is remembered by this process only: a report can go up all the same, and a hub that
        knows of a higher one says so. is_reset: the one after `above`, whatever was before and whatever the clock says.
        """
        self.term = min(above + 1 if is_reset else max(self.term + 1, above + 1, now_ms), MAX_TERM)
        with contextlib.suppress(StoreFull), self._resources.writing():
            self._database.run(statements.UPDATE_TERM, (self.term,))
        return self.term

    def held(self) -> list[Held]:
        """Keys and versions of everything that can be read, in no order. Bodies are not read."""
        with self._database.transaction():
            return self._objects.held()

    def digest(self) -> bytes:
        """apimachinery.inventory.digest of what is held; computed once per change of it."""
        if self._digest is None:
            self._digest = digest(self.held())
        return self._digest

    def count(self) -> int:
        with self._database.transaction():
            return self._objects.count()

    # What clients see

    def get(self, key: ObjectKey) -> StoredObject | None:
        """The object as clients see it. Raises KeyLost for a Secret that is held and cannot be read."""
        self._objects.check_readable(key)
        with self._database.transaction():
            return self._shown(key)

    def look(self, key: ObjectKey) -> Look:
        """
        The object as the cloud pushed it, as clients see it, and what makes the difference.

        A Secret that cannot be read counts as one that was not pushed, as it does for the cloud.
        """
        with self._database.transaction():
            return Look(self._objects.get(key), self._shown(key), self._local.of(key))

    def resources(self) -> list[Resource]:
        """Those that have objects."""
        with self._database.transaction():
            return self._objects.resources()

    def known_resources(self) -> list[Resource]:
        """Those that have or once had objects or reports."""
        return self._resources.known()

    # What is written on the node

    def write_locally(self, write: LocalWrite, expected: int | None) -> list[Change] | None:
        """
        Keep a write that the cloud does not have; its seq and revision are given here.

        expected: the revision of the object, as clients see it, that the write was made from, None for a new object;
        where it is another by now nothing is done, and None returned. Raises TooManyWrites.
        """
        key = write.key
        assert not is_confidential(key.resource), "what may be written offline has no Secrets, and is not encrypted"
        with self._resources.writing():
            before = self._shown(key)
            if (None if before is None else before.revision) != expected:
                return None
            self._local.check_room(write)
            revision = self.revision + 1
            kept = self._local.put(write._replace(revision=revision))
            self._database.run(statements.UPDATE_REVISION, (revision,))
            writes = {**self._local.of(key), write.subresource: kept}
            after = shown(self._objects.get(key), writes)
        self.revision = revision
        self._local.take({**self._local.by_key, key: writes})
        assert after is not None, "a write makes an object or changes one"
        kind = EventType.ADDED if before is None else EventType.MODIFIED
        return [Change(revision, kind, after.object, before and before.object)]

    def restore(self, writes: Sequence[LocalWrite]) -> None:
        """Take over the local writes of a database that is not used again, in which their objects are gone."""
        local: dict[ObjectKey, dict[str, LocalWrite]] = {}
        with self._resources.writing():
            for write in writes:
                local.setdefault(write.key, {})[write.subresource] = self._local.put(
                    write._replace(revision=self.revision)
                )
        self._local.take(local)

    def settle_locally(self, seq: int) -> list[Change]:
        """Forget a write, because the cloud has it or never will. One made since has another number and stays."""
        found = self._local.find(seq)
        if found is None:
            return []
        key = found.key
        rest = {name: each for name, each in self._local.of(key).items() if each.seq != seq}
        changes: list[Change] = []
        with self._resources.writing():
            held, before = self._objects.get(key), self._shown(key)
            after = shown(held, rest)
            revision, at = self.revision, before.revision if before else self.revision
            for kind, item, previous in _steps(before and before.object, after and after.object):
                revision = at = revision + 1
                changes.append(Change(revision, kind, item, previous))
            if held is not None:
                self._objects.write({key: StoredObject(held.object, at)})
            self._local.drop([found])
            self._database.run(statements.UPDATE_REVISION, (revision,))
        self.revision = revision
        if held is not None:
            self._objects.replaced((key,))
        others = {other: writes for other, writes in self._local.by_key.items() if other != key}
        self._local.take({**others, key: rest} if rest else others)
        return changes

    def local_writes(self) -> list[LocalWrite]:
        """Those that the cloud does not have, oldest first."""
        return self._local.all()

    # Parts of the above, inside its transaction

    @contextlib.contextmanager
    def _giving_way(self) -> Iterator[None]:
        """Around a transaction: where the disk is full, what was put ahead and has not come makes room for others."""
        try:
            yield
        except StoreFull:
            with contextlib.suppress(StoreFull), self._database.transaction():
                self._objects.give_up_put()
            raise

    def _shown(self, key: ObjectKey) -> StoredObject | None:
        held, writes = self._objects.get(key), self._local.of(key)
        return shown(held, writes) if writes else held

    def _give_up_cursor(self) -> None:
        """
        Have the hub ask for all that is held, and send what is not: what cannot be read.

        What somebody reads beyond the node's own is not held whole then.
        """
        self.cursor = None
        horizon = json.dumps(dict(self.horizon))
        self._database.run(statements.UPDATE_STATE, (self.revision, None, None, self.synced_at_ms, horizon))
        for number, resource in self._resources.by_number.items():
            if is_confidential(resource):
                self.interests.note_incomplete(number)

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
        number = self._resources.find(resource)
        if number is None:
            return found, self.revision
        written = {key: writes for key, writes in self._local.by_key.items() if key.resource == resource}
        name = next((value for path, value, wanted in fields.terms if wanted and path == "metadata.name"), None)
        start = ("", "") if after is None else (after.namespace, after.name)
        with self._database.transaction():
            held = self._objects.select(resource, number, namespace, name, start)
            for stored in _with_writes(held, written, namespace, start) if written else held:
                if selects(stored.object, labels, fields):
                    found.append(stored)
                    if len(found) == limit:
                        break
        return found, self.revision


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
