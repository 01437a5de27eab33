"""
Interest on demand: what clients of the local API read beyond what the node is sent by itself.

The first reader of a selection has the hub asked for it; from then on the hub pushes it like anything else, the store
keeps it, and every reader with whatever selectors is served from there, with the cloud or without. What nobody has read
for a long time is given back.

    ensure()     a reader needs a selection: wait for it, or say why it cannot be
    decided()    the hub grants or refuses; from the connector, as are
    completed()  the store holds all of it

Invariants
    what is not complete is never served as if it were: ensure() returns once it is, or raises
    what was complete once stays so, however old it becomes, until it is refused or given back
    a selection that another one covers is not kept beside it
    at most MAX_INTERESTS selections; one more takes the place of the one that was read least recently and is complete

Belongs to the event loop; the store is written by run() only, so that no reader waits for a disk.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from apimachinery.errors import ApiError, BadRequest, NotFound, TooManyRequests, Unavailable, from_status
from apimachinery.keys import Resource
from link.frames import MAX_INTERESTS, MAX_NAME_BYTES, Interest, RefusedInterest
from metamanager.cloud import Away, Cloud
from metamanager.errors import StoreError
from metamanager.interestrows import RememberedInterest
from metamanager.store import Store

logger = logging.getLogger(__name__)

FETCH_S = 5.0  # a reader waits so long for a selection to come; then it is told to ask again
REFUSED_S = 5.0  # so long a refusal counts for whoever asks again: a right that is given shows after that
NOTE_USE_MS = 3_600_000  # how exactly it is remembered when a selection was read; each note is a write to the card
HINTED = MAX_INTERESTS // 2  # what is only of use leaves room for what somebody reads
TIDY_S = 600.0
IDLE_S = 7 * 86_400.0
RETRY_S = 1


@dataclass
class _Kept:
    """What is known of one selection."""

    interest: Interest
    used_at_ms: int
    noted_at_ms: int
    complete: bool = False
    open_watches: int = 0
    problem: str = ""
    """Why the hub cannot decide yet, in its words."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it is complete or refused."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it is kept no longer."""


class Interests:
    """What is wanted, and what has come of it. Is edgehub's Selections."""

    def __init__(
        self, store: Store, cloud: Cloud, *, idle_s: float = IDLE_S, now_ms: Callable[[], int] | None = None
    ) -> None:
        """idle_s: a selection that nobody read for so long is given back. now_ms: the wall clock."""
        self._store = store
        self._cloud = cloud
        self._idle_ms = round(idle_s * 1000)
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._kept: dict[Interest, _Kept] = {}
        self._refused: dict[Interest, tuple[float, ApiError]] = {}
        self._gone: list[_Kept] = []
        """Given back, and not yet forgotten by the store."""
        self._unsaved: set[Interest] = set()
        self._changed = asyncio.Event()

    async def load(self) -> None:
        """What is remembered, and say it to the link before that comes up. Raises a StoreError."""
        for resource, namespace, name, user, used_at_ms, complete in await self._store.interests():
            kept = _Kept(Interest(resource, namespace, name, user), used_at_ms, used_at_ms, complete)
            if complete:
                kept.settled.set()
            self._kept[kept.interest] = kept
        self._want()

    @property
    def selections(self) -> list[Interest]:
        """What is wanted now."""
        return list(self._kept)

    def resources(self) -> set[Resource]:
        return {interest.resource for interest in self._kept}

    def covers(self, resource: Resource, namespace: str, name: str) -> bool:
        """Whether the store holds everything in a selection, for whomever it was asked for. Counts as a use."""
        found = self._covering(resource, namespace, name)
        if found is not None:
            self._use(found)
        return found is not None

    async def ensure(self, wanted: Interest) -> None:
        """
        Return once the store holds everything in this selection.

        Raises what the hub refused it with, Away where it was never granted and the cloud is away, Unavailable with a
        time to come back where it does not come soon, and BadRequest where the link cannot say it.
        """
        if max(len(wanted.namespace), len(wanted.name)) > MAX_NAME_BYTES:
            # The hub would end the connection over it, again and again: it is remembered.
            raise BadRequest(f"a node serves no names of more than {MAX_NAME_BYTES} characters: ask the cluster")
        try:
            async with asyncio.timeout(FETCH_S):
                # More than once where a wider selection of the same user was refused while this one waited for it.
                while not self.covers(wanted.resource, wanted.namespace, wanted.name):
                    self._check_refused(wanted)
                    if not self._cloud.is_connected():
                        raise Away(
                            f"this node does not hold {_told(wanted)} and is not connected to the cloud, so it cannot "
                            "say what there is"
                        )
                    own = self._covering(wanted.resource, wanted.namespace, wanted.name, wanted.user)
                    await (own or self._want_too(wanted)).settled.wait()
        except TimeoutError:
            own = self._covering(wanted.resource, wanted.namespace, wanted.name, wanted.user)
            problem = f" ({own.problem})" if own is not None and own.problem else ""
            raise Unavailable(
                f"{_told(wanted)} is being fetched from the cloud{problem}: try again", retry_after_s=RETRY_S
            ) from None

    def hint(self, wanted: Interest) -> None:
        """This selection would be of use; nobody waits for it."""
        own = self._covering(wanted.resource, wanted.namespace, wanted.name, wanted.user)
        if own is None and wanted not in self._refused and self._cloud.is_connected() and len(self._kept) < HINTED:
            self._want_too(wanted)

    @contextlib.contextmanager
    def reading(self, resource: Resource, namespace: str, name: str) -> Iterator[asyncio.Event]:
        """A watch of a selection is open: it counts as read for as long. Gives what is set when it ends."""
        kept = self._covering(resource, namespace, name)
        if kept is None:
            yield asyncio.Event()
            return
        kept.open_watches += 1
        try:
            yield kept.ended
        finally:
            kept.open_watches -= 1
            self._use(kept)

    # From the link

    def decided(
        self, interests: Sequence[Interest], refused: Sequence[RefusedInterest], resources: Sequence[Resource]
    ) -> None:
        """The hub has decided upon all that was wanted last."""
        now = time.monotonic()
        # Any client may ask for any number of names that it is refused.
        self._refused = {each: known for each, known in self._refused.items() if now - known[0] <= REFUSED_S}
        for interest, code, reason in refused:
            kept = self._kept.get(interest)
            if kept is None:
                continue
            if code == 503:  # not known yet: what was complete stays so
                kept.problem = reason
                continue
            error = NotFound(reason) if code == 404 else from_status(code, "", reason)
            self._refused[interest] = (now, error)
            logger.info("interest refused", extra={"interest": _told(interest), "code": code, "reason": reason})
            self._drop(kept)

    def completed(self, interests: Sequence[Interest]) -> None:
        """The store holds all of these."""
        for interest in interests:
            kept = self._kept.get(interest)
            if kept is not None and not kept.complete:
                kept.complete = True
                self._unsaved.add(interest)
                kept.settled.set()
        for interest in interests:
            self._drop_covered(interest)
        self._changed.set()

    # Keeping the book

    async def run(self) -> None:
        """Write down what changes, and give back what nobody reads, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TIDY_S):
                    await self._changed.wait()
            self._changed.clear()
            self._give_back()
            await self._save()

    def _give_back(self) -> None:
        """Let go of what nobody has read for long; not while the cloud is away, for then nothing can be had again."""
        now_ms = self._now_ms()
        if not self._cloud.is_connected():
            return
        idle = [
            kept for kept in self._kept.values() if not kept.open_watches and kept.used_at_ms < now_ms - self._idle_ms
        ]
        for kept in idle:
            logger.info("interest given back", extra={"interest": _told(kept.interest)})
            self._drop(kept)

    async def _save(self) -> None:
        unsaved, self._unsaved = self._unsaved, set()
        gone, self._gone = self._gone, []
        now_ms = self._now_ms()
        for kept in self._kept.values():
            if kept.open_watches:
                kept.used_at_ms = now_ms
            if kept.used_at_ms - kept.noted_at_ms >= NOTE_USE_MS:
                unsaved.add(kept.interest)
        rows = [_remembered(self._kept[interest]) for interest in unsaved if interest in self._kept]
        if not rows and not gone:
            return
        try:
            await self._store.remember(rows, [_remembered(kept) for kept in gone if kept.interest not in self._kept])
        except StoreError as exc:
            logger.warning("interests not remembered", extra={"reason": str(exc)})
            self._unsaved |= unsaved
            self._gone += gone
        else:
            for interest in unsaved & self._kept.keys():
                self._kept[interest].noted_at_ms = self._kept[interest].used_at_ms

    def _covering(self, resource: Resource, namespace: str, name: str, user: str | None = None) -> _Kept | None:
        """The complete selection, or with a user that one's own whatever its state, in which all of this is."""
        for kept in self._kept.values():
            held = kept.interest
            if (
                held.resource == resource
                and held.namespace in ("", namespace)
                and held.name in ("", name)
                and (not held.name or held.namespace == namespace)
                and (kept.complete or held.user == user)
            ):
                return kept
        return None

    def _want_too(self, wanted: Interest) -> _Kept:
        if len(self._kept) >= MAX_INTERESTS:
            idle = [kept for kept in self._kept.values() if kept.complete and not kept.open_watches]
            if not idle:
                raise TooManyRequests(
                    f"this node reads {MAX_INTERESTS} selections from the cloud, which is all it may", retry_after_s=60
                )
            self._drop(min(idle, key=lambda kept: kept.used_at_ms))
        now_ms = self._now_ms()
        kept = self._kept[wanted] = _Kept(wanted, now_ms, now_ms)
        self._unsaved.add(wanted)
        self._want()
        return kept

    def _drop_covered(self, whole: Interest) -> None:
        """What is part of a selection that is complete now, and was asked for by the same user, needs no place."""
        for kept in list(self._kept.values()):
            part = kept.interest
            if (
                part != whole
                and (part.resource, part.user) == (whole.resource, whole.user)
                and not whole.name
                and whole.namespace in ("", part.namespace)
                and not kept.open_watches
            ):
                self._drop(kept)

    def _drop(self, kept: _Kept) -> None:
        self._kept.pop(kept.interest, None)
        self._unsaved.discard(kept.interest)
        self._gone.append(kept)
        kept.settled.set()
        kept.ended.set()
        self._want()

    def _want(self) -> None:
        self._cloud.want(self.selections)
        self._changed.set()

    def _use(self, kept: _Kept) -> None:
        kept.used_at_ms = self._now_ms()

    def _check_refused(self, wanted: Interest) -> None:
        known = self._refused.get(wanted)
        if known is None:
            return
        if time.monotonic() - known[0] > REFUSED_S:
            del self._refused[wanted]
            return
        raise known[1]


def _remembered(kept: _Kept) -> RememberedInterest:
    return RememberedInterest(*kept.interest, kept.used_at_ms, kept.complete)


def _told(interest: Interest) -> str:
    """As a person would say it."""
    collection = interest.resource.collection
    if interest.name:
        collection = f'{collection} "{interest.name}"'
    return f"{collection} in namespace {interest.namespace}" if interest.namespace else collection
