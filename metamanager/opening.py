"""
From a path to a database that can be relied on: made, migrated, or set aside and begun anew.

What the node holds of the cluster can be fetched again, so a damaged file is no reason not to start: it
is kept beside the new one for whoever wants to look, and the reports that had not gone up, which nobody
else has, are carried over as far as they can be read.

The check is cheap on purpose: the header, the tables, and every key (which the first Hello needs anyway).
SQLite's own integrity check would read a 50 MB file to its end at every start. Damage that this does not
see shows when a row is read; the store then leaves a mark, and the next start sets the file aside.

Secrets are encrypted in it (metamanager.confidential); what a release that did not do so left plain is encrypted before
anything is read.

Invariants
    the file and its log are readable by this user only
    at every moment of a rebuild, a crash leaves either the damaged file in place or the new one
"""

import contextlib
import logging
import os
import secrets
import time
from pathlib import Path

from componentbase.errors import CommandError
from componentbase.files import PRIVATE_FILE, FilesError, open_private_dir
from componentbase.sealing import Keyring
from metamanager import statements
from metamanager.connection import Database
from metamanager.errors import StoreCorrupt, StoreError, StoreNewer
from metamanager.history import MAX_ROWS
from metamanager.migrations import APPLICATION_ID, SCHEMA, migrate
from metamanager.rebuilt import REBUILT_DOCUMENT, Rebuilt
from metamanager.records import Records
from metamanager.resealing import may_hold_plain, reseal
from metamanager.salvage import salvage
from metamanager.secretkeys import KeyFileError, Place, add_key, drop_former, file_of, make_keys

logger = logging.getLogger(__name__)

FILES = ("", "-wal", "-shm", ".damaged", ".rebuilt", ".rebuilt-*", ".corrupt-*")
"""What a store may have made, after its path: the database, its log, and what damage left."""

KEPT_ASIDE = 2  # damaged files that are kept; more would fill a small disk, and the newest tell most
_LOG_SUFFIXES = ("-wal", "-shm")

_OURS = {"state", "resources", "objects", "reports"}
"""Tables of every release; together they are nobody else's."""

# A new database begins its revisions at a random multiple of 2^20 below 2^50: a client that resumes a watch from a
# version of an earlier file would otherwise be told of some changes and miss others. Now it gets 410 and lists again.
_BASES = 1 << 30
_BASE_STEP = 1 << 20


def open_records(
    path: Path, max_bytes: int | None = None, history_rows: int = MAX_ROWS, keys: Keyring | None = None
) -> tuple[Database, Records]:
    """
    The database at `path`, new, as it was, or begun anew; its Secrets under the newest key.

    max_bytes: how large it may grow; None for as large as the disk allows. history_rows: how many samples of devices
    are kept. keys: what Secrets are sealed with; by default those of metamanager.secretkeys.file_of, which are
    made where there are none. Raises a StoreError.
    """
    _prepare(path)
    if keys is None:
        try:
            keys = make_keys(file_of(path.parent))
        except CommandError as exc:
            raise StoreError(path, str(exc)) from exc
    reason = "the database is damaged (a row that was read is not what was written)"
    if not _mark(path).exists():
        try:
            return _opened(path, keys, max_bytes, history_rows)
        except StoreCorrupt as exc:
            reason = exc.reason
    aside = _begin_anew(path, reason, keys)
    logger.warning(
        "the database was damaged; it was set aside and begun anew, the cloud sends again what belongs on this node",
        extra={"path": str(path), "aside": aside or "not kept: Secrets in it may not be encrypted", "reason": reason},
    )
    return _opened(path, keys, max_bytes, history_rows)


def rotate(path: Path, place: Place) -> None:
    """
    Seal the Secrets of a database that nobody uses with a new key, and forget the old ones. Raises CommandError.

    Whatever interrupts it, the file of keys has every key that is needed, and doing it again brings it to its end.
    """
    if not place.is_ours:
        raise KeyFileError(
            f"{place.path} is systemd's: put a new key in front of the credential's lines, restart edgecore, and take "
            "the old one out"
        )
    database, _ = open_records(path, keys=add_key(place.path))
    try:
        with database.transaction():
            is_done = bool(database.number(statements.SELECT_SEALED))
    finally:
        database.close()
    if not is_done:
        raise StoreError(path, "there is no room to write the file anew; make some, and rotate again")
    drop_former(place.path)


def mark_corrupt(path: Path) -> None:
    """Say to the next start that this database must not be used again."""
    with contextlib.suppress(OSError):
        _mark(path).touch(PRIVATE_FILE)


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _rebuilt(path: Path) -> Path:
    return path.with_name(f"{path.name}.rebuilt")


def _prepare(path: Path) -> None:
    """A private directory, a private file, and a rebuild that a crash interrupted brought to its end."""
    try:
        open_private_dir(path.parent)
    except FilesError as exc:
        raise StoreError(path, str(exc)) from exc
    try:
        rebuilt = _rebuilt(path)
        if not path.exists() and rebuilt.exists():
            _remove(path)  # its logs: they are the damaged one's
            rebuilt.rename(path)
        _remove(rebuilt)
        if path.exists() and not path.is_file():
            raise StoreError(path, "is not a file; move it away or choose another data directory")
        # SQLite gives its log the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
        for found in (path, *_logs(path)):
            if found.exists():
                found.chmod(PRIVATE_FILE)
    except OSError as exc:
        raise StoreError(path, f"cannot be opened for writing: {(exc.strerror or str(exc)).lower()}") from exc


