"""
The store as the API library reads it: objects as clients see them, and which kinds there are.

Invariants
    nothing is read before a sync was ever complete: until then the catalogue is refused, and with it every request
    a store that cannot be read is unavailable, not empty
"""

import contextlib
import json
from collections.abc import Iterator, Sequence

from apimachinery.errors import Expired, Unavailable
from apimachinery.events import Change
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import Object, canonical
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICES
from apimachinery.selectors import FieldSelector, LabelSelector
from apiserver.definitions import Catalogue
from apiserver.protocols import Page, Stored
from metamanager.catalogue import catalogue_of
from metamanager.clusterkinds import ClusterKinds
from metamanager.devices import DeviceTwins, with_twin
from metamanager.errors import StoreError
from metamanager.feed import FeedClosed
from metamanager.store import Store

RETRY_S = 1  # until the first sync; the answer costs nothing and a client is waiting to start


class HeldObjects:
    """The store as apiserver.protocols.Storage."""

    def __init__(
        self,
        store: Store,
        withheld: frozenset[Resource] = frozenset(),
        twins: DeviceTwins | None = None,
        kinds: ClusterKinds | None = None,
    ) -> None:
        """
        withheld: resources that are not served. twins: what is shown of Devices beside what the cloud wants.
        kinds: what the cluster has.
        """
        self._store = store
        self._kinds = kinds
        self._generation = -1
        """Of the cluster's kinds that the catalogue has."""
        self._twins = twins
        self._withheld = withheld
        self._catalogue: Catalogue | None = None
        self._followed = store.feed.revision
        """The revision whose definitions and kinds the catalogue has."""

    @property
    def revision(self) -> int:
        return self._store.feed.revision

    def catalogue(self) -> Catalogue:
        if self._catalogue is None:
            raise Unavailable(
                "this node has not been told yet what it should hold: it has never been in sync with the cloud",
                retry_after_s=RETRY_S,
            )
        return self._catalogue

    async def follow(self) -> None:
        """Bring the catalogue up to what is committed. To be called before a request is looked at."""
        if self._catalogue is not None and not self._is_outdated(self._catalogue):
            return
        if not await self._store.is_synced():
            return
        generation = -1 if self._kinds is None else self._kinds.generation
        with unavailable():
            revision = self._store.feed.revision
            definitions, _ = await self._store.list(CUSTOM_RESOURCE_DEFINITIONS)
            held, once_held = await self._store.resources(), await self._store.known_resources()
        cluster = None if self._kinds is None else self._kinds.definitions
        self._catalogue = catalogue_of((item.object for item in definitions), held, once_held, self._withheld, cluster)
        self._followed, self._generation = revision, generation

    def _is_outdated(self, catalogue: Catalogue) -> bool:
        """Whether there are changes since it was made that may change what is served."""
        if self._kinds is not None and self._kinds.generation != self._generation:
            return True
        try:
            changes = self._store.feed.since(self._followed)
        except Expired:
            return True
        for change in changes:
            resource = change.object.key.resource
            if resource == CUSTOM_RESOURCE_DEFINITIONS:
                return True
            if catalogue.of(resource) is None and resource not in self._withheld:
                return True
            self._followed = change.revision
        return False

    async def get(self, key: ObjectKey) -> Stored | None:
        with unavailable():
            found = await self._store.get(key)
        return None if found is None else Stored(*found)

    def since(self, revision: int, resource: Resource | None = None) -> Sequence[Change]:
        return self._store.feed.since(revision, () if resource is None else (resource,))

    async def wait(self, revision: int, resource: Resource | None = None) -> None:
        try:
            await self._store.feed.wait(revision)
        except FeedClosed:
            raise Unavailable("this node's agent is stopping", retry_after_s=RETRY_S) from None
        await self.follow()

    def render(self, item: Object, revision: int) -> bytes:
        body = with_revision(item, revision)
        if self._twins is None or item.key.resource != DEVICES:
            return body
        view = self._twins.view(item.key)
        return body if view is None else canonical(with_twin(json.loads(body), view))

    # Last in the class: after it the name `list` means this method.
    async def list(
        self,
        resource: Resource,
        namespace: str,
        labels: LabelSelector,
        fields: FieldSelector,
        limit: int,
        after: tuple[str, str] | None,
    ) -> Page:
        start = None if after is None else ObjectKey(resource, *after)
        # One more than asked for tells whether there are more.
        most = limit + 1 if limit else 0
        with unavailable():
            found, revision = await self._store.list(resource, namespace, labels, fields, most, start)
        more = bool(limit) and len(found) > limit
        return Page([Stored(*item) for item in (found[:limit] if more else found)], revision, more)


_METADATA = b'"metadata":{'


def with_revision(item: Object, revision: int) -> bytes:
    """
    The body with the revision as metadata.resourceVersion, and with apiVersion and kind where it lacks them.

    Most bodies take it without being parsed: a canonical body that has the bytes `"metadata":{` once has
    them at the top, for it does have a metadata there and in a string the quotes would be escaped.
    """
    body = item.body
    if body.startswith(b'{"apiVersion":') and body.count(_METADATA) == 1 and b'"resourceVersion":' not in body:
        at = body.find(_METADATA) + len(_METADATA)
        comma = b"" if body[at : at + 1] == b"}" else b","
        view = memoryview(body)  # of megabytes one copy is enough
        return b"".join((view[:at], b'"resourceVersion":"%d"' % revision, comma, view[at:]))
    value = item.parse()
    value.setdefault("apiVersion", item.key.resource.api_version)
    value.setdefault("kind", item.key.resource.kind)
    value["metadata"]["resourceVersion"] = str(revision)
    return canonical(value)


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """A store that cannot be read is said so, as what may pass."""
    try:
        yield
    except StoreError as exc:
        raise Unavailable(f"this node's store cannot be read: {exc.reason}", retry_after_s=RETRY_S) from exc
