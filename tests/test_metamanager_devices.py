"""Devices at the local API: the twin's status, and desired values set on the node, with the real twins and store."""

import asyncio
import contextlib
import http.client
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import Conflict, Forbidden, Invalid
from apimachinery.objects import JSON, LAST_APPLIED
from apimachinery.resources import DEVICE_MODELS, DEVICES
from devicetwin.messages import Channel
from devicetwin.view import EdgeWish, TwinView
from metamanager.api import LinkState, serve_local_api
from metamanager.devices import wishes_between, with_twin
from tests.harness.mosquitto import Mosquitto
from tests.test_devicetwin_service import MODEL, THERMO, Edge, MapperClient, device, edge_running, until
from tests.test_metamanager_api import CREATED, DEFINITION

DEVICE: dict[str, JSON] = {
    "metadata": {"name": "d", "resourceVersion": "7", "labels": {"a": "b"}},
    "spec": {
        "nodeName": "edge1",
        "properties": [
            {"name": "temperature", "collectCycle": 500},
            {"name": "setpoint", "desired": {"value": "20", "metadata": {"mine": "x"}}},
        ],
    },
    "status": {"state": "online"},
}


def changed(path: str, value: JSON) -> dict[str, JSON]:
    """DEVICE with one value changed; a path as "spec.properties.0.name", None removes."""
    copy: dict[str, JSON] = json.loads(json.dumps(DEVICE))
    place: Any = copy
    *steps, last = [int(each) if each.isdecimal() else each for each in path.split(".")]
    for step in steps:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return copy


def test_desired_values_are_what_a_client_may_change() -> None:
    assert wishes_between(DEVICE, DEVICE) == {}
    assert wishes_between(DEVICE, changed("spec.properties.1.desired.value", "22")) == {"setpoint": "22"}
    assert wishes_between(DEVICE, changed("spec.properties.1.desired", None)) == {"setpoint": ""}
    assert wishes_between(DEVICE, changed("spec.properties.0.desired", {"value": "1"})) == {"temperature": "1"}
    # The twin goes on meanwhile, and kubectl keeps notes.
    assert wishes_between(DEVICE, changed("status.state", "offline")) == {}
    assert wishes_between(DEVICE, changed("metadata.annotations", {LAST_APPLIED: "{}"})) == {}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("spec.nodeName", "edge2", "spec.nodeName cannot be changed on the node"),
        ("metadata.labels.a", "c", "metadata.labels.a cannot"),
        ("metadata.annotations", {"x": "y"}, "metadata.annotations cannot"),
        ("spec.properties.0.collectCycle", 1, r"spec.properties\[0\].collectCycle cannot"),
        ("spec.properties.0", None, "a merge patch replaces the whole list"),
        ("spec.properties", {}, "a merge patch replaces"),
        ("spec.properties.0.name", "t", "a merge patch replaces"),
        ("kind", "Pod", "kind cannot"),
    ],
)
def test_everything_else_is_the_cluster_s(path: str, value: JSON, says: str) -> None:
    with pytest.raises(Forbidden, match=says):
        wishes_between(DEVICE, changed(path, value))


def test_a_desired_value_of_the_wrong_shape_and_an_old_version_are_refused() -> None:
    wrong: list[JSON] = [{}, {"value": 5}, 5, []]
    for value in wrong:
        with pytest.raises(Invalid, match="must be an object with a value that is a string"):
            wishes_between(DEVICE, changed("spec.properties.1.desired", value))
    with pytest.raises(Conflict):
        wishes_between(DEVICE, changed("metadata.resourceVersion", "6"))


def test_a_device_shows_the_wishes_of_the_edge_and_the_twin_s_status() -> None:
    view = TwinView({"setpoint": EdgeWish("25", 3), "gone": EdgeWish("1", 4)}, {}, {"state": "ok"})
    shown = with_twin(json.loads(json.dumps(DEVICE)), view)
    assert shown["spec"]["properties"][1]["desired"] == {"value": "25", "metadata": {"origin": "edge", "version": "3"}}
    assert shown["status"] == {"state": "ok"}
    taken_back = with_twin(json.loads(json.dumps(DEVICE)), TwinView({"setpoint": EdgeWish("", 3)}, {}, {}))
    assert "desired" not in taken_back["spec"]["properties"][1]
    assert with_twin({}, view) == {"status": {"state": "ok"}}


