"""
Schemas of the built-in kinds, made from the table of their protobuf fields.

The table knows every field and its type; what it does not know is here: which lists are keyed and by what,
and which objects are one thing. Server-side apply, `kubectl explain` and the clients' own validation read
them. There are no descriptions.

Pure. The keys are the listType, listMapKey and mapType markers of k8s.io/api.
"""

from collections.abc import Mapping
from functools import cache

from apimachinery.objects import JSON
from apiserver import protobuf, strategic

_LISTS = """
Container: env name, ports containerPort+protocol, volumeDevices devicePath, volumeMounts mountPath
CSINodeSpec: drivers name
DaemonSetStatus: conditions type
DeploymentStatus: conditions type
EphemeralContainerCommon: env name, ports containerPort+protocol, volumeDevices devicePath, volumeMounts mountPath
NamespaceStatus: conditions type
NodeSpec: podCIDRs =
NodeStatus: addresses type, conditions type
ObjectMeta: finalizers =, ownerReferences uid
PersistentVolumeClaimStatus: conditions type
PodSpec: containers name, ephemeralContainers name, hostAliases ip, imagePullSecrets name, initContainers name,
  resourceClaims name, schedulingGates name, topologySpreadConstraints topologyKey+whenUnsatisfiable, volumes name
PodStatus: conditions type, podIPs ip, resourceClaimStatuses name
ReplicaSetStatus: conditions type
ResourceRequirements: claims name
ServiceAccount: secrets name
ServiceSpec: ports port+protocol
ServiceStatus: conditions type
StatefulSetStatus: conditions type
VolumeResourceRequirements: claims name
"""
"""Lists that are maps by keys ("a+b"), or sets ("="); all others are one thing."""

_ATOMIC = frozenset(
    {
        "ConfigMapKeySelector", "LabelSelector", "LocalObjectReference", "NodeSelector", "NodeSelectorTerm",
        "ObjectFieldSelector", "ObjectReference", "OwnerReference", "ResourceFieldSelector", "RoleRef",
        "ScopeSelector", "SecretKeySelector", "SecretReference", "Subject", "TypedLocalObjectReference",
    }
)  # fmt: skip
"""Messages that are one thing wherever they occur."""
_ATOMIC_FIELDS = frozenset({("PodSpec", "nodeSelector"), ("ServiceSpec", "selector")})
_DEFAULTS: Mapping[tuple[str, str], JSON] = {("ContainerPort", "protocol"): "TCP", ("ServicePort", "protocol"): "TCP"}
"""Defaults of fields that are among a list's keys."""

_PLAIN: Mapping[str, Mapping[str, JSON]] = {
    "ExtraValue": {"type": "array", "items": {"type": "string"}},
    "FieldsV1": {"type": "object"},
    "IntOrString": {"x-kubernetes-int-or-string": True},
    "MicroTime": {"type": "string", "format": "date-time"},
    "Quantity": {"x-kubernetes-int-or-string": True},
    "Time": {"type": "string", "format": "date-time"},
    "bool": {"type": "boolean"},
    "bytes": {"type": "string", "format": "byte"},
    "int": {"type": "integer", "format": "int64"},
    "string": {"type": "string"},
}

OBJECT_META = "ObjectMeta"
_ENVELOPE: Mapping[str, JSON] = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
OPEN: Mapping[str, JSON] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
"""The schema of an object of which nothing is known."""


@cache
def definitions() -> Mapping[str, Mapping[str, JSON]]:
    """All schemas by name; one refers to another by "$ref", whose last part is the name."""
    lists = _lists()
    return {name: _schema(name, fields, lists) for name, fields in protobuf.messages().items()}


def root_schema(kind: str, own: Mapping[str, JSON] | None = None, *, prefix: str = "") -> dict[str, JSON]:
    """
    The schema of a whole object: a built-in kind's, or a custom one's of which `own` is the openAPIV3Schema.

    prefix: of what "$ref" says. A kind of which nothing is known may have any field.
    """
    if own is None:
        own = definitions().get(kind) or {**OPEN, "properties": {"spec": OPEN, "status": OPEN}}
    properties = own.get("properties")
    known = properties if isinstance(properties, Mapping) else {}
    whole = {**own, "type": "object"}
    whole["properties"] = {**known, **_ENVELOPE, "metadata": {"$ref": f"{prefix}{OBJECT_META}"}}
    if not known and "additionalProperties" not in own:
        whole |= {name: value for name, value in OPEN.items() if name not in whole}
    return whole


def _lists() -> Mapping[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for entry in _LISTS.replace("\n  ", " ").strip().splitlines():
        name, _, listed = entry.partition(": ")
        for text in listed.split(", "):
            field, keys = text.split()
            found[name, field] = () if keys == "=" else tuple(keys.split("+"))
    return found


def _schema(
    name: str, fields: Mapping[int, protobuf.Field], lists: Mapping[tuple[str, str], tuple[str, ...]]
) -> dict[str, JSON]:
    properties: dict[str, JSON] = {}
    for field in fields.values():
        if field.name in protobuf.INLINE and field.type in protobuf.messages():
            inner = _schema(field.type, protobuf.messages()[field.type], lists)
            properties |= inner["properties"]
            continue
        one: dict[str, JSON] = dict(_PLAIN.get(field.type) or {"$ref": field.type})
        if field.shape == "[]":
            marks = _list_marks(name, field.name, lists)
            one = {"type": "array", "items": one, **marks, **_patch_marks(name, field)}
        elif field.shape == "{}":
            one = {"type": "object", "additionalProperties": one}
        if (name, field.name) in _ATOMIC_FIELDS:
            one["x-kubernetes-map-type"] = "atomic"
        if (name, field.name) in _DEFAULTS:
            one["default"] = _DEFAULTS[name, field.name]
        properties[field.name] = one
    schema: dict[str, JSON] = {"type": "object", "properties": dict(sorted(properties.items()))}
    if name in _ATOMIC:
        schema["x-kubernetes-map-type"] = "atomic"
    return schema


def _list_marks(name: str, field: str, lists: Mapping[tuple[str, str], tuple[str, ...]]) -> dict[str, JSON]:
    keys = lists.get((name, field))
    if keys is None:
        marks: dict[str, JSON] = {"x-kubernetes-list-type": "atomic"}
    elif not keys:
        marks = {"x-kubernetes-list-type": "set"}
    else:
        marks = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
    return marks


def _patch_marks(name: str, field: protobuf.Field) -> dict[str, JSON]:
    """How a strategic merge patch treats a list, for the clients that make such patches from the schema."""
    kind = name.removesuffix("Spec").removesuffix("Status")
    if field.name in strategic.MERGED_SETS:
        return {"x-kubernetes-patch-strategy": "merge"}
    key = strategic.merge_key(kind, field.name)
    if key is None or all(other.name != key for other in protobuf.messages().get(field.type, {}).values()):
        return {}
    return {"x-kubernetes-patch-merge-key": key, "x-kubernetes-patch-strategy": "merge"}
