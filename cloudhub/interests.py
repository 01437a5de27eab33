"""
What nodes hold because somebody there reads it, beside what the rules of placement put there.

Each interest of a node is granted, refused or not known yet. What is granted is held as what is placed. What is not
known, because the apiserver does not answer or a first list is not in, is *kept*: the node holds of it what it holds,
for "unknown" must not read as "delete".

The index has selections and no objects: many nodes that read a large collection cost a few entries each.

Invariants
    nodes(key) are those for which covers(node, key)
    what set_scopes() returns are the selections in which a node may have to hold something else than before

Pure state: no clock, no I/O. The shells are cloudhub/access.py, which decides, and cloudhub/sessions.py, which sends.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS
from apimachinery.watchcache import WatchCache
from link.frames import Interest, RefusedInterest

GRANTED = 200
UNKNOWN = 503

# The limits of what nodes may have and ask for, where a configuration says nothing else.
MOST_RESOURCES = (
    32  # each is a watch, and all objects of the cluster in memory; MAX_HORIZON has room for these and rules'
)
IDLE_S = 300.0  # a node that restarts is back in seconds, one that changes hubs in minutes
RECHECK_S = 300.0  # how long a right that was taken back may go on; a webhook authorizer's cache has as much
AT_ONCE = 24  # calls, of the client's 128 connections; watches need theirs


class Decision(NamedTuple):
    """What became of an interest."""

    code: int
    """GRANTED, or as RefusedInterest.code."""
    reason: str = ""
    resource: Resource | None = None
    """GRANTED: as the cache has it, in the apiserver's preferred version."""
    is_pending: bool = False
    """UNKNOWN, but soon known: a first attempt is under way."""


class Scope(NamedTuple):
    """The objects of an interest, whoever has it, in whatever version."""

    group: str
    plural: str
    namespace: str
    name: str


def scope_of(interest: Interest) -> Scope:
    return Scope(interest.resource.group, interest.resource.plural, interest.namespace, interest.name)


def scopes_of(key: ObjectKey) -> Iterator[Scope]:
    """All that an object is in."""
    group, plural = key.resource.group, key.resource.plural
    for namespace in {"": None, key.namespace: None}:
        yield Scope(group, plural, namespace, "")
        yield Scope(group, plural, namespace, key.name)


def selected(scope: Scope, cache: WatchCache) -> Iterator[ObjectKey]:
    """What a cache has of a selection; an object that is named may not be there."""
    for resource in list(cache.resources()):
        if (resource.group, resource.plural) != (scope.group, scope.plural):
            continue
        if scope.name and (scope.namespace or not resource.namespaced):
            yield ObjectKey(resource, scope.namespace, scope.name)
        else:
            found, _ = cache.list(resource, scope.namespace)
            yield from (item.key for item in found if scope.name in ("", item.key.name))


def affected(scopes: Iterable[Scope], cache: WatchCache, held: Iterable[ObjectKey]) -> Iterator[ObjectKey]:
    """What a node may have to hold otherwise: what there is of these selections, and what it holds of them."""
    wanted = frozenset(scopes)
    if not wanted:
        return
    for scope in sorted(wanted):
        yield from selected(scope, cache)
    yield from (key for key in held if not wanted.isdisjoint(scopes_of(key)))


def is_custom(group: str) -> bool:
    """Whether resources of this group have definitions. Those of Kubernetes itself, and of old, have none."""
    return "." in group and not group.endswith(".k8s.io")


class Judgement(NamedTuple):
    """What decisions on all of a node's interests come to."""

    refused: tuple[RefusedInterest, ...]
    resources: tuple[Resource, ...]
    granted: frozenset[Scope]
    kept: frozenset[Scope]


def judged(interests: Sequence[Interest], decisions: Mapping[Interest, Decision]) -> Judgement:
    """The definition of a custom resource comes along with what is granted of it: the edge serves kinds by it."""
    refused: list[RefusedInterest] = []
    resources: dict[Resource, None] = {}
    granted: set[Scope] = set()
    kept: set[Scope] = set()
    for interest in interests:
        decision, scope = decisions[interest], scope_of(interest)
        if decision.code != GRANTED:
            refused.append(RefusedInterest(interest, decision.code, decision.reason))
        if decision.code == GRANTED:
            assert decision.resource is not None, "what is granted is in the cache"
            resources[decision.resource] = None
        if decision.code in (GRANTED, UNKNOWN):
            found = granted if decision.code == GRANTED else kept
            found.add(scope)
            if is_custom(scope.group):
                definitions = CUSTOM_RESOURCE_DEFINITIONS
                name = f"{scope.plural}.{scope.group}"
                found.add(Scope(definitions.group, definitions.plural, "", name))
    return Judgement(tuple(refused), tuple(resources), frozenset(granted), frozenset(kept - granted))


class _Held(NamedTuple):
    granted: frozenset[Scope] = frozenset()
    kept: frozenset[Scope] = frozenset()


_NOTHING = _Held()


class Interests:
    """The index, from nodes to selections and back."""

    def __init__(self) -> None:
        self._held: dict[Node, _Held] = {}
        self._nodes: dict[Scope, set[Node]] = {}

    def set_scopes(self, node: Node, granted: frozenset[Scope], kept: frozenset[Scope]) -> frozenset[Scope]:
        """This is what a node holds from now on; returns what is not as it was."""
        before, after = self._held.get(node, _NOTHING), _Held(granted, kept)
        for scope in before.granted - granted:
            self._nodes[scope].discard(node)
            if not self._nodes[scope]:
                del self._nodes[scope]
        for scope in granted - before.granted:
            self._nodes.setdefault(scope, set()).add(node)
        if after == _NOTHING:
            self._held.pop(node, None)
        else:
            self._held[node] = after
        return (before.granted ^ granted) | (before.kept ^ kept)

    def nodes(self, key: ObjectKey) -> list[Node]:
        """Who holds this object by an interest, each once, in one order for one history."""
        if not self._nodes:
            return []
        return sorted({node for scope in scopes_of(key) for node in self._nodes.get(scope, ())})

    def covers(self, node: Node, key: ObjectKey) -> bool:
        """Whether the node is to hold this object by an interest that is granted."""
        granted = self._held.get(node, _NOTHING).granted
        return bool(granted) and any(scope in granted for scope in scopes_of(key))

    def keeps(self, node: Node, key: ObjectKey) -> bool:
        """Whether the node keeps what it holds of this object, because nothing better is known."""
        kept = self._held.get(node, _NOTHING).kept
        return bool(kept) and any(scope in kept for scope in scopes_of(key))

    def is_unknown(self, node: Node) -> bool:
        """Whether the node keeps anything."""
        return bool(self._held.get(node, _NOTHING).kept)

    def granted(self, node: Node) -> Iterable[Scope]:
        return sorted(self._held.get(node, _NOTHING).granted)
