"""
What the demo prints once: where things are, and the exact lines to try in another terminal.

The merge patch is made from the manifest, because a merge patch replaces a list as a whole: a line that
named one property only would take the others off the device.
"""

import copy
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from apimachinery.objects import JSON
from demo.state import HOST, Ports

_DEVICE, _PROPERTY, _VALUE = "thermostat", "setpoint", "24"


def text(folder: Path, kubeconfig: Path, ports: Ports, manifests: Path, objects: Sequence[Mapping[str, JSON]]) -> str:
    """The guide. objects: those of the manifests, of which the thermostat is patched."""
    properties = _properties(objects)
    lines = [
        f"export KUBECONFIG={_path(kubeconfig)}",
        "kubectl get nodes,devices",
        *([_json_patch(properties), _merge_patch(properties)] if properties else []),
        f"kubectl edit device {_DEVICE}",
        f"kubectl get device {_DEVICE} -o yaml -w",
        f"kubectl apply -f {_path(manifests / 'more-devices.yaml')}",
        "kubectl delete device thermostat-cellar",
        f"kubectl --server http://{HOST}:{ports.api} get devices,pods,configmaps -A   # the node's own copy",
    ]
    shown = "\n".join(f"  {line}" for line in lines)
    return (
        f"\nIt runs. Everything is in {_path(folder)}, logs in {_path(folder / 'logs')}.\n"
        f"The devices speak MQTT at {HOST}:{ports.mqtt}. In another terminal, with kubectl:\n\n{shown}\n\n"
        "Ctrl-C stops everything; the next start goes on from here.\n"
    )


def _properties(objects: Sequence[Mapping[str, JSON]]) -> list[dict[str, JSON]]:
    for value in objects:
        if value["kind"] == "Device" and value["metadata"]["name"] == _DEVICE:
            return copy.deepcopy(value["spec"]["properties"])
    return []


def _json_patch(properties: Sequence[Mapping[str, JSON]]) -> str:
    index = next(number for number, entry in enumerate(properties) if entry["name"] == _PROPERTY)
    patch = [{"op": "add", "path": f"/spec/properties/{index}/desired", "value": {"value": _VALUE}}]
    return f"kubectl patch device {_DEVICE} --type json -p {_quoted(patch)}"


def _merge_patch(properties: list[dict[str, JSON]]) -> str:
    for entry in properties:
        if entry["name"] == _PROPERTY:
            entry["desired"] = {"value": "19"}
    return f"kubectl patch device {_DEVICE} --type merge -p {_quoted({'spec': {'properties': properties}})}"


def _quoted(value: JSON) -> str:
    return shlex.quote(json.dumps(value, separators=(",", ":")))


def _path(path: Path) -> str:
    """As short as it can be typed from here."""
    relative = os.path.relpath(path)
    return shlex.quote(relative if len(relative) < len(str(path)) else str(path))
