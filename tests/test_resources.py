"""The built-in resources, against what the cluster calls them."""

from apimachinery.resources import BUILT_IN, DEVICE_MODELS, DEVICE_STATUSES, DEVICES, LEASES
from cloudhub import crds


def test_no_resource_is_named_twice() -> None:
    assert len({resource.collection for resource in BUILT_IN}) == len(BUILT_IN)
    assert LEASES.collection == "leases.coordination.k8s.io"


def test_the_device_kinds_are_those_of_the_definitions() -> None:
    text = crds.text()
    for resource in (DEVICES, DEVICE_MODELS, DEVICE_STATUSES):
        assert f"name: {resource.collection}" in text
        assert f"kind: {resource.kind}" in text
