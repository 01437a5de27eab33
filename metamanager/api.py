"""
The node's local Kubernetes API: what the store holds, for kubectl, curl and programs on the node.

It answers from the store alone, with the cloud or without.

To the API library it adds what only a node has to say: how old its knowledge may be (a header on every
answer), and that before the first complete sync it knows nothing: then it answers 503, for an empty list
would be a lie. It is read-only, but for the desired values of Devices (metamanager.devices).

Invariants
    resource versions are the store's own revisions, on lists, objects and watch events alike, also over restarts
    no read is answered before a sync was ever complete
    nothing is written from other machines
    Secrets are served on loopback only, and only to who addresses the API by an IP address or as localhost
"""

import contextlib
import ipaddress
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from apimachinery.errors import ApiError, Expired, Forbidden, MethodNotAllowed, Unavailable
from apimachinery.events import Change
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import Object, canonical
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, DEVICES, SECRETS
from apimachinery.selectors import FieldSelector, LabelSelector
from apiserver.definitions import Catalogue
from apiserver.discovery import About
from apiserver.handlers import Api
from apiserver.http import Server, serve
from apiserver.messages import Request, Response, error_response
from apiserver.protocols import Page, Stored
from metamanager.catalogue import catalogue_of
from metamanager.devices import DeviceTwins, DeviceWrites, with_twin
from metamanager.errors import StoreError
from metamanager.feed import FeedClosed
from metamanager.store import Store

logger = logging.getLogger(__name__)

STALE_HEADER = "x-fairlead-stale-seconds"
"""0: in sync with the cloud. A number: whole seconds since that was last known. "unknown": it never was."""

RETRY_S = 1  # until the first sync; the answer costs nothing and a client is waiting to start


class LinkState(NamedTuple):
    """What the link knows of being in sync."""

    in_sync: bool
    """The link is up and all that the hub had is committed."""
    left_sync_at_ms: int | None
    """When that ceased to be so, by the wall clock; None when it never was since this process started."""


class HeldObjects:
    """The store as apiserver.protocols.Storage."""

    def __init__(
        self, store: Store, withheld: frozenset[Resource] = frozenset(), twins: DeviceTwins | None = None
    ) -> None:
        """withheld: resources that are not served. twins: what is shown of Devices beside what the cloud wants."""
        self._store = store
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
        with _unavailable():
            revision = self._store.feed.revision
            definitions, _ = await self._store.list(CUSTOM_RESOURCE_DEFINITIONS)
            held, once_held = await self._store.resources(), await self._store.known_resources()
        self._catalogue = catalogue_of((item.object for item in definitions), held, once_held, self._withheld)
        self._followed = revision

    def _is_outdated(self, catalogue: Catalogue) -> bool:
        """Whether there are changes since it was made that may change what is served."""
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
        with _unavailable():
            found = await self._store.get(key)
        return None if found is None else Stored(*found)

    def since(self, revision: int) -> Sequence[Change]:
        return self._store.feed.since(revision)

    async def wait(self, revision: int) -> None:
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
        with _unavailable():
            found, revision = await self._store.list(resource, namespace, labels, fields, most, start)
        more = bool(limit) and len(found) > limit
        return Page([Stored(*item) for item in (found[:limit] if more else found)], revision, more)


class LocalApi:
    """The handler: the API library over the store, plus how stale that is."""

    def __init__(
        self,
        store: Store,
        link_state: Callable[[], LinkState],
        *,
        host: str,
        version: str = "",
        twins: DeviceTwins | None = None,
    ) -> None:
        """
        host: where it listens, which decides about Secrets and writes. version: of this program, for /version.
        twins: without them Devices have no status and take no wishes.
        """
        self._store = store
        self._link_state = link_state
        self._on_loopback = is_loopback(host)
        withheld = frozenset() if self._on_loopback else frozenset((SECRETS,))
        if withheld:
            logger.warning(
                "the local API is open to the network without authentication; it does not serve Secrets there",
                extra={"host": host},
            )
        self._held = HeldObjects(store, withheld, twins)
        writes = DeviceWrites(self._held, twins) if twins is not None else None
        self._api = Api(self._held, writes, about=About("fairlead-edge", version))
        self._writable = twins is not None

    async def __call__(self, request: Request) -> Response:
        try:
            self._check(request)
            await self._held.follow()
            response = await self._api(request)
        except ApiError as exc:
            response = error_response(exc)
        return replace(response, headers=[*response.headers, (STALE_HEADER, await self.staleness())])

    def _check(self, request: Request) -> None:
        if request.method not in ("GET", "HEAD") and not (self._writable and request.method == "PATCH"):
            raise MethodNotAllowed(
                "this is a node's local API, which is read-only but for the desired values of Devices (PATCH): "
                "make the change at the cluster's apiserver"
            )
        if request.method == "PATCH" and not self._on_loopback:
            raise Forbidden("this API is open to the network without authentication, so it takes no changes")
        host = request.headers.get("host", "")
        if self._on_loopback and host and not _is_plain_address(host):
            # A page in a browser on this machine could otherwise have a name of its own point here and read along.
            raise Forbidden(f'address this API by IP address or as localhost, not as "{host:.80}"')

    async def staleness(self) -> str:
        """The value of STALE_HEADER."""
        state = self._link_state()
        if state.in_sync:
            return "0"
        since_ms = state.left_sync_at_ms
        if since_ms is None:
            since_ms = await self._store.last_synced_at_ms()
        if since_ms is None:
            return "unknown"
        # At least 1: 0 means in sync, and the wall clock may have been set back.
        return str(max(1, (time.time_ns() // 1_000_000 - since_ms) // 1000))


@contextlib.asynccontextmanager
async def serve_local_api(
    store: Store,
    *,
    host: str,
    port: int,
    link_state: Callable[[], LinkState],
    version: str = "",
    twins: DeviceTwins | None = None,
) -> AsyncIterator[Server]:
    """
    Serve the store on http://HOST:PORT until the block is left; port 0 picks a free one.

    link_state: asked for every answer. twins: see LocalApi. Raises apiserver.http.AddressInUse or ListenError.
    """
    api = LocalApi(store, link_state, host=host, version=version, twins=twins)
    async with serve(api, host=host, port=port) as server:
        logger.info("local API", extra={"endpoint": server.endpoint})
        yield server


_METADATA = b'"metadata":{'


def with_revision(item: Object, revision: int) -> bytes:
    """
    The body with the revision as metadata.resourceVersion, and with apiVersion and kind where it lacks them.

    Most bodies take it without being parsed: a canonical body that has the bytes `"metadata":{` once has
    them at the top, for it does have a metadata there and in a string the quotes would be escaped.
    """
    body = item.body
    if body.startswith(b'{"apiVersion":') and body.count(_METADATA) == 1 and b'"resourceVersion":' not in body:
        head, _, tail = body.partition(_METADATA)
        return b'%s%s"resourceVersion":"%d"%s%s' % (head, _METADATA, revision, b"" if tail[:1] == b"}" else b",", tail)
    value = item.parse()
    value.setdefault("apiVersion", item.key.resource.api_version)
    value.setdefault("kind", item.key.resource.kind)
    value["metadata"]["resourceVersion"] = str(revision)
    return canonical(value)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; "" and names other than localhost count as no."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_plain_address(host: str) -> bool:
    """Whether a Host header names an IP address or localhost, with or without a port."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
    name = name or host
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    """A store that cannot be read is said so, as what may pass."""
    try:
        yield
    except StoreError as exc:
        raise Unavailable(f"this node's store cannot be read: {exc.reason}", retry_after_s=RETRY_S) from exc
