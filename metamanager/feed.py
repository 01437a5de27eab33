"""
What changed in the store, for whoever in this process wants to know: the twins, the local API's watches.

Nothing is queued per consumer. Each has a place in one bounded window of changes and reads on from there;
one that falls out of the window gets Expired, and must list again.

The window has a shelf for each kind of object, and when it is full the largest shelf gives up its oldest. So a thousand
Devices that change within a second, or a ConfigMap of 3 MiB, cost who watches Pods none of their history.

It is wide for what comes at once, as a node's first sync does, and narrow for what stays: whoever keeps up has read
what came before the last commit, and on an edge memory is dear. So a feed in which little happens is soon as large as
it will ever be.

Invariants
    a change is in the feed only after its transaction has committed
    "subscribe, then list" misses nothing: what is committed after subscribe() is told, and the list has the rest
    the window holds at most `window` changes and no more than about `window_bytes` of bodies, of which RESTING and
    RESTING_BYTES are from before the last commit; the newest change of each kind comes on top

Belongs to the event loop.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Collection, Sequence

from apimachinery.errors import Expired
from apimachinery.events import Change
from apimachinery.keys import Resource
from apimachinery.watchcache import WINDOW

WINDOW_BYTES = 4 << 20  # 1,024 changes of 4 KB; larger objects keep a shorter history, so that an edge stays small
RESTING = WINDOW // 2  # at a change a second what a watcher misses that was away for eight minutes
RESTING_BYTES = 2 << 20


class FeedClosed(Exception):
    """The store was closed; there will be no more changes."""


class Shelf:
    """The recent changes of one kind, oldest first. The newest does not count: it is kept whatever its size."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        """That of the last change that is forgotten."""
        self.bytes = 0
        self.changes: deque[tuple[Change, int]] = deque()
        """With their sizes."""

    @property
    def older(self) -> int:
        """How many there are but for the newest."""
        return max(0, len(self.changes) - 1)

    def append(self, change: Change) -> tuple[int, int]:
        """By how many changes and bytes the older ones have become more."""
        before = self.bytes
        if self.changes:
            self.bytes += self.changes[-1][1]
        self.changes.append((change, _size(change)))
        return min(self.older, 1), self.bytes - before

    def forget(self) -> int:
        """Give up the oldest, which must not be the newest; its size."""
        change, size = self.changes.popleft()
        self.floor = change.revision
        self.bytes -= size
        return size

    def since(self, revision: int) -> list[Change]:
        found: list[Change] = []
        for change, _ in reversed(self.changes):
            if change.revision <= revision:
                break
            found.append(change)
        found.reverse()
        return found


class ChangeFeed:
    """The store's recent changes, and waiting for the next."""

    def __init__(self, revision: int = 0, window: int = WINDOW, window_bytes: int = WINDOW_BYTES) -> None:
        self.revision = revision
        """That of the last change."""
        self._window = window
        self._window_bytes = window_bytes
        self._start = revision
        self._shelves: dict[Resource, Shelf] = {}
        self._count = self._bytes = 0
        """Of all that is older than the newest of its kind."""
        self._more = asyncio.Event()
        self._closed = False

    def since(self, revision: int, resources: Collection[Resource] = ()) -> list[Change]:
        """
        The changes after `revision`, oldest first; of these resources only, where any are named.

        Raises Expired when some of them are forgotten or the revision lies ahead.
        """
        if revision > self.revision:
            raise Expired(f"too large resource version: {revision}, current: {self.revision}")
        shelves = [shelf for key, shelf in self._shelves.items() if not resources or key in resources]
        floor = max((shelf.floor for shelf in shelves), default=self._start)
        if revision < floor:
            raise Expired(f"too old resource version: {revision} ({floor})")
        found = [changes for shelf in shelves if (changes := shelf.since(revision))]
        return found[0] if len(found) == 1 else list(heapq.merge(*found, key=lambda change: change.revision))

    def subscribe(self, after: int | None = None, *, resources: Collection[Resource] = ()) -> "Subscription":
        """
        Changes from now on, or after a revision; of these resources, or of all.

        Iterating gives what has come since the last time, in lists, and raises Expired for who was too slow.
        """
        return Subscription(self, self.revision if after is None else after, resources)

    async def wait(self, revision: int) -> None:
        """Return once there are changes after `revision`. Raises FeedClosed."""
        while self.revision <= revision:
            if self._closed:
                raise FeedClosed
            await self._more.wait()

    def publish(self, changes: Sequence[Change]) -> None:
        """Take committed changes in; they follow those before without a gap."""
        self._shorten(min(RESTING, self._window), min(RESTING_BYTES, self._window_bytes))
        for change in changes:
            if change.revision != self.revision + 1:
                raise ValueError(f"change {change.revision} does not follow {self.revision}")
            self.revision = change.revision
            resource = change.object.key.resource
            shelf = self._shelves.get(resource)
            if shelf is None:
                shelf = self._shelves[resource] = Shelf(self._start)
            count, size = shelf.append(change)
            self._count += count
            self._bytes += size
            self._shorten(self._window, self._window_bytes)
        if changes:
            self._wake()

    def _shorten(self, window: int, window_bytes: int) -> None:
        while self._count >= window:
            self._forget(max(self._shelves.values(), key=lambda each: each.older))
        while self._bytes > window_bytes:
            self._forget(max(self._shelves.values(), key=lambda each: each.bytes))

    def _forget(self, shelf: Shelf) -> None:
        self._count -= 1
        self._bytes -= shelf.forget()

    def close(self) -> None:
        """End every subscription once it has read what there is."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()


class Subscription(AsyncIterator[list[Change]]):
    """One consumer's place in the feed. Needs no closing: the feed does not know it."""

    def __init__(self, feed: ChangeFeed, revision: int, resources: Collection[Resource]) -> None:
        self._feed = feed
        self._resources = resources
        self.revision = revision
        """Up to which it was given all that there was."""

    async def __anext__(self) -> list[Change]:
        while True:
            try:
                await self._feed.wait(self.revision)
            except FeedClosed:
                raise StopAsyncIteration from None
            changes = self._feed.since(self.revision, self._resources)
            self.revision = self._feed.revision
            if changes:
                return changes


def _size(change: Change) -> int:
    # The previous body is mostly the one of an earlier change in the window; counted, for when it is not.
    return len(change.object.body) + (0 if change.previous is None else len(change.previous.body))
