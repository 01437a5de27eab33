"""
What a node may do: what a kubelet needs for the pods that are bound to it, and nothing of another node's.

A node is a user named system:node:NAME in the group system:nodes. Secrets, ConfigMaps, claims and
ServiceAccounts are a node's while a pod on it refers to them; an index of the pods' references, kept by
their changes, says so.

Invariants
    no node reads a Secret or ConfigMap that no pod on it refers to, and none can make such a pod itself
    a node writes its own Node, Lease and CSINode, and the pods bound to it

Simpler than Kubernetes: any PersistentVolume and VolumeAttachment may be read one by one, and the labels and
taints a node gives itself are its own affair.

Pure. After k8s.io/kubernetes/plugin/pkg/auth/authorizer/node and plugin/pkg/admission/noderestriction.
"""

from collections.abc import Iterator, Mapping

from apimachinery import resources
from apimachinery.errors import Forbidden
from apimachinery.events import Change, EventType
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, lookup
from apiserver import users
from apiserver.attributes import Attributes
from apiserver.rbac import Rule
from apiserver.users import User

PREFIX = "system:node:"
MIRROR = "kubernetes.io/config.mirror"
"""The annotation of a pod that a kubelet made of a file, for others to see."""

_READ = ("get", "list", "watch")
_CHANGE = ("get", "update", "patch", "delete")
_ALWAYS = (
    Rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
    Rule(("create",), ("authorization.k8s.io",), ("localsubjectaccessreviews", "subjectaccessreviews")),
    Rule(_READ, ("",), ("services",)),
    Rule(("create", "patch", "update"), ("",), ("events",)),
    Rule(("create",), ("",), ("nodes", "pods")),  # which ones, check_write() says
    Rule(("get",), ("",), ("persistentvolumes",)),
    Rule(("create",), ("storage.k8s.io",), ("csinodes",)),
    Rule(("get",), ("storage.k8s.io",), ("volumeattachments",)),
    Rule(_READ, ("storage.k8s.io",), ("csidrivers",)),
    Rule(_READ, ("node.k8s.io",), ("runtimeclasses",)),
)

_Ref = tuple[str, str, str]
"""(plural, namespace, name) of what a pod refers to."""


def node_of(user: User) -> str | None:
    """The node that a user is; None for everybody else."""
    is_node = users.NODES in user.groups and user.name.startswith(PREFIX)
    return user.name.removeprefix(PREFIX) if is_node else None


class Nodes:
    """The pods of each node, and what they refer to."""

    def __init__(self) -> None:
        self._pods: dict[ObjectKey, tuple[str, frozenset[_Ref]]] = {}
        self._by_node: dict[str, dict[_Ref, int]] = {}

    def observe(self, change: Change) -> None:
        """Take in one change of anything; what is no pod is passed over."""
        key = change.object.key
        if key.resource != resources.PODS:
            return
        node, refs = self._pods.pop(key, ("", frozenset()))
        counts = self._by_node.get(node, {})
        for ref in refs:
            counts[ref] -= 1
            if not counts[ref]:
                del counts[ref]
        if node and not counts:
            self._by_node.pop(node, None)
        if change.type is EventType.DELETED:
            return
        body = change.object.parse()
        node = str(lookup(body, "spec.nodeName") or "")
        if node:
            own = [("pods", key.namespace, key.name)]
            if account := account_of(body):
                own.append(("serviceaccounts", key.namespace, account))
            refs = frozenset((*references(body), *own))
            self._pods[key] = (node, refs)
            counts = self._by_node.setdefault(node, {})
            for ref in refs:
                counts[ref] = counts.get(ref, 0) + 1

    def allows(self, node: str, asked: Attributes) -> bool:
        """Whether this node may do this, by being the node it is."""
        if not asked.is_resource:
            return False
        if any(rule.allows(asked) for rule in _ALWAYS):
            return True
        match asked.group, asked.combined, asked.verb:
            case "", "nodes", "get" | "list" | "watch" | "patch" | "update":
                return asked.name == node
            case "", "nodes/status", "patch" | "update":
                return asked.name == node
            case "coordination.k8s.io", "leases", verb if asked.namespace == resources.NODE_LEASE_NAMESPACE:
                return verb == "create" or (verb in _CHANGE and asked.name == node)
            case "storage.k8s.io", "csinodes", verb if verb in _CHANGE:
                return asked.name == node
            case "", "pods", "list" | "watch" if ("spec.nodeName", node) in asked.selected:
                return True
            case "", "pods" | "pods/status" | "secrets" | "configmaps" | "persistentvolumeclaims", verb:
                return self._is_its_own(node, asked) and verb in _verbs(asked.combined)
            case "", "serviceaccounts/token", "create":
                return self._is_its_own(node, asked)
        return False

    def _is_its_own(self, node: str, asked: Attributes) -> bool:
        return (asked.resource, asked.namespace, asked.name) in self._by_node.get(node, {})


