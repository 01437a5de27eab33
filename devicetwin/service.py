"""
The twins of this node's devices, kept: the shell around devicetwin.fleet.

One task owns every twin. It takes what came in a batch, from the broker and from the cluster's objects alike,
makes the outcome durable in one transaction, and only then answers, publishes and acknowledges. A broker that
is away stops nothing: what was not published is said anew when it is back. A store that does not take the
outcome stops the devices' traffic, not the process: nothing is acknowledged that could be lost.

Invariants
    an MQTT message of quality of service 1 is acknowledged after what it changed was committed
    a report for the cloud is committed in the transaction of the twin it was made from
    no message is looked at before this node was told what it holds: until then no device is unknown
"""

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from apimachinery.errors import ApiError, Conflict, Invalid, NotFound, Unavailable
from apimachinery.events import Change
from apimachinery.keys import ObjectKey
from apimachinery.kubeevents import KubeEvent
from devicetwin.bus import Arrived, Bus, BusStatus, Online
from devicetwin.documents import MAPPER_PREFIX, TWIN_PREFIX, read_documents
from devicetwin.feed import DeviceFeed, Snapshot
from devicetwin.fleet import STALE_AFTER_MS, Fleet, Moment, Outcome
from devicetwin.messages import DeviceId
from devicetwin.steps import Refuse
from devicetwin.view import TwinView, view_of
from devicetwin.wire import Publication, id_of
from link.frames import ReportEntry

logger = logging.getLogger(__name__)

BATCH = 64  # messages per transaction, some 5 ms of the thread that a pod's change waits for, and one sync of the disk
REST = 7  # times what devices took, while the cluster changes something else
TURN_S = 0.002  # in which nobody else gets the loop: a pod's change needs four turns of it, and is to be there in 50 ms
DECLARE_SLICE = 4  # devices whose objects are read before the clock is looked at
SEAL_SLICE = 8  # devices whose documents are written before the clock is looked at
PUBLISH_SLICE = 32  # publications that are handed to the broker before the clock is looked at
QUEUE = 4  # batches that wait for the owner; behind them the bus stops reading
CONTESTED_SHOWN = 8
CLOCK_JUMP_S = 10.0  # more than a clock that is slewed drifts away between two looks
STORE_BACKOFF_S = (0.5, 30.0)

WISH_S = 10.0  # as long as a mapper waits for an answer; a full disk takes longer


class Wishes(NamedTuple):
    """Wishes set on this node by other means than MQTT, and where to say what became of them."""

    device: ObjectKey
    wishes: Mapping[str, tuple[str, int]]
    answer: "asyncio.Future[Refuse | None]"


News = Snapshot | Sequence[Change] | Sequence[Arrived | Online] | Wishes


class Turn:
    """
    How long the loop was held without a pause.

    Devices can always bring more work than there is time. It is cut by the clock and not by number, for a message may
    cost a hundred times what another does, and everybody else who lives on this loop (the link, the local API) comes
    next after TURN_S, however many messages wait. And while the cluster changes something, devices leave the loop, and
    so the machine, REST times as long as they take: one that never rests has none free when a pod's change comes.
    """

    def __init__(self, yields: Callable[[], bool]) -> None:
        """yields: whether the cluster changes something just now."""
        self._loop = asyncio.get_running_loop()
        self._yields = yields
        self._began_at = self._loop.time()
        self._held_s = 0.0
        """Before `_began_at`, since the last pause."""

    @property
    def is_over(self) -> bool:
        return self._loop.time() - self._began_at + self._held_s >= TURN_S

    async def next(self) -> None:
        """Let everybody else have theirs."""
        self.stop()
        await asyncio.sleep(REST * self._held_s if self._yields() else 0)
        self._held_s = 0.0
        self.go_on()

    def stop(self) -> None:
        """What is waited for from here on is not the loop."""
        self._held_s += self._loop.time() - self._began_at

    def go_on(self) -> None:
        """Now it is again."""
        self._began_at = self._loop.time()


class TwinStore(Protocol):
    """Where twins and reports are kept."""

    async def documents(self, prefix: str = "") -> dict[str, bytes]: ...

    async def save(
        self,
        documents: Mapping[str, bytes | None],
        reports: Sequence[ReportEntry],
        events: Sequence[KubeEvent],
        samples: Mapping[tuple[ObjectKey, str], tuple[int, str | None]],
        gone: Sequence[ObjectKey],
    ) -> None:
        """
        One transaction, durable on return; None deletes a document. Raises one of `store_errors`.

        samples: for the history, by device and property when, in milliseconds since 1970, and what. gone: devices whose
        history goes.
        """
        ...


