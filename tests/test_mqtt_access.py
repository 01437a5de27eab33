"""
Who may speak on MQTT, with real processes: edgecore and a mapper at the embedded broker with users and TLS, and at a
mosquitto set up as docs/mqtt.md says.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from componentbase import config
from edgecore.settings import EdgeConfig
from tests.conftest import KUBECTLS, need_tool
from tests.harness.mosquitto import Mosquitto
from tests.harness.pahoclient import hang_up
from tests.harness.site import ROOT, Process, Site
from tests.harness.tls import BrokerFiles
from tests.test_end_to_end import NODE

DEVICE = """
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: room}
spec:
  nodeName: edge-1
  deviceModelRef: {name: thermostat}
  protocol: {protocolName: simulated, configData: {}}
  properties: [{name: temperature, collectCycle: 100}, {name: setpoint, desired: {value: "25"}}]
"""
THERMOSTAT = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: thermostat}
spec:
  protocol: simulated
  properties:
    - {name: temperature, type: FLOAT, accessMode: ReadOnly}
    - {name: setpoint, type: FLOAT, accessMode: ReadWrite}
"""
TOPIC = "$hw/events/device/default/room/"


class Client:
    """An unmodified client with a name and a password, and what it heard."""

    def __init__(self, port: int, user: str = "", password: str = "", authority: Path | None = None) -> None:
        self.heard: list[mqtt.MQTTMessage] = []
        self.code: object = None
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"test-{user}", reconnect_on_failure=False)
        if user:
            self._client.username_pw_set(user, password)
        if authority is not None:
            self._client.tls_set(str(authority))
        self._client.on_connect = self._on_connect
        self._client.on_message = lambda _client, _data, message: self.heard.append(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        until(lambda: self.code is not None, "the broker answers")

    def _on_connect(self, client: mqtt.Client, data: object, flags: object, code: Any, properties: object) -> None:
        client.subscribe("$hw/#", 1)
        self.code = code.value

    def publish(self, topic: str, payload: object, *, retain: bool = False) -> None:
        """Returns when the broker has acknowledged it."""
        self._client.publish(topic, json.dumps(payload), 1, retain).wait_for_publish(10)

    def topics(self) -> set[str]:
        return {message.topic for message in list(self.heard)}

    def close(self) -> None:
        hang_up(self._client)


@contextmanager
def client(port: int, user: str = "", password: str = "", authority: Path | None = None) -> Iterator[Client]:
    one = Client(port, user, password, authority)
    try:
        yield one
    finally:
        one.close()


def until(condition: Callable[[], object], what: str) -> None:
    by = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < by, f"not within 20 s: {what}"
        time.sleep(0.02)


def configure(site: Site, **settings: Any) -> None:
    path = site.directory / NODE / "edgecore.yaml"
    read = config.load(EdgeConfig, path)
    path.write_text(config.dump(replace(read, mqtt=replace(read.mqtt, **settings))))


def add_user(site: Site, *arguments: str) -> str:
    made = site.run("edgecore", "mqtt", "user", "add", *arguments, "--data-dir", str(site.directory / NODE))
    return made.stdout.strip()


def start_mapper(site: Site, url: str, *more: str) -> Process:
    return site.start("mapper", "mappers.runtime", "run", "simulated", "--mqtt", url, *more)


@pytest.fixture
def cli() -> Path:
    """One kubectl: what is tested here is not kubectl's."""
    return need_tool(KUBECTLS[0])


@pytest.fixture
def site(tmp_path: Path, cli: Path) -> Iterator[Site]:
    with Site(tmp_path) as one:
        one.start_cloud()
        one.apply_crds(cli)
        one.join(NODE)
        one.kubectl(cli, "apply", "-f", "-", stdin=THERMOSTAT + "---" + DEVICE)
        yield one


def synced(site: Site, cli: Path) -> None:
    site.kubectl(cli, "wait", "--for=condition=Synced", "--timeout=30s", "device/room")


@pytest.mark.timeout(180)
def test_users_of_the_embedded_broker_come_change_and_go_while_it_runs(site: Site, cli: Path) -> None:
    files = BrokerFiles(site.directory)
    configure(site, anonymous=False, certificate=files.certificate, key=files.key)
    password = add_user(site, "room-mapper", "--mapper", "--device", "default/room")
    secret = site.directory / "secret"
    secret.write_text(password)
    edge = site.start_edge(NODE)
    port = site.ports[f"{NODE}-mqtt"]
    mapper = start_mapper(
        site,
        f"mqtts://room-mapper@127.0.0.1:{port}",
        *("--mqtt-ca", str(files.authority), "--mqtt-password-file", str(secret)),
    )
    synced(site, cli)  # the wish went down, the device's answer up

    # Without a name or with a wrong password nobody gets in, and without TLS nothing is understood.
    with client(port, authority=files.authority) as anonymous:
        assert anonymous.code == 135  # not authorized
    with client(port, "room-mapper", "guess", files.authority) as guesser:
        assert guesser.code == 134  # bad user name or password
    assert site.ask("edgecore", NODE)["mqttLoginsRefused"] == 2

    # A user that is added counts at once, and can only listen.
    other = add_user(site, "display", "--device", "default/other")
    display = add_user(site, "watch")

    def comes_in(user: str, its_password: str) -> bool:
        with client(port, user, its_password, files.authority) as one:
            return one.code == 0

    until(lambda: comes_in("watch", display), "the new user is known")
    with (
        client(port, "watch", display, files.authority) as watch,
        client(port, "display", other, files.authority) as bound,
    ):
        until(lambda: f"{TOPIC}twin/update" in watch.topics(), "the mapper's report is seen")
        watch.publish(f"{TOPIC}twin/update/delta", {"delta": {"setpoint": "99"}})
        watch.publish(
            f"{TOPIC}twin/update", {"event_id": "forged", "twin": {"temperature": {"actual": {"value": "1"}}}}
        )
        assert site.ask("edgecore", NODE)["mqttDenied"] == 2
        assert f"{TOPIC}twin/update/delta" not in {each.topic for each in watch.heard if b"99" in each.payload}
        assert not any(topic.startswith("$hw/events/device") for topic in bound.topics())

        # A user that is deleted is let go, and does not come back.
        site.run("edgecore", "mqtt", "user", "delete", "watch", "--data-dir", str(site.directory / NODE))
        until(lambda: not watch._client.is_connected(), "the deleted user is disconnected")
        assert not comes_in("watch", display)

    status = site.run("edgecore", "status", "--data-dir", str(site.directory / NODE)).stdout
    assert "2 publications and" in status
    for text in (edge.log.read_text(), mapper.log.read_text(), status, Path(f"/proc/{mapper.pid}/cmdline").read_text()):
        assert password not in text
        assert display not in text
    assert mapper.stop() == 0
    assert edge.stop() == 0


@pytest.mark.timeout(120)
def test_an_anonymous_client_does_not_speak_for_the_cloud(site: Site, cli: Path) -> None:
    site.start_edge(NODE)
    port = site.ports[f"{NODE}-mqtt"]
    start_mapper(site, f"mqtt://127.0.0.1:{port}")
    synced(site, cli)
    with client(port) as forger, client(port, "other") as witness:
        until(lambda: f"{TOPIC}config" in witness.topics(), "the retained configuration")
        forger.publish(
            f"{TOPIC}twin/update/delta", {"event_id": "x", "timestamp": 1, "twin": {}, "delta": {"setpoint": "99"}}
        )
        forger.publish(f"{TOPIC}config", "", retain=True)
        forger.publish(f"$hw/events/node/{NODE}/membership/updated", {"removed_devices": [{"id": "default/room"}]})
        # What it may do reaches the edge, behind the rest on the same connection.
        forger.publish(f"{TOPIC}twin/get", {"event_id": "after"})
        until(lambda: any(b'"after"' in each.payload for each in witness.heard), "the answer to a question")
        said = [each.payload for each in witness.heard]
        assert not any(b'"99"' in each or (b"removed_devices" in each and b"default/room" in each) for each in said)
    assert site.ask("edgecore", NODE)["mqttDenied"] == 3
    # A client that takes edgecore's name is turned away, and edgecore's own session goes on.
    thief = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"fairlead-{NODE}", clean_session=False)
    codes: list[int] = []
    thief.on_connect = lambda _client, _data, _flags, code, _properties: codes.append(code.value)
    thief.connect("127.0.0.1", port)
    thief.loop_start()
    until(lambda: codes, "an answer")
    hang_up(thief)
    assert codes[0] == 133  # client identifier not valid
    assert site.ask("edgecore", NODE)["mqttConnected"]