# ---- over real sockets


class Node:
    """The twins, their store and the local API."""

    def __init__(self, edge: Edge, port: int, home: Path) -> None:
        self.edge = edge
        self.url = f"http://127.0.0.1:{port}"
        self.home = home
        self._port = port

    async def patch(self, kind: str, body: JSON, path: str = "thermo-1", **headers: str) -> tuple[int, dict[str, Any]]:
        def ask() -> tuple[int, dict[str, Any]]:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            try:
                target = f"/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices/{path}"
                sent = {"content-type": f"application/{kind}+json", **headers}
                connection.request("PATCH", target, json.dumps(body), sent)
                response = connection.getresponse()
                return response.status, json.loads(response.read())
            finally:
                connection.close()

        return await asyncio.to_thread(ask)

    async def kubectl(self, kubectl: Path, *args: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(str(kubectl), "--server", self.url, "--cache-dir", str(self.home / "cache"), *args),
            env={"HOME": str(self.home), "PATH": "/usr/bin"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(40):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """The cloud is away, as it is for all of this."""
    with Mosquitto("max_queued_messages 0") as broker:
        edge = Edge(tmp_path, broker.port)
        await edge.open()
        body = device("20")
        body["metadata"] |= {"creationTimestamp": CREATED, "generation": 4}
        await edge.push((DEVICE_MODELS, "thermostat", MODEL), (DEVICES, "thermo-1", body))
        await edge.store.apply([_definition(edge)])
        async with edge_running(edge):
            await until(lambda: edge.service.status().bus.connected)
            link = LinkState(in_sync=False, left_sync_at_ms=1)
            api = serve_local_api(edge.store, host="127.0.0.1", port=0, link_state=lambda: link, twins=edge.service)
            async with api as server:
                yield Node(edge, server.port, tmp_path)


def _definition(edge: Edge) -> Any:
    from link.frames import Batch, Cursor

    edge.seq += 1
    return Batch(Cursor("epoch", edge.seq), (DEFINITION,), True)


@contextlib.contextmanager
def mapping(node: Node) -> Any:
    client = MapperClient(node.edge.port)
    try:
        yield client
    finally:
        client.stop()


def setpoint(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer["spec"]["properties"][1]["desired"]
    return found


WRONG = "/spec/properties/0/desired"  # a property that is read-only
REPLACE = {"op": "replace", "path": "/spec/properties/1/desired/value", "value": "25"}


async def test_an_application_sets_a_desired_value_while_the_cloud_is_away(node: Node) -> None:
    with mapping(node) as mapper:
        status, answer = await node.patch("json-patch", [REPLACE])
        assert (status, setpoint(answer)) == (200, {"value": "25", "metadata": {"origin": "edge", "version": "2"}})
        # Durable, so it goes up, and on MQTT at once.
        report = (await node.edge.reports())["thermo-1", "property/setpoint"]
        assert (report["desired"], report["origin"], report["generation"]) == ("25", "edge", 4)
        on = Channel.TWIN_DELTA.topic(THERMO)
        await until(lambda: [each for each in mapper.on(on) if each["delta"] == {"setpoint": "25"}], "the delta")
        # Nobody on MQTT asked, so nobody is answered there.
        assert not mapper.on(Channel.TWIN_UPDATE_RESULT.topic(THERMO))
        mapper.report("setpoint", "25")
        await until(lambda: mapper.on(Channel.TWIN_UPDATE_RESULT.topic(THERMO)), "the report is taken")
        status, answer = await node.patch("merge-patch", {})
        assert answer["status"]["syncedProperties"] == "1/1"
    # The cloud's next change of this property wins, and one of another does not touch it.
    await node.edge.push((DEVICES, "thermo-1", device("20") | {"metadata": device()["metadata"] | {"generation": 5}}))
    assert setpoint((await node.patch("merge-patch", {}))[1])["value"] == "25"
    await node.edge.push((DEVICES, "thermo-1", device("30")))

    def is_cloud_s() -> bool:
        return node.edge.service.status().open_wishes == 1

    await until(is_cloud_s, "the cloud's wish")
    assert setpoint((await node.patch("merge-patch", {}))[1]) == {"value": "30"}


async def test_what_must_not_be_is_refused_and_changes_nothing(node: Node) -> None:
    def value(text: JSON) -> list[JSON]:
        return [{**REPLACE, "value": text}]

    name_only = [{"name": "setpoint", "desired": {"value": "25"}}]
    for kind, body, code, says in (
        ("json-patch", value("99"), 422, "setpoint: 99 is above the model's maximum of 35"),
        ("json-patch", value("warm"), 422, "not an integer"),
        ("json-patch", value(7), 422, "a string"),
        (
            "json-patch",
            [{"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "1"}}],
            422,
            "read-only",
        ),
        ("json-patch", [{"op": "test", "path": "/spec/properties/1/desired/value", "value": "19"}], 422, "testing"),
        ("json-patch", [{"op": "replace", "path": "/spec/nodeName", "value": "x"}], 403, "spec.nodeName"),
        ("merge-patch", {"spec": {"properties": name_only}}, 403, "a merge patch replaces the whole list"),
        ("merge-patch", {"metadata": {"resourceVersion": "1"}}, 409, "has been modified"),
        ("strategic-merge-patch", {}, 415, "unknown format"),
        ("apply-patch", {}, 415, "unknown format"),
        ("merge-patch", [], 400, "must be a JSON object"),
    ):
        status, answer = await node.patch(kind, body)
        assert (status, answer["code"]) == (code, code), (body, answer)
        assert says in answer["message"], (body, answer)
    assert (await node.patch("merge-patch", {}, "nowhere"))[0] == 404
    assert (await node.patch("merge-patch", {}, host="evil.example"))[0] == 403
    status, answer = await node.patch("json-patch", [REPLACE], "thermo-1?dryRun=All")
    assert (status, setpoint(answer)["value"]) == (200, "25")
    assert setpoint((await node.patch("merge-patch", {}))[1]) == {"value": "20"}
    assert ("thermo-1", "property/setpoint") in await node.edge.reports()
    assert "origin" not in (await node.edge.reports())["thermo-1", "property/setpoint"]


async def test_kubectl_reads_the_twin_s_status_and_sets_what_is_desired(node: Node, kubectl: Path) -> None:
    with mapping(node) as mapper:
        mapper.say(Channel.STATE_UPDATE.topic(THERMO), {"state": "online"})
        mapper.report("temperature", "21")
        await until(lambda: mapper.on(Channel.TWIN_UPDATE_RESULT.topic(THERMO)), "the report is taken")
    path = '{.status.state} {.status.syncedProperties} {.status.twins[?(@.propertyName=="temperature")].reported.value}'
    code, output = await node.kubectl(kubectl, "get", "devices", "thermo-1", "-o", f"jsonpath={path}")
    assert (code, output) == (0, "online 0/1 21")
    code, output = await node.kubectl(
        kubectl, "patch", "device", "thermo-1", "--type", "json", "-p", json.dumps([REPLACE])
    )
    assert (code, output.strip()) == (0, "device.devices.kubeedge.io/thermo-1 patched")
    code, output = await node.kubectl(kubectl, "wait", "--for=condition=Online", "device/thermo-1", "--timeout=10s")
    assert code == 0, output
    code, output = await node.kubectl(kubectl, "label", "device", "thermo-1", "a=b")
    assert code == 1
    assert "metadata.labels.a cannot be changed on the node" in output
    code, output = await node.kubectl(kubectl, "delete", "device", "thermo-1")
    assert code == 1
    assert "read-only but for the desired values of Devices" in output
