"""
Watches that nodes asked for: a reflector for each resource that somebody at the edge is interested in and that is not
watched anyway.

One is started when the first node is interested, and goes on for a while after the last one is not: whoever comes back
soon costs no list. What is not placed by a rule is nobody's business here before, and after that the cache forgets it.

"There is no such resource" needs proof, as everywhere: an apiserver that is starting says so of everything whose
definition it has not read yet.
"""

import asyncio
import logging
from collections.abc import Callable, Container, Iterable, Sequence
from typing import NamedTuple, NoReturn, Protocol

from apimachinery.errors import ApiError, NotFound, TooManyRequests
from apimachinery.keys import Resource
from apimachinery.watchcache import WatchCache
from cloudhub.backoff import BASE_S
from cloudhub.horizon import Advance
from cloudhub.interests import GRANTED, IDLE_S, MOST_RESOURCES, UNKNOWN, Decision, is_custom
from cloudhub.reflector import Consumer, Reflector, ReflectorStatus, Source

logger = logging.getLogger(__name__)

LOOK_S = 5.0  # how often idle ones are looked for
MOST_ABSENT = 128  # names of what there is not; each is looked for every LOOK_AGAIN_S, and whoever asks may read it
LOOK_AGAIN_S = 30.0  # for a resource that there is not; one with a definition is looked for when that is applied


class Discovering(Source, Protocol):
    """The requests that this needs; cloudhub.apiclient.ApiClient has them."""

    async def discover(self, collection: str) -> Resource: ...


_PENDING = Decision(UNKNOWN, "the hub has asked for it, and has no answer yet", is_pending=True)


