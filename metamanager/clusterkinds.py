"""
Which kinds the cluster has: its own discovery documents, fetched through the link and remembered.

The local API serves what the node may ask for, not only what it holds, so that kubectl finds any kind there. The two
aggregated documents (/api and /apis) say it all; they are kept in the store as they came, for when the cloud is away.

Invariants
    what was known is forgotten only for something newer
    at most one fetch is under way
"""

import asyncio
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from apimachinery.errors import ApiError
from apimachinery.keys import Resource
from apimachinery.objects import JSON
from apiserver.definitions import Definition, Subresource
from link.frames import CallHead
from metamanager.cloud import Cloud, ask
from metamanager.errors import StoreError
from metamanager.store import Store

logger = logging.getLogger(__name__)

PREFIX = "metamanager/discovery"
ROOTS = ("/api", "/apis")
ACCEPT = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
)
FETCH_S = 5.0  # somebody waits; what was known before does as well


class ClusterKinds:
    """The cluster's kinds, as last heard."""

    def __init__(self, store: Store, cloud: Cloud) -> None:
        self.definitions: tuple[Definition, ...] = ()
        self.generation = 0
        """Grows with each change of `definitions`."""
        self._store = store
        self._cloud = cloud
        self._documents: dict[str, bytes] = {}
        self._fetched_at: float | None = None
        self._fetching = asyncio.Lock()

    async def load(self) -> None:
        """What is remembered. Raises a StoreError."""
        self._take(await self._store.documents(PREFIX))

    async def refresh(self, max_age_s: float) -> None:
        """Fetch anew what is older than that, where the cloud is there. What cannot be fetched stays as it was."""
        async with self._fetching:
            if not self._cloud.is_connected() or (
                self._fetched_at is not None and time.monotonic() - self._fetched_at < max_age_s
            ):
                return
            documents = {}
            try:
                for root in ROOTS:
                    answer = await ask(self._cloud, CallHead("GET", root, accept=ACCEPT), timeout_s=FETCH_S)
                    if answer.head.status != 200 or "as=APIGroupDiscoveryList" not in answer.head.content_type:
                        logger.warning("no aggregated discovery", extra={"path": root, "status": answer.head.status})
                        return
                    documents[f"{PREFIX}{root}"] = answer.body
            except ApiError as exc:
                logger.info("discovery not fetched", extra={"reason": str(exc)})
                return
            self._fetched_at = time.monotonic()
            if documents != self._documents:
                self._take(documents)
                try:
                    await self._store.save(documents, ())
                except StoreError as exc:
                    logger.warning("discovery not remembered", extra={"reason": str(exc)})

    def _take(self, documents: Mapping[str, bytes]) -> None:
        self._documents = dict(documents)
        self.definitions = tuple(definitions_of(documents.values()))
        self.generation += 1


def definitions_of(documents: Iterable[bytes]) -> Iterator[Definition]:
    """
    What APIGroupDiscoveryLists name.

    A kind's first version is the one that the apiserver prefers, and so the one in which it is held here. A document
    with a hole in it names less.
    """
    for document in documents:
        try:
            value = json.loads(document)
        except ValueError:
            continue
        for group in _mappings(value, "items"):
            name = str(_mapping(group, "metadata").get("name") or "")
            seen: dict[str, str] = {}
            for version in _mappings(group, "versions"):
                for entry in _mappings(version, "resources"):
                    if (found := _definition(name, str(version.get("version") or ""), entry, seen)) is not None:
                        yield found


def _definition(group: str, version: str, entry: Mapping[str, JSON], seen: dict[str, str]) -> Definition | None:
    plural, kind = str(entry.get("resource") or ""), _mapping(entry, "responseKind")
    if not plural or not version or not kind.get("kind"):
        return None
    preferred = seen.setdefault(plural, version)
    below = [
        Subresource(
            str(each.get("subresource") or ""),
            str(_mapping(each, "responseKind").get("group") or ""),
            str(_mapping(each, "responseKind").get("version") or ""),
            str(_mapping(each, "responseKind").get("kind") or ""),
            _texts(each, "verbs"),
        )
        for each in _mappings(entry, "subresources")
    ]
    return Definition(
        # An aggregated document leaves out what is the same as where it stands.
        Resource(group, version, plural, str(kind["kind"]), entry.get("scope") == "Namespaced"),
        _texts(entry, "shortNames"),
        _texts(entry, "categories"),
        str(entry.get("singularResource") or ""),
        _texts(entry, "verbs"),
        has_status=any(each.name == "status" for each in below),
        subresources=tuple(each for each in below if each.name != "status"),
        is_custom="." in group and not group.endswith(".k8s.io"),
        stored_version=preferred,
    )


def _mapping(value: Mapping[str, JSON], name: str) -> Mapping[str, JSON]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


def _mappings(value: JSON, name: str) -> Sequence[Mapping[str, JSON]]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _texts(value: Mapping[str, JSON], name: str) -> tuple[str, ...]:
    found = value.get(name)
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()
