"""
The statements of the edge's store: made by scripts/edge_statements.py, not to be edited.

Built by SQLAlchemy Core where that is at hand, run as text where it is not (docs/why/sqlite.md).
"""

TABLE_NAMES = frozenset(
    {
        "documents",
        "events",
        "history",
        "interests",
        "local_writes",
        "objects",
        "pieces",
        "reports",
        "resources",
        "series",
        "state",
    }
)

INSERT_STATE = "INSERT INTO state (id, revision) VALUES (?, ?)"
SELECT_STATE = (
    "SELECT state.revision, state.epoch, state.seq, state.synced_at_ms, state.events_dropped, state.term, "
    "state.horizon FROM state"
)
UPDATE_STATE = "UPDATE state SET revision=?, epoch=?, seq=?, synced_at_ms=?, horizon=?"
UPDATE_REVISION = "UPDATE state SET revision=?"
UPDATE_EVENTS_DROPPED = "UPDATE state SET events_dropped=?"
UPDATE_TERM = "UPDATE state SET term=?"
SELECT_SEALED = "SELECT state.sealed FROM state"
UPDATE_SEALED = "UPDATE state SET sealed=?"
UPDATE_SYNCED = "UPDATE state SET synced_at_ms=?"
SELECT_RESOURCES = (
    'SELECT resources.id, resources."group", resources.version, resources.plural, resources.kind, resources.namespaced '
    "FROM resources"
)
INSERT_RESOURCE = 'INSERT INTO resources ("group", version, plural, kind, namespaced) VALUES (?, ?, ?, ?, ?)'
SELECT_RESOURCES_IN_USE = (
    "SELECT resources.id FROM resources WHERE EXISTS (SELECT objects.id FROM objects WHERE objects.resource = "
    "resources.id)"
)
SELECT_HELD = "SELECT objects.resource, objects.namespace, objects.name, objects.uid, objects.version FROM objects"
SELECT_SEALS = (
    "SELECT objects.namespace, objects.name, substr(objects.body, 1, 9) AS substr_1 FROM objects WHERE "
    "objects.resource = ?"
)
COUNT_OBJECTS = "SELECT count(*) AS count_1 FROM objects"
SELECT_OBJECT = (
    "SELECT objects.namespace, objects.name, objects.uid, objects.version, objects.revision, objects.labels, "
    "objects.checksum, objects.body FROM objects WHERE objects.resource = ? AND objects.namespace = ? AND objects.name "
    "= ?"
)
SELECT_LIST = (
    "SELECT objects.namespace, objects.name, objects.uid, objects.version, objects.revision, objects.labels, "
    "objects.checksum, objects.body FROM objects WHERE objects.resource = ? AND (objects.namespace, objects.name) > "
    "(?, ?) AND (? = 1 OR objects.namespace = ?) AND (? = 1 OR objects.name = ?) ORDER BY objects.namespace, "
    "objects.name"
)
UPSERT_OBJECT = (
    "INSERT INTO objects (resource, namespace, name, uid, version, revision, labels, checksum, body) VALUES (?, ?, ?, "
    "?, ?, ?, ?, ?, ?) ON CONFLICT (resource, namespace, name) DO UPDATE SET uid = excluded.uid, version = "
    "excluded.version, revision = excluded.revision, labels = excluded.labels, checksum = excluded.checksum, body = "
    "excluded.body"
)
DELETE_OBJECT = "DELETE FROM objects WHERE objects.resource = ? AND objects.namespace = ? AND objects.name = ?"
SELECT_POINTERS = (
    "SELECT objects.resource, objects.namespace, objects.name, objects.checksum, objects.body FROM objects WHERE "
    "length(objects.body) = 9"
)
SELECT_LARGE = "SELECT DISTINCT pieces.number FROM pieces"
PUT_PIECE = "INSERT OR REPLACE INTO pieces (number, place, body) VALUES (?, ?, ?)"
SELECT_PIECES = "SELECT pieces.body FROM pieces WHERE pieces.number = ? ORDER BY pieces.place"
DELETE_PIECES = "DELETE FROM pieces WHERE pieces.number = ?"
SELECT_DOCUMENTS = (
    "SELECT documents.name, documents.checksum, documents.value FROM documents WHERE substr(documents.name, 1, "
    "length(?)) = ? ORDER BY documents.name"
)
UPSERT_DOCUMENT = (
    "INSERT INTO documents (name, checksum, value) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET checksum = "
    "excluded.checksum, value = excluded.value"
)
DELETE_DOCUMENT = "DELETE FROM documents WHERE documents.name = ?"
PUT_REPORT = (
    "INSERT OR REPLACE INTO reports (resource, namespace, name, field, checksum, value, of_device) VALUES (?, ?, ?, ?, "
    "?, ?, ?)"
)
SELECT_REPORTS = (
    "SELECT reports.seq, reports.resource, reports.namespace, reports.name, reports.field, reports.checksum, "
    "reports.value FROM reports WHERE reports.seq > ? ORDER BY reports.seq"
)
SELECT_DEVICE_REPORTS = (
    "SELECT reports.seq, reports.resource, reports.namespace, reports.name, reports.field, reports.checksum, "
    "reports.value FROM reports WHERE reports.seq > ? AND +reports.resource IN (SELECT resources.id FROM resources "
    'WHERE resources."group" = ?) ORDER BY reports.seq'
)
SELECT_OTHER_REPORTS = (
    "SELECT reports.seq, reports.resource, reports.namespace, reports.name, reports.field, reports.checksum, "
    "reports.value FROM reports WHERE reports.seq > ? AND of_device = 0 ORDER BY reports.seq"
)
SELECT_REPORTS_BACKWARDS = (
    "SELECT reports.seq, reports.resource, reports.namespace, reports.name, reports.field, reports.checksum, "
    "reports.value FROM reports ORDER BY reports.seq DESC"
)
DELETE_REPORT = "DELETE FROM reports WHERE reports.seq = ?"
NEXT_ROW = (
    "UPDATE sqlite_sequence SET seq = 1 + max(seq, coalesce((SELECT max(seq) FROM reports), 0), coalesce((SELECT "
    "max(seq) FROM events), 0)) WHERE name = 'reports' RETURNING seq"
)
PUT_EVENT = "INSERT INTO events (seq, namespace, name, checksum, value) VALUES (?, ?, ?, ?, ?)"
SELECT_EVENTS = (
    "SELECT events.seq, events.namespace, events.name, events.checksum, events.value FROM events WHERE events.seq > ? "
    "ORDER BY events.seq"
)
SELECT_EVENT_SIZES = "SELECT events.seq, length(events.value) AS length_1 FROM events ORDER BY events.seq"
DELETE_EVENT = "DELETE FROM events WHERE events.seq = ?"
DELETE_EVENTS = "DELETE FROM events WHERE events.seq <= ?"
CHECK_EVENTS = "SELECT count(*) AS count_1, total(length(events.value)) AS total_1 FROM events"
CHECK_REPORTS = "SELECT count(*) AS count_1, total(length(reports.value)) AS total_1 FROM reports"
CHECK_DOCUMENTS = "SELECT count(*) AS count_1, total(length(documents.value)) AS total_1 FROM documents"
COUNT_REPORTS = "SELECT count(*) AS count_1 FROM reports"
ADD_SERIES = "INSERT INTO series (namespace, name, property) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
PUT_SAMPLE = (
    "INSERT OR REPLACE INTO history (slot, series, at_ms, value) SELECT ? AS anon_1, series.id, ? AS anon_2, ? AS "
    "anon_3 FROM series WHERE series.namespace = ? AND series.name = ? AND series.property = ?"
)
SELECT_SAMPLES = (
    "SELECT history.at_ms, history.value FROM history JOIN series ON series.id = history.series WHERE history.slot >= "
    "? AND series.namespace = ? AND series.name = ? AND series.property = ? ORDER BY history.slot"
)
SELECT_SAMPLE_BEFORE = (
    "SELECT history.at_ms, history.value FROM history JOIN series ON series.id = history.series WHERE history.slot < ? "
    "AND series.namespace = ? AND series.name = ? AND series.property = ? ORDER BY history.slot DESC"
)
SELECT_RECORDED = (
    "SELECT series.property FROM series WHERE series.namespace = ? AND series.name = ? ORDER BY series.property"
)
COUNT_SAMPLES = "SELECT count(*) AS count_1 FROM history"
SELECT_NTH_SLOT = "SELECT history.slot FROM history ORDER BY history.slot LIMIT 1 OFFSET ?"
DELETE_SAMPLES = "DELETE FROM history WHERE history.slot <= ?"
DELETE_EMPTY_SERIES = (
    "DELETE FROM series WHERE NOT (EXISTS (SELECT history.slot FROM history WHERE history.series = series.id))"
)
FORGET_SAMPLES = (
    "DELETE FROM history WHERE history.series IN (SELECT series.id FROM series WHERE series.namespace = ? AND "
    "series.name = ?)"
)
FORGET_SERIES = "DELETE FROM series WHERE series.namespace = ? AND series.name = ?"
PUT_LOCAL = (
    "INSERT OR REPLACE INTO local_writes (resource, namespace, name, subresource, uid, creates, user, revision, at_ms, "
    "checksum, value) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
SELECT_LOCAL = (
    "SELECT local_writes.seq, local_writes.resource, local_writes.namespace, local_writes.name, "
    "local_writes.subresource, local_writes.uid, local_writes.creates, local_writes.user, local_writes.revision, "
    "local_writes.at_ms, local_writes.checksum, local_writes.value FROM local_writes ORDER BY local_writes.seq"
)
DELETE_LOCAL = "DELETE FROM local_writes WHERE local_writes.seq = ?"
PUT_INTEREST = (
    "INSERT OR REPLACE INTO interests (resource, namespace, name, user, used_at_ms, complete) VALUES (?, ?, ?, ?, ?, ?)"
)
UPDATE_INTERESTS = "UPDATE interests SET complete=0 WHERE interests.resource = ?"
SELECT_INTERESTS = (
    "SELECT interests.resource, interests.namespace, interests.name, interests.user, interests.used_at_ms, "
    "interests.complete FROM interests"
)
DELETE_INTEREST = (
    "DELETE FROM interests WHERE interests.resource = ? AND interests.namespace = ? AND interests.name = ? AND "
    "interests.user = ?"
)
