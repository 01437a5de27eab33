"""What an edge says of its machine."""

import json

from edgehub.nodeinfo import node_info, os_image, outgoing_address


def test_it_has_what_kubectl_get_nodes_shows() -> None:
    value = json.loads(node_info("fairlead/1", "192.0.2.7"))
    assert value["nodeInfo"]["kubeletVersion"] == "fairlead/1"
    assert value["nodeInfo"]["operatingSystem"] == "linux"
    assert value["nodeInfo"]["kernelVersion"]
    assert value["addresses"][0] == {"type": "InternalIP", "address": "192.0.2.7"}
    assert int(value["capacity"]["cpu"]) >= 1
    assert node_info("v", "a") == node_info("v", "a"), "the same machine says the same"
    assert [entry["type"] for entry in json.loads(node_info("v", ""))["addresses"]] == ["Hostname"]


def test_a_machine_without_os_release_has_no_image() -> None:
    assert os_image({}) == ""
    assert os_image({"PRETTY_NAME": "Debian"}) == "Debian"


def test_the_address_towards_the_hub() -> None:
    assert outgoing_address("127.0.0.1", 10000) == "127.0.0.1"
    assert outgoing_address("no such name.invalid", 1) == ""
