"""
The built-in resources that both halves name: the core kinds a node needs and the device kinds.

Anything else is learned from discovery or from a CustomResourceDefinition at run time.
"""

from apimachinery.keys import Resource

DEVICE_GROUP = "devices.kubeedge.io"

NODES = Resource("", "v1", "nodes", "Node", False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False)
PODS = Resource("", "v1", "pods", "Pod", True)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True)
SECRETS = Resource("", "v1", "secrets", "Secret", True)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", True)
SERVICES = Resource("", "v1", "services", "Service", True)
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", True)
EVENTS = Resource("", "v1", "events", "Event", True)
PERSISTENT_VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", False)
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", True)
CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)
CERTIFICATE_SIGNING_REQUESTS = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", False
)
SELF_SUBJECT_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", False)
SELF_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False
)
DEVICES = Resource(DEVICE_GROUP, "v1beta1", "devices", "Device", True)
DEVICE_MODELS = Resource(DEVICE_GROUP, "v1beta1", "devicemodels", "DeviceModel", True)
DEVICE_STATUSES = Resource(DEVICE_GROUP, "v1beta1", "devicestatuses", "DeviceStatus", True)

NODE_LEASE_NAMESPACE = "kube-node-lease"
"""Where Kubernetes keeps a Lease per node, named for it (k8s.io/api/core/v1 NamespaceNodeLease)."""

BUILT_IN: tuple[Resource, ...] = (
    NODES,
    NAMESPACES,
    PODS,
    CONFIG_MAPS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    ENDPOINTS,
    EVENTS,
    PERSISTENT_VOLUMES,
    PERSISTENT_VOLUME_CLAIMS,
    LEASES,
    CUSTOM_RESOURCE_DEFINITIONS,
)
"""What an apiserver serves without any definition applied; the device kinds come from definitions."""