def acl_of_the_docs() -> str:
    found = re.search(r"```conf acl\n(.*?)```", (ROOT / "docs" / "mqtt.md").read_text(), re.DOTALL)
    assert found, "docs/mqtt.md has the ACL file of mosquitto in a block of its own"
    return found.group(1)


@pytest.mark.timeout(180)
def test_mosquitto_with_tls_passwords_and_the_acl_of_the_docs_protects_the_same(site: Site, cli: Path) -> None:
    files = BrokerFiles(site.directory)
    acl, passwords = site.directory / "acl", site.directory / "passwords"
    acl.write_text(acl_of_the_docs())
    acl.chmod(0o600)
    for user in ("edge", "modbus", "display", "guest"):
        flags = ["-b"] if passwords.exists() else ["-c", "-b"]
        subprocess.run(
            [str(need_tool("mosquitto_passwd")), *flags, str(passwords), user, f"{user}-secret"],
            check=True,
            capture_output=True,
        )
        (site.directory / user).write_text(f"{user}-secret\n")
    guard = ("allow_anonymous false", f"password_file {passwords}", f"acl_file {acl}")
    with Mosquitto(*files.mosquitto("require_certificate false", *guard)) as mosquitto:
        configure(site, certificate_authority=files.authority, password_file=site.directory / "edge")
        edge = site.start_edge(NODE, mqtt=f"mqtts://edge@localhost:{mosquitto.port}")
        mapper = start_mapper(
            site,
            f"mqtts://modbus@localhost:{mosquitto.port}",
            *("--mqtt-ca", str(files.authority), "--mqtt-password-file", str(site.directory / "modbus")),
        )
        synced(site, cli)
        with (
            client(mosquitto.port, "display", "display-secret", files.authority) as display,
            client(mosquitto.port, "modbus", "modbus-secret", files.authority) as other_mapper,
        ):
            until(lambda: f"{TOPIC}twin/update" in display.topics(), "the mapper's report is seen")
            until(lambda: "$hw/events/mapper/modbus/state/update" in other_mapper.topics(), "the mapper is seen")
            for forger in (display, other_mapper):
                forger.publish(f"{TOPIC}twin/update/delta", {"delta": {"setpoint": "99"}})
            display.publish(f"{TOPIC}twin/get", {"event_id": "denied"})
            other_mapper.publish(f"{TOPIC}twin/get", {"event_id": "allowed"})
            until(lambda: any(b'"allowed"' in each.payload for each in display.heard), "the answer to a mapper")
            said = [each.payload for each in display.heard]
            assert not any(b'"99"' in each or b'"denied"' in each for each in said)
            assert not any(topic.startswith("$hw/events/mapper") for topic in display.topics())
        # A broker that comes back is dialled anew with what the files say then.
        mosquitto.stop()
        until(lambda: not site.ask("edgecore", NODE)["mqttConnected"], "edgecore notices")
        (site.directory / "edge").write_text("wrong\n")
        mosquitto.start()
        until(lambda: "Not authorized" in site.ask("edgecore", NODE)["mqttProblem"], "the wrong password is told")
        (site.directory / "edge").write_text("edge-secret\n")
        until(lambda: site.ask("edgecore", NODE)["mqttConnected"], "edgecore is back")
        for process in (edge, mapper):
            assert "-secret" not in process.log.read_text()
            assert "-secret" not in Path(f"/proc/{process.pid}/cmdline").read_text()
            assert process.stop() == 0


