"""
What goes by itself: dependents whose owners are gone, the content of a namespace or of a definition that
is being deleted, and Events an hour old.

The collector follows the storage like any watcher and plans its deletions like any client, so a finalizer
holds it back as it holds back everybody. Foreground deletion is treated as background deletion.

Invariants
    an object goes only when all its owners are gone; an owner of a kind that is not served counts as there
    a namespace or definition goes last, after all that it holds
"""

import asyncio
import calendar
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from apimachinery.errors import ApiError, Conflict, Expired, NotFound
from apimachinery.events import Change, EventType
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, Object, lookup
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, EVENTS, NAMESPACES
from apiserver import plans
from apiserver.definitions import Definition
from apiserver.metadata import Facts, metadata_of
from apiserver.plans import CRD_FINALIZER, DeleteOptions, Plan, Put, Remove, View
from apiserver.writes import Committer, facts

logger = logging.getLogger(__name__)

EVENT_TTL_S = 3600.0  # kube-apiserver's --event-ttl
SWEEP_S = 300.0

_NOTHING = Plan(200, ())
_NO_OPTIONS = DeleteOptions()


class Source(Committer, Protocol):
    """What the collector follows and writes to."""

    @property
    def revision(self) -> int: ...

    def since(self, revision: int) -> Sequence[Change]: ...

    async def wait(self, revision: int) -> None: ...

    def view(self) -> View: ...


async def collect(storage: Source) -> None:
    """Follow the storage until cancelled."""
    revision = storage.revision
    await _sweep(storage)
    while True:
        try:
            async with asyncio.timeout(SWEEP_S):
                await storage.wait(revision)
            changes = storage.since(revision)
        except (TimeoutError, Expired):
            revision = storage.revision
            await _sweep(storage)
            continue
        revision = changes[-1].revision
        for change in changes:
            await _follow(storage, change)


async def _follow(storage: Source, change: Change) -> None:
    key = change.object.key
    if change.type is EventType.DELETED:
        for dependent in storage.view().dependents(change.object.version.uid):
            await _commit(storage, _collect(dependent))
        for holder in _holders(storage.view(), key):
            await _commit(storage, _finish(holder))
    elif key.resource in (NAMESPACES, CUSTOM_RESOURCE_DEFINITIONS):
        if b'"deletionTimestamp"' in change.object.body:
            await _commit(storage, _finish(key))
    elif b'"ownerReferences"' in change.object.body and _is_orphan(storage.view(), change.object.parse()):
        await _commit(storage, _collect(key))


async def _sweep(storage: Source) -> None:
    """Look at everything once: what changed while nobody looked, and what only time changes."""
    view = storage.view()
    old = time.time() - EVENT_TTL_S
    for definition in view.catalogue:
        for item in view.all_of(definition.resource):
            if item.key.resource == EVENTS and _seen_at(item) < old:
                await _commit(storage, _delete(item.key))
            elif item.key.resource in (NAMESPACES, CUSTOM_RESOURCE_DEFINITIONS):
                if b'"deletionTimestamp"' in item.body:
                    await _commit(storage, _finish(item.key))
            elif b'"ownerReferences"' in item.body and _is_orphan(view, item.parse()):
                await _commit(storage, _collect(item.key))


async def _commit(storage: Source, make: Callable[[View, Facts], Plan]) -> None:
    try:
        await storage.commit(lambda view: make(view, facts()))
    except (NotFound, Conflict):
        pass  # somebody else was faster
    except ApiError as exc:
        logger.warning("collection postponed to the next sweep", extra={"error": str(exc)})


def _delete(key: ObjectKey) -> Callable[[View, Facts], Plan]:
    return lambda view, now: plans.delete(view, key, _NO_OPTIONS, now)


def _collect(key: ObjectKey) -> Callable[[View, Facts], Plan]:
    """Delete an object if, at its turn, it still has owners and none of them is there."""

    def make(view: View, now: Facts) -> Plan:
        found = view.get(key)
        if found is None or not _is_orphan(view, found.parse()):
            return _NOTHING
        return plans.delete(view, key, _NO_OPTIONS, now)

    return make


def _is_orphan(view: View, body: dict[str, JSON]) -> bool:
    owners = metadata_of(body).get("ownerReferences") or []
    return bool(owners) and not any(view.lives(owner["uid"]) or not _is_served(view, owner) for owner in owners)


def _is_served(view: View, owner: dict[str, JSON]) -> bool:
    group, _, version = str(owner["apiVersion"]).rpartition("/")
    return view.catalogue.by_kind(group, version, str(owner["kind"])) is not None


def _finish(key: ObjectKey) -> Callable[[View, Facts], Plan]:
    """Delete all that a namespace or definition holds, and itself once nothing is held back by finalizers."""

    def make(view: View, now: Facts) -> Plan:
        holder = view.get(key)
        if holder is None or not metadata_of(holder.parse()).get("deletionTimestamp"):
            return _NOTHING
        writes: list[Put | Remove] = []
        left = 0
        for item in _content(view, key):
            planned = plans.delete(view, item.key, _NO_OPTIONS, now).writes
            writes += planned
            left += not any(isinstance(write, Remove) for write in planned)
        if not left:
            body = holder.parse()
            finalizers = [name for name in metadata_of(body).get("finalizers") or [] if name != CRD_FINALIZER]
            if not finalizers:
                writes.append(Remove(key, body))
            elif finalizers != metadata_of(body)["finalizers"]:
                metadata_of(body)["finalizers"] = finalizers
                writes.append(Put(key, body))
        return Plan(200, tuple(writes))

    return make


def _content(view: View, holder: ObjectKey) -> Iterator[Object]:
    if holder.resource == NAMESPACES:
        for definition in view.catalogue:
            if definition.resource.namespaced:
                yield from view.all_of(definition.resource, holder.name)
    elif (defined := _defined_by(view, holder.name)) is not None:
        yield from view.all_of(defined)


def _defined_by(view: View, name: str) -> Resource | None:
    for definition in view.catalogue:
        if definition.is_custom and definition.resource.collection == name:
            return definition.resource
    return None


def _holders(view: View, key: ObjectKey) -> Iterator[ObjectKey]:
    """The namespace and the definition that may have waited for this object to go."""
    definition: Definition | None = view.catalogue.of(key.resource)
    candidates = [ObjectKey(NAMESPACES, "", key.namespace)] if key.namespace else []
    if definition is not None and definition.is_custom:
        candidates.append(ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", key.resource.collection))
    for candidate in candidates:
        found = view.get(candidate)
        if found is not None and b'"deletionTimestamp"' in found.body:
            yield candidate


def _seen_at(event: Object) -> float:
    """When an Event was last seen, in seconds since 1970; for ever where it does not say."""
    body = event.parse()
    for path in ("lastTimestamp", "metadata.creationTimestamp"):
        text = lookup(body, path)
        try:
            return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))
        except (TypeError, ValueError):
            continue
    return float("inf")
