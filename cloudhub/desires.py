"""
What each node should hold: what is placed there, what it is granted of its interests, and what is not decided yet.

Invariants
    what a node holds by an interest that is not known yet stays as it is
    what is too large for the link is desired by nobody

Pure state: no clock, no I/O. What it asks changes under it; it remembers nothing that could.
"""

from collections.abc import Iterable, Mapping

from apimachinery.keys import Node, ObjectKey, ObjectVersion, Resource
from apimachinery.watchcache import WatchCache
from cloudhub.interests import Interests, selected
from cloudhub.outbox import Outbox
from cloudhub.placement import Placement
from link.fields import MAX_BODY_BYTES


class Desires:
    """Of all nodes of one hub."""

    def __init__(
        self, cache: WatchCache, placement: Placement, interests: Interests, outboxes: Mapping[Node, Outbox]
    ) -> None:
        """outboxes: by what they were sent it is known what nodes hold."""
        self._cache = cache
        self._placement = placement
        self._interests = interests
        self._outboxes = outboxes
        self._deciders: dict[Resource, frozenset[str]] = {}
        """What deciding() says of each resource that was pushed."""

    def version(self, node: Node, key: ObjectKey) -> ObjectVersion | None:
        """That of the object which the node should hold now; None where it should not hold it."""
        if not self._placement.is_placed(node, key) and not self._interests.covers(node, key):
            return self._outboxes[node].sent(key) if self._interests.keeps(node, key) else None
        item = self._cache.get(key)
        if item is None or len(item.body) > MAX_BODY_BYTES:
            return None
        return item.version

    def all_of(self, node: Node) -> dict[ObjectKey, ObjectVersion]:
        """Everything a node should hold now, in which version."""
        keys = dict.fromkeys(self._placement.keys(node))
        for scope in self._interests.granted(node):
            keys |= dict.fromkeys(selected(scope, self._cache))
        versions = ((key, self.version(node, key)) for key in keys)
        return {key: version for key, version in versions if version is not None}

    def deciding(self, keys: Iterable[ObjectKey]) -> frozenset[str]:
        """The collections that decide what a node holds of these; by an interest a resource does that itself."""
        found: frozenset[str] = frozenset()
        for key in keys:
            resource = key.resource
            deciding = self._deciders.get(resource)
            if deciding is None:
                deciding = self._placement.deciding(resource) or frozenset({resource.collection})
                self._deciders[resource] = deciding
            found = found | deciding if found else deciding
        return found
