"""The lines that the demo offers to try."""

import json
import shlex
from pathlib import Path

import yaml

from apiserver.schemas import Schema
from cloudhub import crds
from demo import apply, guide
from demo.play import FIRST_MANIFESTS, MANIFESTS
from demo.state import Ports

OBJECTS = [value for name in FIRST_MANIFESTS for value in apply.read(MANIFESTS / name)]


def commands() -> list[list[str]]:
    text = guide.text(Path("/d"), Path("/d/apiserver/kubeconfig"), Ports(api=4242), MANIFESTS, OBJECTS)
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("  ")]


def patch_of(kind: str) -> object:
    found = next(words for words in commands() if words[1] == "patch" and kind in words)
    return json.loads(found[-1])


def test_the_merge_patch_keeps_every_property_and_changes_one() -> None:
    before = next(v for v in OBJECTS if v["kind"] == "Device" and v["metadata"]["name"] == "thermostat")
    patch = patch_of("merge")
    assert isinstance(patch, dict)
    after = patch["spec"]["properties"]
    assert [entry["name"] for entry in after] == [entry["name"] for entry in before["spec"]["properties"]]
    changed = [one for one, other in zip(after, before["spec"]["properties"], strict=True) if one != other]
    assert [entry["name"] for entry in changed] == ["setpoint"]


def test_the_json_patch_points_at_the_setpoint() -> None:
    patch = patch_of("json")
    assert patch == [{"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "24"}}]
    device = next(v for v in OBJECTS if v["kind"] == "Device" and v["metadata"]["name"] == "thermostat")
    assert device["spec"]["properties"][0]["name"] == "setpoint"


def test_every_line_is_a_command_and_names_the_port_of_the_local_api() -> None:
    found = commands()
    assert {words[0] for words in found} == {"export", "kubectl"}
    assert ["kubectl", "--server", "http://127.0.0.1:4242", "get", "devices,pods,configmaps", "-A"] in found


def test_the_manifests_pass_the_definitions_and_name_the_node() -> None:
    schemas = {
        value["spec"]["names"]["kind"]: Schema(value["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        for value in yaml.safe_load_all(crds.text())
    }
    for value in [*OBJECTS, *apply.read(MANIFESTS / "more-devices.yaml")]:
        assert schemas[value["kind"]].causes(value) == []
        assert schemas[value["kind"]].unknown_fields(value) == []
        assert value["kind"] == "DeviceModel" or value["spec"]["nodeName"] == "edge-1"
