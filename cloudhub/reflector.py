"""
Keeps one resource of a watch cache in step with an apiserver: list once, then watch for ever.

Three nested generators, each with one job, after kopf's watching.py
    _for_ever       never ends; turns errors into pauses
    _list_and_watch lists where it must, then watches again and again; ends with an error
    _listed         one list, projected page by page
run() takes what comes out of them into the cache and tells the consumer what changed.

What is promised
    A list is never older than what was seen: the first one asks for the newest state, one after 410 for a
    state not older than the last (KEP-365's NotOlderThan), and where the server cannot give that, as after
    a restore from a backup, again for the newest.
    A watch that ends or breaks goes on from the last event or bookmark and causes no list.
    What a Conflation holds back is taken in when its time has come, or the watch has ended; the cache stays where the
    next watch would tell it again until then.
    A resource that is not there yet is waited for. One that is gone is forgotten, but only on proof: its
    definition is gone too. An answer of 404 from an apiserver that is still starting proves nothing.

The cache is changed and the consumer told without a pause in between, so with several reflectors on one
cache and one event loop every consumer sees changes in the order of their revisions.
"""

import asyncio
import enum
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import NamedTuple, NoReturn, Protocol, assert_never

from apimachinery.errors import ApiError, Expired, NotFound, Unavailable
from apimachinery.events import Change, EventType, WatchEvent
from apimachinery.keys import Resource
from apimachinery.objects import Object
from apimachinery.watchcache import WatchCache
from cloudhub.apiclient import WATCH_S
from cloudhub.apiwire import Event, Page
from cloudhub.backoff import read_delay_s
from cloudhub.conflation import Conflation
from cloudhub.horizon import Advance
from cloudhub.projection import Projection
from cloudhub.reading import Sent
from componentbase.aside import aside

logger = logging.getLogger(__name__)

GATHERED = 16  # events that are taken in together: 2 ms
BREATH_OBJECTS = 100  # projecting this many takes about 10 ms; then everybody else has a turn
LARGE_BYTES = 256 << 10  # of one object, that it is projected aside: 1 ms, and 12 of the largest
TURN_S = 0.001  # of one watch; a read of it may be fifty events, 10 ms of work that pods would wait for
HASTY_S = 1.0  # a watch that the server ends sooner than this, without an event, is not worth repeating at once


class Source(Protocol):
    """The requests that this needs; cloudhub.apiclient.ApiClient has them."""

    def pages(
        self, resource: Resource, resource_version: str = "", *, namespace: str = "", labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Page, None]: ...

    def watch(
        self,
        resource: Resource,
        resource_version: str,
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        timeout_s: float = WATCH_S,
    ) -> AsyncGenerator[Event, None]: ...

    async def is_defined(self, resource: Resource) -> bool | None: ...


class Consumer(Protocol):
    """Who wants to know."""

    def changed(self, changes: list[Change]) -> None:
        """
        The cache has taken these in; never empty.

        Not a coroutine: a consumer marks what it has to do and does it in a task of its own, so that
        nothing queues up here.
        """


class Selection(NamedTuple):
    """Which objects of the resource; all of them by default."""

    namespace: str = ""
    labels: str = ""
    fields: str = ""


EVERYTHING = Selection()


class Phase(enum.StrEnum):
    """What a reflector is at."""

    LISTING = "listing"
    WATCHING = "watching"
    ABSENT = "absent"
    """The resource is not defined: there are no objects, and that is known."""
    FAILING = "failing"


class ReflectorStatus(NamedTuple):
    """One line of `cloudcore status`."""

    resource: Resource
    phase: Phase
    synced: bool
    problem: str
    """Why it is FAILING or ABSENT, "" otherwise."""
    lists: int
    watches: int


class _Listed(NamedTuple):
    objects: list[Object]
    resource_version: str


class _Absent(NamedTuple):
    pass


_Item = _Listed | WatchEvent | _Absent


