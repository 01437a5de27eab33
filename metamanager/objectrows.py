"""
Objects as the cloud pushed them, as rows: what is read is what was written, and a Secret is never written plain.

What clients see, with what was written here laid over it, is made of them in metamanager.records.

Invariants
    a row whose bytes are not those that were written is never given out: StoreCorrupt
    a Secret is sealed (metamanager.confidential); one whose key is gone counts as not held, and is not said not to
    exist: KeyLost
"""

import contextlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import Object
from componentbase.sealing import Keyring, SealingError
from link.frames import Held
from metamanager import statements
from metamanager.confidential import Confidential, is_confidential, lost
from metamanager.connection import Database, Row
from metamanager.errors import KeyLost, StoreCorrupt
from metamanager.largebodies import LargeBodies, Pointer, is_large
from metamanager.overlay import StoredObject
from metamanager.resourcerows import ResourceRows


class ObjectRows:
    """The table of objects. Its methods are called inside a transaction."""

    def __init__(self, database: Database, resources: ResourceRows, keys: Keyring) -> None:
        """keys: what Secrets are sealed with. Raises a StoreError."""
        self._database = database
        self._resources = resources
        self._confidential = Confidential(keys)
        self._large = LargeBodies(database, resources, _checksum)
        self._moved: dict[ObjectKey, Pointer | None] = {}
        """Where rows of large objects point after the commit that is under way."""
        self._lost = lost(database, resources.by_number, self._confidential)

    @property
    def lost(self) -> AbstractSet[ObjectKey]:
        """Secrets that are held and cannot be read: their key is not at hand."""
        return self._lost

    def replaced(self, keys: Iterable[ObjectKey]) -> None:
        """After a commit that wrote these anew or took them away: none of them is lost any more."""
        self._lost.difference_update(keys)
        self._large.committed(self._moved)

    def check_readable(self, key: ObjectKey) -> None:
        """Raises KeyLost."""
        if key in self._lost:
            raise KeyLost(
                self._database.path,
                f"{key} cannot be read, because the key that it was sealed with is gone: put the key back and start "
                "again, or wait until the cloud has sent it anew",
            )

    def get(self, key: ObjectKey) -> StoredObject | None:
        """None also for what cannot be read, which the cloud does not take for held either."""
        number = self._resources.find(key.resource)
        if number is None or key in self._lost:
            return None
        row = self._database.row(statements.SELECT_OBJECT, (number, key.namespace, key.name))
        return None if row is None else self._object(key.resource, row)

    def select(
        self, resource: Resource, number: int, namespace: str, name: str | None, after: tuple[str, str]
    ) -> Iterator[StoredObject]:
        """
        Those of a resource, in the order of their keys, read as they are asked for.

        number: the resource's. namespace: "" for all. name: None for all. after: namespace and name that come before.
        """
        parameters = (number, *after, not namespace, namespace, name is None, name or "")
        for row in self._database.rows(statements.SELECT_LIST, parameters):
            yield self._object(resource, row)

    def held(self) -> list[Held]:
        """Keys and versions of everything that can be read, in no order. Bodies are not read."""
        return [
            Held(key, self._version(key, uid, version))
            for number, namespace, name, uid, version in self._database.rows(statements.SELECT_HELD)
            if (key := ObjectKey(self._resources.resource(number), namespace, name)) not in self._lost
        ]

    def count(self) -> int:
        """Of those that can be read."""
        return self._database.number(statements.COUNT_OBJECTS) - len(self._lost)

    def resources(self) -> list[Resource]:
        """Those that have objects."""
        rows = self._database.rows(statements.SELECT_RESOURCES_IN_USE)
        return sorted(self._resources.resource(row[0]) for row in rows)

    def write(self, latest: Mapping[ObjectKey, StoredObject | None]) -> int:
        """Each object's last state, None for one that is gone; how many are gone."""
        upserts: list[tuple[object, ...]] = []
        removals: list[tuple[object, ...]] = []
        self._moved = {}
        for key, stored in latest.items():
            place = (self._resources.number(key.resource), key.namespace, key.name)
            if stored is None:
                removals.append(place)
                self._move(key, None)
                continue
            item, revision = stored
            labels = _written(item.labels)
            version, body = item.version.revision, item.body
            if is_confidential(key.resource):
                version, body = self._confidential.closed(item)
            checksum = row_checksum(key, item.version.uid, version, labels, body)
            pointer = self._large.pointer(key, checksum) if is_large(item) else None
            self._move(key, pointer)
            if pointer is not None:
                body = pointer.to_bytes()
            upserts.append((*place, item.version.uid, version, revision, labels, checksum, body))
        self._database.run_many(statements.UPSERT_OBJECT, upserts)
        self._database.run_many(statements.DELETE_OBJECT, removals)
        return len(removals)

    def tidy(self) -> None:
        """See LargeBodies.tidy()."""
        self._large.tidy()

    def has_body(self, item: Object) -> bool:
        """Whether the body of this very object is written already."""
        return is_large(item) and self._large.pointer(item.key, _checksum(item)) is not None

    def put_ahead(self, item: Object, place: int) -> bool:
        """A piece of a large body that a commit will bring; see LargeBodies.put()."""
        return self._large.put(item, place)

    def has_put(self, item: Object, place: int) -> bool:
        """After the commit of that piece; whether it was the last."""
        return self._large.has_put(item, place)

    def give_up_put(self) -> None:
        """Take away what was put ahead of a commit that has not come."""
        self._large.give_up()

    def _move(self, key: ObjectKey, pointer: Pointer | None) -> None:
        if self._large.leave(key, pointer) or pointer is not None:
            self._moved[key] = pointer

    def _object(self, resource: Resource, row: Row) -> StoredObject:
        namespace, name, uid, version, revision, labels, checksum, body = row
        key = ObjectKey(resource, namespace, name)
        self.check_readable(key)
        if not is_confidential(resource):
            body = self._large.body(body)
        self._database.check(checksum == row_checksum(key, uid, version, labels, body), str(key))
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


def _written(labels: Mapping[str, str]) -> str:
    return json.dumps(labels) if labels else ""


def _checksum(item: Object) -> int:
    """That of the row of an object that is not confidential."""
    return row_checksum(item.key, item.version.uid, item.version.revision, _written(item.labels), item.body)


def row_checksum(key: ObjectKey, uid: str, version: str, labels: str, body: bytes) -> int:
    """
    CRC-32 of an object's row as it stands in its columns.

    SQLite notices damage to its pages' structure, not to their content.
    """
    words = "\0".join((key.namespace, key.name, uid, version, labels))
    return zlib.crc32(body, zlib.crc32(words.encode()))
