"""What a person gets wrong is told where that person looks, and nothing else stops. docs/bad-input.md is the table."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from tests.conftest import KUBECTLS, find_tool
from tests.harness.site import Site
from tests.test_end_to_end import DEVICE, MODEL, NODE

KUBECTL = next((tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name))), Path("kubectl"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as site:
        site.start_cloud()
        site.apply_crds(KUBECTL)
        site.join(NODE)
        site.start_edge(NODE)
        site.kubectl(KUBECTL, "apply", "-f", "-", stdin=MODEL)
        yield site
        assert all(process.is_running() for process in site.processes.values()), (
            "nothing that went wrong stopped anything"
        )


def refused(site: Site, manifest: str) -> str:
    answer = site.kubectl(KUBECTL, "apply", "-f", "-", stdin=manifest, check=False)
    assert answer.returncode == 1
    return answer.stderr


def last_line(site: Site, *arguments: str) -> str:
    """A command that must fail: the last thing it says."""
    answer = site.run(*arguments, check=False)
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stderr
    return answer.stderr.strip().splitlines()[-1]


def test_what_the_schema_forbids_is_kubectls_answer(site: Site) -> None:
    assert "must be of type string" in refused(site, DEVICE.replace('value: "20"', "value: 20"))
    assert 'Unsupported value: "INTEGER"' in refused(site, MODEL.replace("type: INT", "type: INTEGER"))


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("nodeName: edge-1", "nodeName: nowhere", 'there is no node "nowhere"'),
        ("{name: thermo}", "{name: nomodel}", 'there is no DeviceModel "nomodel" in this namespace'),
        ('"20"', '"61"', "setpoint: 61 is above the model's maximum of 60"),
        ('"20"', '"warm"', 'setpoint: "warm" is not an integer'),
        ("name: setpoint, desired", "name: temperature, desired", "temperature"),
    ],
)
def test_what_only_the_model_forbids_is_a_condition(site: Site, right: str, wrong: str, told: str) -> None:
    def valid() -> dict[str, Any]:
        answer = site.kubectl(KUBECTL, "get", "device", "thermo-1", "-o", "json", check=False)
        found = json.loads(answer.stdout).get("status", {}).get("conditions", []) if answer.returncode == 0 else []
        return next((each for each in found if each["type"] == "Valid"), {})

    manifest = DEVICE.replace(
        "  - {name: temperature, collectCycle: 10000, reportCycle: 10000, reportToCloud: true}\n", ""
    )
    site.kubectl(KUBECTL, "apply", "-f", "-", stdin=manifest.replace(right, wrong))
    site.until(lambda: valid().get("status") == "False" and told in valid()["message"], f"Valid says {told}")
    site.kubectl(KUBECTL, "apply", "-f", "-", stdin=manifest)
    site.until(lambda: valid().get("status") == "True", "the Device is valid again")


def test_rubbish_on_mqtt_is_answered_and_a_good_report_beside_it_arrives(site: Site) -> None:
    site.kubectl(KUBECTL, "apply", "-f", "-", stdin=DEVICE)
    site.until(lambda: site.edge_status(NODE).get("devices"), "the device is there")
    heard: list[tuple[str, dict[str, Any]]] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bad-mapper")
    client.on_message = lambda _, __, message: heard.append((message.topic, json.loads(message.payload)))
    client.connect("127.0.0.1", site.ports[f"{NODE}-mqtt"])
    client.loop_start()
    try:
        client.subscribe("$hw/events/device/+/+/twin/update/result", 1)
        device = "$hw/events/device/default/thermo-1/twin"

        def says(topic: str, payload: str, code: int | None, reason: str) -> None:
            heard.clear()
            client.publish(topic, payload, 1).wait_for_publish(10)
            site.until(lambda: heard, f"an answer to {payload[:40]}")
            _, answer = heard[0]
            assert answer.get("code") == code
            assert reason in answer.get("reason", "")

        good = {"event_id": "g", "twin": {"temperature": {"actual": {"value": "21"}}}}
        says(f"{device}/update", json.dumps(good), None, "")
        says(f"{device}/update", "not json", 400, "Unmarshal update request body failed")
        says(f"{device}/update", json.dumps(good).replace("21", "hot"), 400, '"hot" is not an integer')
        unknown = f"{device}/update".replace("thermo-1", "nosuch")
        says(unknown, json.dumps(good), 404, "update rejected due to the device is not existed")
        says(f"{device}/update", json.dumps(good).replace("21", "22"), None, "")

        def arrived() -> bool:
            twins = json.loads(site.kubectl(KUBECTL, "get", "devicestatus", "thermo-1", "-o", "json").stdout)["status"][
                "twins"
            ]
            return any((twin.get("reported") or {}).get("value") == "22" for twin in twins)

        site.until(arrived, "the good report")
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_token_that_is_none_or_not_ours(site: Site, tmp_path: Path) -> None:
    def joining(token: str, node: str = "e2") -> str:
        cloud = f"127.0.0.1:{site.ports['join']}"
        home = str(tmp_path / "e2")
        return last_line(
            site, "edgecore", "join", "--cloud", cloud, "--token", token, "--node", node, "--data-dir", home
        )

    prefix, number, secret, pin = site.token().split(".")
    assert "this is not a join token" in joining("nonsense")
    assert "the token is not known here" in joining(".".join((prefix, number, "x" * len(secret), pin)))
    assert "is not the one this token was made for" in joining(".".join((prefix, number, secret, "0" * 64)))
    expired = site.token("--ttl", "1s").split(".")
    site.until(lambda: "expired" in joining(".".join(expired)), "the token expires")
    assert not (tmp_path / "e2" / "pki").exists(), "nothing is left of a join that failed"


def test_taken_ports_and_directories_are_named_in_the_last_line(site: Site, tmp_path: Path) -> None:
    kubeconfig = str(site.kubeconfig)
    cloud = ("cloudcore", "run", "--kubeconfig", kubeconfig, "--data-dir")
    link = site.ports["link"]
    told = last_line(site, *cloud, str(tmp_path / "c"), "--listen", f"127.0.0.1:{link}", "--join-listen", "127.0.0.1:0")
    assert f"port {link} is taken" in told
    assert "--listen" in told
    api = site.ports["api"]
    told = last_line(site, "apiserver.dev", "run", "--data-dir", str(tmp_path / "a"), "--listen", f"127.0.0.1:{api}")
    assert f"port {api} is taken" in told
    told = last_line(site, "edgecore", "run", "--data-dir", str(site.directory / NODE))
    assert "in use by process" in told
    (tmp_path / "file").write_text("")
    assert "is not a directory" in last_line(site, *cloud, str(tmp_path / "file"))
    assert "cannot be used as a data directory" in last_line(site, *cloud, "/proc/nowhere")
    none = str(tmp_path / "none")
    assert "no such kubeconfig" in last_line(
        site, "cloudcore", "run", "--kubeconfig", none, "--data-dir", str(tmp_path / "d")
    )


@pytest.mark.parametrize("command", ["cloudcore", "edgecore", "mappers.runtime", "apiserver.dev"])
def test_every_command_explains_itself(site: Site, command: str) -> None:
    told = site.run(command, "--help")
    assert "example:" in told.stdout
    assert site.run(command, "run", "--no-such-flag", check=False).returncode == 2
