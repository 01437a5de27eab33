"""
What the cloud side must remember, kept in Secrets of the namespace `fairlead-system`.

The CA and the join tokens are the only state cloudcore has. It lives in the apiserver so that any number
of replicas share it and none has a disk worth saving; what encrypts, audits and backs up Secrets in the
cluster does so here too. Two replicas that start at once both try to create and one is told
AlreadyExists: it reads what the other made.

What happens to an entry later (a token was used, a node got another certificate) is a note: an annotation of the
Secret, written by compare-and-swap, so that of two replicas that would both do a thing once, one does.

Invariants
    an entry's fields are written once and never changed, so there is nothing to merge and no lock
    a note is written over what was read and nothing else: Conflict where somebody was quicker
    values are bytes here and base64 in the Secret's `data`; nothing in this module logs them
"""

import base64
import binascii
import contextlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from apimachinery.errors import AlreadyExists, InternalError, NotFound
from apimachinery.keys import Resource
from apimachinery.objects import JSON, LAST_APPLIED
from apimachinery.resources import NAMESPACES, SECRETS

NAMESPACE = "fairlead-system"
"""Where the Secrets are; made when it is missing."""
NOTES = "fairlead.io/"
"""What the names of notes begin with; other annotations are other people's."""


class Objects(Protocol):
    """The requests to an apiserver that this needs; errors are those of apimachinery.errors."""

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, JSON]) -> Mapping[str, JSON]: ...

    async def get(self, resource: Resource, namespace: str, name: str) -> Mapping[str, JSON]: ...

    async def list_all(self, resource: Resource, namespace: str, labels: str) -> Sequence[Mapping[str, JSON]]: ...

    async def merge(
        self, resource: Resource, namespace: str, name: str, patch: Mapping[str, JSON]
    ) -> Mapping[str, JSON]: ...

    async def delete(self, resource: Resource, namespace: str, name: str) -> None: ...


class Entry(NamedTuple):
    """One Secret, decoded."""

    name: str
    fields: Mapping[str, bytes]
    notes: Mapping[str, str] = MappingProxyType({})
    """What was noted since, by name; the names begin with NOTES."""
    version: str = ""
    """The Secret's resourceVersion, for note()."""


class Vault:
    """The Secrets of one cluster's Fairlead; raises ApiError as the apiserver answers."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def create(
        self,
        name: str,
        kind: str,
        fields: Mapping[str, bytes],
        *,
        labels: Mapping[str, str] = MappingProxyType({}),
        notes: Mapping[str, str] = MappingProxyType({}),
    ) -> Entry:
        """
        Keep a new entry; AlreadyExists when there is one of that name.

        kind: the Secret's `type`, for example "Opaque".
        """
        value: dict[str, JSON] = {
            "apiVersion": SECRETS.api_version,
            "kind": SECRETS.kind,
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": dict(labels), "annotations": dict(notes)},
            "type": kind,
            "immutable": True,
            "data": {field: base64.b64encode(content).decode() for field, content in fields.items()},
        }
        try:
            return _decode(await self._objects.create(SECRETS, NAMESPACE, value))
        except NotFound:
            # Only the namespace can be what is missing. Creating it every time would need a right on
            # namespaces that an operator may well withhold once it is there.
            await self._create_namespace()
        return _decode(await self._objects.create(SECRETS, NAMESPACE, value))

    async def get(self, name: str) -> Entry:
        """NotFound when there is none."""
        return _decode(await self._objects.get(SECRETS, NAMESPACE, name))

    async def list(self, labels: str) -> Sequence[Entry]:
        """The entries a label selector picks, such as "fairlead.io/kind=join-token"; none without the namespace."""
        return [_decode(value) for value in await self._objects.list_all(SECRETS, NAMESPACE, labels)]

    async def note(self, entry: Entry, notes: Mapping[str, str | None]) -> Entry:
        """
        Write these notes on an entry as it was read; None removes one.

        Conflict where it has changed since, NotFound where it went.
        """
        patch: dict[str, JSON] = {"metadata": {"resourceVersion": entry.version, "annotations": dict(notes)}}
        return _decode(await self._objects.merge(SECRETS, NAMESPACE, entry.name, patch))

    async def delete(self, name: str) -> None:
        """NotFound when there is none."""
        await self._objects.delete(SECRETS, NAMESPACE, name)

    async def _create_namespace(self) -> None:
        # As `kubectl apply` would make what `cloudcore rbac` prints: where that comes later, it has nothing to warn of.
        applied = {"apiVersion": "v1", "kind": NAMESPACES.kind, "metadata": {"annotations": {}, "name": NAMESPACE}}
        annotations = {LAST_APPLIED: json.dumps(applied, separators=(",", ":")) + "\n"}
        namespace = {**applied, "metadata": {"name": NAMESPACE, "annotations": annotations}}
        with contextlib.suppress(AlreadyExists):
            await self._objects.create(NAMESPACES, "", namespace)


def _decode(value: Mapping[str, JSON]) -> Entry:
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    stored = value.get("data")
    fields: dict[str, bytes] = {}
    try:
        for field, content in (stored or {}).items():
            fields[str(field)] = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError, TypeError, AttributeError) as exc:
        raise InternalError(f"the Secret {NAMESPACE}/{name} is not readable: {type(exc).__name__} in its data") from exc
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    noted = annotations.items() if isinstance(annotations, Mapping) else ()
    notes = {key: str(text) for key, text in noted if key.startswith(NOTES)}
    version = metadata.get("resourceVersion") if isinstance(metadata, Mapping) else None
    return Entry(str(name), fields, notes, str(version or ""))
