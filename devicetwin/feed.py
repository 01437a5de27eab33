"""
Where the Devices and DeviceModels of this node come from: all of them once, then what changes.

The twins follow a feed; the edge's store gives one through StoreFeed. A feed says nothing before the node
has been told for the first time what it holds: until then no device is unknown, and none may be answered so.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from apimachinery.errors import Expired
from apimachinery.events import Change
from apimachinery.keys import Resource
from apimachinery.objects import Object
from apimachinery.resources import DEVICE_MODELS, DEVICES

logger = logging.getLogger(__name__)

FIRST_SYNC_POLL_S = 0.2  # once in an edge's life; not worth a signal through two packages


class Snapshot(NamedTuple):
    """Every Device and DeviceModel of this node; what is not in it is gone."""

    objects: tuple[Object, ...]


class DeviceFeed(Protocol):
    """What the twins follow."""

    def follow(self) -> AsyncIterator[Snapshot | Sequence[Change]]:
        """A Snapshot first, then changes of these two kinds; a Snapshot again where changes were missed."""
        ...


class Stored(Protocol):
    """One line of a store's list."""

    @property
    def object(self) -> Object: ...


class Subscription(Protocol):
    """Changes after the moment it was made; iterating raises Expired when some were missed."""

    def __aiter__(self) -> AsyncIterator[Sequence[Change]]: ...


class ChangeFeed(Protocol):
    def subscribe(self, *, resources: Sequence[Resource]) -> Subscription:
        """To changes of these."""
        ...


class ObjectStore(Protocol):
    """What StoreFeed needs of the edge's store."""

    @property
    def feed(self) -> ChangeFeed: ...

    async def is_synced(self) -> bool: ...

    async def list(self, resource: Resource) -> tuple[Sequence[Stored], int]: ...


class StoreFeed:
    """The feed of a store: subscribe, then list, and once more from the start when changes were missed."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def follow(self) -> AsyncIterator[Snapshot | Sequence[Change]]:
        while not await self._store.is_synced():  # noqa: ASYNC110  see FIRST_SYNC_POLL_S
            await asyncio.sleep(FIRST_SYNC_POLL_S)
        while True:
            subscription = self._store.feed.subscribe(resources=(DEVICE_MODELS, DEVICES))
            listed: list[Object] = []
            listed_at: dict[str, int] = {}
            for resource in (DEVICE_MODELS, DEVICES):
                stored, listed_at[resource.collection] = await self._store.list(resource)
                listed += [line.object for line in stored]
            yield Snapshot(tuple(listed))
            try:
                async for changes in subscription:
                    # Each kind was listed at a revision of its own: an older state after it would be a wish that
                    # never was.
                    news = [
                        change
                        for change in changes
                        if change.revision > listed_at.get(change.object.key.resource.collection, change.revision)
                    ]
                    if news:
                        yield news
                return  # the store is closed
            except Expired:
                logger.info("devices are listed again: changes came faster than they were taken in")
