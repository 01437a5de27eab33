"""
An apiserver's objects in memory, as far as `cloudhub.vault.Objects` asks for them: create, get, list, merge, delete.

It keeps the two rules that the vault leans on, that a name is given once and that a patch of another version is a
Conflict, and refuses a namespace that does not exist, as kube-apiserver does. What the embedded apiserver makes of the
same requests is for its tests to show.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from apimachinery.errors import AlreadyExists, Conflict, NotFound
from apimachinery.keys import Resource
from apimachinery.resources import NAMESPACES
from apimachinery.selectors import parse_labels


class MemoryObjects:
    """Objects by resource, namespace and name."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Resource, str, str], dict[str, Any]] = {}
        self._version = 0

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, Any]) -> Mapping[str, Any]:
        key = (resource, namespace, value["metadata"]["name"])
        if namespace and (NAMESPACES, "", namespace) not in self.kept:
            raise NotFound(f'namespaces "{namespace}" not found')
        if key in self.kept:
            raise AlreadyExists(f'{resource.plural} "{key[2]}" already exists')
        self.kept[key] = copy.deepcopy(dict(value))
        return self._written(key)

    async def get(self, resource: Resource, namespace: str, name: str) -> Mapping[str, Any]:
        try:
            return copy.deepcopy(self.kept[resource, namespace, name])
        except KeyError:
            raise NotFound(f'{resource.plural} "{name}" not found') from None

    async def list_all(self, resource: Resource, namespace: str, labels: str) -> Sequence[Mapping[str, Any]]:
        selector = parse_labels(labels)
        return [
            copy.deepcopy(value)
            for (kind, place, _), value in self.kept.items()
            if (kind, place) == (resource, namespace) and selector.matches(value["metadata"].get("labels") or {})
        ]

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Of the metadata, which is all that the vault changes."""
        found, wished = await self.get(resource, namespace, name), dict(patch["metadata"])
        if wished.pop("resourceVersion") != found["metadata"]["resourceVersion"]:
            raise Conflict(f'{resource.plural} "{name}" has been modified')
        notes = self.kept[resource, namespace, name]["metadata"].setdefault("annotations", {})
        notes |= wished["annotations"]
        for name_of_note in [note for note, text in notes.items() if text is None]:
            del notes[name_of_note]
        return self._written((resource, namespace, name))

    def _written(self, key: tuple[Resource, str, str]) -> Mapping[str, Any]:
        self._version += 1
        self.kept[key]["metadata"]["resourceVersion"] = str(self._version)
        return copy.deepcopy(self.kept[key])

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        await self.get(resource, namespace, name)
        del self.kept[resource, namespace, name]
