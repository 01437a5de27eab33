"""
How a database of any earlier release becomes one of this release.

Each migration is the text of what one release changed, and is never edited afterwards: what a database
went through is history, scripts/edge_statements.py has what came of it, and a test holds the two together.

Invariants
    a migration and the number that records it commit in one transaction, so that a crash leaves either both
    or neither
    a database newer than this release is never touched
"""

from collections.abc import Sequence
from typing import Protocol

APPLICATION_ID = 0x46614C65  # "FaLe", in the header of the file, so that nobody else's database is taken for ours

_FIRST = (
    # The one row of what is true of the whole: how far the hub's pushes are committed, the local revision, and
    # when the node last held all that the hub had for it (NULL: never).
    """
    CREATE TABLE state (
        id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
        revision INTEGER NOT NULL,
        epoch TEXT,
        seq INTEGER,
        synced_at_ms INTEGER
    )
    """,
    """
    CREATE TABLE resources (
        id INTEGER NOT NULL PRIMARY KEY,
        "group" TEXT NOT NULL,
        version TEXT NOT NULL,
        plural TEXT NOT NULL,
        kind TEXT NOT NULL,
        namespaced BOOLEAN NOT NULL,
        UNIQUE ("group", version, plural, kind, namespaced)
    )
    """,
    # Bodies stand last in a row: what does not fit the page goes to overflow pages that a scan of keys and versions
    # never reads.
    """
    CREATE TABLE objects (
        id INTEGER NOT NULL PRIMARY KEY,
        resource INTEGER NOT NULL REFERENCES resources (id),
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        uid TEXT NOT NULL,
        version TEXT NOT NULL,
        revision INTEGER NOT NULL,
        labels TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        body BLOB NOT NULL,
        UNIQUE (resource, namespace, name)
    )
    """,
    "CREATE TABLE documents (name TEXT NOT NULL PRIMARY KEY, checksum INTEGER NOT NULL, value BLOB NOT NULL)",
    # AUTOINCREMENT: a number is never given twice, also not after the row that had it is gone.
    """
    CREATE TABLE reports (
        seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        resource INTEGER NOT NULL REFERENCES resources (id),
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        field TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        value BLOB NOT NULL,
        UNIQUE (resource, namespace, name, field)
    )
    """,
)

_EVENTS = (
    # Kubernetes Events on their way up. Their numbers are those of the reports (metamanager.statements.NEXT_ROW), so
    # that one number says how far both are settled.
    """
    CREATE TABLE events (
        seq INTEGER NOT NULL PRIMARY KEY,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        value BLOB NOT NULL
    )
    """,
    "ALTER TABLE state ADD COLUMN events_dropped INTEGER NOT NULL DEFAULT 0",
    # Made by the first report otherwise; an ordinary table for whoever updates it (sqlite.org/autoinc.html).
    """
    INSERT INTO sqlite_sequence (name, seq)
    SELECT 'reports', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'reports')
    """,
)

_REPLICAS = (
    # The term of the last connection to a hub: terms grow, so that of two replicas the later one is known.
    "ALTER TABLE state ADD COLUMN term INTEGER NOT NULL DEFAULT 0",
    # How far the replica that told of what is held had seen the apiserver: {collection: version} as JSON.
    "ALTER TABLE state ADD COLUMN horizon TEXT NOT NULL DEFAULT '{}'",
)

_HISTORY = (
    # What devices said in the last hours, for people. Rows stand in the order of time, so that the oldest are a range
    # at the front and new ones go to the end; one row per property and slot of time (metamanager.history).
    """
    CREATE TABLE series (
        id INTEGER NOT NULL PRIMARY KEY,
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        property TEXT NOT NULL,
        UNIQUE (namespace, name, property)
    )
    """,
    """
    CREATE TABLE history (
        slot INTEGER NOT NULL,
        series INTEGER NOT NULL REFERENCES series (id),
        at_ms INTEGER NOT NULL,
        value TEXT,
        PRIMARY KEY (slot, series)
    ) WITHOUT ROWID
    """,
)

_LOCAL_API = (
    # What was written at the local API and the cloud does not have yet: a patch of an object, or a whole one.
    """
    CREATE TABLE local_writes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        resource INTEGER NOT NULL REFERENCES resources (id),
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        subresource TEXT NOT NULL,
        uid TEXT NOT NULL,
        creates BOOLEAN NOT NULL,
        "user" TEXT NOT NULL,
        revision INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        checksum INTEGER NOT NULL,
        value BLOB NOT NULL,
        UNIQUE (resource, namespace, name, subresource)
    )
    """,
    # What clients of the local API asked to see beyond what the node is sent by itself; complete: it came.
    """
    CREATE TABLE interests (
        resource INTEGER NOT NULL REFERENCES resources (id),
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        "user" TEXT NOT NULL,
        used_at_ms INTEGER NOT NULL,
        complete BOOLEAN NOT NULL,
        PRIMARY KEY (resource, namespace, name, "user")
    ) WITHOUT ROWID
    """,
)

_SEALED = (
    # Whether every Secret is encrypted and nothing else of it is left in the file; metamanager.confidential sees to it.
    "ALTER TABLE state ADD COLUMN sealed BOOLEAN NOT NULL DEFAULT 0",
)

_CLASSES = (
    # Ten thousand reports of devices may wait before one of a pod: those that are of none have an index of their own,
    # in the order in which they go up. What devices report is not in it and costs nothing more to write.
    # Nearly all that wait are: with this default an upgrade writes none of these anew, and needs no room on the disk.
    "ALTER TABLE reports ADD COLUMN of_device BOOLEAN NOT NULL DEFAULT 1",
    """
    UPDATE reports SET of_device = 0
    WHERE resource NOT IN (SELECT id FROM resources WHERE "group" = 'devices.kubeedge.io')
    """,
    "CREATE INDEX reports_of_no_device ON reports (seq) WHERE of_device = 0",
)

_PIECES = (
    # Bodies that are too large for one transaction, in pieces; the row of the object says which (metamanager.
    # largebodies).
    """
    CREATE TABLE pieces (
        number INTEGER NOT NULL,
        place INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (number, place)
    )
    """,
)

MIGRATIONS: Sequence[Sequence[str]] = (_FIRST, _EVENTS, _REPLICAS, _HISTORY, _LOCAL_API, _SEALED, _CLASSES, _PIECES)
"""Statements by number: MIGRATIONS[n] turns a database of schema n into one of schema n + 1."""

SCHEMA = len(MIGRATIONS)
"""The schema this release reads and writes."""
SEALED_SCHEMA = 6
"""From this one on Secrets are encrypted."""


class Execute(Protocol):
    """Runs one statement in the transaction that the caller began."""

    def __call__(self, statement: str, /) -> object: ...


def migrate(execute: Execute, found: int, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """
    Bring a database from schema `found` to the newest one; 0 is an empty file.

    To be called inside one transaction. PRAGMA user_version is part of the file's header and commits with the rest
    (sqlite.org/pragma.html#pragma_user_version).
    """
    for statements in migrations[found:]:
        for statement in statements:
            execute(statement)
    execute(f"PRAGMA user_version = {len(migrations)}")
    execute(f"PRAGMA application_id = {APPLICATION_ID}")
