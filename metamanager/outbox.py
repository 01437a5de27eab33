"""
What waits to go up, reports and Events, and the documents that are written in the same transactions.

A report takes the place of the last one of its object and field; an Event takes nobody's, so of these there is a most,
and the oldest make room. Both have their numbers from one sequence: the link acknowledges them by number alone.

Invariants
    a report, the document it was made from and the sample for the history are one transaction
    a number is never given twice, so what was put again meanwhile is not settled by an acknowledgement
    a row whose bytes are not those that were written is never given out: StoreCorrupt
    the counts are what the last commit left
"""

import heapq
import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import EVENT_FIELD, KubeEvent
from apimachinery.objects import canonical
from apimachinery.resources import DEVICE_GROUP, EVENTS
from link.frames import MAX_REPORT_ENTRIES, RefusedReport, ReportEntry, Traffic, traffic_of
from metamanager import statements
from metamanager.connection import Database, Row
from metamanager.history import History, Recorded, Samples
from metamanager.parked import PARKED_DOCUMENT, Parked
from metamanager.resourcerows import ResourceRows

REPORT_OVERHEAD_BYTES = 16  # around one report in a frame, generously
MAX_EVENTS = 256  # ten times what one source may tell at once at an apiserver (client-go's event spam filter: 25)
MAX_EVENT_BYTES = 256 << 10  # four windows of the link: the node's own status waits behind at most that


