"""
The fast way for samples: from the driver to a store, past the twin and the API.

Each place has a task and a backlog. A driver's task only adds to the backlog, so that a store that is slow or away
delays neither reading nor reporting. Batches are written one after the other; a place that is away is tried again after
1, 2, 4 ... 60 seconds, and meanwhile the backlog drops its oldest.

Invariants
    push() never waits and never raises
    an outage is one warning and its end one line; what was dropped is counted and told with powers of two
    a place that nobody writes to is let go after IDLE_S
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mappers.points import Backlog, Point, PointsRefused
from mappers.polling import retry_after_s
from mappers.pushmethod import HttpPlace, MqttPlace, MysqlPlace, Place
from mappers.values import to_text
from mappers.words import Device, Reading

if TYPE_CHECKING:
    from mappers.stores import Store

QUEUE_LIMIT = 10_000
QUEUE_BYTES = 8 << 20
BATCH_LIMIT = 500
GATHER_S = 0.2
"""How long the first sample of a batch waits for others: a store's cost is by request."""
IDLE_S = 60.0
MAX_PLACES = 64
"""A bound on tasks and connections; a site has one or two."""
_YEAR_10000_MS = 253_402_300_800_000

logger = logging.getLogger(__name__)


class Telemetry:
    """All places of one mapper."""

    def __init__(self, group: asyncio.TaskGroup, mapper: str) -> None:
        self._group = group
        self._mapper = mapper
        self._pushers: dict[Place, _Pusher] = {}
        self._has_warned = False
        self._count = 0

    def push(self, device: Device, readings: Mapping[str, Reading]) -> None:
        """Send these samples where their properties say. Of those of a wrong type the poller tells."""
        for name, reading in readings.items():
            found = device.properties.get(name)
            if found is None or not found.targets:
                continue
            try:
                text = to_text(found.model.type, reading.value)
            except ValueError:
                continue
            at_ms = reading.at_ms
            if at_ms is None or not 0 < at_ms < _YEAR_10000_MS:  # a device whose clock was never set
                at_ms = round(time.time() * 1000)
            for target in found.targets:
                pusher = self._pusher(target.place)
                if pusher is not None:
                    pusher.add(Point(device.id, name, found.model.type, text, at_ms, target, found.model.unit))

    def _pusher(self, place: Place) -> "_Pusher | None":
        pusher = self._pushers.get(place)
        if pusher is None:
            if len(self._pushers) >= MAX_PLACES:
                if not self._has_warned:
                    self._has_warned = True
                    logger.warning("too many places to push samples to, some get none", extra={"bound": MAX_PLACES})
                return None
            self._count += 1
            pusher = self._pushers[place] = _Pusher(place, f"{self._mapper}-push-{self._count}")
            self._group.create_task(self._run(place, pusher), name=f"push[{_told(place)}]")
        return pusher

    async def _run(self, place: Place, pusher: "_Pusher") -> None:
        try:
            while True:
                await pusher.run()
                if not pusher.has_points():  # what came while it let go of its place
                    return
        finally:
            del self._pushers[place]


class _Pusher:
    """One place."""

    def __init__(self, place: Place, client_id: str) -> None:
        self._place = place
        self._client_id = client_id
        self._backlog = Backlog(QUEUE_LIMIT, QUEUE_BYTES)
        self._bell = asyncio.Event()
        self._told_dropped = 0
        self._refused = 0
        self._failures = 0

    def add(self, point: Point) -> None:
        self._backlog.add(point)
        self._bell.set()
        dropped = self._backlog.dropped
        if dropped >= 2 * self._told_dropped and dropped > self._told_dropped:
            self._told_dropped = dropped
            logger.warning("samples dropped, their store is slow or away", extra={**self._about(), "dropped": dropped})

    def has_points(self) -> bool:
        return bool(self._backlog)

    async def run(self) -> None:
        """Write what comes, until nothing has come for IDLE_S."""
        from mappers.stores import open_store  # most mappers push nothing

        while True:
            try:
                async with open_store(self._place, self._client_id) as store:
                    await self._serve(store)
                    return
            except (OSError, ValueError, ImportError) as exc:
                self._failures += 1
                if self._failures == 1:
                    facts = {**self._about(), "reason": _reason(exc), "waiting": len(self._backlog)}
                    logger.warning("samples cannot be pushed, trying again", extra=facts)
                await asyncio.sleep(retry_after_s(self._failures))

    async def _serve(self, store: "Store") -> None:
        while await self._something_came():
            points = self._backlog.take(BATCH_LIMIT)
            try:
                await store.write(points)
            except PointsRefused as exc:
                self._refused += len(points)
                facts = {**self._about(), "reason": str(exc), "refused": self._refused}
                logger.error("samples refused by their store, dropped", extra=facts)
            except BaseException:
                self._backlog.put_back(points)
                raise
            if self._failures:
                self._failures = 0
                logger.info("samples are pushed again", extra={**self._about(), "dropped": self._backlog.dropped})

    async def _something_came(self) -> bool:
        if not self._backlog:
            self._bell.clear()
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._bell.wait()
            except TimeoutError:
                return False
        if len(self._backlog) < BATCH_LIMIT:
            await asyncio.sleep(GATHER_S)
        return True

    def _about(self) -> dict[str, object]:
        return {"place": _told(self._place)}


def _told(place: Place) -> str:
    match place:
        case HttpPlace(_, url, _):
            return url
        case MqttPlace(url):
            return url
        case MysqlPlace(address, database, user):
            return f"mysql {user}@{address}/{database}"
        case _:
            return f"redis {place.address}/{place.db}"


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return (
            f"needs {error.name}: pip install 'fairlead[mapper-{'mysql' if error.name == 'pymysql' else error.name}]'"
        )
    return str(error) or type(error).__name__
