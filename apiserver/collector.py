"""
What goes by itself: dependents whose owners are gone, the content of a namespace or of a definition that
is being deleted, and Events an hour old.

The collector follows the storage like any watcher and plans its deletions like any client, so a finalizer
holds it back as it holds back everybody.

Invariants
    an object goes only when all its owners are gone or wait for it to go; an owner of a kind that is not
    served counts as there
    an owner that is deleted in the foreground goes after the dependents that block its deletion
    a namespace or definition goes last, after all that it holds
"""

import asyncio
import calendar
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from apimachinery.errors import ApiError, Conflict, Expired, NotFound
from apimachinery.events import Change, EventType
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, Object, lookup
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, EVENTS, NAMESPACES
from apiserver import plans
from apiserver.definitions import Definition
from apiserver.metadata import Facts, metadata_of
from apiserver.plans import CRD_FINALIZER, FOREGROUND_FINALIZER, DeleteOptions, Plan, Put, Remove, View
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
    await follow(storage, SWEEP_S, partial(_sweep, storage), partial(_follow, storage))


async def follow(
    storage: Source, quiet_s: float, sweep: Callable[[], Awaitable[None]], look: Callable[[Change], Awaitable[None]]
) -> None:
    """
    Look at each change, until cancelled.

    sweep: looks at everything: at first, after `quiet_s` without a change, and when changes were missed.
    """
    revision = storage.revision
    await sweep()
    while True:
        try:
            async with asyncio.timeout(quiet_s):
                await storage.wait(revision)
            changes = storage.since(revision)
        except (TimeoutError, Expired):
            revision = storage.revision
            await sweep()
            continue
        revision = changes[-1].revision
        for change in changes:
            await look(change)


async def _follow(storage: Source, change: Change) -> None:
    key = change.object.key
    if change.type is EventType.DELETED:
        for dependent in storage.view().dependents(change.object.version.uid):
            await _commit(storage, _collect(dependent))
        for holder in _holders(storage.view(), key):
            await _commit(storage, _finish(holder))
    else:
        await _look_at(storage, change.object)
    # Whoever waited for this object, or for its reference to go, may go now.
    if change.previous is not None and b'"ownerReferences"' in change.previous.body:
        for owner in _waiting_owners(storage.view(), key, change.previous.parse()):
            await _commit(storage, _release(owner))


async def _look_at(storage: Source, item: Object) -> None:
    """What an object's own state asks for."""
    key, view = item.key, storage.view()
    if key.resource in (NAMESPACES, CUSTOM_RESOURCE_DEFINITIONS) and b'"deletionTimestamp"' in item.body:
        await _commit(storage, _finish(key))
    if b'"ownerReferences"' in item.body and _lacks_owners(view, key, item.parse()):
        await _commit(storage, _collect(key))
    if _waits_for_dependents(item):
        for dependent in view.dependents(item.version.uid):
            await _commit(storage, _collect(dependent))
        await _commit(storage, _release(key))


async def _sweep(storage: Source) -> None:
    """Look at everything once: what changed while nobody looked, and what only time changes."""
    view = storage.view()
    old = time.time() - EVENT_TTL_S
    for place in view.catalogue.places():
        for item in view.all_of(place):
            if item.key.resource == EVENTS and _seen_at(item) < old:
                await _commit(storage, _delete(item.key))
            else:
                await _look_at(storage, item)


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
    """
    Delete an object if, at its turn, it has owners and none of them stays.

    Where some stay, the references to the others go. An object that others depend on and whose owner waits
    for it is deleted in the foreground too, so that the owner waits for all of them.
    """

    def make(view: View, now: Facts) -> Plan:
        found = view.get(key)
        body = found.parse() if found is not None else {}
        owners = metadata_of(body).get("ownerReferences") or []
        waiting = [owner for owner in owners if _waits(view, key, owner)]
        staying = [owner for owner in owners if owner not in waiting and _is_there(view, owner)]
        if found is None or len(staying) == len(owners):
            return _NOTHING
        if staying:
            metadata_of(body)["ownerReferences"] = staying
            return Plan(200, (Put(key, body),))
        foreground = waiting and view.dependents(found.version.uid)
        return plans.delete(view, key, DeleteOptions(propagation="Foreground" if foreground else ""), now)

    return make


