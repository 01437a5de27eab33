"""
Whether a read can be answered from the store, and what must come from the cloud first.

Three sorts of kinds. What the hub sends to each node by itself because a field names the node (its Node and Lease, its
Pods and Devices) is here the node's own, and complete. What it sends because something refers to it (ConfigMaps,
Secrets, ...) is served by name; a list of it needs the rest. Everything else is not here until somebody asks.

Invariants
    a list is never shorter than the truth without saying so: it is complete, refused, or has a Warning
    what is refused to a caller in the cloud is refused here
"""

from collections.abc import Callable

from apimachinery.errors import ApiError, Forbidden
from apimachinery.keys import ObjectKey, Resource
from apimachinery.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEVICE_MODELS,
    DEVICES,
    LEASES,
    NODE_LEASE_NAMESPACE,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from apiserver.builtins import BUILT_IN
from apiserver.definitions import Catalogue
from apiserver.requests import ApiRequest, Verb
from link.frames import Interest
from metamanager.cloud import Away
from metamanager.heldobjects import unavailable
from metamanager.interests import Interests
from metamanager.store import Store

PLACED = frozenset((NODES, PODS, DEVICES))
"""Kinds of which a node is sent what is its own."""
REFERRED = frozenset((CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, DEVICE_MODELS, CUSTOM_RESOURCE_DEFINITIONS))
"""Kinds of which a node is sent what its own objects refer to, or need."""

_BUILT_IN = frozenset(definition.resource for definition in BUILT_IN)


class Reads:
    """What makes the store able to answer."""

    def __init__(self, store: Store, interests: Interests, catalogue: Callable[[], Catalogue]) -> None:
        self._store = store
        self._interests = interests
        self._catalogue = catalogue

    def is_own(self, resource: Resource, namespace: str) -> bool:
        """Whether the hub sends this by itself, and all that the node is to know of it."""
        return resource in PLACED or (resource == LEASES and namespace == NODE_LEASE_NAMESPACE)

    async def prepare(self, asked: ApiRequest, user: str) -> list[str]:
        """
        Have the store hold what is asked for. Returns warnings for the person at the client.

        user: on whose behalf, as Interest.user. Raises ApiError where it cannot be answered.
        """
        resource, namespace, name = asked.resource, asked.namespace, asked.name or only_name(asked)
        if name and resource.namespaced and not namespace:
            name = ""  # of that name in any namespace: only the list knows
        if self.is_own(resource, namespace):
            return []
        if asked.verb is Verb.GET:
            with unavailable():
                is_held = await self._store.get(asked.key) is not None
            if is_held:
                self._interests.covers(resource, namespace, name)
                return []
        self._want_columns(resource)
        try:
            await self._interests.ensure(Interest(resource, namespace, name, user))
        except (Away, Forbidden) as exc:
            if asked.verb is Verb.GET or not await self._has_part(resource):
                raise _refused(exc, asked, user) from exc
            return [f"this is only this node's own part of {resource.collection}: {exc}"]
        return []

    def covers(self, key: ObjectKey) -> bool:
        """Whether the store is sent this object if there is one, as far as interests go."""
        return self._interests.covers(key.resource, key.namespace, key.name)

    async def _has_part(self, resource: Resource) -> bool:
        """Whether the hub sends some of this kind by itself, which is not nothing."""
        if resource in REFERRED:
            return True
        return resource not in self._interests.resources() and resource in await self._store.resources()

    def _want_columns(self, resource: Resource) -> None:
        """The definition of a custom kind tells `kubectl get` what to show."""
        found = self._catalogue().of(resource)
        if found is not None and found.is_custom and not found.columns and resource not in _BUILT_IN:
            self._interests.hint(Interest(CUSTOM_RESOURCE_DEFINITIONS, "", resource.collection))


def only_name(asked: ApiRequest) -> str:
    """The one name that a field selector leaves: so ask clients that follow one object."""
    names = [value for path, value, wanted in asked.fields.terms if path == "metadata.name" and wanted]
    return names[0] if len(names) == 1 else ""


def _refused(exc: ApiError, asked: ApiRequest, user: str) -> ApiError:
    """A refusal in the apiserver's words: it is this request that is refused, not an interest."""
    if not isinstance(exc, Forbidden):
        return exc
    resource = asked.resource
    scope = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
    subject = f'{resource.collection} "{asked.name}" is' if asked.name else f"{resource.collection} is"
    who = f'User "{user}"' if user else "this node"
    message = (
        f'{subject} forbidden: {who} cannot {asked.verb} resource "{resource.plural}" in API group '
        f'"{resource.group}"{scope}: {exc}'
    )
    return Forbidden(message, kind=resource.plural, group=resource.group, name=asked.name)
