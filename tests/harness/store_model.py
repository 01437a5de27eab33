"""What the edge's store must do, without a disk: the specification that its tests compare it with."""

from collections.abc import Mapping, Sequence

from apimachinery.events import EventType
from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.kubeevents import EVENT_FIELD, KubeEvent
from apimachinery.objects import Object, canonical
from link.frames import Batch, Cursor, Delta, RefusedReport, ReportEntry
from metamanager.intake import NotHeld, unfold
from metamanager.outbox import MAX_EVENT_BYTES, MAX_EVENTS
from metamanager.parked import Parked
from tests.harness.store_history import BROKEN


class StoreModel:
    """The content of a store."""

    def __init__(self) -> None:
        self.cursor: Cursor | None = None
        self.objects: dict[ObjectKey, tuple[ObjectVersion, bytes]] = {}
        self.documents: dict[str, bytes] = {}
        self.reports: dict[tuple[ObjectKey, str], tuple[int, bytes]] = {}
        self.events: list[tuple[int, ReportEntry]] = []
        self.events_dropped = 0
        self.parked = Parked()
        self.synced_at_ms: int | None = None
        self.revisions = 0
        """How many changes there were."""
        self.refused: list[tuple[int, ObjectKey, bool]] = []
        """By the last apply(): number, key, and whether the whole object is asked for."""
        self._last_row = 0

    def apply(self, batches: Sequence[Batch], now_ms: int) -> list[tuple[EventType, ObjectKey]]:
        changes = []
        self.refused = []
        for each in batches:
            for delta in each.deltas:
                held = self.objects.get(delta.key)
                try:
                    whole = unfold(delta, held and Object(delta.key, held[0], {}, held[1]))
                except NotHeld:
                    self.refused.append((each.cursor.seq, delta.key, True))
                    continue
                if whole.version is not None and whole.body.endswith(BROKEN):
                    self.refused.append((each.cursor.seq, delta.key, False))
                    continue
                changes += self._put(whole)
            if each.synced:
                self.synced_at_ms = now_ms
        self.cursor = batches[-1].cursor
        self.revisions += len(changes)
        return changes

    def _put(self, delta: Delta) -> list[tuple[EventType, ObjectKey]]:
        held = self.objects.get(delta.key)
        if delta.version is None:
            return [(EventType.DELETED, delta.key)] if self.objects.pop(delta.key, None) else []
        if held is not None and held[0] == delta.version:
            return []
        self.objects[delta.key] = (delta.version, delta.body)
        if held is None:
            return [(EventType.ADDED, delta.key)]
        if held[0].uid != delta.version.uid:
            return [(EventType.DELETED, delta.key), (EventType.ADDED, delta.key)]
        return [(EventType.MODIFIED, delta.key)]

    def save(
        self, documents: Mapping[str, bytes | None], reports: Sequence[ReportEntry], events: Sequence[KubeEvent] = ()
    ) -> None:
        for name, value in documents.items():
            if value is None:
                self.documents.pop(name, None)
            else:
                self.documents[name] = value
        for key, field, text in reports:
            self._last_row += 1
            self.reports[key, field] = (self._last_row, text)
        for event in events:
            self._last_row += 1
            self.events.append((self._last_row, ReportEntry(event.key, EVENT_FIELD, canonical(event.to_json()))))
        while len(self.events) > MAX_EVENTS or sum(len(entry.value) for _, entry in self.events) > MAX_EVENT_BYTES:
            del self.events[0]
            self.events_dropped += 1

    def settle(self, through: int, refused: Sequence[RefusedReport] = (), now_ms: int = 0) -> None:
        self.reports = {name: row for name, row in self.reports.items() if row[0] > through}
        self.events = [row for row in self.events if row[0] > through]
        self.parked = self.parked.plus(refused, now_ms)

    def pending(self) -> list[tuple[int, ReportEntry]]:
        reports = [(seq, ReportEntry(key, field, value)) for (key, field), (seq, value) in self.reports.items()]
        return sorted([*reports, *self.events])
