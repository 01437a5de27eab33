"""
The node's local Kubernetes API: what the node may know of the cluster, for kubectl, operators and programs on the node.

It answers from the store, with the cloud or without. What the store does not hold is asked for once and held from then
on (metamanager.interests, metamanager.reads); writes go through the link to the cluster's apiserver, or into the
store while the cloud is away (metamanager.localwrites).

To the API library it adds what only a node has to say: how old its knowledge may be (a header on every
answer), and that before the first complete sync it knows nothing: then it answers 503, for an empty list
would be a lie.

Invariants
    resource versions are the store's own revisions, on lists, objects and watch events alike, also over restarts
    no read is answered before a sync was ever complete
    without TLS nothing is written from other machines, and nothing by a page in a browser on this one
    without TLS Secrets are served on loopback only, and only to who addresses the API by an IP address or as localhost
    with TLS nothing but health and version is answered to who is not the node or a ServiceAccount (metamanager.access)
"""

import asyncio
import contextlib
import ipaddress
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from apimachinery.errors import ApiError, Forbidden, MethodNotAllowed, Unavailable
from apimachinery.resources import SECRETS
from apiserver.discovery import PUBLIC, About
from apiserver.handlers import Api, quoted
from apiserver.http import Server, serve
from apiserver.messages import Request, Response, error_response
from apiserver.protocols import Writes
from apiserver.requests import ApiRequest, Verb
from apiserver.selection import check_fields
from metamanager.access import Access
from metamanager.cloud import MARK, Cloud
from metamanager.clusterkinds import ClusterKinds
from metamanager.deferred import Deferred
from metamanager.devices import DeviceTwins, DeviceWrites
from metamanager.heldobjects import HeldObjects
from metamanager.interests import IDLE_S, Interests
from metamanager.localwrites import LocalWrites
from metamanager.passing import Passing, caller
from metamanager.reads import Reads
from metamanager.schemas import OpenApiDocuments
from metamanager.store import Store

logger = logging.getLogger(__name__)

STALE_HEADER = "x-fairlead-stale-seconds"
"""0: in sync with the cloud. A number: whole seconds since that was last known. "unknown": it never was."""

DISCOVERY_AGE_S = 10.0  # kubectl keeps for hours what it is told; who asks again within seconds wants to know
UNKNOWN_AGE_S = 1.0  # a kind that nobody knows may have just been defined; a client that insists costs a call a second
_WRITES = {"POST", "PUT", "PATCH", "DELETE"}


class LinkState(NamedTuple):
    """What the link knows of being in sync."""

    in_sync: bool
    """The link is up and all that the hub had is committed."""
    left_sync_at_ms: int | None
    """When that ceased to be so, by the wall clock; None when it never was since this process started."""


