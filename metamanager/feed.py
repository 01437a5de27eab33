"""
What changed in the store, for whoever in this process wants to know: the twins, the local API's watches.

Nothing is queued per consumer. Each has a place in one bounded window of changes and reads on from there;
one that falls out of the window gets Expired, and must list again.

Invariants
    a change is in the feed only after its transaction has committed
    "subscribe, then list" misses nothing: what is committed after subscribe() is told, and the list has the rest
    the window holds at most `window` changes, and no more than about `window_bytes` of bodies

Belongs to the event loop.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from apimachinery.events import Change
from apimachinery.watchcache import WINDOW, ChangeWindow

WINDOW_BYTES = 4 << 20  # 1,024 changes of 4 KB; larger objects keep a shorter history, so that an edge stays small


class FeedClosed(Exception):
    """The store was closed; there will be no more changes."""


class ChangeFeed:
    """The store's recent changes, and waiting for the next."""

    def __init__(self, revision: int = 0, window: int = WINDOW, window_bytes: int = WINDOW_BYTES) -> None:
        self._window = window
        self._window_bytes = window_bytes
        self._changes = ChangeWindow(revision, window)
        self._sizes: deque[int] = deque()
        """Bytes of the changes in the window, oldest first."""
        self._bytes = 0
        self._more = asyncio.Event()
        self._closed = False

    @property
    def revision(self) -> int:
        """That of the last change."""
        return self._changes.revision

    def since(self, revision: int) -> list[Change]:
        """The changes after `revision`, oldest first. Raises Expired when some are forgotten or it lies ahead."""
        return self._changes.since(revision)

    def subscribe(self, after: int | None = None) -> "Subscription":
        """
        Changes from now on, or after a revision.

        Iterating gives what has come since the last time, in lists, and raises Expired for who was too slow.
        """
        return Subscription(self, self.revision if after is None else after)

    async def wait(self, revision: int) -> None:
        """Return once there are changes after `revision`. Raises FeedClosed."""
        while self.revision <= revision:
            if self._closed:
                raise FeedClosed
            await self._more.wait()

    def publish(self, changes: Sequence[Change]) -> None:
        """Take committed changes in; they follow those before without a gap."""
        for change in changes:
            self._changes.append(change)
            if len(self._sizes) == self._window:
                self._bytes -= self._sizes.popleft()
            self._sizes.append(_size(change))
            self._bytes += self._sizes[-1]
            if self._bytes > self._window_bytes and len(self._sizes) > 1:
                self._shorten()
        if changes:
            self._wake()

    def close(self) -> None:
        """End every subscription once it has read what there is."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    def _shorten(self) -> None:
        """Forget the oldest until half the bytes are left, but for the newest; half, so that this is rarely done."""
        while self._bytes > self._window_bytes // 2 and len(self._sizes) > 1:
            self._bytes -= self._sizes.popleft()
        kept = self._changes.since(self.revision - len(self._sizes))
        self._changes = ChangeWindow(kept[0].revision - 1, self._window)
        for change in kept:
            self._changes.append(change)


class Subscription(AsyncIterator[list[Change]]):
    """One consumer's place in the feed. Needs no closing: the feed does not know it."""

    def __init__(self, feed: ChangeFeed, revision: int) -> None:
        self._feed = feed
        self.revision = revision
        """That of the last change it was given."""

    async def __anext__(self) -> list[Change]:
        try:
            await self._feed.wait(self.revision)
        except FeedClosed:
            raise StopAsyncIteration from None
        changes = self._feed.since(self.revision)
        self.revision = changes[-1].revision
        return changes


def _size(change: Change) -> int:
    # The previous body is mostly the one of an earlier change in the window; counted, for when it is not.
    return len(change.object.body) + (0 if change.previous is None else len(change.previous.body))
