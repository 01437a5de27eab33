"""
The edge's store as a specification: what metamanager.store must do, in a few lines, with a disk that
can be rolled back to any earlier commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object
from link.frames import Batch, Cursor, Held, Refusal, ReportEntry
from metamanager.intake import NotHeld, unfold


@dataclass
class Image:
    """What one commit leaves on the disk."""

    cursor: Cursor | None = None
    objects: dict[ObjectKey, tuple[ObjectVersion, bytes]] = field(default_factory=dict)
    reports: dict[tuple[ObjectKey, str], tuple[int, bytes]] = field(default_factory=dict)
    next_row: int = 1
    synced: bool = False

    def copy(self) -> "Image":
        return Image(self.cursor, dict(self.objects), dict(self.reports), self.next_row, self.synced)


class SimDisk:
    """The durable state of one edge."""

    def __init__(self) -> None:
        self.image = Image()
        self.older: list[Image] = []
        """Images before each commit, newest last; a roll-back takes one of these."""

    def _commit(self, image: Image) -> None:
        self.older = [*self.older[-7:], self.image]
        self.image = image

    def apply(self, batches: Sequence[Batch]) -> dict[int, list[Refusal]]:
        image = self.image.copy()
        refusals: dict[int, list[Refusal]] = {}
        for batch in batches:
            for delta in batch.deltas:
                held = image.objects.get(delta.key)
                try:
                    whole = unfold(delta, held and Object(delta.key, held[0], {}, held[1]))
                except NotHeld as exc:
                    refusals.setdefault(batch.cursor.seq, []).append(Refusal(delta.key, str(exc), whole=True))
                    continue
                if whole.version is None:
                    image.objects.pop(delta.key, None)
                else:
                    image.objects[delta.key] = (whole.version, whole.body)
            image.cursor = batch.cursor
            image.synced = image.synced or batch.synced
        self._commit(image)
        return refusals

    def put_report(self, entry: ReportEntry) -> None:
        image = self.image.copy()
        image.reports[entry.key, entry.field] = (image.next_row, entry.value)
        image.next_row += 1
        self._commit(image)

    def settle_reports(self, through: int) -> None:
        image = self.image.copy()
        image.reports = {name: row for name, row in image.reports.items() if row[0] > through}
        self._commit(image)

    def pending_reports(self, after: int) -> list[tuple[int, ReportEntry]]:
        rows = [
            (row, ReportEntry(key, name, value))
            for (key, name), (row, value) in self.image.reports.items()
            if row > after
        ]
        return sorted(rows, key=lambda pair: pair[0])

    def roll_back(self, steps: int) -> None:
        """The disk is as it was some commits ago, as after a restored snapshot or a card that lied about a flush."""
        if self.older:
            self.image = self.older[-min(steps, len(self.older))]
            self.older = []

    def held(self) -> list[Held]:
        return [Held(key, version) for key, (version, _) in self.image.objects.items()]

    def digest(self) -> bytes:
        return digest(self.held())