class _Followed:
    """One resource that is, or was lately, in demand."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self.task = task
        self.decision = _PENDING
        self.reflector: Reflector | None = None
        self.woken = asyncio.Event()
        self.idle_since: float | None = None

    @property
    def takes_room(self) -> bool:
        """Whether it is one of those that are watched, or may be soon; what there is not costs next to nothing."""
        return self.reflector is not None or self.decision.code not in (NotFound.code, TooManyRequests.code)


class Watched(NamedTuple):
    """A resource that is watched in any case."""

    resource: Resource
    namespace: str = ""
    """Of this namespace only. Where a node is interested in more of it, all of it is watched from then on."""


Advanced = Callable[[Resource, Advance], None]


class Demand:
    """All of them. run() must be going for anything to be watched."""

    def __init__(
        self,
        client: Discovering,
        cache: WatchCache,
        consumer: Consumer,
        watched: Iterable[Watched],
        *,
        advanced: Advanced,
        changed: Callable[[str], None],
        widen: Callable[[Resource, Advanced], Reflector] | None = None,
        idle_s: float = IDLE_S,
        most: int = MOST_RESOURCES,
    ) -> None:
        """
        advanced: told how far each has come, as by any reflector. changed: told the collection of which state() says
        something else than before. widen: ends the reflector of a resource that is watched in part, and makes one that
        follows all of it, which tells the function it is given how far it has come.
        """
        self._client = client
        self._cache = cache
        self._consumer = consumer
        self._watched = {each.resource.collection: each for each in watched}
        self._tell_advanced = advanced
        self._tell_changed = changed
        self._widen = widen
        self._idle_s = idle_s
        self._most = most
        self._followed: dict[str, _Followed] = {}
        self.wanted: Callable[[], Iterable[tuple[str, str]]] = tuple
        """Gives what is in demand, each collection with the namespace ("" for all); asked now and then."""
        self._turned_away: set[str] = set()
        self._work = asyncio.Event()

    # What nodes want, and what they get

    def _is_watched(self, collection: str, namespace: str) -> bool:
        """In any case."""
        watched = self._watched.get(collection)
        return watched is not None and watched.namespace in ("", namespace)

    def resource(self, collection: str) -> Resource | None:
        """As nodes hold it, where it is watched."""
        if (watched := self._watched.get(collection)) is not None:
            return watched.resource
        followed = self._followed.get(collection)
        return None if followed is None else followed.decision.resource

    def state(self, collection: str, namespace: str = "") -> Decision:
        """Whether objects of this resource, of all namespaces or of one, can be pushed. Who asks is in need of it."""
        if self._is_watched(collection, namespace):
            resource = self._watched[collection].resource
            if self._cache.resume_version(resource):
                return Decision(GRANTED, resource=resource)
            return _absent(collection) if self._cache.is_synced(resource) else _PENDING
        followed = self._followed.get(collection)
        if followed is not None:
            return followed.decision
        if not self._has_room():
            self._turned_away.add(collection)
            return self._one_too_many()
        self._work.set()
        return _PENDING

    def _has_room(self) -> bool:
        taken = sum(each.takes_room for each in self._followed.values())
        return taken < self._most and len(self._followed) < self._most + MOST_ABSENT

    def _one_too_many(self) -> Decision:
        most = f"nodes of this hub are interested in {self._most} resources already (interest.maxResources)"
        return Decision(TooManyRequests.code, most)

    def wake(self, collection: str) -> None:
        """Look again now: its definition has changed."""
        if (followed := self._followed.get(collection)) is not None:
            followed.woken.set()
            if followed.reflector is not None:
                followed.reflector.wake()

    def statuses(self) -> Sequence[ReflectorStatus]:
        return [each.reflector.status() for each in self._followed.values() if each.reflector is not None]

    # The work

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._work.clear()
                wanted = dict.fromkeys(name for name, where in self.wanted() if not self._is_watched(name, where))
                self._let_go(wanted, loop.time())
                for collection in wanted:
                    self._follow(collection, tasks)
                try:
                    async with asyncio.timeout(min(LOOK_S, self._idle_s)):
                        await self._work.wait()
                except TimeoutError:
                    pass

    def _follow(self, collection: str, tasks: asyncio.TaskGroup) -> None:
        if (followed := self._followed.get(collection)) is not None:
            followed.idle_since = None
        elif self._has_room():
            task = tasks.create_task(self._keep_following(collection), name=f"demand[{collection}]")
            self._followed[collection] = _Followed(task)
            if collection in self._turned_away:
                self._turned_away.discard(collection)
                self._tell_changed(collection)
            logger.info("nodes are interested in a resource", extra={"resource": collection})
        elif collection not in self._turned_away:
            self._turned_away.add(collection)
            self._tell_changed(collection)

    def _let_go(self, wanted: Container[str], now: float) -> None:
        for collection, followed in list(self._followed.items()):
            if collection in wanted or collection in self._watched:
                continue
            if followed.idle_since is None:
                followed.idle_since = now
            if now - followed.idle_since < self._idle_s:
                continue
            followed.task.cancel()
            del self._followed[collection]
            if followed.reflector is not None:
                # Nobody holds anything of it, so nobody needs to hear of it.
                self._cache.forget(followed.reflector.resource)
                self._tell_advanced(followed.reflector.resource, Advance(""))
            logger.info("nobody is interested in a resource any more", extra={"resource": collection})

    async def _keep_following(self, collection: str) -> None:
        if (watched := self._watched.get(collection)) is not None:
            assert self._widen is not None, "who watches in part can watch all"
            await self._run(collection, self._widen(watched.resource, self._has_advanced))
        failures = 0
        while True:
            try:
                resource = await self._client.discover(collection)
            except ApiError as error:
                failures += 1
                await self._report(collection, error)
                if await self._pause(collection, min(LOOK_AGAIN_S, BASE_S * 2.0 ** min(failures, 16))):
                    failures = 0
                continue
            if not self._followed[collection].takes_room and not self._has_room():
                self._decide(collection, self._one_too_many())
                await self._pause(collection, LOOK_AGAIN_S)
                continue
            made = Reflector(
                self._client,
                resource,
                self._cache,
                self._consumer,
                advanced=self._has_advanced,
                failed=self._has_failed,
            )
            await self._run(collection, made)

    async def _run(self, collection: str, reflector: Reflector) -> NoReturn:
        self._followed[collection].reflector = reflector
        await reflector.run()

    async def _report(self, collection: str, error: ApiError) -> None:
        """Discovery failed: tell whether that means that there is no such resource."""
        plural, _, group = collection.partition(".")
        if isinstance(error, NotFound):
            proven = not is_custom(group) or await self._is_undefined(Resource(group, "v1", plural, "Any", True))
            if proven:
                self._decide(collection, _absent(collection))
                return
        self._decide(collection, Decision(UNKNOWN, f"the hub cannot look for it: {error}"))

    async def _is_undefined(self, resource: Resource) -> bool:
        try:
            return await self._client.is_defined(resource) is False
        except ApiError:
            return False

    async def _pause(self, collection: str, delay_s: float) -> bool:
        """Returns whether it was ended by wake()."""
        woken = self._followed[collection].woken
        try:
            async with asyncio.timeout(delay_s):
                await woken.wait()
        except TimeoutError:
            return False
        woken.clear()
        return True

    def _has_failed(self, resource: Resource, problem: str) -> None:
        followed = self._followed.get(resource.collection)
        if followed is not None and followed.decision.code == UNKNOWN:
            self._decide(resource.collection, Decision(UNKNOWN, f"the hub cannot list it: {problem}"))

    def _has_advanced(self, resource: Resource, advance: Advance) -> None:
        self._tell_advanced(resource, advance)
        collection = resource.collection
        if advance.reached:
            self._decide(collection, Decision(GRANTED, resource=resource))
        else:
            self._decide(collection, _absent(collection))

    def _decide(self, collection: str, decision: Decision) -> None:
        followed = self._followed.get(collection)
        if followed is not None and followed.decision != decision:
            followed.decision = decision
            self._tell_changed(collection)
            if not followed.takes_room:
                self._work.set()  # another may have its place


def _absent(collection: str) -> Decision:
    return Decision(NotFound.code, f'the cluster has no resource "{collection}"')
