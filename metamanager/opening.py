"""
From a path to a database that can be relied on: made, migrated, or set aside and begun anew.

What the node holds of the cluster can be fetched again, so a damaged file is no reason not to start: it
is kept beside the new one for whoever wants to look, and the reports that had not gone up, which nobody
else has, are carried over as far as they can be read.

The check is cheap on purpose: the header, the tables, and every key (which the first Hello needs anyway).
SQLite's own integrity check would read a 50 MB file to its end at every start. Damage that this does not
see shows when a row is read; the store then leaves a mark, and the next start sets the file aside.

Invariants
    the file and its log are readable by this user only
    at every moment of a rebuild, a crash leaves either the damaged file in place or the new one
"""

import contextlib
import logging
import os
import secrets
import zlib
from pathlib import Path

from apimachinery.keys import ObjectKey, Resource
from componentbase.files import PRIVATE_FILE, FilesError, open_private_dir
from link.frames import ReportEntry
from metamanager import schema
from metamanager.connection import Database
from metamanager.errors import StoreCorrupt, StoreError, StoreNewer
from metamanager.migrations import APPLICATION_ID, SCHEMA, migrate
from metamanager.records import Records

logger = logging.getLogger(__name__)

KEPT_ASIDE = 2  # damaged files that are kept; more would fill a small disk, and the newest tell most
_LOG_SUFFIXES = ("-wal", "-shm")

# A new database begins its revisions at a random multiple of 2^20 below 2^50: a client that resumes a watch from a
# version of an earlier file would otherwise be told of some changes and miss others. Now it gets 410 and lists again.
_BASES = 1 << 30
_BASE_STEP = 1 << 20


def open_records(path: Path, max_bytes: int | None = None) -> tuple[Database, Records]:
    """
    The database at `path`, new, as it was, or begun anew.

    max_bytes: how large it may grow; None for as large as the disk allows. Raises a StoreError.
    """
    _prepare(path)
    reason = "a damaged row was read the last time it was in use"
    if not _mark(path).exists():
        try:
            return _opened(path, max_bytes)
        except StoreCorrupt as exc:
            reason = exc.reason
    aside = _begin_anew(path)
    logger.warning(
        "the database was damaged; it was set aside and begun anew, the cloud sends again what belongs on this node",
        extra={"path": str(path), "aside": str(aside), "reason": reason},
    )
    return _opened(path, max_bytes)


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


def _opened(path: Path, max_bytes: int | None) -> tuple[Database, Records]:
    database = Database(path, max_bytes)
    try:
        _bring_up_to_date(database)
        return database, Records(database)
    except BaseException:
        database.close()
        raise


def _bring_up_to_date(database: Database) -> None:
    path = database.path
    with database.transaction():
        found = database.number("PRAGMA user_version")
        if database.number("SELECT count(*) FROM sqlite_schema"):
            if database.number("PRAGMA application_id") != APPLICATION_ID:
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
            database.run(schema.INSERT_STATE, (1, secrets.randbelow(_BASES) * _BASE_STEP))
        tables = {str(row[0]) for row in database.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if missing := set(schema.TABLES.tables) - tables:
            raise StoreCorrupt(path, f"the database is damaged (no table {min(missing)})")


def _begin_anew(path: Path) -> Path:
    """Put a new database with what can be carried over in the place of a damaged one; where that is now."""
    documents, reports = _salvage(path)
    rebuilt = _rebuilt(path)
    os.close(os.open(rebuilt, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE))
    database, records = _opened(rebuilt, None)
    try:
        records.save(documents, reports)
    finally:
        database.close()
    aside = _set_aside(path)
    rebuilt.rename(path)
    _mark(path).unlink(missing_ok=True)
    if reports or documents:
        logger.info("carried over", extra={"reports": len(reports), "documents": len(documents)})
    return aside


def _salvage(path: Path) -> tuple[dict[str, bytes], list[ReportEntry]]:
    """Documents and reports of a damaged database, up to the first that cannot be read."""
    documents: dict[str, bytes] = {}
    reports: list[ReportEntry] = []
    with contextlib.suppress(StoreError):
        database = Database(path)
        try:
            with contextlib.suppress(StoreError, ValueError, TypeError):
                _salvage_reports(database, reports)
            with contextlib.suppress(StoreError, ValueError, TypeError), database.transaction():
                for name, checksum, value in database.rows(schema.SELECT_DOCUMENTS, ("", "")):
                    if zlib.crc32(value) == checksum:
                        documents[str(name)] = value
        finally:
            database.close()
    return documents, reports


def _salvage_reports(database: Database, reports: list[ReportEntry]) -> None:
    with database.transaction():
        resources = {
            number: Resource(group, version, plural, kind, bool(namespaced))
            for number, group, version, plural, kind, namespaced in database.rows(schema.SELECT_RESOURCES)
        }
        for _, resource, namespace, name, field, checksum, value in database.rows(schema.SELECT_REPORTS, (0,)):
            if resource in resources and zlib.crc32(value) == checksum:
                reports.append(ReportEntry(ObjectKey(resources[resource], namespace, name), field, value))


def _set_aside(path: Path) -> Path:
    kept = sorted(
        (int(number), found)
        for found in path.parent.glob(f"{path.name}.corrupt-*")
        if (number := found.name.rpartition("-")[2]).isdecimal()
    )
    for _, found in kept[: len(kept) + 1 - KEPT_ASIDE]:
        for old in (found, *_logs(found)):
            _remove(old)
    aside = path.with_name(f"{path.name}.corrupt-{kept[-1][0] + 1 if kept else 1}")
    # The log goes first: beside a new database, SQLite would take it for that one's.
    for log, beside in zip(_logs(path), _logs(aside), strict=True):
        if log.exists():
            log.rename(beside)
    path.rename(aside)
    return aside


def _logs(path: Path) -> tuple[Path, ...]:
    return tuple(path.with_name(path.name + suffix) for suffix in _LOG_SUFFIXES)


def _remove(path: Path) -> None:
    for found in (path, *_logs(path)):
        found.unlink(missing_ok=True)
