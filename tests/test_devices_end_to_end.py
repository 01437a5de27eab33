"""
What a person with kubectl sees of devices: real kubectl, apiserver, cloudcore and edgecore, an MQTT client as mapper.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import KUBECTLS, find_tool
from tests.harness.site import Site
from tests.test_crds import KUBEEDGE
from tests.test_end_to_end import DELTA, DEVICE, MODEL, NODE, Mapper, a_mapper, condition, set_point

STATE = "$hw/events/device/default/thermo-1/state/update"
UPDATE = "$hw/events/device/default/thermo-1/twin/update"
DEVICE_REF = "device/thermo-1"


@contextmanager
def running(kubectl: Path, directory: Path) -> Iterator[tuple[Site, Mapper]]:
    """A whole line with thermo-1, whose setpoint should be 20."""
    with Site(directory) as site:
        site.start_cloud()
        site.apply_crds(kubectl)
        site.join(NODE)
        site.start_edge(NODE)
        with a_mapper(site.ports[f"{NODE}-mqtt"]) as mapper:
            site.kubectl(kubectl, "apply", "-f", "-", stdin=MODEL + "---" + DEVICE)
            mapper.hear(DELTA, delta={"setpoint": "20"})
            yield site, mapper


def columns(site: Site, kubectl: Path, *arguments: str) -> dict[str, str]:
    """What `kubectl get device` prints of thermo-1, by column."""
    heading, line = site.kubectl(kubectl, "get", "device", "thermo-1", *arguments).stdout.splitlines()
    starts = [
        place for place, letter in enumerate(heading) if letter != " " and heading[place - 1 : place] in ("", " ")
    ]
    # "LAST ONLINE" is one column: its second word follows after one space, columns after three.
    starts = [place for place in starts if place == 0 or heading[place - 2 : place] == "  "]
    ends = [*starts[1:], len(heading) + len(line)]
    return {heading[start:end].strip(): line[start:end].strip() for start, end in zip(starts, ends, strict=True)}


def twins(site: Site) -> dict[str, dict[str, Any]]:
    return {twin["propertyName"]: twin for twin in site.device("thermo-1").get("status", {}).get("twins", [])}


def wait_for(site: Site, kubectl: Path, what: str) -> None:
    site.kubectl(kubectl, "wait", f"--for=condition={what}", "--timeout=20s", DEVICE_REF)


@pytest.mark.timeout(120)
def test_yaml_written_for_kubeedge_applies_unchanged(kubectl: Path, tmp_path: Path) -> None:
    model, device, told = yaml.safe_load_all(KUBEEDGE)
    with Site(tmp_path) as site:
        site.apply_crds(kubectl)
        site.kubectl(kubectl, "create", "namespace", "plant")
        # The owner is one of another cluster; left in, the collector would take the DeviceStatus away.
        del told["metadata"]["ownerReferences"]
        text = yaml.safe_dump_all([model, device, told])
        applied = site.kubectl(kubectl, "apply", "-f", "-", stdin=text)
        assert [line.rpartition(" ")[2] for line in applied.stdout.splitlines()] == ["created"] * 3
        assert "unknown field" not in applied.stderr
        for written in (model, device, told):
            kept = site.kubectl(
                kubectl, "get", written["kind"], written["metadata"]["name"], "-n", "plant", "-o", "json"
            )
            assert json.loads(kept.stdout)["spec"] == written["spec"]
        status = site.kubectl(kubectl, "get", "devicestatus", "boiler-1", "-n", "plant", "-o", "json")
        assert json.loads(status.stdout)["status"] == told["status"]
        again = site.kubectl(kubectl, "apply", "-f", "-", stdin=text)
        # A status in somebody's Device is let pass and not taken, each time: it has a writer of its own here.
        assert [line.rpartition(" ")[2] for line in again.stdout.splitlines()] == [
            "unchanged",
            "configured",
            "unchanged",
        ]
        kept = json.loads(site.kubectl(kubectl, "get", "device", "boiler-1", "-n", "plant", "-o", "json").stdout)
        assert kept["metadata"]["generation"] == 1
        assert "status" not in kept


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("kind", "entry", "told"),
    [
        ("DeviceModel", {"type": "INTEGER"}, 'Unsupported value: "INTEGER": supported values: "INT", "FLOAT"'),
        ("DeviceModel", {"accessMode": "Writable"}, 'supported values: "ReadWrite", "ReadOnly"'),
        ("DeviceModel", {"maximum": "hot"}, "spec.properties[0].maximum"),
        ("Device", {"collectCycle": -1}, "should be greater than or equal to 0"),
        ("Device", {"pushMethod": {"mqtt": {"qos": 3}}}, "should be less than or equal to 2"),
        ("Device", {"desired": {"metadata": {}}}, "spec.properties[0].desired.value"),
    ],
)
def test_nonsense_is_refused_where_it_is_typed(
    api_of_the_module: Site, kind: str, entry: dict[str, Any], told: str
) -> None:
    body = {
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": kind,
        "metadata": {"name": "odd"},
        "spec": {"properties": [{"name": "p", **entry}]},
    }
    for kubectl in _kubectls():
        refused = api_of_the_module.kubectl(
            kubectl, "apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump(body), check=False
        )
        assert refused.returncode == 1
        assert told in refused.stderr
        twice = body | {"spec": {"properties": [{"name": "p"}, {"name": "p"}]}}
        refused = api_of_the_module.kubectl(
            kubectl, "apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump(twice), check=False
        )
        assert "Duplicate value" in refused.stderr


def _kubectls() -> list[Path]:
    return [tool for name in KUBECTLS if (tool := find_tool(name))] or [Path("kubectl")]


@pytest.fixture(scope="module")
def api_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("nonsense")) as site:
        site.apply_crds(_kubectls()[0])
        yield site


@pytest.mark.timeout(180)
def test_kubectl_shows_and_waits_for_what_became_of_a_desired_value(kubectl: Path, tmp_path: Path) -> None:
    with running(kubectl, tmp_path) as (site, mapper):
        # Before the device has said anything.
        site.until(lambda: twins(site).get("setpoint", {}).get("observedDesired"), "the node has taken it in")
        assert twins(site)["setpoint"]["sync"] == "pending"
        assert twins(site)["setpoint"]["reason"] == "nothing reported yet"
        shown = columns(site, kubectl)
        assert list(shown) == ["NAME", "NODE", "MODEL", "ONLINE", "SYNCED", "AGE"]
        assert [shown[name] for name in ("NAME", "NODE", "MODEL", "ONLINE", "SYNCED")] == [
            *("thermo-1", NODE, "thermo", "Unknown", "0/1")
        ]

        mapper.publish(STATE, {"event_id": "s1", "timestamp": 1, "state": "online"})
        wait_for(site, kubectl, "Online")
        mapper.report("setpoint", "20")
        wait_for(site, kubectl, "Synced")
        shown = columns(site, kubectl, "-o", "wide")
        assert [shown[name] for name in ("ONLINE", "SYNCED", "VALID", "STATE")] == ["True", "1/1", "True", "online"]
        assert shown["LAST ONLINE"]
        since = condition(site, "Valid")["lastTransitionTime"]

        # The next wish is open until the device answers, and what it said before is no answer.
        set_point(site, kubectl, "25")
        wait_for(site, kubectl, "Synced=false")
        mapper.hear(DELTA, delta={"setpoint": "25"})
        site.until(lambda: twins(site)["setpoint"].get("observedDesired", {}).get("value") == "25", "the node knows")
        setpoint = twins(site)["setpoint"]
        assert (setpoint["desired"]["value"], setpoint["reported"]["value"], setpoint["sync"], setpoint["reason"]) == (
            *("25", "20", "pending"),
            'reported "20"',
        )
        mapper.report("setpoint", "25")
        wait_for(site, kubectl, "Synced")

        # One that no device of this model can meet is refused at once, and told.
        set_point(site, kubectl, "99")
        wait_for(site, kubectl, "Valid=false")
        wait_for(site, kubectl, "Synced=false")
        setpoint = twins(site)["setpoint"]
        assert (setpoint["sync"], setpoint["reason"]) == (
            "rejected",
            "setpoint: 99 is above the model's maximum of 60",
        )
        assert condition(site, "Valid")["lastTransitionTime"] >= since
        site.until(lambda: "DeviceInvalid" in _described(site, kubectl), "an Event")
        assert "99 is above the model's maximum of 60" in _described(site, kubectl)
        set_point(site, kubectl, "25")
        wait_for(site, kubectl, "Valid")
        wait_for(site, kubectl, "Synced")
        site.until(lambda: "DeviceValid" in _described(site, kubectl), "an Event")

        # Again: counted up, no second Event.
        set_point(site, kubectl, "98")
        site.until(lambda: _events(site, kubectl).get("DeviceInvalid", {}).get("count") == 2, "the count")
        assert _events(site, kubectl)["DeviceInvalid"]["source"] == {"component": "cloudcore"}

        mapper.publish(STATE, {"event_id": "s2", "timestamp": 1, "state": "offline"})
        wait_for(site, kubectl, "Online=false")
        assert columns(site, kubectl)["ONLINE"] == "False"


def _described(site: Site, kubectl: Path) -> str:
    return site.kubectl(kubectl, "describe", "device", "thermo-1").stdout


def _events(site: Site, kubectl: Path) -> dict[str, dict[str, Any]]:
    """The Events about devices, by reason. Fails where a reason comes twice."""
    items = json.loads(site.kubectl(kubectl, "get", "events", "-o", "json").stdout)["items"]
    about = [item for item in items if item["involvedObject"]["kind"] == "Device"]
    found = {item["reason"]: item for item in about}
    assert len(found) == len(about), about
    return found


@pytest.mark.timeout(180)
def test_a_settled_device_costs_no_write_also_when_the_hub_starts_over(tmp_path: Path) -> None:
    kubectl = _kubectls()[-1]
    with running(kubectl, tmp_path) as (site, mapper):
        mapper.report("setpoint", "20")
        mapper.publish(STATE, {"event_id": "s1", "timestamp": 1, "state": "online"})
        wait_for(site, kubectl, "Synced")
        wait_for(site, kubectl, "Online")
        site.until(lambda: site.ask("edgecore", NODE)["reportsWaiting"] == 0, "all is told")

        def version() -> str:
            body = json.loads(site.kubectl(kubectl, "get", "device", "thermo-1", "-o", "json").stdout)
            return str(body["metadata"]["resourceVersion"])

        before = version()
        assert site.processes["cloud"].stop() == 0
        site.start_cloud()
        site.until(lambda: site.ask("edgecore", NODE).get("inSync"), "the node is back")
        # Something that is written after all that the start gave cause for.
        site.kubectl(kubectl, "apply", "-f", "-", stdin=DEVICE.replace("thermo-1", "thermo-2"))
        site.until(lambda: site.device("thermo-2").get("status", {}).get("conditions"), "the other's conditions")
        assert version() == before


@pytest.mark.timeout(120)
def test_of_two_editors_the_one_who_read_the_older_version_is_refused(kubectl: Path, tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.apply_crds(kubectl)
        site.kubectl(kubectl, "apply", "-f", "-", stdin=MODEL + "---" + DEVICE)
        read = json.loads(site.kubectl(kubectl, "get", "device", "thermo-1", "-o", "json").stdout)

        def edited(value: str) -> str:
            read["spec"]["properties"][1]["desired"]["value"] = value
            return json.dumps(read)

        site.kubectl(kubectl, "replace", "-f", "-", stdin=edited("21"))
        late = site.kubectl(kubectl, "replace", "-f", "-", stdin=edited("22"), check=False)
        assert late.returncode == 1
        assert "Error from server (Conflict)" in late.stderr
        assert "the object has been modified" in late.stderr
        kept = json.loads(site.kubectl(kubectl, "get", "device", "thermo-1", "-o", "json").stdout)
        assert kept["spec"]["properties"][1]["desired"]["value"] == "21"


@pytest.mark.timeout(120)
def test_kubectl_does_not_take_an_older_generations_synced_for_the_present_ones(tmp_path: Path) -> None:
    kubectl = _kubectls()[-1]  # Debian's 1.20 looks at no generation
    with Site(tmp_path) as site:
        site.apply_crds(kubectl)
        site.kubectl(kubectl, "apply", "-f", "-", stdin=DEVICE)
        site.kubectl(kubectl, "apply", "-f", "-", stdin=DEVICE.replace('"20"', '"21"'))

        def waited(generation: int) -> int:
            synced = {"type": "Synced", "status": "True", "observedGeneration": generation}
            patch = json.dumps({"status": {"conditions": [synced]}})
            site.kubectl(kubectl, "patch", DEVICE_REF, "--subresource=status", "--type=merge", "-p", patch)
            answer = site.kubectl(kubectl, "wait", "--for=condition=Synced", "--timeout=2s", DEVICE_REF, check=False)
            return answer.returncode

        assert waited(1) == 1
        assert waited(2) == 0


@pytest.mark.timeout(120)
def test_nothing_is_known_of_the_devices_of_a_node_that_is_gone(tmp_path: Path) -> None:
    kubectl = _kubectls()[-1]
    with running(kubectl, tmp_path) as (site, mapper):
        mapper.publish(STATE, {"event_id": "s1", "timestamp": 1, "state": "online"})
        wait_for(site, kubectl, "Online")
        site.processes[NODE].kill()
        site.until(lambda: condition(site, "Online")["reason"] == "NodeNotReady", "the node is given up")
        assert columns(site, kubectl)["ONLINE"] == "Unknown"
        assert condition(site, "Online")["message"].startswith(
            'the node is not ready; last reported "online", last online '
        )
        site.start_edge(NODE)
        wait_for(site, kubectl, "Online")


@pytest.mark.timeout(180)
def test_the_devices_own_time_and_what_the_node_has_confirmed_are_shown(tmp_path: Path) -> None:
    kubectl = _kubectls()[-1]
    with running(kubectl, tmp_path) as (site, mapper):
        actual = {"value": "20", "metadata": {"timestamp": 1700000000123}}
        twin = {"setpoint": {"actual": actual, "metadata": {"type": "int"}}}
        mapper.publish(UPDATE, {"event_id": "e", "timestamp": 1, "twin": twin})
        wait_for(site, kubectl, "Synced")
        told = twins(site)["setpoint"]
        assert told["reported"]["metadata"]["deviceTimestamp"] == "1700000000123"
        assert told["observedDesired"]["metadata"]["generation"] == "1"

        # An edit that leaves the desired value as it was is confirmed by the node all the same.
        patch = [{"op": "replace", "path": "/spec/properties/0/collectCycle", "value": 5}]
        site.kubectl(kubectl, "patch", "device", "thermo-1", "--type=json", "-p", json.dumps(patch))
        wait_for(site, kubectl, "Synced")
        assert condition(site, "Synced")["observedGeneration"] == 2

        # 20, 22 and 20 again while the node is away: the answer to the first is not taken for one to the last.
        assert site.processes[NODE].stop() == 0
        set_point(site, kubectl, "22")
        set_point(site, kubectl, "20")
        early = site.kubectl(kubectl, "wait", "--for=condition=Synced", "--timeout=2s", DEVICE_REF, check=False)
        assert early.returncode == 1
        unconfirmed = "1/1 in step; the node has not confirmed the latest edit yet"
        site.until(lambda: condition(site, "Synced")["message"] == unconfirmed, "the hub has seen both edits")
        synced = condition(site, "Synced")
        assert (synced["status"], synced["observedGeneration"]) == ("True", 2)
        site.start_edge(NODE)
        wait_for(site, kubectl, "Synced")

        set_point(site, kubectl, "99")
        site.until(lambda: "DesiredRejected" in _described(site, kubectl), "the edge's Event")
        site.until(lambda: "DeviceInvalid" in _described(site, kubectl), "the hub's Event")
