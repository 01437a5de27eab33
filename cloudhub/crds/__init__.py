"""
The custom resource definitions of devices, as the YAML files beside this module.

Group, version, kinds and fields are KubeEdge's (`devices.kubeedge.io/v1beta1`), so that a Device written
for it applies unchanged; what KubeEdge leaves to an optional webhook or to nobody (property names
unique, types spelled right, cycles not negative) the schemas refuse at once. The files are what
`cloudcore crds` prints: they are read as text, never parsed here, so that what is printed is what
was written, comments included.

Invariants
    every file is one YAML document and a valid apiextensions.k8s.io/v1 CustomResourceDefinition
    a field once accepted stays accepted: objects in clusters outlive this code
"""

from importlib import resources

NAMES = ("devicemodels.yaml", "devices.yaml", "devicestatuses.yaml")
"""The files, in the order a reader wants them: what a device may have, the device, what became of it."""


def text() -> str:
    """All definitions as one YAML stream, as `kubectl apply -f -` takes it; ends with a line break."""
    folder = resources.files(__package__)
    return "---\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in NAMES)
