"""
The edge's store as a specification: what metamanager.store must do, in a few lines, with a disk that can
be full, and that can be rolled back to any of the last commits.

A transaction that a crash tears apart is not a case of its own here: the database rolls it back, so that it
never was. tests/test_metamanager_store.py holds the real one to that with real crashes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from apimachinery.events import Change, EventType
from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object
from link.frames import Batch, Cursor, Held, Interest, Refusal, ReportEntry
from metamanager.intake import NotHeld, unfold


class DiskFull(Exception):
    """Nothing was committed; later it may be."""


@dataclass
class Image:
    """What one commit leaves on the disk."""

    cursor: Cursor | None = None
    objects: dict[ObjectKey, tuple[ObjectVersion, bytes]] = field(default_factory=dict)
    reports: dict[tuple[ObjectKey, str], tuple[int, bytes]] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    next_row: int = 1
    synced: bool = False
    term: int = 0
    horizon: dict[str, int] = field(default_factory=dict)
    interests: tuple[Interest, ...] = ()

    def copy(self) -> "Image":
        return replace(self, objects=dict(self.objects), reports=dict(self.reports), documents=dict(self.documents))


class SimDisk:
    """The durable state of one edge."""

    def __init__(self) -> None:
        self.image = Image()
        self.older: list[Image] = []
        """Images before each commit, newest last; a roll-back takes one of these."""
        self.is_full = False
        self.refusing = ""
        """Versions that begin with one of these digits cannot be taken in for now, as if a bug made them untakable."""

    def _commit(self, image: Image) -> None:
        if self.is_full:
            raise DiskFull
        self.older = [*self.older[-7:], self.image]
        self.image = image

    def apply(self, batches: Sequence[Batch]) -> tuple[list[Change], dict[int, list[Refusal]]]:
        """Commit batches in one transaction: what changed, and by the number of the batch what was refused."""
        image = self.image.copy()
        changes: list[Change] = []
        refusals: dict[int, list[Refusal]] = {}
        for batch in batches:
            for delta in batch.deltas:
                key = delta.key
                was = image.objects.get(key)
                held = was and Object(key, was[0], {}, was[1])
                refused = refusals.setdefault(batch.cursor.seq, [])
                if delta.version is not None and delta.version.revision[0] in self.refusing:
                    refused.append(Refusal(key, "cannot be taken in for now"))
                    continue
                try:
                    whole = unfold(delta, held)
                except NotHeld as exc:
                    refused.append(Refusal(key, str(exc), whole=True))
                    continue
                if whole.version is None:
                    image.objects.pop(key, None)
                else:
                    image.objects[key] = (whole.version, whole.body)
                item = whole.version and Object(key, whole.version, {}, whole.body)
                changes += (Change(0, kind, each, held) for kind, each in _steps(held, item))
            image.cursor = batch.cursor
            image.horizon = {**image.horizon, **dict(batch.horizon)}
            image.synced = image.synced or batch.synced
        self._commit(image)
        return changes, {seq: refused for seq, refused in refusals.items() if refused}

    def next_term(self, last: int, above: int, now_ms: int, *, is_reset: bool = False) -> int:
        """
        The term of the next connection.

        last: that of the last one, as the process knows it: on a full disk the number is not kept.
        """
        term = above + 1 if is_reset else max(self.image.term + 1, last + 1, above + 1, now_ms)
        image = self.image.copy()
        image.term = term
        with suppress(DiskFull):
            self._commit(image)
        return term

    def save(self, documents: Mapping[str, bytes | None], reports: Sequence[ReportEntry]) -> None:
        """Twins and reports, in one transaction. A report that is put again gets a new row number."""
        image = self.image.copy()
        for name, document in documents.items():
            if document is None:
                image.documents.pop(name, None)
            else:
                image.documents[name] = document
        for entry in reports:
            image.reports[entry.key, entry.field] = (image.next_row, entry.value)
            image.next_row += 1
        self._commit(image)

    def want(self, interests: tuple[Interest, ...]) -> None:
        image = self.image.copy()
        image.interests = interests
        self._commit(image)

    def settle_reports(self, rows: Sequence[int]) -> None:
        if any(row in rows for row, _ in self.image.reports.values()):
            image = self.image.copy()
            image.reports = {name: row for name, row in image.reports.items() if row[0] not in rows}
            self._commit(image)

    def pending_reports(self, after: int) -> list[tuple[int, ReportEntry]]:
        rows = [
            (row, ReportEntry(key, name, value))
            for (key, name), (row, value) in self.image.reports.items()
            if row > after
        ]
        return sorted(rows, key=lambda pair: pair[0])

    def roll_back(self, steps: int) -> bool:
        """The disk is as it was some commits ago, as after a restored snapshot or a card that lied about a flush."""
        if not self.older:
            return False
        self.image = self.older[-min(steps, len(self.older))]
        self.older = []
        return True

    def held(self) -> list[Held]:
        return [Held(key, version) for key, (version, _) in self.image.objects.items()]

    def objects(self) -> list[Object]:
        return [Object(key, version, {}, body) for key, (version, body) in self.image.objects.items()]

    def digest(self) -> bytes:
        return digest(self.held())


def _steps(held: Object | None, wanted: Object | None) -> Iterator[tuple[EventType, Object]]:
    """How local readers see an object come from one state to the other; another uid is another object."""
    is_another = held is not None and wanted is not None and held.version.uid != wanted.version.uid
    if held is not None and (wanted is None or is_another):
        yield EventType.DELETED, held
    if wanted is not None and (held is None or is_another):
        yield EventType.ADDED, wanted
    elif held is not None and wanted is not None and held.version != wanted.version:
        yield EventType.MODIFIED, wanted
