"""
What of the cluster's objects is encrypted on the node's disk, and that nothing else of it is there.

Secrets are: the body, which has their values, and the version, which is a digest of the body, so that who has the
disk cannot try values out on it. Keys, uids and labels stand as they are: rows are looked up by them, and an
apiserver keeps them readable, too. Both are bound to the row they are in: the resource, namespace, name, uid and, for
the body, the version. Bytes of one row that are put into another do not open. (A whole row, put back as it once was,
does: the digest at rest notices that it is not what the cloud has.)

No other table has a Secret: what the local API takes offline is status, Leases and Events (metamanager.offline), and
answers to calls are not kept.

Invariants
    a row is opened with the key that sealed it, whichever that is, and sealed with the newest
    a row whose key is not at hand is neither given out nor taken for damaged: the key may come back
"""

import base64
import binascii
from collections.abc import Mapping

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import Object
from apimachinery.resources import SECRETS
from componentbase.sealing import Keyring, Tampered, is_sealed
from metamanager import statements
from metamanager.connection import Database


def is_confidential(resource: Resource) -> bool:
    """Whether objects of this kind are encrypted at rest."""
    return resource == SECRETS


class Confidential:
    """Rows of confidential objects, as they are stored."""

    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    def closed(self, item: Object) -> tuple[str, bytes]:
        """What stands in the row for version and body."""
        key, version = item.key, item.version
        sealed = self._keys.seal(version.revision.encode(), *_place("version", key, version.uid))
        body = self._keys.seal(item.body, *_place("body", key, version.uid), version.revision)
        return base64.b64encode(sealed).decode(), body

    def version(self, key: ObjectKey, uid: str, stored: str) -> ObjectVersion:
        """The version of an object in its row. Raises UnknownKey and Tampered."""
        try:
            sealed = base64.b64decode(stored, validate=True)
        except (binascii.Error, ValueError):
            raise Tampered("this is no sealed version") from None
        return ObjectVersion(uid, self._keys.open(sealed, *_place("version", key, uid)).decode())

    def body(self, key: ObjectKey, version: ObjectVersion, stored: bytes) -> bytes:
        """The body of an object in its row. Raises UnknownKey and Tampered."""
        return self._keys.open(stored, *_place("body", key, version.uid), version.revision)

    def can_open(self, head: bytes) -> bool:
        """Whether the key is here of the body with these first bytes; also for what is none, which shows as damage."""
        return self._keys.knows(head) or not is_sealed(head)


def _place(what: str, key: ObjectKey, uid: str) -> tuple[str, ...]:
    resource = key.resource
    return ("objects", what, resource.group, resource.version, resource.plural, key.namespace, key.name, uid)


def lost(database: Database, resources: Mapping[int, Resource], keys: Confidential) -> set[ObjectKey]:
    """Confidential objects whose key is not at hand; bodies are not read. To be called in a transaction."""
    return {
        ObjectKey(resource, namespace, name)
        for number, resource in resources.items()
        if is_confidential(resource)
        for namespace, name, head in database.rows(statements.SELECT_SEALS, (number,))
        if not keys.can_open(head)
    }
