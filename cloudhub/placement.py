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
from collections.abc import Iterator, Mapping
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
        self._direct: dict[ObjectKey, frozenset[Node]] = {}
        self._references: dict[ObjectKey, frozenset[ObjectKey]] = {}
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
            target in self._references.get(key, ()) and node in self._direct[key]
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
        if change.type is EventType.DELETED:
            nodes: frozenset[Node] = frozenset()
            targets: frozenset[ObjectKey] = frozenset()
        else:
            nodes = self._placed_directly(item)
            targets = self._referred(item) if nodes else frozenset()
        old_nodes = self._direct.get(key, frozenset())
        old_targets = self._references.get(key, frozenset())
        # Take the new in before the old is let go of, so that what stays never counts as gone.
        for node in sorted(nodes):
            self._hold(node, key, affected)
            for target in sorted(targets):
                self._hold(node, target, affected)
        for node in sorted(old_nodes):
            self._release(node, key, affected)
            for target in sorted(old_targets):
                self._release(node, target, affected)
        _keep(self._direct, key, nodes)
        _keep(self._references, key, targets)
        return list(affected)

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

    def _placed_directly(self, item: Object) -> frozenset[Node]:
        nodes: set[Node] = set()
        body: JSON = None
        for rule in self._direct_rules.get(item.key.resource, ()):
            if (rule.namespace and rule.namespace != item.key.namespace) or (
                rule.names and item.key.name not in rule.names
            ):
                continue
            match rule.by:
                case By.ALL_NODES:
                    nodes.add(EVERYWHERE)
                case By.LABEL:
                    nodes.add(Node(item.labels.get(rule.path, "")))
                case By.FIELD if rule.path == "metadata.name":
                    nodes.add(Node(item.key.name))
                case By.FIELD:
                    body = item.parse() if body is None else body
                    value = lookup(body, rule.path)
                    nodes.add(Node(value if isinstance(value, str) else ""))
                case By.REFERENCE:
                    raise AssertionError("reference rules are kept apart")
        return frozenset(nodes - {""})

    def _referred(self, item: Object) -> frozenset[ObjectKey]:
        rules = self._reference_rules.get(item.key.resource, ())
        if not rules:
            return frozenset()
        body = item.parse()
        targets: set[ObjectKey] = set()
        for rule in rules:
            names: Iterator[str] | list[str]
            if rule.path:
                value = lookup(body, rule.path)
                names = [value] if isinstance(value, str) and value else []
            else:
                names = _pod_references(body, rule.resource)
            namespace = item.key.namespace if rule.resource.namespaced else ""
            targets |= {ObjectKey(rule.resource, namespace, name) for name in names}
        return frozenset(targets)


def _keep(index: dict[ObjectKey, frozenset], key: ObjectKey, value: frozenset) -> None:  # type: ignore[type-arg]
    if value:
        index[key] = value
    else:
        index.pop(key, None)


def _pod_references(pod: Mapping[str, JSON], wanted: Resource) -> Iterator[str]:
    """Names of the ConfigMaps, Secrets or ServiceAccount a pod refers to, after the kubelet's own visitor."""
    spec = pod.get("spec")
    if not isinstance(spec, Mapping):
        return
    if wanted == SERVICE_ACCOUNTS:
        # A mirror pod has none: a node makes one in any namespace, and would speak for any default ServiceAccount.
        is_mirror = MIRROR in (lookup(pod, "metadata.annotations") or ())
        yield from _text(spec.get("serviceAccountName") or ("" if is_mirror else "default"))
        return
    of_secret = wanted == SECRETS
    for volume in _mappings(spec.get("volumes")):
        if of_secret:
            yield from _text(lookup(volume, "secret.secretName"))
        else:
            yield from _text(lookup(volume, "configMap.name"))
        for source in _mappings(lookup(volume, "projected.sources")):
            yield from _text(lookup(source, "secret.name" if of_secret else "configMap.name"))
        for driver in ("csi.nodePublishSecretRef.name", "flexVolume.secretRef.name", "cephfs.secretRef.name"):
            if of_secret:
                yield from _text(lookup(volume, driver))
    for group in ("containers", "initContainers", "ephemeralContainers"):
        for container in _mappings(spec.get(group)):
            for source in _mappings(container.get("envFrom")):
                yield from _text(lookup(source, "secretRef.name" if of_secret else "configMapRef.name"))
            for variable in _mappings(container.get("env")):
                path = "valueFrom.secretKeyRef.name" if of_secret else "valueFrom.configMapKeyRef.name"
                yield from _text(lookup(variable, path))
    if of_secret:
        for reference in _mappings(spec.get("imagePullSecrets")):
            yield from _text(reference.get("name"))


def _mappings(value: JSON) -> Iterator[Mapping[str, JSON]]:
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, Mapping))


def _text(value: JSON) -> Iterator[str]:
    if isinstance(value, str) and value:
        yield value
