"""
Where siblings meet: what one of them has, as another one asks for it.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from apimachinery.keys import ObjectKey
from componentbase.lately import Lately
from link.frames import CALL_S, Batch, CallHead, Interest, ReportEntry, Traffic, traffic_of

if TYPE_CHECKING:
    from apimachinery.kubeevents import KubeEvent
    from edgehub.connector import Connector, LinkStatus
    from edgehub.session import Answered
    from metamanager.history import Samples
    from metamanager.store import Store


class CloudNews:
    """Whether the cluster changes something just now that is no device: then devices leave others more time."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._lately = Lately(now_s)

    def came(self, batches: Sequence[Batch]) -> None:
        """This is about to be committed."""
        if any(traffic_of(delta.key) is not Traffic.DEVICES for batch in batches for delta in batch.deltas):
            self._lately.happened()

    def is_coming(self) -> bool:
        return self._lately.is_so()


class CloudLink:
    """The link as the local API sees it."""

    def __init__(self, status: "LinkStatus") -> None:
        self.connector: Connector
        self._status = status

    def is_connected(self) -> bool:
        return self._status.connected

    def want(self, interests: Sequence[Interest]) -> None:
        self.connector.want(interests)

    async def call(self, head: CallHead, body: bytes = b"", timeout_s: float = CALL_S) -> "Answered":
        return await self.connector.call(head, body, timeout_s)


class Outbox:
    """The store as the twins see it: what they save may have to go up, so the link is told."""

    def __init__(self, store: "Store", saved: Callable[[], None]) -> None:
        self._store = store
        self._saved = saved

    async def documents(self, prefix: str = "") -> dict[str, bytes]:
        return await self._store.documents(prefix)

    async def save(
        self,
        documents: Mapping[str, bytes | None],
        reports: Sequence[ReportEntry],
        events: "Sequence[KubeEvent]" = (),
        samples: "Samples" = MappingProxyType({}),
        gone: Sequence[ObjectKey] = (),
    ) -> None:
        await self._store.save(documents, reports, events, samples, gone)
        if reports or events:
            self._saved()