@dataclass(frozen=True)
class ApiLink:
    """What the local API has of the cloud. Its parts are run by whoever made it."""

    node: str
    cloud: Cloud
    kinds: ClusterKinds
    interests: Interests
    deferred: Deferred
    openapi: OpenApiDocuments

    @classmethod
    def over(cls, store: Store, cloud: Cloud, node: str, idle_s: float = IDLE_S) -> "ApiLink":
        """node: this node's name. idle_s: see Interests."""
        interests = Interests(store, cloud, idle_s=idle_s)
        return cls(
            node,
            cloud,
            ClusterKinds(store, cloud),
            interests,
            Deferred(store, cloud),
            OpenApiDocuments(store, cloud),
        )

    async def load(self) -> None:
        """Take up what is remembered, before the link comes up. Raises a StoreError."""
        await self.kinds.load()
        await self.interests.load()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.interests.run(), name="interests")
            tasks.create_task(self.deferred.run(), name="deferred-writes")


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
        link: ApiLink | None = None,
        access: Access | None = None,
    ) -> None:
        """
        host: where it listens, which decides about Secrets and writes. version: of this program, for /version.
        twins: without them Devices have no status and take no wishes. link: without one nothing is asked of the cloud.
        access: who may do what; without it whoever comes is the node itself, if he comes from this machine.
        """
        self._store = store
        self._link_state = link_state
        self._access = access
        self._on_loopback = is_loopback(host) or access is not None
        withheld = frozenset() if self._on_loopback else frozenset((SECRETS,))
        if withheld:
            logger.warning(
                "the local API is open to the network without authentication; it does not serve Secrets there",
                extra={"host": host},
            )
        self._link = link
        self._held = HeldObjects(store, withheld, twins, None if link is None else link.kinds)
        writes: Writes | None = DeviceWrites(self._held, twins) if twins is not None else None
        if link is not None:
            self._reads = Reads(store, link.interests, self._held.catalogue)
            self._passing = Passing(store, link.cloud, self._reads, link.node)
            writes = LocalWrites(store, self._passing, link.deferred, writes, self._held.catalogue, link.node, access)
        self._api = Api(self._held, writes, about=About("fairlead-edge", version))
        self._writable = {"PATCH"} if link is None and twins is not None else set() if link is None else _WRITES

    async def __call__(self, request: Request) -> Response:
        try:
            self._check(request)
            if self._access is not None:
                request = await self._access.identified(request)
            await self._held.follow()
            response = await (self._api(request) if self._link is None else self._linked(request, self._link))
        except ApiError as exc:
            response = error_response(exc)
        return replace(response, headers=[*response.headers, (STALE_HEADER, await self.staleness())])

    async def _linked(self, request: Request, link: ApiLink) -> Response:
        """The answer of a node that may ask the cloud."""
        if not _is_probe(request):
            await self._know_kinds(request, link)
        if request.path.startswith("/openapi/") and request.method == "GET":
            found = await link.openapi.answer(request)
            if found is not None:
                return found
        document = self._api.document(request)
        if document is not None:
            return document
        asked = self._api.asked(request)
        definition = self._held.catalogue().of(asked.resource)
        if definition is None or not asked.verb.is_read:
            return await self._api.answer(asked, request)
        if asked.subresource not in ("", "status") or "watch" not in definition.verbs or definition.is_view:
            # No store can hold it: what is below an object, what is made up for each question, another version.
            if asked.verb is Verb.WATCH:
                raise MethodNotAllowed("the server does not allow this method on the requested resource")
            return await self._passing.read(request)
        check_fields(definition, asked.fields)
        if self._access is not None:
            await self._access.check(asked, request.user)
        warnings = await self._reads.prepare(asked, caller(request))
        if int(asked.resource_version or 0) >= MARK and asked.verb is Verb.LIST:
            # The version of an object that the cluster answered with: whatever is held now is what there is.
            asked = replace(asked, resource_version="", match="")
        response = await self._api.answer(asked, request)
        if asked.verb is Verb.WATCH and not isinstance(response.body, bytes):
            response = replace(response, body=self._watched(response.body, asked, link))
        told = [("warning", f'299 - "{quoted(text)}"') for text in warnings]
        return replace(response, headers=[*response.headers, *told])

    async def _know_kinds(self, request: Request, link: ApiLink) -> None:
        """Ask the cluster what it has, where that may be news: for discovery, and for a kind that is not known."""
        parts = [part for part in request.path.split("/") if part]
        resource = parts[2 if parts[:1] == ["api"] else 3 :]
        if parts[:1] not in (["api"], ["apis"]) or not resource:
            await link.kinds.refresh(DISCOVERY_AGE_S)
        else:
            name = resource[2] if resource[0] == "namespaces" and len(resource) > 2 else resource[0]
            group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
            known = self._held.catalogue().resolve(group, version, name)
            if known is None:
                await link.kinds.refresh(UNKNOWN_AGE_S)
            if known is None and not link.kinds.definitions:
                raise Unavailable(f'this node does not know yet whether the cluster has "{name}": it could not ask')
        await self._held.follow()

    async def _watched(
        self, stream: AsyncIterator[bytes], asked: ApiRequest, link: ApiLink
    ) -> AsyncGenerator[bytes, None]:
        """A watch counts as a reader of its selection for as long as it is open, and ends when that does."""
        with link.interests.reading(asked.resource, asked.namespace, asked.name) as ended:
            async with contextlib.aclosing(cast("AsyncGenerator[bytes, None]", stream)) as lines:
                async for chunk in lines:
                    yield chunk
                    if ended.is_set():
                        return

    def _check(self, request: Request) -> None:
        if request.method not in ("GET", "HEAD") and request.method not in self._writable:
            raise MethodNotAllowed(
                "this is a node's local API, which is read-only but for the desired values of Devices (PATCH): "
                "make the change at the cluster's apiserver"
            )
        if request.method not in ("GET", "HEAD") and not self._on_loopback:
            raise Forbidden("this API is open to the network without authentication, so it takes no changes")
        if request.method not in ("GET", "HEAD") and self._access is None and "origin" in request.headers:
            # Browsers say it of whatever a page sends, and ask nobody first about a POST that has no content type.
            raise Forbidden("a web page may change nothing here: this API knows nobody from anybody on this machine")
        host = request.headers.get("host", "")
        if self._access is None and self._on_loopback and host and not _is_plain_address(host):
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
    link: ApiLink | None = None,
    access: Access | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    """
    Serve the store on http://HOST:PORT until the block is left; port 0 picks a free one.

    link_state: asked for every answer. twins, link, access: see LocalApi. context: for https. Raises
    apiserver.http.AddressInUse or ListenError.
    """
    api = LocalApi(store, link_state, host=host, version=version, twins=twins, link=link, access=access)
    async with serve(api, host=host, port=port, ssl_context=context) as server:
        logger.info("local API", extra={"endpoint": server.endpoint})
        yield server


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; "" and names other than localhost count as no."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_probe(request: Request) -> bool:
    """A question about this process, which no cluster can answer."""
    return request.path.strip("/").partition("/")[0] in PUBLIC


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
