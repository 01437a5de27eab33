"""
The kinds that are served without any definition applied: data, nothing else.

The kinds of `apimachinery.resources` are those this system reads; the others are here so that what
people bring along (manifests, operators, a kubelet) finds its place. None of them has a controller
here: a Deployment is stored, and no Pod comes of it.
"""

from apimachinery import resources
from apimachinery.keys import Resource
from apiserver.definitions import Definition, ScalePaths, Subresource

_WORKLOAD = ("all",)
_CERTIFICATES = resources.CERTIFICATE_SIGNING_REQUESTS

# What kube-apiserver lets these be selected by, beside name and namespace.
_POD_FIELDS = (
    "spec.hostNetwork",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)
_EVENT_FIELDS = (
    *(
        f"involvedObject.{field}"
        for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    ),
    "reason",
    "reportingComponent",
    "source",
    "type",
)

REVIEWS: tuple[Definition, ...] = tuple(
    Definition(Resource(group, "v1", f"{kind.lower()}s", kind, kind.startswith("Local")), verbs=("create",))
    for group, kind in (
        ("authorization.k8s.io", "SelfSubjectAccessReview"),
        ("authorization.k8s.io", "SelfSubjectRulesReview"),
        ("authorization.k8s.io", "SubjectAccessReview"),
        ("authorization.k8s.io", "LocalSubjectAccessReview"),
        ("authentication.k8s.io", "SelfSubjectReview"),
        ("authentication.k8s.io", "TokenReview"),
    )
)
"""Questions that are asked by creating them. Nothing is stored."""


def _plain(
    group: str, plural: str, kind: str, *short: str, namespaced: bool = True, status: bool = False
) -> Definition:
    return Definition(Resource(group, "v1", plural, kind, namespaced), short, has_status=status)


def _app(plural: str, kind: str, short: str, *, scales: bool = True) -> Definition:
    resource = Resource("apps", "v1", plural, kind, True)
    scale = ScalePaths("spec.replicas", "status.replicas", "spec.selector") if scales else None
    return Definition(resource, (short,), _WORKLOAD, has_status=True, scale=scale)


BUILT_IN: tuple[Definition, ...] = (
    Definition(resources.NODES, ("no",), has_status=True, selectable=("spec.unschedulable",)),
    Definition(resources.NAMESPACES, ("ns",), has_status=True, selectable=("status.phase",)),
    Definition(resources.PODS, ("po",), _WORKLOAD, has_status=True, selectable=_POD_FIELDS),
    Definition(resources.CONFIG_MAPS, ("cm",)),
    Definition(resources.SECRETS, selectable=("type",)),
    Definition(resources.SERVICE_ACCOUNTS, ("sa",), has_tokens=True),
    Definition(resources.SERVICES, ("svc",), _WORKLOAD, has_status=True, selectable=("spec.type", "spec.clusterIP")),
    Definition(resources.ENDPOINTS, ("ep",)),
    Definition(resources.EVENTS, ("ev",), selectable=_EVENT_FIELDS),
    Definition(resources.PERSISTENT_VOLUMES, ("pv",), has_status=True),
    Definition(resources.PERSISTENT_VOLUME_CLAIMS, ("pvc",), has_status=True),
    Definition(resources.LEASES),
    Definition(resources.CUSTOM_RESOURCE_DEFINITIONS, ("crd", "crds"), ("api-extensions",), has_status=True),
    Definition(
        resources.CERTIFICATE_SIGNING_REQUESTS,
        ("csr",),
        has_status=True,
        subresources=(Subresource("approval", *_CERTIFICATES[:2], _CERTIFICATES[3], ("get", "patch", "update")),),
        selectable=("spec.signerName",),
    ),
    _plain("", "limitranges", "LimitRange", "limits"),
    _plain("", "resourcequotas", "ResourceQuota", "quota", status=True),
    _app("deployments", "Deployment", "deploy"),
    _app("daemonsets", "DaemonSet", "ds", scales=False),
    _app("replicasets", "ReplicaSet", "rs"),
    _app("statefulsets", "StatefulSet", "sts"),
    Definition(Resource("batch", "v1", "jobs", "Job", True), (), _WORKLOAD, has_status=True),
    Definition(Resource("batch", "v1", "cronjobs", "CronJob", True), ("cj",), _WORKLOAD, has_status=True),
    _plain("discovery.k8s.io", "endpointslices", "EndpointSlice"),
    _plain("networking.k8s.io", "ingresses", "Ingress", "ing", status=True),
    _plain("networking.k8s.io", "networkpolicies", "NetworkPolicy", "netpol"),
    _plain("node.k8s.io", "runtimeclasses", "RuntimeClass", namespaced=False),
    _plain("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", namespaced=False),
    _plain("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    _plain("rbac.authorization.k8s.io", "roles", "Role"),
    _plain("rbac.authorization.k8s.io", "rolebindings", "RoleBinding"),
    _plain("scheduling.k8s.io", "priorityclasses", "PriorityClass", "pc", namespaced=False),
    _plain("storage.k8s.io", "csidrivers", "CSIDriver", namespaced=False),
    _plain("storage.k8s.io", "csinodes", "CSINode", namespaced=False),
    _plain("storage.k8s.io", "storageclasses", "StorageClass", "sc", namespaced=False),
    _plain("storage.k8s.io", "volumeattachments", "VolumeAttachment", namespaced=False, status=True),
)