class TwinStatus(NamedTuple):
    """How things stand, for people."""

    bus: BusStatus
    ready: bool
    """Whether this node was ever told what it holds; the broker is not called before."""
    devices: int
    open_wishes: int
    ignored: int
    missed: int
    """Updates that their mappers numbered and that never came."""
    contested: tuple[str, ...]
    """Devices that more than one mapper claims, the first few: "default/pump: modbus-1, modbus-2"."""
    contested_count: int
    events_dropped: int
    """Things that happened to devices and that no Event tells, because too much happened at once."""
    store_problem: str


class TwinService:
    """Keeps the twins of a node's devices."""

    def __init__(
        self,
        node: str,
        store: TwinStore,
        feed: DeviceFeed,
        bus: Bus,
        *,
        store_errors: tuple[type[Exception], ...] = (OSError,),
        stale_after_ms: int = STALE_AFTER_MS,
        yields: Callable[[], bool],
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        """
        store_errors: what `store.save` raises when it cannot commit now but may later, as on a full disk.
        stale_after_ms: how long a reading counts at least if nobody repeats it; 0 for ever. yields: see Turn.
        """
        self._node = node
        self._store = store
        self._feed = feed
        self._bus = bus
        self._store_errors = store_errors
        self._stale_after_ms = stale_after_ms
        self._yields = yields
        self._clock_ms = clock_ms
        self._new_id = new_id
        self._fleet: Fleet | None = None
        self._clock_offset_s: float | None = None
        self._ready = False
        self._store_problem = ""
        self._queue: asyncio.Queue[News] = asyncio.Queue(QUEUE)

    async def run(self) -> None:
        """Until cancelled. Ends with the store's error when its documents cannot be read at the start."""
        kept = read_documents(
            {**await self._store.documents(TWIN_PREFIX), **await self._store.documents(MAPPER_PREFIX)}
        )
        fleet = self._fleet = Fleet(self._node, kept, now_ms=self._clock_ms(), stale_after_ms=self._stale_after_ms)
        queue = self._queue
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(queue), name="twin-feed")
            await self._take(fleet, [await queue.get()])
            self._ready = True
            group.create_task(self._bus.run(), name="twin-bus")
            group.create_task(self._receive(queue), name="twin-intake")
            while True:
                batch: list[News] = []
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._until_due_s(fleet)):
                        batch.append(await queue.get())
                while not queue.empty() and sum(map(_weight, batch)) < BATCH:
                    batch.append(queue.get_nowait())
                await self._take(fleet, batch)

    def _until_due_s(self, fleet: Fleet) -> float | None:
        """How long nothing has to be done but what comes."""
        self._watch_clock(fleet)
        due_ms = fleet.next_deadline_ms()
        return None if due_ms is None else max(0.0, (due_ms - self._clock_ms()) / 1000)

    def _watch_clock(self, fleet: Fleet) -> None:
        """Readings are timed by the wall clock, which is often set long after a machine without a battery started."""
        offset_s = self._clock_ms() / 1000 - time.monotonic()
        if self._clock_offset_s is not None and abs(offset_s - self._clock_offset_s) > CLOCK_JUMP_S:
            logger.info("the clock was set", extra={"seconds": round(offset_s - self._clock_offset_s)})
            fleet.clock_jumped(self._clock_ms())
            self._clock_offset_s = None
        if self._clock_offset_s is None:
            self._clock_offset_s = offset_s

    def view(self, device: ObjectKey) -> TwinView | None:
        """A device's twin for the local API; None for one that has none, or none yet."""
        twin = self._fleet.twins.get(id_of(device)) if self._fleet and self._ready else None
        return None if twin is None else view_of(twin)

    async def wish(self, device: ObjectKey, wishes: Mapping[str, tuple[str, int]]) -> None:
        """
        Set wishes at the edge: by property a value ("" takes it back) and the version it is based on. Then durable.

        Raises Invalid, Conflict, NotFound, or Unavailable where it cannot be made durable for now; it may still be.
        """
        if not self._ready:
            raise Unavailable("the twins of this node are not read yet", retry_after_s=1)
        answer: asyncio.Future[Refuse | None] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(WISH_S):
                await self._queue.put(Wishes(device, wishes, answer))
                refused = await answer
        except TimeoutError:
            why = self._store_problem or "the node is busy"
            raise Unavailable(f"not stored yet, still trying: {why}", retry_after_s=1) from None
        if refused is not None:
            raise _REFUSALS.get(refused.code, Invalid)(refused.reason)

    def status(self) -> TwinStatus:
        fleet = self._fleet
        twins = fleet.twins if fleet else {}
        contested = fleet.claims.contested if fleet else ()
        return TwinStatus(
            bus=self._bus.status(),
            ready=self._ready,
            devices=len(twins),
            open_wishes=sum(each.is_unmet for twin in twins.values() for each in twin.properties.values()),
            ignored=fleet.ignored if fleet else 0,
            missed=fleet.missed if fleet else 0,
            contested=tuple(
                f"{each}: {', '.join(fleet.claims.of(each))}" for each in islice(contested, CONTESTED_SHOWN)
            )
            if fleet
            else (),
            contested_count=len(contested),
            events_dropped=fleet.recorder.dropped if fleet else 0,
            store_problem=self._store_problem,
        )

    async def _follow(self, queue: asyncio.Queue[News]) -> None:
        async for news in self._feed.follow():
            await queue.put(news)

    async def _receive(self, queue: asyncio.Queue[News]) -> None:
        while True:
            await queue.put(await self._bus.receive(BATCH))

    async def _take(self, fleet: Fleet, batch: Sequence[News]) -> None:
        turn = Turn(self._yields)
        outcome = Outcome()
        answers: list[tuple[asyncio.Future[Refuse | None], Refuse | None]] = []
        for news in batch:
            moment = Moment(self._clock_ms(), self._new_id)
            if isinstance(news, Snapshot):
                await self._declare(fleet, fleet.take_snapshot(news.objects, moment, outcome), outcome, turn)
                continue
            if isinstance(news, Wishes):
                answers.append((news.answer, fleet.take_wishes(news.device, news.wishes, moment, outcome)))
                continue
            changes = [each for each in news if isinstance(each, Change)]
            if changes:
                await self._declare(fleet, fleet.take_changes(changes, moment, outcome), outcome, turn)
            for each in news:
                if isinstance(each, Arrived):
                    if turn.is_over:
                        await turn.next()
                    fleet.take_message(each.topic, each.payload, moment, outcome, retained=each.retained)
                elif isinstance(each, Online):
                    await self._declare(fleet, fleet.take_online(moment, outcome), outcome, turn)
        fleet.take_time(Moment(self._clock_ms(), self._new_id), outcome)
        while fleet.seal(outcome, SEAL_SLICE):
            if turn.is_over:
                await turn.next()
        turn.stop()
        if not outcome.is_durable:
            await self._save(outcome)
        turn.go_on()
        await self._publish(outcome.publications, turn)
        for answer, refused in answers:
            if not answer.done():  # whoever asked may have gone
                answer.set_result(refused)
        self._bus.acknowledge(
            each.receipt
            for news in batch
            if not isinstance(news, Snapshot | Wishes)
            for each in news
            if isinstance(each, Arrived)
        )
        await self._publish(fleet.current(Moment(self._clock_ms(), self._new_id)), turn)
        await turn.next()

    async def _declare(self, fleet: Fleet, devices: list[DeviceId], outcome: Outcome, turn: Turn) -> None:
        for start in range(0, len(devices), DECLARE_SLICE):
            moment = Moment(self._clock_ms(), self._new_id)
            fleet.declare(devices[start : start + DECLARE_SLICE], moment, outcome)
            if turn.is_over:
                await turn.next()

    async def _save(self, outcome: Outcome) -> None:
        """Until it is committed: the twins went on already, and what they answer must be true."""
        bound = STORE_BACKOFF_S[0]
        while True:
            try:
                await self._store.save(
                    outcome.documents, outcome.reports, outcome.events, outcome.samples, outcome.gone
                )
            except self._store_errors as error:
                if not self._store_problem:
                    logger.error("twins cannot be stored, devices wait", extra={"problem": str(error)})
                    await self._publish(outcome.not_stored(self._clock_ms(), str(error)), Turn(self._yields))
                self._store_problem = str(error)
                await asyncio.sleep(random.uniform(bound / 2, bound))  # noqa: S311  keeps no secret
                bound = min(bound * 2, STORE_BACKOFF_S[1])
            else:
                if self._store_problem:
                    logger.info("twins are stored again")
                self._store_problem = ""
                return

    async def _publish(self, publications: Iterable[Publication], turn: Turn) -> None:
        remaining = iter(publications)
        while some := list(islice(remaining, PUBLISH_SLICE)):
            if turn.is_over:
                await turn.next()
            turn.stop()
            await self._bus.room()
            turn.go_on()
            for publication in some:
                self._bus.publish(publication)


_REFUSALS: Mapping[int, type[ApiError]] = {404: NotFound, 409: Conflict}


def _weight(news: News) -> int:
    if isinstance(news, Snapshot):
        return BATCH
    return 1 if isinstance(news, Wishes) else len(news)
