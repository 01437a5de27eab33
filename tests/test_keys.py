"""Names of objects and the paths they are found at."""

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES, NODES, PODS


def test_paths_are_those_of_the_kubernetes_api() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("default", "web", "status") == "/api/v1/namespaces/default/pods/web/status"
    assert NODES.path(name="edge-1") == "/api/v1/nodes/edge-1"
    assert DEVICES.path("default") == "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices"


def test_a_key_reads_as_kubectl_would_name_it() -> None:
    assert str(ObjectKey(DEVICES, "default", "x")) == "devices.devices.kubeedge.io/default/x"
    assert str(ObjectKey(NODES, "", "edge-1")) == "nodes/edge-1"
    assert DEVICES.api_version == "devices.kubeedge.io/v1beta1"
    assert PODS.api_version == "v1"
