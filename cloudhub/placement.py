"""
Which objects belong on which nodes.

Rules are configuration. A rule of the first three kinds places an object by what the object itself
says; a reference rule places what placed objects refer to, for as long as any of them does: a pod's
ConfigMaps and Secrets come and go with the pod.

The index is kept by observe(), one change at a time; it never looks at all objects or all nodes.

Invariants
    after any history of changes the index equals a recomputation from the objects alone
    a referred-to key is placed whether or not such an object exists, so that it is sent once it does
    only directly placed objects place what they refer to

Pure state: no clock, no I/O.
"""

import enum
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from apimachinery.events import Change, EventType
from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.objects import JSON, Object, lookup
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
from cloudhub.reading import Sent

MIRROR = "kubernetes.io/config.mirror"
"""The annotation of a pod that a node made of a file of its own, for others to see."""

EVERYWHERE = Node("*")
"""Stands for every node, also those not heard of yet; no node can be called this."""


class By(enum.StrEnum):
    """How a rule finds the node."""

    FIELD = "field"
    """A field of the object holds the node's name."""
    LABEL = "label"
    """A label of the object holds the node's name."""
    ALL_NODES = "allNodes"
    REFERENCE = "reference"
    """The object is named by another one that is placed."""


class Rule(NamedTuple):
    """One line of the placement configuration."""

    resource: Resource
    by: By
    path: str = ""
    """FIELD: the field's path. LABEL: the label's key. REFERENCE: the path of the name in the referrer."""
    namespace: str = ""
    """Only objects of this namespace, where it is set."""
    names: frozenset[str] = frozenset()
    """Only objects of these names, where there are any."""
    referrer: Resource | None = None
    """REFERENCE: who refers. A pod's references need no path, they are known."""


STANDARD_RULES: tuple[Rule, ...] = (
    Rule(NODES, By.FIELD, "metadata.name"),
    Rule(LEASES, By.FIELD, "metadata.name", namespace=NODE_LEASE_NAMESPACE),
    Rule(PODS, By.FIELD, "spec.nodeName"),
    Rule(CONFIG_MAPS, By.REFERENCE, referrer=PODS),
    Rule(SECRETS, By.REFERENCE, referrer=PODS),
    Rule(SERVICE_ACCOUNTS, By.REFERENCE, referrer=PODS),
    Rule(DEVICES, By.FIELD, "spec.nodeName"),
    Rule(DEVICE_MODELS, By.REFERENCE, "spec.deviceModelRef.name", referrer=DEVICES),
)
"""What every node gets. Configuration adds to it."""


