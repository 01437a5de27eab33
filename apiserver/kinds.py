"""
Schemas of the built-in kinds, made from the table of their protobuf fields.

The table knows every field and its type; what it does not know is here: which lists are keyed and by what,
and which objects are one thing. Server-side apply, `kubectl explain` and the clients' own validation read
them. There are no descriptions.

Pure. The keys are the listType, listMapKey and mapType markers of k8s.io/api.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from apimachinery.objects import JSON
from apiserver import protobuf, strategic

_LISTS = """
CertificateSigningRequestStatus: conditions type
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
"""
"""Lists that are maps by keys ("a+b"), or sets ("="); all others are one thing."""

_NEWER = """
CSIDriverSpec: nodeAllocatableUpdatePeriodSeconds int, preventPodSchedulingIfMissing bool, seLinuxMount bool,
  serviceAccountTokenInSecrets bool
CSINode: status any
CSIPersistentVolumeSource: nodeExpandSecretRef SecretReference
ConfigMapVolumeSource: defaultUser int
Container: restartPolicyRules []any
ContainerStatus: allocatedResources {}Quantity, allocatedResourcesStatus []any, resources ResourceRequirements,
  stopSignal string, user any, volumeMounts []any
CronJobSpec: timeZone string
CronJobStatus: lastSuccessfulTime Time
DeploymentStatus: terminatingReplicas int
DownwardAPIVolumeFile: user int
DownwardAPIVolumeSource: defaultUser int
EmptyDirVolumeSource: mode int
EnvVarSource: fileKeyRef any
EphemeralContainerCommon: restartPolicyRules []any
GRPCAction: mode string
HTTPGetAction: protocol string
Handler: sleep any
JobSpec: backoffLimitPerIndex int, managedBy string, maxFailedIndexes int, podFailurePolicy any,
  podReplacementPolicy string, scheduling any, successPolicy any
JobStatus: completedIndexes string, failedIndexes string, ready int, terminating int, uncountedTerminatedPods any
KeyToPath: user int
Lifecycle: stopSignal string
LoadBalancerIngress: ipMode string
ManagedFieldsEntry: subresource string
NetworkPolicyPort: endPort int
NodeSpec: podPreemptionPolicy any
NodeStatus: declaredFeatures []string, features any, runtimeHandlers []any
NodeSystemInfo: runningInUserNamespace bool, swap any
PersistentVolumeClaimSpec: dataSourceRef any, volumeAttributesClassName string
PersistentVolumeClaimStatus: allocatedResourceStatuses {}string, allocatedResources {}Quantity,
  currentVolumeAttributesClassName string, healthStatus any, modifyVolumeStatus any
PersistentVolumeSpec: volumeAttributesClassName string
PersistentVolumeStatus: lastPhaseTransitionTime Time
PodAffinityTerm: matchLabelKeys []string, mismatchLabelKeys []string, namespaceSelector LabelSelector
PodCondition: observedGeneration int
PodSecurityContext: appArmorProfile any, seLinuxChangePolicy string, supplementalGroupsPolicy string
PodSpec: evictionResponders []any, hostnameOverride string, resourceClaims []any, resources ResourceRequirements,
  schedulingGroup any
PodStatus: allocatedResources {}Quantity, extendedResourceClaimStatus any, hostIPs []any,
  nodeAllocatableResourceClaimStatuses []any, observedGeneration int, resize string, resourceClaimStatuses []any,
  resources ResourceRequirements, volumeHealth []any
ProjectedVolumeSource: defaultUser int
ReplicaSetStatus: terminatingReplicas int
ResourceRequirements: claims []any
RollingUpdateDaemonSet: maxSurge IntOrString
RollingUpdateStatefulSetStrategy: maxUnavailable IntOrString
SecretVolumeSource: defaultUser int
SecurityContext: appArmorProfile any
ServiceAccountTokenProjection: user int
StatefulSetSpec: minReadySeconds int, ordinals any, persistentVolumeClaimRetentionPolicy any
StatefulSetStatus: availableReplicas int
Volume: image any
VolumeError: errorCode int
VolumeMount: bindMountOptions []string, recursiveReadOnly string
VolumeProjection: clusterTrustBundle any, podCertificate any
WindowsSecurityContextOptions: hostProcess bool
"""
"""Fields of later releases than the protobuf table's, up to 1.37; of those with parts of their own only the name."""

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
    "any": {"x-kubernetes-preserve-unknown-fields": True},
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
    lists, newer = _lists(), _newer()
    known = {name: [*fields.values(), *newer.get(name, ())] for name, fields in protobuf.messages().items()}
    return {name: _schema(name, known, lists) for name in known}


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
    for name, listed in _entries(_LISTS):
        for text in listed:
            field, keys = text.split()
            found[name, field] = () if keys == "=" else tuple(keys.split("+"))
    return found


def _newer() -> Mapping[str, list[protobuf.Field]]:
    found: dict[str, list[protobuf.Field]] = {}
    for name, listed in _entries(_NEWER):
        for text in listed:
            field, kind = text.split()
            shape = kind[:2] if kind[:2] in ("[]", "{}") else ""
            found.setdefault(name, []).append(protobuf.Field(field, kind.removeprefix(shape), shape))
    return found


def _entries(table: str) -> Iterator[tuple[str, list[str]]]:
    for entry in table.replace("\n  ", " ").strip().splitlines():
        name, _, listed = entry.partition(": ")
        yield name, listed.split(", ")


def _schema(
    name: str, known: Mapping[str, Sequence[protobuf.Field]], lists: Mapping[tuple[str, str], tuple[str, ...]]
) -> dict[str, JSON]:
    properties: dict[str, JSON] = {}
    for field in known[name]:
        if field.name in protobuf.INLINE and field.type in known:
            inner = _schema(field.type, known, lists)
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