def _release(key: ObjectKey) -> Callable[[View, Facts], Plan]:
    """Let an owner go that waits for its dependents, once none of them blocks it."""

    def make(view: View, _: Facts) -> Plan:
        found = view.get(key)
        if found is None or not _waits_for_dependents(found):
            return _NOTHING
        body, uid = found.parse(), found.version.uid
        if any(_blocks(view, dependent, uid) for dependent in view.dependents(uid)):
            return _NOTHING
        held = metadata_of(body)
        plans.set_finalizers(held, [name for name in held["finalizers"] if name != FOREGROUND_FINALIZER])
        # Namespaces and definitions hold more than dependents; `_finish` looks after them.
        goes = "finalizers" not in held and key.resource not in (NAMESPACES, CUSTOM_RESOURCE_DEFINITIONS)
        return Plan(200, (Remove(key, body) if goes else Put(key, body),))

    return make


def _lacks_owners(view: View, key: ObjectKey, body: dict[str, JSON]) -> bool:
    """Whether an owner is gone or waits for this object to go."""
    owners = metadata_of(body).get("ownerReferences") or []
    return any(not _is_there(view, owner) or _waits(view, key, owner) for owner in owners)


def _is_there(view: View, owner: dict[str, JSON]) -> bool:
    return view.lives(owner["uid"]) or _definition_of(view, owner) is None


def _waits(view: View, key: ObjectKey, owner: dict[str, JSON]) -> bool:
    """Whether the owner that a reference in the object at `key` means waits for its dependents."""
    found = _owner_of(view, key, owner)
    return found is not None and _waits_for_dependents(found)


def _owner_of(view: View, key: ObjectKey, owner: dict[str, JSON]) -> Object | None:
    definition = _definition_of(view, owner)
    if definition is None:
        return None
    namespace = key.namespace if definition.resource.namespaced else ""
    found = view.get(ObjectKey(view.catalogue.place_of(definition.resource), namespace, str(owner["name"])))
    return found if found is not None and found.version.uid == owner["uid"] else None


def _waiting_owners(view: View, key: ObjectKey, body: dict[str, JSON]) -> Iterator[ObjectKey]:
    for owner in metadata_of(body).get("ownerReferences") or []:
        found = _owner_of(view, key, owner)
        if found is not None and _waits_for_dependents(found):
            yield found.key


def _waits_for_dependents(item: Object) -> bool:
    if b'"foregroundDeletion"' not in item.body:
        return False  # as nearly all: it is asked of an owner with each write of what it owns
    held = metadata_of(item.parse())
    return bool(held.get("deletionTimestamp")) and FOREGROUND_FINALIZER in (held.get("finalizers") or ())


def _blocks(view: View, dependent: ObjectKey, uid: str) -> bool:
    found = view.get(dependent)
    owners = metadata_of(found.parse()).get("ownerReferences") or [] if found is not None else []
    return any(owner.get("uid") == uid and owner.get("blockOwnerDeletion") is True for owner in owners)


def _definition_of(view: View, owner: dict[str, JSON]) -> Definition | None:
    group, _, version = str(owner["apiVersion"]).rpartition("/")
    return view.catalogue.by_kind(group, version, str(owner["kind"]))


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
        for place in view.catalogue.places():
            if place.namespaced:
                yield from view.all_of(place, holder.name)
    elif (defined := _defined_by(view, holder.name)) is not None:
        yield from view.all_of(defined)


def _defined_by(view: View, name: str) -> Resource | None:
    for definition in view.catalogue:
        if definition.is_custom and definition.resource.collection == name:
            return view.catalogue.place_of(definition.resource)
    return None


def _holders(view: View, key: ObjectKey) -> Iterator[ObjectKey]:
    """The namespace and the definition that may have waited for this object to go."""
    candidates = [ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", key.resource.collection)]
    if key.namespace:
        candidates.append(ObjectKey(NAMESPACES, "", key.namespace))
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
