"""
Devices in the node's local API: what their twins say, and wishes set on the node.

The store holds a Device as the cloud wants it, without a status. Here the status is the twin's own, and where
somebody at the edge set a wish, the Device shows that one. A client may change `spec.properties[].desired` and
nothing else: the rest of the object is the cluster's. Such a change is a wish from the edge like one over MQTT: it
is checked against the model, stands until the cloud changes its own wish for that property, and goes up as such.

Invariants
    a PATCH is answered with success only after the wish was committed
    the object in the store is never changed here
"""

import json
from collections.abc import Iterator, Mapping
from typing import Protocol

from apimachinery.errors import Conflict, Forbidden, Invalid, MethodNotAllowed
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, LAST_APPLIED, lookup
from apimachinery.resources import DEVICES
from apiserver.handlers import not_found
from apiserver.messages import Request
from apiserver.protocols import Answer, Storage, Stored
from apiserver.requests import ApiRequest, Verb

TRIES = 3  # of a patch against a twin that changes meanwhile; kube-apiserver's is 5


class EdgeWish(Protocol):
    """A wish that somebody at the edge set and the cloud has not replaced."""

    @property
    def value(self) -> str:
        """ "" for: no wish, whatever the cloud wishes."""

    @property
    def version(self) -> int: ...


class TwinView(Protocol):
    """What is known of one device."""

    @property
    def edge_wishes(self) -> Mapping[str, EdgeWish]: ...

    @property
    def versions(self) -> Mapping[str, int]:
        """The number of each property's wish."""

    @property
    def status(self) -> Mapping[str, JSON]: ...


class DeviceTwins(Protocol):
    """Whoever keeps the twins."""

    def view(self, device: ObjectKey) -> TwinView | None:
        """None for a device that has no twin (yet)."""

    async def wish(self, device: ObjectKey, wishes: Mapping[str, tuple[str, int]]) -> None:
        """
        Set wishes, by property a value and the version it is based on; "" takes back. Durable on return.

        Raises Invalid (the model does not allow it), Conflict (there is a newer wish), NotFound or Unavailable.
        """


def with_twin(device: dict[str, JSON], view: TwinView) -> dict[str, JSON]:
    """The Device with the wishes and the status of its twin. `device` is changed and returned."""
    for entry in _entries(device):
        wish = view.edge_wishes.get(entry["name"])
        if wish is None:
            continue
        if not wish.value:
            entry.pop("desired", None)
            continue
        entry["desired"] = {"value": wish.value, "metadata": {"origin": "edge", "version": str(wish.version)}}
    device["status"] = dict(view.status)
    return device


class DeviceWrites:
    """apiserver.protocols.Writes: a PATCH of a Device's desired values, and nothing else."""

    def __init__(self, storage: Storage, twins: DeviceTwins) -> None:
        self._storage = storage
        self._twins = twins

    async def write(self, request: ApiRequest, http: Request) -> Answer:
        if request.verb is not Verb.PATCH or request.resource != DEVICES:
            raise MethodNotAllowed(
                f"{request.verb} of {request.resource.collection} is done at the cluster's apiserver: on the node the "
                "desired values of Devices can be patched, and nothing else"
            )
        if request.subresource:
            raise Forbidden("the status of a Device is its twin's: devices report over MQTT")
        for tries_left in reversed(range(TRIES)):
            try:
                return await self._patch(request, http)
            except Conflict:
                if not tries_left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _patch(self, request: ApiRequest, http: Request) -> Answer:
        from apiserver import patches  # brings jsonpatch; most nodes are never asked

        before = await self._shown(request)
        after = patches.apply(before, http.body, http.headers.get("content-type", ""), is_custom=True)
        wishes = wishes_between(before, after)
        if request.dry_run:
            return Answer(200, json.dumps(after).encode())
        if wishes:
            view = self._twins.view(request.key)
            versions = view.versions if view is not None else {}
            await self._twins.wish(
                request.key, {name: (value, versions.get(name, 0)) for name, value in wishes.items()}
            )
        return Answer(200, json.dumps(await self._shown(request)).encode())

    async def _shown(self, request: ApiRequest) -> dict[str, JSON]:
        found: Stored | None = await self._storage.get(request.key)
        if found is None:
            raise not_found(request.resource, request.name)
        shown: dict[str, JSON] = json.loads(self._storage.render(found.object, found.revision))
        return shown


def wishes_between(before: Mapping[str, JSON], after: Mapping[str, JSON]) -> dict[str, str]:
    """
    The desired values that a client changed, by property; "" where it took one back.

    Raises Conflict for a resourceVersion that is not the present one, Invalid for a desired value of the wrong shape,
    Forbidden where anything else was changed.
    """
    if lookup(after, "metadata.resourceVersion") not in (None, lookup(before, "metadata.resourceVersion")):
        raise Conflict("the object has been modified; please apply your changes to the latest version and try again")
    old, new = _stripped(before), _stripped(after)
    for path in _differences(old, new, ""):
        if path == "spec.properties":
            raise Forbidden(
                "spec.properties must keep its properties and their order: a merge patch replaces the whole list, so "
                "name every property with all its fields, or use a JSON patch of /spec/properties/N/desired/value"
            )
        raise Forbidden(
            f"{path} cannot be changed on the node, only spec.properties[].desired can: change it at the cluster"
        )
    was, now = _desired(before), _desired(after)
    return {name: value for name, value in now.items() if value != was[name]}


def _entries(device: Mapping[str, JSON]) -> list[dict[str, JSON]]:
    entries = lookup(device, "spec.properties")
    return (
        [each for each in entries if isinstance(each, dict) and isinstance(each.get("name"), str)]
        if isinstance(entries, list)
        else []
    )


def _desired(device: Mapping[str, JSON]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in _entries(device):
        desired = entry.get("desired")
        value = "" if desired is None else lookup(desired, "value")
        if not isinstance(value, str):
            raise Invalid(f"spec.properties[{entry['name']}].desired must be an object with a value that is a string")
        found[entry["name"]] = value
    return found


def _stripped(device: Mapping[str, JSON]) -> dict[str, JSON]:
    """Without what a client may change, and what kubectl notes for itself."""
    copy: dict[str, JSON] = json.loads(json.dumps(device))
    for entry in _entries(copy):
        entry.pop("desired", None)
    metadata = copy.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("resourceVersion", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop(LAST_APPLIED, None)
            if not annotations:
                del metadata["annotations"]
    # The twin goes on while a client thinks; a status in a patch has no effect, as in the cluster.
    copy.pop("status", None)
    return copy


def _differences(old: JSON, new: JSON, path: str) -> Iterator[str]:
    """Where two values differ, as paths; lists of another length or with other names differ as a whole."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif isinstance(old, list) and isinstance(new, list) and _names(old) == _names(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif old != new:
        yield path


def _names(entries: list[JSON]) -> list[JSON]:
    return [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