def _opened(path: Path, keys: Keyring, max_bytes: int | None, history_rows: int = MAX_ROWS) -> tuple[Database, Records]:
    database = Database(path, max_bytes)
    try:
        _bring_up_to_date(database)
        if reseal(database, keys):
            _forget_plain(path)
        records = Records(database, keys, history_rows)
        if records.lost_count:
            logger.warning(
                "Secrets cannot be read: the key that they were sealed with is gone; they are asked of the cloud again",
                extra={"path": str(path), "secrets": records.lost_count},
            )
        return database, records
    except BaseException:
        database.close()
        raise


def _bring_up_to_date(database: Database) -> None:
    path = database.path
    with database.transaction():
        found = database.number("PRAGMA user_version")
        tables = _tables(database)
        if tables:
            if database.number("PRAGMA application_id") != APPLICATION_ID:
                if tables >= _OURS:
                    raise StoreCorrupt(path, "the database is damaged (its header is not what was written)")
                raise StoreError(path, "is another program's database; move it away or choose another data directory")
            if found > SCHEMA:
                raise StoreNewer(
                    path,
                    f"a newer release wrote this database (schema {found}, this release knows {SCHEMA}); "
                    "run that release, or move the file away and let the cloud send everything again",
                )
        if found < SCHEMA:
            migrate(database.run, found)
        if not found:
            database.run(statements.INSERT_STATE, (1, secrets.randbelow(_BASES) * _BASE_STEP))
            database.run(statements.UPDATE_SEALED, (True,))
        if missing := statements.TABLE_NAMES - _tables(database):
            raise StoreCorrupt(path, f"the database is damaged (no table {min(missing)})")


def _tables(database: Database) -> set[str]:
    return {str(row[0]) for row in database.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def _begin_anew(path: Path, reason: str, keys: Keyring) -> str:
    """Put a new database with what can be carried over in the place of a damaged one; where that is, "" if nowhere."""
    kept = salvage(path)
    rebuilt = _rebuilt(path)
    os.close(os.open(rebuilt, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
    database, records = _opened(rebuilt, keys, None)
    aside = _next_aside(path)
    is_kept = not any(may_hold_plain(found) for found in (path, *_logs(path)) if found.exists())
    carried = len(kept.reports) + len(kept.events) + len(kept.writes)
    note = Rebuilt(reason, aside.name if is_kept else "", time.time_ns() // 1_000_000, carried, kept.whole)
    try:
        records.outbox.save({**kept.documents, REBUILT_DOCUMENT: note.to_bytes()}, kept.reports, kept.events)
        records.restore(kept.writes)
        records.interests.remember(kept.interests)
    finally:
        database.close()
    if any(log.exists() for log in _logs(rebuilt)):
        raise StoreError(path, "is damaged, and the disk did not let a new one be completed beside it; see its log")
    _set_aside(path, aside)
    rebuilt.rename(path)
    if not is_kept:
        _remove(aside)
    _mark(path).unlink(missing_ok=True)
    logger.info(
        "carried over",
        extra={
            "reports": len(kept.reports),
            "events": len(kept.events),
            "documents": len(kept.documents),
            "writes": len(kept.writes),
        },
    )
    return str(aside) if is_kept else ""


def _asides(path: Path) -> list[tuple[int, Path]]:
    """Damaged files that were set aside, by their numbers."""
    return sorted(
        (int(number), found)
        for found in path.parent.glob(f"{path.name}.corrupt-*")
        if (number := found.name.rpartition("-")[2]).isdecimal()
    )


def _next_aside(path: Path) -> Path:
    kept = _asides(path)
    return path.with_name(f"{path.name}.corrupt-{kept[-1][0] + 1 if kept else 1}")


def _set_aside(path: Path, aside: Path) -> None:
    kept = _asides(path)
    for _, found in kept[: len(kept) + 1 - KEPT_ASIDE]:
        for old in (found, *_logs(found)):
            _remove(old)
    # From here on a start finds only the new database, and no log beside it that SQLite would take for that one's.
    path.rename(aside)
    for log, beside in zip(_logs(path), _logs(aside), strict=True):
        if log.exists():
            log.rename(beside)


def _forget_plain(path: Path) -> None:
    """Damaged files of a release that did not encrypt Secrets are not kept."""
    for _, aside in _asides(path):
        if any(may_hold_plain(found) for found in (aside, *_logs(aside)) if found.exists()):
            _remove(aside)
            logger.warning(
                "a damaged database that was set aside was removed: Secrets in it may not be encrypted",
                extra={"path": str(aside)},
            )


def _logs(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(path.name + suffix) for suffix in _LOG_SUFFIXES)


def _remove(path: Path) -> None:
    for found in (path, *_logs(path)):
        found.unlink(missing_ok=True)
