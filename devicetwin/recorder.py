"""
Kubernetes Events of this node's devices, few enough to be read.

A device that flaps must not fill the cluster with Events. The first of a kind is told at once; what follows of
the same kind about the same device within WINDOW_MS is gathered and told afterwards as one, with a count and the
last one's words. Together they come at a bounded rate, and what has to wait for that is gathered likewise.

Invariants
    about one object and reason at most one Event per WINDOW_MS
    at most BURST Events at once, and afterwards RATE_PER_S of them in a second
    at most MAX_WAITING kinds wait; what happens beyond that is counted in `dropped`
    the counts of what was told add up to what happened, but for what was dropped

After the correlator of client-go (tools/record/events_cache.go), which keeps the same two bounds.

Pure: ids and the time are arguments.
"""

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import EventType, KubeEvent, new_event

WINDOW_MS = 60_000
BURST = 50
RATE_PER_S = 1.0
MAX_WAITING = 256
MAX_RECENT = 4096  # kinds told within the last window; more cannot be, at this rate, but a clock may stand still


class _Waiting(NamedTuple):
    uid: str
    type: EventType
    message: str
    first_ms: int
    last_ms: int
    times: int


class EventRecorder:
    """Gathers what happens and gives it out as Events."""

    def __init__(self) -> None:
        self.dropped = 0
        """What happened and is told nowhere, because too much else was waiting."""
        self._waiting: OrderedDict[tuple[ObjectKey, str], _Waiting] = OrderedDict()
        """In the order in which they began to wait."""
        self._told_at_ms: OrderedDict[tuple[ObjectKey, str], int] = OrderedDict()
        """When a kind was last told, oldest first."""
        self._tokens = float(BURST)
        self._refilled_at_ms: int | None = None

    def record(self, about: ObjectKey, uid: str, type: EventType, reason: str, message: str, now_ms: int) -> None:
        """Something happened. now_ms: milliseconds since 1970."""
        kind = about, reason
        waiting = self._waiting.get(kind)
        if waiting is not None and waiting.uid == uid:
            self._waiting[kind] = waiting._replace(
                type=type, message=message, last_ms=max(now_ms, waiting.last_ms), times=waiting.times + 1
            )
        elif waiting is None and len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
        else:
            self._waiting[kind] = _Waiting(uid, type, message, now_ms, now_ms, 1)

    def due(self, now_ms: int, new_id: Callable[[], str]) -> list[KubeEvent]:
        """What is to be told now. new_id: gives a text that no other Event has; its letters and digits are used."""
        if not self._waiting:
            return []
        self._refill(now_ms)
        events: list[KubeEvent] = []
        for kind, waiting in list(self._waiting.items()):
            if self._tokens < 1:
                break
            if self._may_be_told_at_ms(kind) > now_ms:
                continue
            self._tokens -= 1
            del self._waiting[kind]
            self._told_at_ms[kind] = now_ms
            self._told_at_ms.move_to_end(kind)
            about, reason = kind
            unique = "".join(each for each in new_id().lower() if each.isascii() and each.isalnum())
            event = new_event(
                about, waiting.uid, waiting.type, reason, waiting.message, at=_rfc3339(waiting.last_ms), unique=unique
            )
            events.append(event._replace(first_at=_rfc3339(waiting.first_ms), times=waiting.times))
        return events

    def next_deadline_ms(self) -> int | None:
        """When to ask `due` next; None while nothing waits."""
        if not self._waiting:
            return None
        at_ms = min(map(self._may_be_told_at_ms, self._waiting))
        if self._tokens < 1 and self._refilled_at_ms is not None:
            at_ms = max(at_ms, self._refilled_at_ms + int((1 - self._tokens) * 1000 / RATE_PER_S) + 1)
        return at_ms

    def _may_be_told_at_ms(self, kind: tuple[ObjectKey, str]) -> int:
        told_at_ms = self._told_at_ms.get(kind)
        return 0 if told_at_ms is None else told_at_ms + WINDOW_MS

    def _refill(self, now_ms: int) -> None:
        since_ms = 0 if self._refilled_at_ms is None else now_ms - self._refilled_at_ms
        # A clock that was set back fills nothing; one that was set forward fills once.
        self._tokens = min(float(BURST), self._tokens + max(0, since_ms) * RATE_PER_S / 1000)
        self._refilled_at_ms = now_ms
        while self._told_at_ms:
            kind, told_at_ms = next(iter(self._told_at_ms.items()))
            # Set back behind what was told, a clock would keep a kind quiet for as long as it was set back.
            if now_ms - WINDOW_MS < told_at_ms <= now_ms and len(self._told_at_ms) <= MAX_RECENT:
                break
            del self._told_at_ms[kind]


def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
