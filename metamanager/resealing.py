"""
Every Secret of a database under the newest key, and nothing of it left under another, or plain.

Two things lead here: a release that did not encrypt Secrets, and a key that was rotated. The rows are written anew in
one transaction, and then the whole file is, for an update leaves traces.

Invariants
    a database that is marked as sealed has no plain byte of a Secret's values in it, nor in its log
    the mark is set last: what a crash or a full disk interrupts is done again at the next start
"""

import contextlib
import logging
import mmap
from pathlib import Path

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import Object
from componentbase.sealing import HEAD_BYTES, Keyring, SealingError, is_sealed
from metamanager import statements
from metamanager.confidential import Confidential, is_confidential
from metamanager.connection import Database, Row
from metamanager.errors import StoreCorrupt, StoreFull
from metamanager.migrations import SEALED_SCHEMA
from metamanager.objectrows import row_checksum

logger = logging.getLogger(__name__)

_ALL = ("", "", True, "", True, "")
"""SELECT_LIST's parameters after the resource: everything."""
_HEADER_BYTES = 64
_MAGIC = b"SQLite format 3\0"
_SCHEMA_AT = slice(60, 64)  # the user version, big-endian (sqlite.org/fileformat2.html, 1.3)
_PLAIN = b'"kind":"Secret"'  # as canonical JSON has it


def reseal(database: Database, keys: Keyring) -> bool:
    """
    Bring the Secrets of an open, migrated database under the newest key. Raises a StoreError.

    Whether there was something to do, and it is done.
    """
    with database.transaction():
        count = sum(
            _reseal(database, number, Resource(group, version, plural, kind, bool(namespaced)), keys)
            for number, group, version, plural, kind, namespaced in list(database.rows(statements.SELECT_RESOURCES))
        )
        if count:
            database.run(statements.UPDATE_SEALED, (False,))
        elif database.number(statements.SELECT_SEALED):
            return False
    try:
        database.scrub()
        with database.transaction():
            database.run(statements.UPDATE_SEALED, (True,))
    except StoreFull:
        logger.warning(
            "Secrets were encrypted, but there was no room to write the file anew: what it was left with may have "
            "traces of them; free as much as the file has, and start again",
            extra={"path": str(database.path), "secrets": count},
        )
        return False
    logger.info(
        "Secrets are encrypted with the newest key, and nothing else of them is left",
        extra={"path": str(database.path), "secrets": count},
    )
    return True


def may_hold_plain(path: Path) -> bool:
    """
    Whether a database that cannot be opened, or is not to be, may have Secrets that are not encrypted.

    By the schema that its first page names, where that can be read, and by what is in it.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
            if header.startswith(_MAGIC) and int.from_bytes(header[_SCHEMA_AT], "big") < SEALED_SCHEMA:
                return True
            if not header:
                return False
            with contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content:
                return content.find(_PLAIN) >= 0
    except OSError:
        return True


def _reseal(database: Database, number: int, resource: Resource, keys: Keyring) -> int:
    """How many objects of this kind were written anew. One whose key is gone stays as it is: the key may come back."""
    if not is_confidential(resource):
        return 0
    heads = database.rows(statements.SELECT_SEALS, (number,))
    if all(keys.is_current(head) or _is_lost(head, keys) for *_, head in heads):
        return 0
    confidential = Confidential(keys)
    rows = [
        _resealed(database.path, resource, number, row, confidential)
        for row in database.rows(statements.SELECT_LIST, (number, *_ALL))
        if not keys.is_current(row[-1][:HEAD_BYTES]) and not _is_lost(row[-1], keys)
    ]
    database.run_many(statements.UPSERT_OBJECT, rows)
    return len(rows)


def _is_lost(value: bytes, keys: Keyring) -> bool:
    return is_sealed(value) and not keys.knows(value[:HEAD_BYTES])


def _resealed(path: Path, resource: Resource, number: int, row: Row, keys: Confidential) -> tuple[object, ...]:
    namespace, name, uid, version, revision, labels, checksum, body = row
    key = ObjectKey(resource, namespace, name)
    if checksum != row_checksum(key, uid, version, labels, body):
        raise StoreCorrupt(path, f"the database is damaged ({key} is not what was written)")
    known = ObjectVersion(uid, version)
    if is_sealed(body):
        try:
            known = keys.version(key, uid, version)
            body = keys.body(key, known, body)
        except SealingError as exc:
            raise StoreCorrupt(path, f"the database is damaged ({key}: {exc})") from None
    version, body = keys.closed(Object(key, known, {}, body))
    return number, namespace, name, uid, version, revision, labels, row_checksum(key, uid, version, labels, body), body
