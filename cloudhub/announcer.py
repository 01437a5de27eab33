"""
Says as Kubernetes Events what only the hub knows of a Device: that it became invalid, and that it is valid again.

What happens at the edge (a device offline, a desired value refused) is the edge's to say; see
apimachinery.kubeevents. An Event is told by the replica whose write made the condition turn. Its name follows from the
Device and the reason, so that the same thing again counts up the one Event there is, whichever replica says it.

An Event is worth an attempt and no more: nothing waits for it, what cannot be told soon is dropped and counted, and
the condition still says how things are.
"""

import asyncio
import hashlib
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import NoReturn

from apimachinery.errors import AlreadyExists, ApiError
from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import HUB, MAX_COUNT, EventType, KubeEvent, new_event
from apimachinery.objects import JSON, lookup
from apimachinery.resources import EVENTS
from cloudhub.backoff import write_delay_s
from cloudhub.conditions import VALID
from cloudhub.devices import entries
from cloudhub.tally import Client

logger = logging.getLogger(__name__)

BACKLOG = 256  # as many as an edge keeps; a model that makes a thousand devices invalid needs no thousand Events
INTERVAL_S = 0.05  # between two Events: 20 a second, while statuses are what matters
ATTEMPTS = 4

INVALID = "DeviceInvalid"
VALID_AGAIN = "DeviceValid"


def validity_event(
    key: ObjectKey, device: Mapping[str, JSON], before: Mapping[str, JSON], after: Mapping[str, JSON], now: str
) -> KubeEvent | None:
    """
    What to say when a Device's status becomes `after`; None where nothing turned.

    now: RFC 3339 in UTC, whole seconds. That a new Device is valid is no news.
    """
    was, is_now = _valid(before), _valid(after)
    if is_now.get("status") == was.get("status"):
        return None
    if is_now.get("status") == "False":
        kind, reason, message = EventType.WARNING, INVALID, str(is_now.get("message") or "")
    elif was.get("status") == "False":
        kind, reason, message = EventType.NORMAL, VALID_AGAIN, "the model, the node and the desired values are in order"
    else:
        return None
    uid = str(lookup(device, "metadata.uid") or "")
    unique = hashlib.sha256(f"{uid} {reason}".encode()).hexdigest()[:16]
    return new_event(key, uid, kind, reason, message, at=now, unique=unique)


def _valid(status: Mapping[str, JSON]) -> Mapping[str, JSON]:
    return next((entry for entry in entries(status.get("conditions"), "type") if entry["type"] == VALID), {})


class Announcer:
    """Takes Events and writes them, one after the other."""

    def __init__(self, client: Client, *, interval_s: float = INTERVAL_S, jitter: Callable[[], float] = random.random):
        """jitter: gives numbers uniform in [0, 1)."""
        self.dropped = 0
        """Events that were not told since the start."""
        self._client = client
        self._interval_s = interval_s
        self._jitter = jitter
        self._waiting: deque[KubeEvent] = deque()
        self._woken = asyncio.Event()

    def say(self, event: KubeEvent) -> None:
        """Soon, unless too many wait already: then the newest is dropped, for the first tell more than the last."""
        if len(self._waiting) >= BACKLOG:
            self.dropped += 1
            return
        self._waiting.append(event)
        self._woken.set()

    async def run(self) -> NoReturn:
        """Ends only when cancelled."""
        while True:
            await self._woken.wait()
            while self._waiting:
                await self._tell(self._waiting.popleft())
                await asyncio.sleep(self._interval_s)
            self._woken.clear()

    async def _tell(self, event: KubeEvent) -> None:
        for failures in range(1, ATTEMPTS + 1):
            try:
                await self._write(event)
            except ApiError as error:
                delay_s = write_delay_s(error, failures, self._jitter())
                if delay_s is None or failures == ATTEMPTS:
                    self.dropped += 1
                    logger.warning("cannot tell an Event", extra={"key": str(event.key), "problem": str(error)})
                    return
                await asyncio.sleep(delay_s)
            else:
                return

    async def _write(self, event: KubeEvent) -> None:
        try:
            await self._client.create(EVENTS, event.key.namespace, event.to_json(component=HUB))
        except AlreadyExists:
            known = await self._client.get(event.key)
            count = known.get("count")
            await self._client.patch(
                event.key,
                {
                    "metadata": {"resourceVersion": lookup(known, "metadata.resourceVersion")},
                    "count": min(count + 1, MAX_COUNT) if isinstance(count, int) else 1,
                    "lastTimestamp": event.last_at,
                    "message": event.message,
                },
            )
