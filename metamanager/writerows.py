"""
What was written on the node and the cloud does not have, as rows and in memory.

There are few, and every read of an object looks for them (metamanager.overlay), so all are in memory. Callers put and
drop rows inside a transaction, and take() what is left once it is committed.

Invariants
    what is in memory is what the last commit left
    at most MAX_LOCAL_WRITES rows, of MAX_LOCAL_BYTES together
"""

import zlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from apimachinery.keys import ObjectKey
from metamanager import statements
from metamanager.connection import Database
from metamanager.overlay import LocalWrite
from metamanager.resourcerows import ResourceRows

MAX_LOCAL_WRITES = 1024  # a node, its 110 pods (Kubernetes' own bound) and the Leases of what runs there, with room
MAX_LOCAL_BYTES = 2 << 20  # kept in memory, too: a status of 4 KB for each pod, four times

NO_WRITES: Mapping[str, LocalWrite] = MappingProxyType({})


class TooManyWrites(Exception):
    """As many local writes wait for the cloud as are kept."""


class WriteRows:
    """The table of local writes."""

    def __init__(self, database: Database, resources: ResourceRows) -> None:
        """Reads all of it; to be called in a transaction. Raises StoreCorrupt."""
        self._database = database
        self._resources = resources
        local: dict[ObjectKey, dict[str, LocalWrite]] = {}
        for row in database.rows(statements.SELECT_LOCAL):
            seq, resource, namespace, name, subresource, uid, creates, user, revision, at_ms, checksum, value = row
            database.check(checksum == zlib.crc32(value), "a local write")
            key = ObjectKey(resources.resource(resource), namespace, name)
            write = LocalWrite(seq, key, subresource, uid, bool(creates), user, revision, at_ms, value)
            local.setdefault(key, {})[subresource] = write
        self.take(local)

    def take(self, local: Mapping[ObjectKey, Mapping[str, LocalWrite]]) -> None:
        """What the last commit left: by object, then by subresource."""
        self.by_key = local
        sizes = [len(write.value) for writes in local.values() for write in writes.values()]
        self._count, self._bytes = len(sizes), sum(sizes)

    def of(self, key: ObjectKey) -> Mapping[str, LocalWrite]:
        """Those to one object, by subresource."""
        return self.by_key.get(key, NO_WRITES)

    def all(self) -> list[LocalWrite]:
        """Oldest first."""
        return sorted(write for writes in self.by_key.values() for write in writes.values())

    def find(self, seq: int) -> LocalWrite | None:
        return next((each for writes in self.by_key.values() for each in writes.values() if each.seq == seq), None)

    def check_room(self, write: LocalWrite) -> None:
        """Raises TooManyWrites where there is none for it."""
        is_another = write.subresource not in self.of(write.key)
        if (is_another and self._count >= MAX_LOCAL_WRITES) or self._bytes + len(write.value) > MAX_LOCAL_BYTES:
            raise TooManyWrites

    def put(self, write: LocalWrite) -> LocalWrite:
        """The write with the number that its row got."""
        key = write.key
        row = (
            *(self._resources.number(key.resource), key.namespace, key.name),
            *(write.subresource, write.uid, write.creates, write.user),
            *(write.revision, write.at_ms, zlib.crc32(write.value), write.value),
        )
        return write._replace(seq=self._database.inserted(statements.PUT_LOCAL, row))

    def drop(self, writes: Iterable[LocalWrite]) -> None:
        self._database.run_many(statements.DELETE_LOCAL, [(write.seq,) for write in writes])