class Reflector:
    """One resource. Run it in a task of its own; it ends only when it is cancelled or has a bug."""

    def __init__(
        self,
        source: Source,
        resource: Resource,
        cache: WatchCache,
        consumer: Consumer,
        *,
        projection: Projection | None = None,
        observe: Callable[[Sent], None] = lambda item: None,
        advanced: Callable[[Resource, Advance], None] = lambda resource, advance: None,
        failed: Callable[[Resource, str], None] = lambda resource, problem: None,
        select: Selection = EVERYTHING,
        conflation: Conflation | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """
        projection: applied before the cache, so that what it removes makes no change; of nobody else. None for one
        that nobody looks through.
        observe: sees each object as the apiserver has it, when listed, added or modified, before the
        cache and the consumer do; each state of what waits at once, and the one that is taken in again. It must not
        raise.
        advanced: told how far it has come, after the cache and the consumer were.
        failed: told why it cannot follow for now, each time.
        conflation: decides which states may wait, or be passed over; None takes all in as they come.
        jitter: gives numbers uniform in [0, 1).
        """
        self.resource = resource
        self._source = source
        self._cache = cache
        self._consumer = consumer
        self._projection = Projection(resource) if projection is None else projection
        self._observe = observe
        self._advanced = advanced
        self._failed = failed
        self._select = select
        self._conflation = conflation
        self._timer: asyncio.TimerHandle | None = None
        """Runs while something is held back."""
        self._gathered: list[WatchEvent] = []
        """What was held back and is not any more, and is taken in together."""
        self._problem_held: Exception | None = None
        """Why something that was held back could not be taken in."""
        self._jitter = jitter
        self._synced = asyncio.Event()
        self._woken = asyncio.Event()
        self._must_list = True
        self._newest = True
        """Whether the next list asks for the newest state rather than for one not older than the last."""
        self._failures = 0
        self._phase = Phase.LISTING
        self._problem = ""
        self._lists = self._watches = 0

    async def run(self) -> NoReturn:
        try:
            async with aclosing(self._for_ever()) as items:
                async for item in items:
                    self._take_in(item)
        finally:
            if self._timer is not None:
                self._timer.cancel()
        raise AssertionError("for ever is over")

    async def wait_synced(self) -> None:
        """Returns once the cache says of this resource what the apiserver says, be it that there is no such thing."""
        await self._synced.wait()

    def wake(self) -> None:
        """Try again now rather than after the current pause, as when a definition has been applied."""
        self._woken.set()

    def status(self) -> ReflectorStatus:
        return ReflectorStatus(
            self.resource, self._phase, self._synced.is_set(), self._problem, self._lists, self._watches
        )

    def _take_in(self, item: _Item) -> None:
        if isinstance(item, WatchEvent):
            self._gathered.append(item)  # behind what was not taken in yet, which may be of the same object
            self._take_gathered()
            return
        self._take_gathered()
        changes: list[Change]
        match item:
            case _Listed(objects, version):
                self._projection.keep_only(objects)
                changes = self._cache.replace(self.resource, objects, version)
                advance = Advance(version)
                if self._conflation is not None:
                    self._conflation.begin(version)
                self._synced.set()
            case _Absent():
                self._projection.keep_only(())
                changes = self._cache.forget(self.resource)
                # Nothing is there, and that is an answer: the cache counts as synced, from nowhere.
                changes += self._cache.replace(self.resource, (), "")
                advance = Advance("")
                self._synced.set()
            case _:
                assert_never(item)
        self._tell(changes, advance)

    def _take_gathered(self) -> None:
        """Of an apiserver's events: together, so that they leave together, and are one commit at an edge."""
        if not self._gathered:
            return
        events, self._gathered = self._gathered, []
        reached = newest = events[-1].resume_version
        if self._conflation is not None:
            # What was held back is older than what was given since: it takes nothing of that back.
            reached, newest = self._conflation.reached, self._conflation.newest
        changes: list[Change] = []
        for each in events:
            changes += self._cache.apply(each._replace(resume_version=reached), self.resource)
        ahead = "" if reached == newest else newest
        self._tell(changes, Advance(reached, is_bookmark=all(each.object is None for each in events), ahead=ahead))

    def _tell(self, changes: list[Change], advance: Advance) -> None:
        if changes:
            self._consumer.changed(changes)
        self._advanced(self.resource, advance)

    async def _for_ever(self) -> AsyncGenerator[_Item, None]:
        while True:
            try:
                async with aclosing(self._list_and_watch()) as items:
                    async for item in items:
                        yield item
            except ApiError as error:
                self._failures += 1
                delay_s = read_delay_s(error, self._failures, self._jitter())
                self._fail(error, delay_s)
                await self._pause(delay_s)

    async def _list_and_watch(self) -> AsyncGenerator[_Item, None]:
        while True:
            async with aclosing(self._waiting()) as events:
                async for event in events:
                    yield event
            if self._must_list:
                self._phase = Phase.LISTING if self._phase is Phase.WATCHING else self._phase
                try:
                    yield await self._listed()
                except NotFound as error:
                    if await self._source.is_defined(self.resource) is False:
                        # What comes after a definition is deleted and applied again has nothing to do with before.
                        self._newest = True
                        self._tell_absent(error)
                        yield _Absent()
                    raise
                self._must_list = False
            self._recover()
            async for event in self._watched():
                yield event

    async def _listed(self) -> _Listed:
        known = "" if self._newest else self._cache.resume_version(self.resource)
        # Where this fails for any reason, the next one asks for the newest state, which any server has.
        self._newest = True
        self._lists += 1
        objects: list[Object] = []
        version = ""
        async with aclosing(self._source.pages(self.resource, known, **self._select._asdict())) as pages:
            async for page in pages:
                version = page.resource_version
                for place, item in enumerate(page.objects, 1):
                    self._observe(item)
                    objects.append(self._projection.seen(item))
                    if place % BREATH_OBJECTS == 0:
                        await asyncio.sleep(0)
        self._newest = False
        logger.debug("listed", extra={"resource": self.resource.collection, "objects": len(objects)})
        return _Listed(objects, version)

    async def _watched(self) -> AsyncGenerator[WatchEvent, None]:
        """One watch, from where the cache is."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        came = False
        self._watches += 1
        since = self._cache.resume_version(self.resource)
        # Not all at once, when a restart of the apiserver or of this process has aligned them.
        timeout_s = WATCH_S * (0.8 + 0.4 * self._jitter())
        try:
            async with aclosing(
                self._source.watch(self.resource, since, timeout_s=timeout_s, **self._select._asdict())
            ) as events:
                ends_at = 0.0
                async for event in events:
                    came = True
                    if self._is_held(event):
                        pass
                    elif self._conflation is None and event.object is not None and event.object.size > LARGE_BYTES:
                        yield await self._seen_aside(event, event.object)
                    else:
                        yield self._seen(event)
                    if loop.time() >= ends_at:
                        await asyncio.sleep(0)
                        ends_at = loop.time() + TURN_S
        except (Expired, NotFound):
            # NotFound: the definition is gone, or the server is starting. The list will tell.
            self._must_list = True
            raise
        finally:
            lasted = came or loop.time() - started >= HASTY_S
            if lasted:
                self._failures = 0
        if not lasted:
            raise Unavailable(f"the watch of {self.resource.collection} was ended at once")

    async def _waiting(self) -> AsyncGenerator[WatchEvent, None]:
        """What is held back, due or not: the watch that told it has ended."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + TURN_S
        while self._conflation is not None and (held := self._conflation.pop()) is not None:
            try:
                event = self._seen(held)
            except ApiError:
                self._must_list = True  # no watch tells it again
                raise
            yield event
            if loop.time() >= ends_at:
                await asyncio.sleep(0)
                ends_at = loop.time() + TURN_S

    def _is_held(self, event: Event) -> bool:
        """Whether this waits for now. Raises what went wrong with something that had waited."""
        if self._problem_held is not None:
            problem, self._problem_held = self._problem_held, None
            raise problem
        if self._conflation is None or not self._conflation.holds(event, asyncio.get_running_loop().time()):
            return False
        if event.object is not None:
            # Whoever writes an object needs its last version, or is told of a conflict each time.
            self._observe(event.object)
        self._wait_for_held()
        return True

    def _wait_for_held(self) -> None:
        assert self._conflation is not None, "without it nothing waits"
        due_at = self._conflation.next_deadline()
        if self._timer is None and due_at is not None:
            self._timer = asyncio.get_running_loop().call_at(due_at, self._take_held)

    def _take_held(self) -> None:
        assert self._conflation is not None, "without it nothing waits"
        loop = asyncio.get_running_loop()
        self._timer, ends_at = None, loop.time() + TURN_S
        try:
            while loop.time() < ends_at and (event := self._conflation.due(loop.time())) is not None:
                self._gathered.append(self._seen(event))
            due_at = self._conflation.next_deadline()
            if len(self._gathered) >= GATHERED or due_at is None or due_at > loop.time():
                self._take_gathered()
        except Exception as problem:  # it belongs to whoever runs this, and reaches him with the next event
            self._problem_held, self._must_list = problem, True
            self._take_gathered()
        self._wait_for_held()

    def _seen(self, event: Event) -> WatchEvent:
        item = event.object
        if item is None:
            return WatchEvent(event.type, None, event.resume_version)
        if event.type is not EventType.DELETED:
            self._observe(item)
        return self._told(event, item, self._projection.seen(item))

    async def _seen_aside(self, event: Event, item: Sent) -> WatchEvent:
        """As _seen(), with the work in a thread: nobody else touches the projection, for a watch is read in order."""
        if event.type is not EventType.DELETED:
            self._observe(item)
        return self._told(event, item, await aside(partial(self._projection.seen, item), "projection"))

    def _told(self, event: Event, item: Sent, seen: Object) -> WatchEvent:
        if event.type is EventType.DELETED:
            self._projection.gone(item)
        return WatchEvent(event.type, seen, event.resume_version)

    def _recover(self) -> None:
        if self._problem:
            logger.info("watching again", extra={"resource": self.resource.collection, "was": self._problem})
        self._phase = Phase.WATCHING
        self._problem = ""

    def _tell_absent(self, error: ApiError) -> None:
        if self._phase is not Phase.ABSENT:
            logger.warning(
                "resource is not defined, waiting for it (the device resources: `cloudcore crds | kubectl apply -f -`)",
                extra={"resource": self.resource.collection},
            )
        self._phase = Phase.ABSENT
        self._problem = str(error)

    def _fail(self, error: ApiError, delay_s: float) -> None:
        if isinstance(error, NotFound) and self._phase is Phase.ABSENT:
            return
        told = str(error)
        # 410 is how servers say that their memory is short: nothing that anybody must know of.
        level = logging.DEBUG if told == self._problem or isinstance(error, Expired) else logging.WARNING
        logger.log(
            level,
            "cannot follow resource, trying again",
            extra={"resource": self.resource.collection, "problem": told, "in_s": round(delay_s, 2)},
        )
        if not isinstance(error, Expired):
            self._phase = Phase.FAILING
            self._problem = told
            self._failed(self.resource, told)

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()
