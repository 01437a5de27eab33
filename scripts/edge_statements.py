"""
Makes metamanager/statements.py: the edge's tables as SQLAlchemy Core knows them, and the statements on them as text.

    python -m scripts.edge_statements > metamanager/statements.py && ruff format metamanager/statements.py

Every statement is built by SQLAlchemy, so that names and parameters are checked where it is made; what a node runs is
the text, and so no node imports SQLAlchemy, which would be a third of edgecore's memory (docs/why/sqlite.md). A test
holds the file to what this makes. Each text takes its parameters in the order given beside it.
"""

import json
import sys

from sqlalchemy import (
    BLOB,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.expression import ClauseElement

from componentbase.sealing import HEAD_BYTES
from metamanager.largebodies import POINTER_BYTES

TABLES = MetaData()

_state = Table(
    "state",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("epoch", Text),
    Column("seq", Integer),
    Column("synced_at_ms", Integer),
    Column("events_dropped", Integer, nullable=False, server_default=text("0")),
    Column("term", Integer, nullable=False, server_default=text("0")),
    Column("horizon", Text, nullable=False, server_default=text("'{}'")),
    Column("sealed", Boolean, nullable=False, server_default=text("0")),
    CheckConstraint("id = 1"),
)
_resources = Table(
    "resources",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("group", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("plural", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("namespaced", Boolean, nullable=False),
    UniqueConstraint("group", "version", "plural", "kind", "namespaced"),
)
_objects = Table(
    "objects",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("resource", ForeignKey("resources.id"), nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("uid", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("labels", Text, nullable=False),
    Column("checksum", Integer, nullable=False),
    Column("body", BLOB, nullable=False),
    UniqueConstraint("resource", "namespace", "name"),
)
_pieces = Table(
    "pieces",
    TABLES,
    Column("number", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("body", BLOB, nullable=False),
)
_documents = Table(
    "documents",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("checksum", Integer, nullable=False),
    Column("value", BLOB, nullable=False),
)
_reports = Table(
    "reports",
    TABLES,
    Column("seq", Integer, primary_key=True),
    Column("resource", ForeignKey("resources.id"), nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("field", Text, nullable=False),
    Column("checksum", Integer, nullable=False),
    Column("value", BLOB, nullable=False),
    Column("of_device", Boolean, nullable=False, server_default=text("1")),
    UniqueConstraint("resource", "namespace", "name", "field"),
    Index("reports_of_no_device", "seq", sqlite_where=literal_column("of_device = 0")),
    sqlite_autoincrement=True,
)
_events = Table(
    "events",
    TABLES,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("checksum", Integer, nullable=False),
    Column("value", BLOB, nullable=False),
)
_series = Table(
    "series",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("property", Text, nullable=False),
    UniqueConstraint("namespace", "name", "property"),
)
_history = Table(
    "history",
    TABLES,
    Column("slot", Integer, primary_key=True),
    Column("series", ForeignKey("series.id"), primary_key=True),
    Column("at_ms", Integer, nullable=False),
    Column("value", Text),
    sqlite_with_rowid=False,
)
_local_writes = Table(
    "local_writes",
    TABLES,
    Column("seq", Integer, primary_key=True),
    Column("resource", ForeignKey("resources.id"), nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("subresource", Text, nullable=False),
    Column("uid", Text, nullable=False),
    Column("creates", Boolean, nullable=False),
    Column("user", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("at_ms", Integer, nullable=False),
    Column("checksum", Integer, nullable=False),
    Column("value", BLOB, nullable=False),
    UniqueConstraint("resource", "namespace", "name", "subresource"),
    sqlite_autoincrement=True,
)
_interests = Table(
    "interests",
    TABLES,
    Column("resource", ForeignKey("resources.id"), primary_key=True),
    Column("namespace", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("user", Text, primary_key=True),
    Column("used_at_ms", Integer, nullable=False),
    Column("complete", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

_DIALECT = sqlite.dialect()


def _text(statement: ClauseElement, *parameters: str) -> str:
    """The statement's SQL. `parameters`: their names, in the order in which the text takes them."""
    compiled = statement.compile(dialect=_DIALECT)
    order = tuple(getattr(compiled, "positiontup", None) or ())
    assert order == parameters, f"parameters are {order}"
    return str(compiled)


def _bound(table: Table, *names: str) -> dict[str, object]:
    return {name: bindparam(name) for name in names}


_RESOURCE = (_resources.c.group, _resources.c.version, _resources.c.plural, _resources.c.kind, _resources.c.namespaced)
_KEY = ("resource", "namespace", "name")
_OBJECT = (*_KEY, "uid", "version", "revision", "labels", "checksum", "body")
_object_key = (
    _objects.c.resource == bindparam("resource"),
    _objects.c.namespace == bindparam("namespace"),
    _objects.c.name == bindparam("name"),
)

INSERT_STATE = _text(insert(_state).values(id=bindparam("id"), revision=bindparam("revision")), "id", "revision")
SELECT_STATE = _text(
    select(
        *(_state.c.revision, _state.c.epoch, _state.c.seq, _state.c.synced_at_ms),
        *(_state.c.events_dropped, _state.c.term, _state.c.horizon),
    )
)
UPDATE_STATE = _text(
    update(_state).values(
        revision=bindparam("revision"),
        epoch=bindparam("epoch"),
        seq=bindparam("seq"),
        synced_at_ms=bindparam("synced_at_ms"),
        horizon=bindparam("horizon"),
    ),
    *("revision", "epoch", "seq", "synced_at_ms", "horizon"),
)
UPDATE_REVISION = _text(update(_state).values(revision=bindparam("revision")), "revision")
UPDATE_EVENTS_DROPPED = _text(update(_state).values(events_dropped=bindparam("events_dropped")), "events_dropped")
UPDATE_TERM = _text(update(_state).values(term=bindparam("term")), "term")
SELECT_SEALED = _text(select(_state.c.sealed))
UPDATE_SEALED = _text(update(_state).values(sealed=bindparam("sealed")), "sealed")
UPDATE_SYNCED = _text(update(_state).values(synced_at_ms=bindparam("synced_at_ms")), "synced_at_ms")

SELECT_RESOURCES = _text(select(_resources.c.id, *_RESOURCE))
INSERT_RESOURCE = _text(
    insert(_resources).values({column: bindparam(column.name) for column in _RESOURCE}),
    *("group", "version", "plural", "kind", "namespaced"),
)
SELECT_RESOURCES_IN_USE = _text(
    select(_resources.c.id).where(select(_objects.c.id).where(_objects.c.resource == _resources.c.id).exists())
)

SELECT_HELD = _text(
    select(_objects.c.resource, _objects.c.namespace, _objects.c.name, _objects.c.uid, _objects.c.version)
)
# The first bytes of a sealed body say which key it takes (componentbase.sealing).
SELECT_SEALS = _text(
    select(
        *(_objects.c.namespace, _objects.c.name),
        func.substr(_objects.c.body, literal_column("1"), literal_column(str(HEAD_BYTES)), type_=BLOB),
    ).where(_objects.c.resource == bindparam("resource")),
    "resource",
)
COUNT_OBJECTS = _text(select(func.count()).select_from(_objects))
_STORED = (
    *(_objects.c.namespace, _objects.c.name, _objects.c.uid, _objects.c.version),
    *(_objects.c.revision, _objects.c.labels, _objects.c.checksum, _objects.c.body),
)
SELECT_OBJECT = _text(select(*_STORED).where(*_object_key), *_KEY)
# An empty namespace or name means any. The index gives the rows in their order and from a key on.
SELECT_LIST = _text(
    select(*_STORED)
    .where(
        _objects.c.resource == bindparam("resource"),
        tuple_(_objects.c.namespace, _objects.c.name)
        > tuple_(bindparam("after_namespace", type_=Text), bindparam("after_name", type_=Text)),
        or_(bindparam("any_namespace", type_=Boolean), _objects.c.namespace == bindparam("namespace")),
        or_(bindparam("any_name", type_=Boolean), _objects.c.name == bindparam("name")),
    )
    .order_by(_objects.c.namespace, _objects.c.name),
    *("resource", "after_namespace", "after_name", "any_namespace", "namespace", "any_name", "name"),
)
_upsert = sqlite.insert(_objects).values(_bound(_objects, *_OBJECT))
UPSERT_OBJECT = _text(
    _upsert.on_conflict_do_update(
        index_elements=_KEY,
        set_={name: _upsert.excluded[name] for name in _OBJECT if name not in _KEY},
    ),
    *_OBJECT,
)
DELETE_OBJECT = _text(delete(_objects).where(*_object_key), *_KEY)

# Rows that have no body but say where it is. Asked is for the length: of a longer one SQLite reads no more than that.
SELECT_POINTERS = _text(
    select(_objects.c.resource, _objects.c.namespace, _objects.c.name, _objects.c.checksum, _objects.c.body).where(
        func.length(_objects.c.body) == literal_column(str(POINTER_BYTES))
    )
)
SELECT_LARGE = _text(select(_pieces.c.number).distinct())
PUT_PIECE = _text(
    insert(_pieces).prefix_with("OR REPLACE").values(_bound(_pieces, "number", "place", "body")),
    *("number", "place", "body"),
)
SELECT_PIECES = _text(
    select(_pieces.c.body).where(_pieces.c.number == bindparam("number")).order_by(_pieces.c.place), "number"
)
DELETE_PIECES = _text(delete(_pieces).where(_pieces.c.number == bindparam("number")), "number")

_prefix = bindparam("prefix", type_=Text)
SELECT_DOCUMENTS = _text(
    select(_documents.c.name, _documents.c.checksum, _documents.c.value)
    .where(
        func.substr(_documents.c.name, literal_column("1"), func.length(bindparam("prefix", type_=Text)))
        == bindparam("prefix")
    )
    .order_by(_documents.c.name),
    *("prefix", "prefix"),
)
_put = sqlite.insert(_documents).values(_bound(_documents, "name", "checksum", "value"))
UPSERT_DOCUMENT = _text(
    _put.on_conflict_do_update(
        index_elements=["name"], set_={name: _put.excluded[name] for name in ("checksum", "value")}
    ),
    *("name", "checksum", "value"),
)
DELETE_DOCUMENT = _text(delete(_documents).where(_documents.c.name == bindparam("name")), "name")

_REPORT = (*_KEY, "field", "checksum", "value")
# REPLACE takes the row with the same key and field away and gives the new one the next number.
_put_report = insert(_reports).prefix_with("OR REPLACE").values(_bound(_reports, *_REPORT, "of_device"))
PUT_REPORT = _text(_put_report, *_REPORT, "of_device")
_reports_after = (
    select(_reports.c.seq, *(_reports.c[name] for name in _REPORT))
    .where(_reports.c.seq > bindparam("after"))
    .order_by(_reports.c.seq)
)
SELECT_REPORTS = _text(_reports_after, "after")
# The plus keeps SQLite from its index of resources: it would sort thousands of rows to give the first few. Asked is not
# what stands behind the value, for SQLite reads a long one to get there.
SELECT_DEVICE_REPORTS = _text(
    _reports_after.where(
        literal_column("+reports.resource").in_(
            select(_resources.c.id).where(_resources.c["group"] == bindparam("group"))
        )
    ),
    *("after", "group"),
)
# In the very words of the index that has these rows and no others.
SELECT_OTHER_REPORTS = _text(_reports_after.where(text("of_device = 0")), "after")
# For damaged tables: from the last row down to the first that cannot be read.
SELECT_REPORTS_BACKWARDS = _text(
    select(_reports.c.seq, *(_reports.c[name] for name in _REPORT)).order_by(_reports.c.seq.desc())
)
DELETE_REPORT = _text(delete(_reports).where(_reports.c.seq == bindparam("row")), "row")

_EVENT = ("seq", "namespace", "name", "checksum", "value")
# A number that neither table ever gave. The maxima count only where the sequence was damaged and everything else not.
NEXT_ROW = (
    "UPDATE sqlite_sequence SET seq = 1 + max(seq, coalesce((SELECT max(seq) FROM reports), 0), "
    "coalesce((SELECT max(seq) FROM events), 0)) WHERE name = 'reports' RETURNING seq"
)
PUT_EVENT = _text(insert(_events).values(_bound(_events, *_EVENT)), *_EVENT)
SELECT_EVENTS = _text(
    select(*(_events.c[name] for name in _EVENT)).where(_events.c.seq > bindparam("after")).order_by(_events.c.seq),
    "after",
)
SELECT_EVENT_SIZES = _text(select(_events.c.seq, func.length(_events.c.value)).order_by(_events.c.seq))
DELETE_EVENT = _text(delete(_events).where(_events.c.seq == bindparam("row")), "row")
DELETE_EVENTS = _text(delete(_events).where(_events.c.seq <= bindparam("through")), "through")
CHECK_EVENTS = _text(select(func.count(), func.total(func.length(_events.c.value))).select_from(_events))
# These read every row of the table and not only an index of it: damage shows.
CHECK_REPORTS = _text(select(func.count(), func.total(func.length(_reports.c.value))).select_from(_reports))
CHECK_DOCUMENTS = _text(select(func.count(), func.total(func.length(_documents.c.value))).select_from(_documents))
COUNT_REPORTS = _text(select(func.count()).select_from(_reports))

_SERIES = ("namespace", "name", "property")
_device = (_series.c.namespace == bindparam("namespace"), _series.c.name == bindparam("name"))
ADD_SERIES = _text(sqlite.insert(_series).values(_bound(_series, *_SERIES)).on_conflict_do_nothing(), *_SERIES)
# The last sample of a property's slot of time takes the place of the one before.
PUT_SAMPLE = _text(
    insert(_history)
    .prefix_with("OR REPLACE")
    .from_select(
        ["slot", "series", "at_ms", "value"],
        select(
            bindparam("slot", type_=Integer),
            _series.c.id,
            bindparam("at_ms", type_=Integer),
            bindparam("value", type_=Text),
        ).where(*_device, _series.c.property == bindparam("property")),
    ),
    *("slot", "at_ms", "value", *_SERIES),
)
_of_property = (*_device, _series.c.property == bindparam("property"))
SELECT_SAMPLES = _text(
    select(_history.c.at_ms, _history.c.value)
    .join(_series, _series.c.id == _history.c.series)
    .where(_history.c.slot >= bindparam("slot"), *_of_property)
    .order_by(_history.c.slot),
    *("slot", *_SERIES),
)
# The first row is the last one before a moment: it says what the value was then.
SELECT_SAMPLE_BEFORE = _text(
    select(_history.c.at_ms, _history.c.value)
    .join(_series, _series.c.id == _history.c.series)
    .where(_history.c.slot < bindparam("slot"), *_of_property)
    .order_by(_history.c.slot.desc()),
    *("slot", *_SERIES),
)
SELECT_RECORDED = _text(select(_series.c.property).where(*_device).order_by(_series.c.property), "namespace", "name")
COUNT_SAMPLES = _text(select(func.count()).select_from(_history))
SELECT_NTH_SLOT = _text(
    select(_history.c.slot).order_by(_history.c.slot).limit(literal_column("1")).offset(bindparam("offset")), "offset"
)
DELETE_SAMPLES = _text(delete(_history).where(_history.c.slot <= bindparam("slot")), "slot")
DELETE_EMPTY_SERIES = _text(
    delete(_series).where(~select(_history.c.slot).where(_history.c.series == _series.c.id).exists())
)
FORGET_SAMPLES = _text(
    delete(_history).where(_history.c.series.in_(select(_series.c.id).where(*_device))), "namespace", "name"
)
FORGET_SERIES = _text(delete(_series).where(*_device), "namespace", "name")

_LOCAL = (*_KEY, "subresource", "uid", "creates", "user", "revision", "at_ms", "checksum", "value")
# REPLACE takes the object's last write away and gives the new one the next number, as with reports.
PUT_LOCAL = _text(insert(_local_writes).prefix_with("OR REPLACE").values(_bound(_local_writes, *_LOCAL)), *_LOCAL)
SELECT_LOCAL = _text(
    select(_local_writes.c.seq, *(_local_writes.c[name] for name in _LOCAL)).order_by(_local_writes.c.seq)
)
DELETE_LOCAL = _text(delete(_local_writes).where(_local_writes.c.seq == bindparam("seq")), "seq")

_INTEREST = (*_KEY, "user", "used_at_ms", "complete")
PUT_INTEREST = _text(insert(_interests).prefix_with("OR REPLACE").values(_bound(_interests, *_INTEREST)), *_INTEREST)
# What they select is not held whole any more.
UPDATE_INTERESTS = _text(
    update(_interests).values(complete=literal_column("0")).where(_interests.c.resource == bindparam("resource")),
    "resource",
)
SELECT_INTERESTS = _text(select(*(_interests.c[name] for name in _INTEREST)))
DELETE_INTEREST = _text(
    delete(_interests).where(*(_interests.c[name] == bindparam(name) for name in (*_KEY, "user"))), *_KEY, "user"
)

_HEAD = '''"""
The statements of the edge's store: made by scripts/edge_statements.py, not to be edited.

Built by SQLAlchemy Core where that is at hand, run as text where it is not (docs/why/sqlite.md).
"""

'''


TABLE_NAMES = tuple(sorted(TABLES.tables))


def texts() -> dict[str, str]:
    """Every statement by its name."""
    made = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, str)}
    return {name: " ".join(value.split()) for name, value in made.items() if not name.startswith("_")}


def render() -> str:
    """The module's text."""
    lines = []
    for name, words in texts().items():
        line = f"{name} = {_quoted(words)}"
        lines += [line] if len(line) <= WIDTH else [f"{name} = (", *_wrapped(words), ")"]
    names = ", ".join(map(_quoted, TABLE_NAMES))
    return f"{_HEAD}TABLE_NAMES = frozenset({{{names}}})\n\n" + "\n".join(lines) + "\n"


WIDTH = 120


def _quoted(words: str) -> str:
    return f"'{words}'" if '"' in words else json.dumps(words)


def _wrapped(words: str) -> list[str]:
    """A long text as adjacent literals, cut between words."""
    parts, part = [], ""
    for word in words.split(" "):
        if len(f"    {_quoted(part + word)}") > WIDTH - 1:
            parts.append(part)
            part = ""
        part += f"{word} "
    parts.append(part.removesuffix(" "))
    return [f"    {_quoted(each)}" for each in parts]


if __name__ == "__main__":
    sys.stdout.write(render())
