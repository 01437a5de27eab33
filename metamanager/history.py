"""
What devices said in the last hours: a ring in the node's own database, for a person at a terminal.

It is written in the transaction of the twins and never causes one, so it costs no write to the card of its own. A
property has one row per slot of time, the last value in it: what comes faster is thinned. The oldest rows of all
properties together make room for new ones, so the file is bounded, and how far back it reaches depends on how much
there is to remember.

Invariants
    at most max_rows + SLACK rows and what one transaction adds, of at most MAX_VALUE_BYTES of value each
    of a property, every value that lasted longer than a slot is there until it is among the oldest
    nothing is left of a device that is not this node's any more
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from apimachinery.keys import ObjectKey
from metamanager import statements
from metamanager.connection import Database
from metamanager.errors import StoreError
from metamanager.migrations import SCHEMA

SLOT_MS = 10_000
MAX_ROWS = 50_000  # 20 properties that change all the time: 7 hours, 2 MB
SLACK = 1000  # rows written between two looks at how many there are; a look walks all of them, 1 ms
MAX_VALUE_BYTES = 64  # numbers, switches and short words; longer text is cut: nobody plots it

Samples = Mapping[tuple[ObjectKey, str], tuple[int, str | None]]
"""By device and property when it was said, in milliseconds since 1970, and what; None: from here on it is not known."""


class Sample(NamedTuple):
    """One point of a property's history."""

    at_ms: int
    """Milliseconds since 1970, by the edge's clock."""
    value: str | None
    """None: from here on it is not known."""


class Recorded(NamedTuple):
    """What there is of a property."""

    samples: Sequence[Sample]
    """Oldest first. The first may be from before the time asked for: what the value was then."""
    properties: Sequence[str]
    """The properties of the device of which there is anything."""


class History:
    """The ring. Its methods are called inside a transaction."""

    def __init__(self, database: Database, max_rows: int = MAX_ROWS) -> None:
        """max_rows: 0 records nothing."""
        self._database = database
        self._max_rows = max_rows
        self._unchecked = SLACK  # the first write looks: max_rows may be less than it was

    def record(self, samples: Samples) -> None:
        """Add samples."""
        if not samples or not self._max_rows:
            return
        names: list[tuple[object, ...]] = [(key.namespace, key.name, name) for key, name in samples]
        self._database.run_many(statements.ADD_SERIES, names)
        rows: list[tuple[object, ...]] = [
            (at_ms // SLOT_MS, at_ms, value and _cut(value), *name)
            for name, (at_ms, value) in zip(names, samples.values(), strict=True)
        ]
        self._database.run_many(statements.PUT_SAMPLE, rows)
        self._unchecked += len(rows)
        if self._unchecked >= SLACK:
            self._unchecked = 0
            self._trim()

    def forget(self, device: ObjectKey) -> None:
        """The device is gone."""
        self._database.run(statements.FORGET_SAMPLES, device[1:])
        self._database.run(statements.FORGET_SERIES, device[1:])

    def read(self, device: ObjectKey, name: str, since_ms: int) -> Recorded:
        """What there is of a property from `since_ms` on, and what it was then."""
        place = (since_ms // SLOT_MS, device.namespace, device.name, name)
        before = self._database.row(statements.SELECT_SAMPLE_BEFORE, place)
        rows = [] if before is None else [before]
        rows += self._database.rows(statements.SELECT_SAMPLES, place)
        names = self._database.rows(statements.SELECT_RECORDED, device[1:])
        return Recorded([Sample(int(at_ms), value) for at_ms, value in rows], [str(row[0]) for row in names])

    def _trim(self) -> None:
        beyond = self._database.number(statements.COUNT_SAMPLES) - self._max_rows
        if beyond > 0:
            row = self._database.row(statements.SELECT_NTH_SLOT, (beyond - 1,))
            assert row is not None, "there are more rows than that"
            self._database.run(statements.DELETE_SAMPLES, (row[0],))
            self._database.run(statements.DELETE_EMPTY_SERIES)


def read_file(
    path: Path, device: ObjectKey, name: str, since_ms: int, prefix: str
) -> tuple[Recorded, Mapping[str, bytes]]:
    """
    The history in the database of an edgecore that is not running, and the documents whose names begin so.

    Raises a StoreError.
    """
    database = Database(path)
    try:
        with database.transaction():
            if database.number("PRAGMA user_version") != SCHEMA:
                raise StoreError(path, "the database is of another release: start edgecore, and ask again")
            rows = database.rows(statements.SELECT_DOCUMENTS, (prefix, prefix))
            found = {str(found): bytes(value) for found, _, value in rows}
            return History(database).read(device, name, since_ms), found
    finally:
        database.close()


def _cut(value: str) -> str:
    data = value.encode()
    return value if len(data) <= MAX_VALUE_BYTES else data[:MAX_VALUE_BYTES].decode(errors="ignore")
