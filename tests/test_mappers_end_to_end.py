"""
Each protocol the whole way: the example's manifest by kubectl, a real hub and edge, a real mapper, a real device.

The device is a server of its protocol in a process of its own, killed without a word and started again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import KUBECTLS, find_tool
from tests.harness.server import Server
from tests.harness.site import ROOT, Site

NODE = "edge-1"
EXAMPLES = ROOT / "examples" / "mappers"


@pytest.fixture(scope="module")
def tool() -> Path:
    """One kubectl is enough here; what differs between them is tested elsewhere."""
    found = next((path for name in (*KUBECTLS, "kubectl") if (path := find_tool(name)) is not None), None)
    if found is None:
        pytest.skip("kubectl is not installed")
    return found


@pytest.fixture(scope="module")
def site(tool: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as one:
        one.start_cloud()
        one.apply_crds(tool)
        one.join(NODE)
        one.start_edge(NODE, mqtt="embedded")
        yield one


def twins(site: Site, device: str) -> dict[str, str]:
    """Reported values by property."""
    found: list[dict[str, Any]] = site.device(device, "devicestatuses").get("status", {}).get("twins", [])
    return {twin["propertyName"]: twin["reported"]["value"] for twin in found if twin.get("reported")}


def condition(site: Site, device: str, name: str) -> dict[str, Any]:
    """{} where there is none."""
    conditions: list[dict[str, Any]] = site.device(device).get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == name), {})


def is_condition(site: Site, device: str, name: str, status: str) -> bool:
    return condition(site, device, name).get("status") == status


def desire(site: Site, tool: Path, device: str, name: str, value: str) -> None:
    """Edit the desired value of one property, and leave the others as they are."""
    properties = json.loads(site.kubectl(tool, "get", "device", device, "-o", "json").stdout)["spec"]["properties"]
    for each in properties:
        if each["name"] == name:
            each["desired"] = {"value": value}
    patch = json.dumps({"spec": {"properties": properties}})
    site.kubectl(tool, "patch", "device", device, "--type", "merge", "-p", patch)


class Case(NamedTuple):
    """One protocol: its example, and the server that plays the device in it."""

    protocol: str
    device: str
    manifest: str
    server: tuple[str, ...]
    placed: tuple[tuple[str, str], ...]
    """What stands in the example for the address, and what the test puts there; see place()."""
    told: dict[str, str]
    """What the device is like when it starts."""
    edit: tuple[str, str]
    """A property and another desired value."""
    refused: tuple[str, str, str] | None = None
    """A property, a value that its model allows and the device does not, and words of the reason."""
    outlives: bool = False
    """Whether the device is still there when its server is not: what is killed is only what makes it act."""


CASES = (
    Case(
        "modbus",
        "boiler",
        "boiler-modbus.yaml",
        ("tests.harness.modbus_device", "tcp", "0"),
        (("ip: 192.0.2.10", "ip: 127.0.0.1"), ("port: 502", "port: PORT"), ('maximum: "100"', 'maximum: "200"')),
        {
            "temperature": "21.5",
            "pressure": "21.5",
            "fanSpeed": "5",
            "pump": "true",
            "doorOpen": "true",
            "serialNumber": "FAIRLEAD",
        },
        ("fanSpeed", "42"),
        ("fanSpeed", "150", "exception 3"),
    ),
    Case(
        "opcua",
        "press",
        "press-opcua.yaml",
        ("tests.harness.opcua_device", "0"),
        (("192.0.2.20:4840", "127.0.0.1:PORT"),),
        {"temperature": "21.5", "speed": "5", "pump": "true"},
        ("speed", "42"),
    ),
    Case(
        "http",
        "lamp",
        "lamp-http.yaml",
        ("tests.harness.http_device", "0"),
        (("http://192.0.2.30", "http://127.0.0.1:PORT"),),
        {"power": "false", "level": "7", "temperature": "21.5"},
        ("level", "42"),
    ),
    Case(
        "mqtt",
        "plug",
        "plug-tasmota.yaml",
        ("tests.harness.mqtt_device", "tasmota", "MQTT"),
        (("127.0.0.1:1883", "127.0.0.1:MQTT"),),
        {"power": "false", "dimmer": "30"},
        ("dimmer", "42"),
    ),
    Case(
        "mqtt",
        "desk-lamp",
        "lamp-zigbee2mqtt.yaml",
        ("tests.harness.mqtt_device", "zigbee", "MQTT"),
        (("127.0.0.1:1883", "127.0.0.1:MQTT"),),
        {"on": "false", "brightness": "100"},
        ("brightness", "42"),
    ),
    Case(
        "sysfs",
        "greenhouse",
        "greenhouse-sysfs.yaml",
        ("tests.harness.fake_sysfs", "DIRECTORY/sys"),
        (("root: /sys", "root: DIRECTORY/sys"),),
        {"pump": "false", "flow": "false", "inside": "23.125"},
        ("pump", "true"),
        outlives=True,
    ),
)


def place(site: Site, text: str, port: int = 0) -> str:
    """Fill in the server's PORT, the edge's MQTT port and the site's DIRECTORY."""
    for word, here in (("PORT", port), ("MQTT", site.ports[f"{NODE}-mqtt"]), ("DIRECTORY", site.directory)):
        text = text.replace(word, str(here))
    return text


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=[case.device for case in CASES])
def test_a_kubectl_edit_reaches_the_device_and_its_values_reach_kubectl(site: Site, tool: Path, case: Case) -> None:
    name, value = case.edit
    with Server(*(place(site, each) for each in case.server)) as server:
        text = (EXAMPLES / case.manifest).read_text()
        for theirs, ours in case.placed:
            assert theirs in text
            text = text.replace(theirs, place(site, ours, server.port))
        site.kubectl(tool, "apply", "-f", "-", stdin=text)
        mapper = site.start(
            f"mapper-{case.device}",
            *("mappers.runtime", "run", case.protocol, "--node", NODE, "--device", f"default/{case.device}"),
            *("--mqtt", f"mqtt://127.0.0.1:{site.ports[f'{NODE}-mqtt']}"),
        )
        site.until(lambda: case.told.items() <= twins(site, case.device).items(), "its values", mapper)
        site.until(lambda: is_condition(site, case.device, "Online", "True"), "online", mapper)

        desire(site, tool, case.device, name, value)
        site.until(lambda: twins(site, case.device)[name] == value, "the new value", mapper)
        site.kubectl(tool, "wait", "--for=condition=Synced", "--timeout=30s", f"device/{case.device}")
        shown = site.kubectl(tool, "get", "devicestatus", case.device, "-o", "json").stdout
        assert value in [(each.get("reported") or {}).get("value") for each in json.loads(shown)["status"]["twins"]]

        if case.refused is not None:
            wanted, too_much, words = case.refused
            desire(site, tool, case.device, wanted, too_much)
            site.until(lambda: words in condition(site, case.device, "Synced")["message"], "no", mapper)
            assert condition(site, case.device, "Synced")["reason"] == "Rejected"
            assert words in site.kubectl(tool, "describe", "device", case.device).stdout
            desire(site, tool, case.device, name, value)
            site.kubectl(tool, "wait", "--for=condition=Synced", "--timeout=30s", f"device/{case.device}")

        # The device comes back from a power cut with its own values, and is told again what it should be.
        server.kill()
        if not case.outlives:
            site.until(lambda: is_condition(site, case.device, "Online", "False"), "offline", mapper)
        server.start()
        site.until(lambda: is_condition(site, case.device, "Online", "True"), "online again", mapper)
        site.until(lambda: mapper.log.read_text().count("desired value written") == 2, "the same write", mapper)
        # The report of the device's own value may be on its way: Synced is then still that of before.
        site.until(
            lambda: twins(site, case.device)[name] == value and is_condition(site, case.device, "Synced", "True"),
            "in step again",
            mapper,
        )

        site.kubectl(tool, "delete", "device", case.device)
        site.until(lambda: "device removed" in mapper.tail(5), "its end", mapper)
        assert mapper.stop() == 0
