"""
That the store was damaged and begun anew, told to the cloud as a Kubernetes Event on the Node.

Whoever opens the store knows that it was damaged, but not whose it is; whoever knows may be killed before it has
said so. So opening leaves a note in the new database, and the note is exchanged for the Event in one transaction.
"""

import datetime
import json
import logging
import secrets
from typing import NamedTuple, Protocol, Self

from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import EventType, KubeEvent, new_event
from apimachinery.objects import canonical
from apimachinery.resources import NODES

logger = logging.getLogger(__name__)

REBUILT_DOCUMENT = "metamanager/rebuilt"
REASON = "StoreRebuilt"


class Rebuilt(NamedTuple):
    """What happened."""

    problem: str
    """How the damage showed."""
    aside: str
    """The name of the damaged file; "" where it is not kept, because a former release left Secrets plain in it."""
    at_ms: int
    reports: int
    """Carried over, Events included."""
    whole: bool
    """Whether every report could be read."""

    def to_bytes(self) -> bytes:
        return canonical(self._asdict())

    @classmethod
    def from_bytes(cls, document: bytes) -> Self:
        """Raises ValueError, KeyError or TypeError for what to_bytes() did not write."""
        return cls(**json.loads(document))

    def event(self, node: Node, unique: str) -> KubeEvent:
        """unique: as in apimachinery.kubeevents.new_event."""
        kept = f"{self.reports} reports were carried over" if self.whole else "some reports could not be read"
        aside = f"the damaged file is kept as {self.aside}" if self.aside else "the damaged file is not kept"
        moment = datetime.datetime.fromtimestamp(self.at_ms // 1000, datetime.UTC)
        return new_event(
            ObjectKey(NODES, "", node),
            node,
            EventType.WARNING,
            REASON,
            f"{self.problem}; begun anew, {kept}, {aside}",
            at=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            unique=unique,
        )


class Store(Protocol):
    """What this needs of metamanager.store.Store."""

    async def documents(self, prefix: str = "") -> dict[str, bytes]: ...

    async def save(
        self, documents: dict[str, bytes | None], reports: tuple[()], events: tuple[KubeEvent, ...]
    ) -> None: ...


async def tell_rebuilt(store: Store, node: Node) -> bool:
    """Turn the note of a rebuild into an Event to go up; whether there was one. Raises a StoreError."""
    note = (await store.documents(REBUILT_DOCUMENT)).get(REBUILT_DOCUMENT)
    if note is None:
        return False
    events: tuple[KubeEvent, ...] = ()
    try:
        events = (Rebuilt.from_bytes(note).event(node, secrets.token_hex(8)),)
    except (ValueError, KeyError, TypeError):
        logger.warning("the note of a rebuild cannot be read; it was written by another release")
    await store.save({REBUILT_DOCUMENT: None}, (), events)
    return bool(events)