def _verbs(combined: str) -> tuple[str, ...]:
    match combined:
        case "pods":
            return (*_READ, "delete")
        case "pods/status":
            return ("patch", "update")
        case "persistentvolumeclaims":
            return ("get",)
    return _READ  # list and watch of one name, which is how a kubelet follows an object


def check_write(node: str, key: ObjectKey, body: Mapping[str, JSON], current: Mapping[str, JSON] | None) -> None:
    """Judge what a node is about to write, where its name alone did not show it. Raises Forbidden."""
    told = ""
    if key.resource in (resources.NODES, resources.LEASES) or key.resource.plural == "csinodes":
        if key.name != node:
            told = f"node {node!r} is not allowed to modify {key.resource.kind} {key.name!r}"
    elif key.resource == resources.PODS:
        if lookup(body, "spec.nodeName") != node:
            told = f"node {node!r} can only write pods with spec.nodeName set to itself"
        elif current is None and not _is_mirror(body):
            told = f"pod does not have {MIRROR!r} annotation, node {node!r} can only create mirror pods"
        elif current is None and (refs := list(references(body))):
            told = f"node {node!r} can not create pods that reference {refs[0][0]}"
    if told:
        raise Forbidden(
            f'{key.resource.collection} "{key.name}" is forbidden: {told}',
            kind=key.resource.plural,
            group=key.resource.group,
            name=key.name,
        )


def account_of(pod: Mapping[str, JSON]) -> str:
    """
    The ServiceAccount that a pod runs as.

    "" for a mirror pod, which has none: a node makes one in any namespace, and would be the default account there.
    """
    name = str(lookup(pod, "spec.serviceAccountName") or "")
    return name or ("" if _is_mirror(pod) else "default")


def _is_mirror(pod: Mapping[str, JSON]) -> bool:
    return MIRROR in (lookup(pod, "metadata.annotations") or {})


def references(pod: Mapping[str, JSON]) -> Iterator[_Ref]:
    """What a pod cannot run without: its ServiceAccount, Secrets, ConfigMaps and claims."""
    namespace, spec = str(lookup(pod, "metadata.namespace") or ""), lookup(pod, "spec")
    account = lookup(pod, "spec.serviceAccountName")
    if isinstance(account, str) and account:
        yield "serviceaccounts", namespace, account
    for path, plural, field in _FIELDS:
        for holder in _walk(spec, path):
            name = holder.get(field) if isinstance(holder, Mapping) else None
            if isinstance(name, str) and name:
                yield plural, namespace, name


_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
_DRIVERS = ("cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos")
_FIELDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("imagePullSecrets",), "secrets", "name"),
    (("volumes", "secret"), "secrets", "secretName"),
    (("volumes", "configMap"), "configmaps", "name"),
    (("volumes", "persistentVolumeClaim"), "persistentvolumeclaims", "claimName"),
    *((("volumes", each, "secretRef"), "secrets", "name") for each in _DRIVERS),
    (("volumes", "azureFile"), "secrets", "secretName"),
    (("volumes", "csi", "nodePublishSecretRef"), "secrets", "name"),
    (("volumes", "projected", "sources", "secret"), "secrets", "name"),
    (("volumes", "projected", "sources", "configMap"), "configmaps", "name"),
    *(((each, "envFrom", "secretRef"), "secrets", "name") for each in _CONTAINERS),
    *(((each, "envFrom", "configMapRef"), "configmaps", "name") for each in _CONTAINERS),
    *(((each, "env", "valueFrom", "secretKeyRef"), "secrets", "name") for each in _CONTAINERS),
    *(((each, "env", "valueFrom", "configMapKeyRef"), "configmaps", "name") for each in _CONTAINERS),
)
"""Paths under spec, through lists; the resource that is meant there; the field with its name."""


def _walk(value: JSON, path: tuple[str, ...]) -> Iterator[JSON]:
    if isinstance(value, list):
        for each in value:
            yield from _walk(each, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _walk(value[path[0]], path[1:])