class Outbox:
    """The tables of reports, Events, documents and samples."""

    def __init__(self, database: Database, resources: ResourceRows, history_rows: int, events_dropped: int) -> None:
        """
        Reads the key of every row, so that damage shows here; to be called in a transaction. Raises a StoreError.

        history_rows: how many samples of devices are kept. events_dropped: so far.
        """
        self._database = database
        self._resources = resources
        self._history = History(database, history_rows)
        self.report_count = database.number(statements.CHECK_REPORTS)
        self.event_count = database.number(statements.CHECK_EVENTS)
        database.number(statements.CHECK_DOCUMENTS)
        self.events_dropped = events_dropped
        """Events that were given up for later ones, since this database was made."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Reports and Events that wait, and Events that were dropped."""
        return self.report_count, self.event_count, self.events_dropped

    def save(
        self,
        documents: Mapping[str, bytes | None],
        reports: Sequence[ReportEntry],
        events: Sequence[KubeEvent] = (),
        samples: Samples = MappingProxyType({}),
        gone: Sequence[ObjectKey] = (),
    ) -> None:
        """
        Write and delete (None) documents, put reports and add Events, in one transaction.

        samples: for the history. gone: devices whose history goes; what `samples` has of them is of their successors.
        """
        dropped, number = self.events_dropped, self._resources.number
        with self._resources.writing():
            self._write_documents(documents)
            self._database.run_many(
                statements.PUT_REPORT,
                [
                    (
                        *(number(key.resource), key.namespace, key.name, field, zlib.crc32(value), value),
                        traffic_of(key) is Traffic.DEVICES,
                    )
                    for key, field, value in reports
                ],
            )
            for device in gone:
                self._history.forget(device)
            self._history.record(samples)
            if events:
                dropped += self._add_events(events)
                self._database.run(statements.UPDATE_EVENTS_DROPPED, (dropped,))
            counts = self._count()
        self.report_count, self.event_count = counts
        self.events_dropped = dropped

    def documents(self, prefix: str) -> dict[str, bytes]:
        """Those whose names begin with `prefix`."""
        with self._database.transaction():
            return self._documents(prefix)

    def history(self, device: ObjectKey, name: str, since_ms: int) -> Recorded:
        """What is remembered of a device's property."""
        with self._database.transaction():
            return self._history.read(device, name, since_ms)

    def parked(self) -> Parked:
        """The reports that were refused for good."""
        return Parked.from_bytes(self.documents(PARKED_DOCUMENT).get(PARKED_DOCUMENT))

    def pending(self, after: int, limit_bytes: int, traffic: Traffic | None = None) -> list[tuple[int, ReportEntry]]:
        """
        Reports and Events of a class, numbered after `after`, oldest first: about `limit_bytes`, at least one if any.

        No more than a frame may have (MAX_REPORT_ENTRIES), whatever `limit_bytes` is.
        """
        found: list[tuple[int, ReportEntry]] = []
        with self._database.transaction():
            if traffic is None:
                rows = self._database.rows(statements.SELECT_REPORTS, (after,))
            elif traffic is Traffic.DEVICES:
                rows = self._database.rows(statements.SELECT_DEVICE_REPORTS, (after, DEVICE_GROUP))
            else:
                rows = self._database.rows(statements.SELECT_OTHER_REPORTS, (after,))
            reports = map(self._report, rows)
            has_events = traffic is not Traffic.DEVICES
            events = map(self._event, self._database.rows(statements.SELECT_EVENTS, (after,)) if has_events else ())
            for seq, entry in heapq.merge(reports, events, key=lambda row: row[0]):
                limit_bytes -= len(entry.value) + len(entry.field) + len(entry.key.name) + REPORT_OVERHEAD_BYTES
                if found and (limit_bytes < 0 or len(found) == MAX_REPORT_ENTRIES):
                    break
                found.append((seq, entry))
        return found

    def settle(self, rows: Sequence[int], refused: Sequence[RefusedReport], now_ms: int) -> None:
        """
        Forget the reports and Events of these numbers, and park those that were refused, in one transaction.

        One that was put again since then has another number and stays.
        """
        numbers: list[tuple[object, ...]] = [(row,) for row in rows]
        with self._resources.writing():
            self._database.run_many(statements.DELETE_REPORT, numbers)
            self._database.run_many(statements.DELETE_EVENT, numbers)
            if refused:
                parked = Parked.from_bytes(self._documents(PARKED_DOCUMENT).get(PARKED_DOCUMENT))
                self._write_documents({PARKED_DOCUMENT: parked.plus(refused, now_ms).to_bytes()})
            counts = self._count()
        self.report_count, self.event_count = counts

    # Parts of the above, inside its transaction

    def _write_documents(self, documents: Mapping[str, bytes | None]) -> None:
        self._database.run_many(
            statements.UPSERT_DOCUMENT,
            [(name, zlib.crc32(value), value) for name, value in documents.items() if value is not None],
        )
        self._database.run_many(
            statements.DELETE_DOCUMENT, [(name,) for name, value in documents.items() if value is None]
        )

    def _documents(self, prefix: str) -> dict[str, bytes]:
        found = {}
        for name, checksum, value in self._database.rows(statements.SELECT_DOCUMENTS, (prefix, prefix)):
            self._database.check(checksum == zlib.crc32(value), "a document")
            found[str(name)] = bytes(value)
        return found

    def _count(self) -> tuple[int, int]:
        """Reports and Events that wait."""
        return self._database.number(statements.COUNT_REPORTS), self._database.number(statements.CHECK_EVENTS)

    def _add_events(self, events: Sequence[KubeEvent]) -> int:
        """Add Events with the next numbers, and drop the oldest where there are too many; how many were dropped."""
        for event in events:
            row = self._database.row(statements.NEXT_ROW)
            self._database.check(row is not None, "the numbers of reports")
            assert row is not None, "checked in the line above"
            value = canonical(event.to_json())
            namespace, name = event.key[1:]
            self._database.run(statements.PUT_EVENT, (row[0], namespace, name, zlib.crc32(value), value))
        rows = list(self._database.rows(statements.SELECT_EVENT_SIZES))
        count, size, dropped = len(rows), sum(row[1] for row in rows), 0
        for _, length in rows:
            if count - dropped <= MAX_EVENTS and size <= MAX_EVENT_BYTES:
                break
            dropped += 1
            size -= length
        if dropped:
            self._database.run(statements.DELETE_EVENTS, (rows[dropped - 1][0],))
        return dropped

    def _report(self, row: Row) -> tuple[int, ReportEntry]:
        seq, resource, namespace, name, field, checksum, value = row
        self._database.check(checksum == zlib.crc32(value), "a report")
        return seq, ReportEntry(ObjectKey(self._resources.resource(resource), namespace, name), field, value)

    def _event(self, row: Row) -> tuple[int, ReportEntry]:
        seq, namespace, name, checksum, value = row
        self._database.check(checksum == zlib.crc32(value), "an Event")
        return seq, ReportEntry(ObjectKey(EVENTS, namespace, name), EVENT_FIELD, value)
