"""
Reports that the cloud will never take: how many there were, and the last of them with the reasons.

A report that is refused for good leaves the outbox, or it would be sent for ever; whoever looks for the value then
finds here what became of it. Kept in a document of the store, changed in the transaction that takes the reports away,
so that neither a crash nor a restart hides a refusal or counts one twice. Values are not kept: they may be secrets.

Invariants
    at most KEPT reports, each at most a few hundred bytes (the link bounds the texts)
    one line per object and field: a value that is refused a thousand times does not push out the others

Pure: the time is an argument.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

from apimachinery.objects import canonical
from link.frames import RefusedReport

PARKED_DOCUMENT = "metamanager/parked"
KEPT = 16  # a screen of them; the causes are few, a missing right or a definition that is stricter than the edge


class ParkedReport(NamedTuple):
    """One refusal."""

    key: str
    """ObjectKey as text."""
    field: str
    reason: str
    at_ms: int
    """When it was last refused, in milliseconds since 1970 on the edge's clock."""


class Parked(NamedTuple):
    """All refusals: their number, and the last of them, newest last."""

    total: int = 0
    last: tuple[ParkedReport, ...] = ()

    def plus(self, refused: Iterable[RefusedReport], at_ms: int) -> "Parked":
        """With these as well."""
        total, last = self.total, {(each.key, each.field): each for each in self.last}
        for key, field, reason in refused:
            total += 1
            last.pop((str(key), field), None)
            last[str(key), field] = ParkedReport(str(key), field, reason, at_ms)
        return Parked(total, tuple(last.values())[-KEPT:])

    def to_bytes(self) -> bytes:
        return canonical({"total": self.total, "last": [each._asdict() for each in self.last]})

    @classmethod
    def from_bytes(cls, document: bytes | None) -> "Parked":
        """None, or what is not readable, is the beginning: it is there for people, and not worth a stop."""
        try:
            value = json.loads(document or b"")
            return cls(int(value["total"]), tuple(ParkedReport(**each) for each in value["last"]))
        except (ValueError, KeyError, TypeError):
            return cls()