@pytest.mark.timeout(120)
def test_what_cannot_work_is_refused_at_the_start(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Path], tuple[str, ...], str]] = [
        ({}, ("--mqtt", "mqtt://me:secret@h"), "a password on the command line can be read by all"),
        ({"certificate_authority": Path("none.crt")}, ("--mqtt", "mqtts://me@h"), "none.crt: cannot be read"),
        ({"certificate": Path("none.crt")}, (), "the embedded broker's certificate and key cannot be used"),
        ({"key": Path("none.key")}, (), "mqtt.key is given without mqtt.certificate"),
        ({"users": Path("edgecore.yaml")}, (), "edgecore.yaml: "),
    ]
    with Site(tmp_path) as one:
        one.start_cloud()
        one.join(NODE)
        before = (tmp_path / NODE / "edgecore.yaml").read_text()
        for settings, flags, says in wrong:
            (tmp_path / NODE / "edgecore.yaml").write_text(before)
            configure(one, **settings)
            ended = one.run("edgecore", "run", "--data-dir", str(tmp_path / NODE), *flags, check=False)
            assert ended.returncode == 1
            assert says in ended.stderr.splitlines()[-1]
            assert ":secret" not in ended.stderr


def test_a_mapper_that_is_told_nonsense_says_so(tmp_path: Path) -> None:
    for flags, says in (
        (("--mqtt", "mqtt://me:secret@h"), "use --mqtt-password-file"),
        (("--mqtt", "mqtt://me@h", "--mqtt-password-file", "/none"), "/none: the password cannot be read"),
        (("--mqtt", "mqtt://h", "--mqtt-ca", "/none"), "write mqtts://"),
        (("--mqtt", "mqtts://h", "--mqtt-ca", "/none"), "/none: cannot be read"),
    ):
        ended = Site(tmp_path).run("mappers.runtime", "run", "simulated", *flags, check=False)
        assert ended.returncode in (1, 2)
        assert says in ended.stderr.splitlines()[-1]
        assert "secret" not in ended.stderr