def with_definitions(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """
    The rules plus one that takes the definitions of the custom resources among them to all nodes.

    The edge's local API needs them to serve those kinds with their names and columns.
    """
    custom = frozenset(
        rule.resource.collection
        for rule in rules
        if rule.resource.group and not rule.resource.group.endswith(".k8s.io")
    )
    return (*rules, Rule(CUSTOM_RESOURCE_DEFINITIONS, By.ALL_NODES, names=custom)) if custom else rules


class Affected(NamedTuple):
    """An object that a node may see differently now; `node` may be EVERYWHERE."""

    node: Node
    key: ObjectKey


class Bound(NamedTuple):
    """Where an object belongs, by what it says itself, and what goes there with it."""

    nodes: frozenset[Node]
    """EVERYWHERE among them for all nodes."""
    targets: frozenset[ObjectKey]
    """What it refers to; nothing where it is on no node."""
    is_mirror: bool = False


_NOTHING: frozenset[str] = frozenset()
NOWHERE = Bound(frozenset(), frozenset())


class Placement:
    """The index from objects to nodes and back."""

    def __init__(self, rules: tuple[Rule, ...] = STANDARD_RULES) -> None:
        self.rules = rules
        self._direct_rules: dict[Resource, list[Rule]] = {}
        self._reference_rules: dict[Resource, list[Rule]] = {}
        for rule in rules:
            if rule.by is By.REFERENCE:
                assert rule.referrer is not None, "a reference rule names who refers"
                self._reference_rules.setdefault(rule.referrer, []).append(rule)
            else:
                self._direct_rules.setdefault(rule.resource, []).append(rule)
        self._deciding = {
            resource: frozenset(
                each.collection
                for rule in rules
                if rule.resource == resource
                for each in (resource, rule.referrer)
                if each is not None
            )
            for resource in {rule.resource for rule in rules}
        }
        self._looked_at = {
            resource: frozenset(path.partition(".")[0] for path in self._paths(resource))
            for resource in self.resources()
        }
        self._bounds: dict[ObjectKey, Bound] = {}
        self._holders: dict[ObjectKey, dict[Node, int]] = {}
        """For each placed key how often each node holds it: once for itself, once per referrer."""
        self._on_node: dict[Node, dict[ObjectKey, None]] = {}

    def resources(self) -> list[Resource]:
        """What must be watched, each once, referrers' kinds included."""
        wanted = dict.fromkeys(rule.resource for rule in self.rules)
        wanted |= dict.fromkeys(rule.referrer for rule in self.rules if rule.referrer is not None)
        return list(wanted)

    def deciding(self, resource: Resource) -> frozenset[str]:
        """The collections that decide what a node holds of this resource: itself, and those that refer to it."""
        return self._deciding.get(resource, frozenset())

    def nodes(self, key: ObjectKey) -> frozenset[Node]:
        """Who should hold this object; EVERYWHERE among them for an object of all nodes."""
        return frozenset(self._holders.get(key, ()))

    def is_placed(self, node: Node, key: ObjectKey) -> bool:
        holders = self._holders.get(key)
        return holders is not None and (node in holders or EVERYWHERE in holders)

    def refers(self, node: Node, target: ObjectKey, referrer: Resource) -> bool:
        """Whether an object of `referrer` that a rule puts on this node refers to `target`. O(objects on the node)."""
        return any(
            target in (bound := self._bounds.get(key, NOWHERE)).targets and node in bound.nodes
            for key in self._on_node.get(node, ())
            if key.resource == referrer
        )

    def keys(self, node: Node) -> Iterator[ObjectKey]:
        """Everything placed on a node, each once, whether or not it exists."""
        own = self._on_node.get(node, {})
        yield from own
        for key in self._on_node.get(EVERYWHERE, ()):
            if key not in own:
                yield key

    def observe(self, change: Change) -> list[Affected]:
        """
        Take a change in; returns what may look different now, to whom, each once. O(references of the object).

        The order is the same for the same history, whatever the process: a simulated schedule must replay.
        """
        item = change.object
        key = item.key
        affected = dict.fromkeys(Affected(node, key) for node in self._holders.get(key, ()))
        old = self._bounds.get(key, NOWHERE)
        new = NOWHERE if change.type is EventType.DELETED else self._bound(item)
        if new == old:
            return list(affected)
        # Take the new in before the old is let go of, so that what stays never counts as gone.
        for node in sorted(new.nodes):
            self._hold(node, key, affected)
            for target in sorted(new.targets):
                self._hold(node, target, affected)
        for node in sorted(old.nodes):
            self._release(node, key, affected)
            for target in sorted(old.targets):
                self._release(node, target, affected)
        if new.nodes:
            self._bounds[key] = new
        else:
            self._bounds.pop(key, None)
        return list(affected)

    def look(self, item: Sent, before: object, same: Collection[str]) -> object:
        """
        Where an object belongs, for observe() to find: a cloudhub.projection.Look.

        O(references), but where nothing that a rule looks at has changed O(1).
        """
        is_mirror = _is_mirror(item.metadata)
        if (
            isinstance(before, Bound)
            and before.is_mirror == is_mirror
            and self._looked_at.get(item.key.resource, _NOTHING).issubset(same)
        ):
            return before
        return self._where(item.key, item.labels, item.member, is_mirror)

    def _bound(self, item: Object) -> Bound:
        if isinstance(item.found, Bound):
            return item.found
        body = item.parse()
        return self._where(item.key, item.labels, body.get, _is_mirror(body.get("metadata")))

    def _paths(self, resource: Resource) -> Iterator[str]:
        """Of what the rules look at in an object, beside its name."""
        for rule in self._direct_rules.get(resource, ()):
            if rule.by is By.LABEL:
                yield "metadata.labels"
            elif rule.by is By.FIELD and rule.path != "metadata.name":
                yield rule.path
        for rule in self._reference_rules.get(resource, ()):
            yield rule.path or "spec"

    def _hold(self, node: Node, key: ObjectKey, affected: dict[Affected, None]) -> None:
        holders = self._holders.setdefault(key, {})
        holders[node] = holders.get(node, 0) + 1
        if holders[node] == 1:
            self._on_node.setdefault(node, {})[key] = None
            affected[Affected(node, key)] = None

    def _release(self, node: Node, key: ObjectKey, affected: dict[Affected, None]) -> None:
        holders = self._holders[key]
        holders[node] -= 1
        if holders[node]:
            return
        del holders[node]
        if not holders:
            del self._holders[key]
        del self._on_node[node][key]
        if not self._on_node[node]:
            del self._on_node[node]
        affected[Affected(node, key)] = None

    def _where(
        self, key: ObjectKey, labels: Mapping[str, str], member: Callable[[str], JSON], is_mirror: bool
    ) -> Bound:
        """member: gives the value of a member of the body."""
        nodes = self._placed_directly(key, labels, member)
        targets = self._referred(key, member, is_mirror) if nodes else frozenset()
        return Bound(nodes, targets, is_mirror)

    def _placed_directly(
        self, key: ObjectKey, labels: Mapping[str, str], member: Callable[[str], JSON]
    ) -> frozenset[Node]:
        nodes: set[Node] = set()
        for rule in self._direct_rules.get(key.resource, ()):
            if (rule.namespace and rule.namespace != key.namespace) or (rule.names and key.name not in rule.names):
                continue
            match rule.by:
                case By.ALL_NODES:
                    nodes.add(EVERYWHERE)
                case By.LABEL:
                    nodes.add(Node(labels.get(rule.path, "")))
                case By.FIELD if rule.path == "metadata.name":
                    nodes.add(Node(key.name))
                case By.FIELD:
                    nodes.add(Node(_text_at(member, rule.path)))
                case By.REFERENCE:
                    raise AssertionError("reference rules are kept apart")
        return frozenset(nodes - {""})

    def _referred(self, key: ObjectKey, member: Callable[[str], JSON], is_mirror: bool) -> frozenset[ObjectKey]:
        rules = self._reference_rules.get(key.resource, ())
        by_pod: Mapping[Resource, Collection[str]] | None = None
        targets: set[ObjectKey] = set()
        for rule in rules:
            names: Collection[str]
            if rule.path:
                names = (_text_at(member, rule.path),)
            else:
                if by_pod is None:
                    by_pod = _pod_references(member("spec"), is_mirror)
                names = by_pod.get(rule.resource, ())
            namespace = key.namespace if rule.resource.namespaced else ""
            targets.update(ObjectKey(rule.resource, namespace, name) for name in names if name)
        return frozenset(targets)


def _is_mirror(metadata: JSON) -> bool:
    annotations = lookup(metadata, "annotations")
    return isinstance(annotations, Mapping) and MIRROR in annotations


def _text_at(member: Callable[[str], JSON], path: str) -> str:
    """The text at a dotted path, "" where there is none."""
    first, _, rest = path.partition(".")
    value = member(first)
    if rest:
        value = lookup(value, rest)
    return value if isinstance(value, str) else ""


_OF_DRIVERS = {"csi": "nodePublishSecretRef", "flexVolume": "secretRef", "cephfs": "secretRef"}
"""Kinds of volumes whose driver needs a Secret: the field that refers to it."""


def _pod_references(spec: JSON, is_mirror: bool) -> Mapping[Resource, Collection[str]]:
    """Names of the ConfigMaps, Secrets and ServiceAccount a pod refers to, after the kubelet's own visitor."""
    if not isinstance(spec, dict):
        return {}
    # A mirror pod has no account unless it says so: a node makes one in any namespace, and would speak for any default
    # ServiceAccount.
    account = spec.get("serviceAccountName") or ("" if is_mirror else "default")
    config_maps: list[JSON] = []
    secrets: list[JSON] = []
    for volume in _mappings(spec.get("volumes")):
        for kind, source in volume.items():
            if kind == "secret":
                secrets.append(_field(source, "secretName"))
            elif kind == "configMap":
                config_maps.append(_field(source, "name"))
            elif kind == "projected":
                for each in _mappings(_field(source, "sources")):
                    secrets.append(_field(each.get("secret"), "name"))
                    config_maps.append(_field(each.get("configMap"), "name"))
            elif kind in _OF_DRIVERS:
                secrets.append(_field(_field(source, _OF_DRIVERS[kind]), "name"))
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for container in _mappings(spec.get(group)):
            for source in _mappings(container.get("envFrom")):
                secrets.append(_field(source.get("secretRef"), "name"))
                config_maps.append(_field(source.get("configMapRef"), "name"))
            for variable in _mappings(container.get("env")):
                if (source := variable.get("valueFrom")) is not None:
                    secrets.append(_field(_field(source, "secretKeyRef"), "name"))
                    config_maps.append(_field(_field(source, "configMapKeyRef"), "name"))
    secrets += (reference.get("name") for reference in _mappings(spec.get("imagePullSecrets")))
    return {CONFIG_MAPS: _names(config_maps), SECRETS: _names(secrets), SERVICE_ACCOUNTS: _names([account])}


def _field(value: JSON, name: str) -> JSON:
    return value.get(name) if isinstance(value, dict) else None


def _mappings(value: JSON) -> list[dict[str, JSON]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _names(values: list[JSON]) -> frozenset[str]:
    return frozenset(value for value in values if isinstance(value, str))
