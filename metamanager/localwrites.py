"""
Who carries out a write at the local API: the twins, the cluster, or the node itself while the cloud is away.

    a Device's desired values     its twin, as ever, with the cloud or without
    all else, with the cloud      the cluster's apiserver, through the link
    all else, without             the node, where it is its own to say (metamanager.offline); else refused at once

Invariants
    two writes of one object are never on two ways at once: while a local one waits, what is the node's own joins it
    and everything else waits for it to go up
"""

from collections.abc import Callable

from apimachinery.errors import ApiError, Forbidden, TooManyRequests, Unavailable, UnsupportedMediaType
from apimachinery.resources import DEVICES
from apiserver.definitions import Catalogue
from apiserver.messages import Request
from apiserver.protocols import Answer, Writes
from apiserver.requests import ApiRequest, Verb
from link.frames import CALL_S
from metamanager.access import Access
from metamanager.cloud import Away, Lost
from metamanager.deferred import Deferred
from metamanager.offline import OfflineWrites, is_nodes_own
from metamanager.passing import Passing
from metamanager.store import Store

DRAIN_S = 5.0  # for what waits of the object to go up
OWN_S = 5.0  # for the node's own; a link that went away unheard must not keep a kubelet waiting
NOT_THERE = (502, 503, 504)
"""Answers that say that the apiserver behind the hub is not there: to the node that is the cloud being away."""


class LocalWrites:
    """apiserver.protocols.Writes of a node that has a link."""

    def __init__(
        self,
        store: Store,
        passing: Passing,
        deferred: Deferred,
        devices: Writes | None,
        catalogue: Callable[[], Catalogue],
        node: str,
        access: Access | None = None,
    ) -> None:
        """devices: who takes the desired values of Devices. node: this node's name. access: who may write here."""
        self._access = access
        self._store = store
        self._passing = passing
        self._deferred = deferred
        self._devices = devices
        self._offline = OfflineWrites(store)
        self._catalogue = catalogue
        self._node = node

    async def write(self, request: ApiRequest, http: Request) -> Answer:
        if request.resource == DEVICES and request.verb is Verb.PATCH and self._devices is not None:
            try:
                await self._check(request, http)
                return await self._devices.write(request, http)
            except (Forbidden, UnsupportedMediaType) as exc:
                if request.subresource:
                    raise
                return await self._passed(request, http, exc)
        own = is_nodes_own(request, self._node)
        if request.name and (await self._store.look(request.key)).writes:
            if own:
                return await self._locally(request, http, "an earlier write of it waits to go up")
            if not await self._deferred.drained(request.key, DRAIN_S):
                raise Unavailable(
                    f"an earlier write of {request.key} was made while the cloud was away and has not gone up yet",
                    retry_after_s=1,
                )
        try:
            answer = await self._passing.write(request, http, OWN_S if own else CALL_S)
        except (Away, Lost, TooManyRequests) as exc:
            if not own:
                raise
            return await self._locally(request, http, str(exc))
        if own and answer.status in NOT_THERE:
            return await self._locally(request, http, "the cluster's apiserver is not there")
        if own and answer.status < 300 and self._access is not None:
            await self._access.note_allowed(request, http.user)
        return answer

    async def _passed(self, request: ApiRequest, http: Request, refusal: ApiError) -> Answer:
        """What is no wish for a Device goes to the cluster; without it, what may be changed here is said."""
        try:
            return await self._passing.write(request, http)
        except Away:
            raise refusal from None

    async def _locally(self, request: ApiRequest, http: Request, why: str) -> Answer:
        await self._check(request, http)
        answer = await self._offline.write(request, http, self._catalogue(), why)
        self._deferred.added()
        return answer

    async def _check(self, request: ApiRequest, http: Request) -> None:
        """What is done here is nobody else's to judge. A right to it was asked for while the cloud was there."""
        if self._access is not None:
            await self._access.check(request, http.user)
