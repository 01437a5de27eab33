"""
What a person does wrong, and what breaks: each is told where that person looks, and nothing else stops.

Real processes, one site for the whole file. docs/bad-input.md is the same as a table,
with the words as they are printed.
"""

import asyncio
import base64
import contextlib
import functools
import json
import queue
import re
import shutil
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from componentbase import pki
from link.codec import decode, encode
from link.fields import MAX_FRAME_BYTES
from link.frames import PROTOCOL, Ack, Goodbye, GoodbyeCode, Hello, Welcome
from tests.conftest import KUBECTLS, find_tool
from tests.harness.mosquitto import Mosquitto, free_port
from tests.harness.pahoclient import hang_up
from tests.harness.site import ROOT, Process, Site
from tests.harness.small_disk import SmallDisk

pytestmark = pytest.mark.timeout(120)

LOCAL = "127.0.0.1:0"
NODES = {"edge-1": "mosquitto", "edge-2": "embedded"}
RAW, SPARE = "raw", "spare"  # joined, and run by nobody but the test that needs a certificate or a directory

MODEL = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: thermo}
spec:
  protocol: custom
  properties:
  - {name: temperature, type: INT, accessMode: ReadOnly, minimum: "-40", maximum: "125"}
  - {name: setpoint, type: INT, accessMode: ReadWrite, minimum: "0", maximum: "60"}
"""
SETPOINT = '{name: setpoint, desired: {value: "20"}}'
USUAL = f"{{name: temperature}}, {SETPOINT}"


def device(name: str, properties: str = USUAL, *, node: str = "edge-1", model: str = "thermo") -> str:
    return f"""---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {{name: {name}}}
spec: {{deviceModelRef: {{name: {model}}}, nodeName: {node}, properties: [{properties}]}}
"""


class Town(NamedTuple):
    """A cloud, two nodes with a device each, and everything they need."""

    site: Site
    mosquitto: Mosquitto
    kubectl: Path

    def apply(self, text: str) -> None:
        self.site.kubectl(self.kubectl, "apply", "-f", "-", stdin=text)

    def get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.site.kubectl(self.kubectl, "get", *what, "-o", "json").stdout)
        return found

    def condition(self, name: str, kind: str = "Valid") -> dict[str, Any]:
        conditions = self.site.device(name).get("status", {}).get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    def reported(self, name: str, field: str = "temperature") -> str:
        twins = self.site.device(name).get("status", {}).get("twins", [])
        return next((twin["reported"]["value"] for twin in twins if twin["propertyName"] == field), "")

    def port(self, node: str) -> int:
        return self.mosquitto.port if NODES[node] == "mosquitto" else self.site.ports[f"{node}-mqtt"]

    def link(self, node: str) -> tuple[bool, str]:
        """Whether the node is connected and in sync, and over which connection."""
        for each in self.site.ask("cloudcore", "cloud").get("nodes", ()):
            if each["node"] == node:
                return each["connected"] and each["synced"], each["remote"]
        return False, ""

    def start_edge(self, node: str) -> Process:
        broker = NODES[node]
        process = self.site.start_edge(
            node, mqtt=f"mqtt://127.0.0.1:{self.mosquitto.port}" if broker == "mosquitto" else broker, wait=False
        )
        self.site.until(lambda: self.site.ask("edgecore", node).get("inSync"), f"{node} is in sync", process)
        return process


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    kubectl = next(tool for name in (*reversed(KUBECTLS), "kubectl") if (tool := find_tool(name)))
    # A short path: a socket file's may have 107 bytes.
    with Mosquitto() as mosquitto, Site(tmp_path_factory.mktemp("town")) as site:
        town = Town(site, mosquitto, kubectl)
        site.start_cloud()
        site.apply_crds(kubectl)
        with ThreadPoolExecutor() as pool:
            list(pool.map(site.join, [*NODES, RAW, SPARE]))
        town.apply(MODEL + "".join(device(f"device-{node}", node=node) for node in NODES))
        for node in NODES:
            town.start_edge(node)
        for node in NODES:  # which comes a moment after being in sync: what devices say before is said to nobody
            site.until(lambda node=node: site.ask("edgecore", node).get("mqttConnected"), f"{node} hears its devices")  # type: ignore[misc]
        yield town


# ---- what several tests need


def failures(site: Site, commands: Sequence[Sequence[str]], code: int = 1) -> list[str]:
    """The last lines of commands that fail with this exit code and without a traceback."""

    def last_line(command: Sequence[str]) -> str:
        answer = site.run(*command, check=False)
        assert answer.returncode == code, (command, answer.returncode, answer.stderr)
        assert "Traceback" not in answer.stderr, answer.stderr
        assert "never awaited" not in answer.stderr, answer.stderr
        return answer.stderr.strip().splitlines()[-1]

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(last_line, commands))


def check_failures(site: Site, table: Sequence[tuple[Sequence[str], str]], code: int = 1) -> None:
    """Each command's last line matches its pattern."""
    for (command, pattern), line in zip(table, failures(site, [command for command, _ in table], code), strict=True):
        assert re.search(pattern, line), f"{command}: {line}"


def cloudcore(site: Site, directory: Path, **flags: object) -> list[str]:
    given = {"kubeconfig": site.kubeconfig, "listen": LOCAL, "join-listen": LOCAL} | flags
    return ["cloudcore", "run", "--data-dir", str(directory)] + [
        word for name, value in given.items() for word in (f"--{name}", str(value))
    ]


def apiserver(directory: Path, listen: str = LOCAL) -> list[str]:
    return ["apiserver.dev", "run", "--data-dir", str(directory), "--listen", listen]


def edgecore(directory: Path, **flags: object) -> list[str]:
    given = {"api": LOCAL, "mqtt-listen": LOCAL} | flags
    return ["edgecore", "run", "--data-dir", str(directory)] + [
        word for name, value in given.items() for word in (f"--{name}", str(value))
    ]


class Listener:
    """A mapper that somebody wrote: publishes what it likes, hears everything."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._inbox: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.drops = 0
        subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"somebody-{time.monotonic_ns()}")
        self._client.on_message = lambda _, __, message: self._inbox.put((message.topic, bytes(message.payload)))
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_disconnect = self._on_disconnect
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe("$hw/#", 1)
        assert subscribed.wait(10)

    def _on_disconnect(self, *_: object) -> None:
        self.drops += 1

    def publish(self, topic: str, payload: bytes | str, quality: int = 1) -> mqtt.MQTTMessageInfo:
        return self._client.publish(topic, payload, quality)

    def report(self, name: str, value: str, event_id: str) -> None:
        twin = {"temperature": {"actual": {"value": value}, "metadata": {"type": "int"}}}
        self.publish(topic(name, "twin/update"), json.dumps({"event_id": event_id, "twin": twin})).wait_for_publish(10)

    def hear(self, wanted: Callable[[str, bytes], object], what: str) -> bytes:
        """The first message of this kind, each only once."""
        by = time.monotonic() + 15
        while True:
            for message in self.heard:
                if wanted(*message):
                    self.heard.remove(message)
                    return message[1]
            try:
                self.heard.append(self._inbox.get(timeout=max(0.0, by - time.monotonic())))
            except queue.Empty:
                raise AssertionError(f"not heard: {what}; heard {self.heard[-20:]}") from None

    def answer(self, on: str, event_id: str | None = None) -> dict[str, Any]:
        """The answer on a result topic to the request of this id, or to one whose id could not be read."""

        def is_it(topic: str, payload: bytes) -> bool:
            return topic == on and (event_id is None or json.loads(payload)["event_id"] == event_id)

        found: dict[str, Any] = json.loads(self.hear(is_it, f"an answer to {event_id} on {on}"))
        return found

    def hear_delta(self, name: str, delta: dict[str, str]) -> None:
        on = topic(name, "twin/update/delta")
        self.hear(lambda heard, payload: heard == on and json.loads(payload)["delta"] == delta, f"{delta} on {on}")

    def close(self) -> None:
        hang_up(self._client)


@contextlib.contextmanager
def listening(port: int) -> Iterator[Listener]:
    listener = Listener(port)
    try:
        yield listener
    finally:
        listener.close()


def topic(name: str, channel: str) -> str:
    return f"$hw/events/device/default/{name}/{channel}"


# ---- kubectl


CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.example.com}
spec:
  group: example.org
  scope: Everywhere
  names: {plural: lamps, kind: Lamp}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: objekt}}}]
"""
BAD_MODEL = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: bad}
spec:
  properties:
  - {name: temperature, type: INTEGER, accessMode: Sometimes, minimum: "low", maximum: 5}
"""
BAD_DEVICE = device("bad", '{name: setpoint, desired: {value: 20}, collectCycle: often}, {desired: {value: "20"}}')


def test_kubectl_refuses_what_is_malformed_and_says_where(town: Town, kubectl: Path) -> None:
    table = [
        (CRD, ["metadata.name", 'spec.scope: Unsupported value: "Everywhere"', 'type: Unsupported value: "objekt"']),
        (
            BAD_MODEL,
            ['type: Unsupported value: "INTEGER"', "accessMode: Unsupported", "minimum: Invalid", "maximum: Invalid"],
        ),
        (BAD_DEVICE, ["properties[0].collectCycle: Invalid", "desired.value: Invalid", "properties[1].name: Required"]),
        (device("Bad_Name"), ['metadata.name: Invalid value: "Bad_Name"']),
    ]
    for text, expected in table:
        # Old kubectl also validates by itself, in words of its own; what is asked for is what the server says.
        given = text + device("beside", node="nowhere")
        answer = town.site.kubectl(kubectl, "apply", "--validate=false", "-f", "-", stdin=given, check=False)
        assert answer.returncode == 1
        for words in expected:
            assert words in answer.stderr, answer.stderr
        # What stands in the same file and is right is taken.
        town.site.kubectl(kubectl, "delete", "device", "beside")
    answer = town.site.kubectl(kubectl, "apply", "-f", "-", stdin="kind: [", check=False)
    assert answer.returncode == 1


# ---- devices

WRONG_DEVICES = {
    "no-node": (device("no-node", SETPOINT, node="nowhere"), "NodeNotFound", 'no node "nowhere"'),
    "no-model": (device("no-model", SETPOINT, model="nothing"), "ModelNotFound", 'no DeviceModel "nothing"'),
    "too-high": (device("too-high", SETPOINT.replace("20", "99")), "DesiredInvalid", "setpoint: 99 .* maximum of 60"),
    "too-low": (device("too-low", SETPOINT.replace("20", "-1")), "DesiredInvalid", "setpoint: -1 .* minimum of 0"),
    "a-text": (device("a-text", SETPOINT.replace("20", "warm")), "DesiredInvalid", 'setpoint: "warm" is not an int'),
    "read-only": (
        device("read-only", SETPOINT.replace("setpoint", "temperature")),
        "NotWritable",
        "temperature: .*read-",
    ),
    "no-such": (
        device("no-such", SETPOINT.replace("setpoint", "colour")),
        "UnknownProperty",
        "colour: the model has no",
    ),
}


def test_a_wrong_device_says_so_in_its_conditions_and_is_not_told_the_value(town: Town) -> None:
    with listening(town.port("edge-1")) as mapper:
        town.apply("".join(text for text, _, _ in WRONG_DEVICES.values()))
        for name, (_, reason, pattern) in WRONG_DEVICES.items():
            town.site.until(functools.partial(town.condition, name), f"{name} has conditions")
            valid = town.condition(name)
            assert (valid["status"], valid["reason"]) == ("False", reason)
            assert re.search(pattern, valid["message"]), valid
        # The others go on, and the one that is put right is told what it should be.
        town.apply(
            device("device-edge-1", USUAL.replace("20", "31")) + device("too-high", SETPOINT.replace("20", "41"))
        )
        mapper.hear_delta("device-edge-1", {"setpoint": "31"})
        mapper.hear_delta("too-high", {"setpoint": "41"})
        town.site.until(lambda: town.condition("too-high")["status"] == "True", "the device is valid")
        told = {on for on, payload in mapper.heard if on.endswith("/delta")}
        assert not told & {topic(name, "twin/update/delta") for name in WRONG_DEVICES}
    town.site.kubectl(town.kubectl, "delete", "devices", *WRONG_DEVICES, "--wait=false")


# ---- MQTT

UPDATE, GET, STATE = "twin/update", "twin/get", "state/update"


def update(event_id: str, twin: object) -> str:
    return json.dumps({"event_id": event_id, "twin": twin})


RUBBISH: list[tuple[str, str, bytes | str, str | None, int, str]] = [
    # device or "" for the node's own, channel, payload, event id of the answer, code, what the answer says
    ("", UPDATE, "rubbish", "", 400, "Expecting value"),
    ("", UPDATE, b"\xff\xfe\x00", "", 400, "not UTF-8"),
    ("", UPDATE, "[1, 2]", "", 400, "must be an object"),
    ("", UPDATE, "", "", 400, "Expecting value"),
    ("", UPDATE, '{"event_id": 7, "twin": {}}', "", 400, "event_id must be a string"),
    ("", UPDATE, '{"event_id": "deep", "twin": ' + "[" * 100_000, "", 400, "nested too deeply"),
    ("", UPDATE, update("u1", "warm"), "u1", 400, "twin must be an object"),
    ("", UPDATE, update("u2", {"temperature": {"actual": {"value": 21}}}), "u2", 400, "value must be a string"),
    ("", UPDATE, update("u3", {"temperature": {"actual": {"value": "hot"}}}), "u3", 400, "temperature: .hot. is not"),
    ("", UPDATE, update("u4", {"temperature": {"actual": {"value": "999"}}}), "u4", 400, "999 is above .* 125"),
    ("", UPDATE, update("u5", {"temperature": {"actual": {"value": "1" * 20_000}}}), "u5", 400, "longer than 16384"),
    ("", UPDATE, update("u6", {"temperature": {"expected": {"value": "3"}}}), "u6", 400, "temperature is read-only"),
    ("", UPDATE, update("u7", {"bad name!": {"actual": {"value": "3"}}}), "u7", 400, "no name for a property"),
    ("", "twin/cloud_updated", update("u8", {}), "u8", 403, "change the Device instead"),
    ("", GET, "rubbish", "", 400, "Expecting value"),
    ("", STATE, '{"event_id": "s1", "state": "sleepy"}', "s1", 400, "sleepy.* is none of online, offline"),
    ("ghost", UPDATE, update("g1", {}), "g1", 404, "not existed"),
    ("ghost", GET, '{"event_id": "g2"}', "g2", 404, "default/ghost not found"),
    ("ghost", STATE, '{"event_id": "g3", "state": "online"}', "g3", 404, "default/ghost not found"),
]
ANSWERS = {UPDATE: "twin/update/result", GET: "twin/get/result", STATE: "state/update/result"}


@pytest.mark.parametrize("node", NODES)
def test_rubbish_on_mqtt_is_answered_and_a_good_report_beside_it_arrives(town: Town, node: str) -> None:
    ours = f"device-{node}"
    with listening(town.port(node)) as mapper:
        for name, channel, payload, event_id, code, pattern in RUBBISH:
            mapper.publish(topic(name or ours, channel), payload).wait_for_publish(10)
            result = topic(name or ours, ANSWERS.get(channel, "twin/update/result"))
            answer = mapper.answer(result, event_id)
            assert answer["code"] == code, answer
            assert re.search(pattern, answer["reason"]), answer
        # Where there is no topic for an answer, the message is counted.
        before = town.site.ask("edgecore", node)["mqttIgnored"]
        ignored = [
            f"$hw/events/device//{ours}/twin/update",
            topic(ours, "twin/fetch"),
            f"$hw/events/node/{node}/membership/get",
            "$hw/events/mapper/somebody/state/update",
        ]
        unheard = ["$hw/events/device/default/twin/update", topic(ours, "/twin/update"), "$hw/" + "x/" * 60]
        for on in ignored + unheard:
            mapper.publish(on, "rubbish").wait_for_publish(10)
        # A property that the model does not have is kept at the edge, as in KubeEdge, and stays there.
        mapper.publish(topic(ours, UPDATE), update("odd", {"colour": {"actual": {"value": "red"}}}))
        assert "code" not in mapper.answer(topic(ours, "twin/update/result"), "odd")
        mapper.report(ours, "21", "good")
        assert "code" not in mapper.answer(topic(ours, "twin/update/result"), "good")
        town.site.until(lambda: town.reported(ours) == "21", "the good report")
        assert town.site.ask("edgecore", node)["mqttIgnored"] == before + len(ignored)
        status = town.site.run("edgecore", "status", "--data-dir", str(town.site.directory / node)).stdout
        assert "messages ignored" in status
        assert "colour" not in json.dumps(town.get("device", ours)["status"])


def test_a_payload_of_1_mb_is_answered_or_its_connection_closed(town: Town) -> None:
    payload = update("big", {}) + " " * (1 << 20)
    with listening(town.port("edge-1")) as mapper:  # mosquitto lets it through, the edge does not take it
        mapper.publish(topic("device-edge-1", UPDATE), payload).wait_for_publish(10)
        assert mapper.answer(topic("device-edge-1", "twin/update/result"), "")["code"] == 413
    with listening(town.port("edge-2")) as big, listening(town.port("edge-2")) as good:
        big.publish(topic("device-edge-2", UPDATE), payload, 0)
        town.site.until(lambda: big.drops, "the connection that sent it is closed")
        good.report("device-edge-2", "22", "good")
        town.site.until(lambda: town.reported("device-edge-2") == "22", "the report of another connection")
        assert not good.drops
    assert re.search(r"packet of 10\d+ bytes exceeds the limit", town.site.processes["edge-2"].log.read_text())


# ---- the link


def trust(site: Site, node: str = RAW, *, certified: bool = True) -> ssl.SSLContext:
    """What a node trusts, and its certificate."""
    files = site.directory / node / "pki"
    context = ssl.create_default_context(cafile=str(files / "ca.crt"))
    if certified:
        context.load_cert_chain(files / "edge.crt", files / "edge.key")
    return context


def dialled(site: Site, context: ssl.SSLContext, path: str = "/v1/link") -> connect:
    # Not the library's client with threads: two of them in one TLS connection now and then lose the request.
    url = f"wss://127.0.0.1:{site.ports['link']}{path}"
    return connect(url, ssl=context, max_size=None, open_timeout=10, close_timeout=2, ping_interval=None, proxy=None)


async def last_words(connection: ClientConnection) -> tuple[Goodbye | None, ConnectionClosed]:
    """What the hub says before it closes, and how it closes."""
    goodbye = None
    try:
        async with asyncio.timeout(10):
            while True:
                frame = decode(await connection.recv(decode=False))
                goodbye = frame if isinstance(frame, Goodbye) else goodbye
    except ConnectionClosed as closed:
        return goodbye, closed


HELLO = encode(Hello(PROTOCOL, RAW, None, b"", "test", 1))
BAD_FRAMES = {
    "rubbish": ([b"rubbish"], GoodbyeCode.PROTOCOL, "not a frame"),
    "empty": ([b""], GoodbyeCode.PROTOCOL, "not a frame"),
    "truncated": ([HELLO[:-3]], GoodbyeCode.PROTOCOL, "not a frame"),
    "too long by a byte": ([HELLO + b"x"], GoodbyeCode.PROTOCOL, "not a frame"),
    "a list of 4 billion": ([b"\xdd\xff\xff\xff\xff"], GoodbyeCode.PROTOCOL, "it has more than 16384 elements"),
    "a text of 4 GB": ([b"\x96\x01\x01\xdb\xff\xff\xff\xff"], GoodbyeCode.PROTOCOL, "not a frame"),
    "out of turn": ([encode(Ack(5))], GoodbyeCode.PROTOCOL, "may not say Ack while opening"),
    "another protocol": (
        [encode(Hello(99, RAW, None, b"", "", 1))],
        GoodbyeCode.PROTOCOL,
        f"protocol {PROTOCOL}, not 99",
    ),
    "another's name": ([encode(Hello(PROTOCOL, "edge-1", None, b"", "", 1))], GoodbyeCode.FORBIDDEN, 'not "edge-1"'),
    "truncated after Hello": ([HELLO, b"\x93\x07\x01"], GoodbyeCode.PROTOCOL, "not a frame"),
}


async def test_a_peer_that_sends_what_is_no_frame_is_told_and_dropped_and_the_others_stay(town: Town) -> None:
    site, context = town.site, trust(town.site)
    site.until(lambda: all(town.link(node)[0] for node in NODES), "the nodes are in sync")
    before = {node: town.link(node) for node in NODES}
    for name, (messages, code, words) in BAD_FRAMES.items():
        async with dialled(site, context) as connection:
            for message in messages:
                await connection.send(message)
            goodbye, closed = await last_words(connection)
        assert goodbye is not None, (name, closed)
        assert goodbye.code is code, (name, goodbye)
        assert words in goodbye.reason, (name, goodbye)
    async with dialled(site, context) as connection:
        await connection.send(bytes(MAX_FRAME_BYTES + 1))
        assert "(message too big) frame with 4194305 bytes exceeds limit" in str((await last_words(connection))[1])
    async with dialled(site, context) as connection:
        await connection.send("a text")
        assert "binary messages only" in str((await last_words(connection))[1])
    header = struct.Struct("!BBQ4s").pack
    async with dialled(site, context) as connection:  # the beginning of a frame, and no more
        connection.transport.write(header(0x82, 0xFF, 1 << 20, b"mask") + b"the beginning")
        connection.transport.close()
    async with dialled(site, context) as connection:  # a frame without end
        connection.transport.write(header(0x82, 0xFF, 1 << 62, b"mask") + b"the beginning")
        assert "exceeds limit" in str((await last_words(connection))[1])
    assert {node: town.link(node) for node in NODES} == before
    # The hub's log names who it was and why, and the certificate's owner is let in again.
    log = site.processes["cloud"].log.read_text()
    dropped = rf"WARNING .*dropped before Hello node=raw remote=127.0.0.1:\d+ reason=.*protocol {PROTOCOL}, not 99"
    assert re.search(dropped, log)
    assert re.search(r"dropped before Hello node=raw .*exceeds limit of", log)
    async with dialled(site, context) as connection:
        await connection.send(HELLO)
        assert isinstance(decode(await connection.recv(decode=False)), Welcome)
    town.apply(device("device-edge-1", USUAL.replace("20", "21")))
    site.until(lambda: town.link("edge-1") == before["edge-1"], "edge-1 is in sync on the same connection")


async def test_a_peer_without_a_certificate_of_our_authority_is_refused(town: Town, tmp_path: Path) -> None:
    site = town.site
    other = pki.create_ca("another", 1)
    key, request = pki.make_key_and_csr("system:node:edge-1", "system:nodes")
    (tmp_path / "pem").write_bytes(pki.sign_client_csr(other, request, "system:node:edge-1", "system:nodes", 1) + key)
    foreign = trust(site, certified=False)
    foreign.load_cert_chain(tmp_path / "pem")
    for context in (trust(site, certified=False), foreign):
        # In TLS 1.3 the client has finished before the server looks at its certificate.
        with pytest.raises((ssl.SSLError, InvalidMessage, ConnectionError)):
            async with dialled(site, context):
                pass
    with pytest.raises(InvalidStatus, match="404"):
        async with dialled(site, trust(site), "/v2/link"):
            pass
    assert town.link("edge-1")[0]


def test_an_edge_that_trusts_another_authority_or_has_anothers_name_says_so(town: Town) -> None:
    site = town.site
    for name in ("stranger", "liar"):
        shutil.copytree(site.directory / RAW, site.directory / name)
    (site.directory / "stranger" / "pki" / "ca.crt").write_bytes(pki.create_ca("another", 1).cert_pem)
    config = site.directory / "liar" / "edgecore.yaml"
    config.write_text(re.sub(r"(?m)^node: .*$", "node: edge-1", config.read_text()))
    named = 'your certificate is for node "raw", not "edge-1"'
    for name, words in (("stranger", "is not to be trusted"), ("liar", named)):
        process = site.start(name, *edgecore(site.directory / name))
        site.until(lambda name=name: site.ask("edgecore", name).get("problem"), "it says why", process)  # type: ignore[misc]
        assert words in site.ask("edgecore", name)["problem"]
        assert process.stop() == 0


# ---- joining


def changed(token: str, part: int, text: str) -> str:
    parts = token.split(".")
    parts[part] = text
    return ".".join(parts)


def test_a_join_that_fails_says_what_to_do_and_leaves_nothing(town: Town, tmp_path: Path) -> None:
    site = town.site
    token, expired, bound = site.token(), site.token("--ttl", "1s"), site.token("--nodes", "edge-7")
    secret = token.split(".")[2]
    listing = ("cloudcore", "token", "list", "--kubeconfig", str(site.kubeconfig))
    site.until(lambda: "expired" in site.run(*listing).stdout, "one has expired")
    cloud, number = f"127.0.0.1:{site.ports['join']}", iter(range(100))

    def join(token: str = token, node: str = "edge-9", cloud: str = cloud, home: Path | None = None) -> list[str]:
        home = home or tmp_path / f"new-{next(number)}"
        return ["edgecore", "join", "--cloud", cloud, "--token", token, f"--node={node}", "--data-dir", str(home)]

    check_failures(
        site,
        [
            (join("rubbish"), "not a join token .*as `cloudcore token create` prints it"),
            (join(""), "not a join token .it is empty"),
            (join(token[:100]), "it was cut or mistyped"),
            (join(changed(token, 2, secret[::-1])), "token is not known here.*`cloudcore token create`"),
            (join(changed(token, 3, "0" * 64)), "not the one this token was made for.*The token was not sent"),
            (join(expired), "expired at .*`cloudcore token create`"),
            (join(bound), "made for another node than edge-9: make one with `cloudcore token create --nodes edge-9`"),
            (join(node="Edge_9"), '"Edge_9" cannot be a node name: use lower-case letters'),
            (join(node="../x"), "cannot be a node name"),
            (join(node="x" * 60), "1 to 52 characters"),
            (join(cloud=f"127.0.0.1:{free_port()}"), "nothing listens at .*check --cloud"),
            (join(cloud=f"127.0.0.1:{site.ports['link']}"), "join port"),
            (join(cloud=f"127.0.0.1:{site.ports['api']}"), "check that --cloud names it"),
            (join(cloud="no-such-host.invalid:1"), "cannot be resolved.*check --cloud"),
            (join(home=site.directory / SPARE), "has joined already .*or give --force"),
            (join(home=site.directory / "edge-1"), r"in use by process \d+; stop it"),
            (
                ["cloudcore", "token", "create", "--kubeconfig", str(site.kubeconfig), "--nodes", "A_"],
                "cannot be a node",
            ),
        ],
    )
    assert not list(tmp_path.iterdir())
    check_failures(site, [(join(cloud="127.0.0.1:99999"), "a port is 0 to 65535")], code=2)


# ---- ports


def test_a_taken_port_is_named_with_the_flag_that_chooses_another(town: Town, tmp_path: Path) -> None:
    site = town.site
    spare, cloud = site.directory / SPARE, tmp_path / "cloud"

    def at(name: str) -> str:
        return f"127.0.0.1:{site.ports[name]}"

    table = [
        (apiserver(tmp_path / "api", at("api")), "api", "--listen"),
        (cloudcore(site, cloud, listen=at("link")), "link", "--listen"),
        (cloudcore(site, tmp_path / "cloud-2", **{"join-listen": at("join")}), "join", "--join-listen"),
        (edgecore(spare, api=at("edge-2-api")), "edge-2-api", "--api"),
    ]
    check_failures(
        site, [(command, f"port {site.ports[port]} is taken.*with {flag}$") for command, port, flag in table]
    )
    embedded = (
        edgecore(spare, **{"mqtt-listen": at("edge-2-mqtt")}),
        rf"port {site.ports['edge-2-mqtt']} .*--mqtt-listen",
    )
    elsewhere = (cloudcore(site, cloud, listen="192.0.2.1:1"), "192.0.2.1:1: this machine has no such address")
    nowhere = (
        apiserver(tmp_path / "api", "no-such-host.invalid:1"),
        "cannot be resolved; choose another with --listen",
    )
    check_failures(site, [embedded, elsewhere, nowhere])
    # Nothing is in the way of the next try.
    left = {path.name for place in (spare, cloud) for path in place.rglob("*") if path.is_socket()}
    assert not left
    process = site.start(SPARE, *edgecore(spare))
    site.until(lambda: site.ask("edgecore", SPARE).get("inSync"), "it runs with free ports", process)
    assert process.stop() == 0


# ---- directories and disks


def every_command(site: Site, home: Path) -> list[list[str]]:
    return [apiserver(home / "api"), cloudcore(site, home / "cloud"), edgecore(home / SPARE)]


def test_a_data_directory_that_cannot_be_used_is_named_with_the_reason(town: Town, tmp_path: Path) -> None:
    site = town.site
    with SmallDisk() as disk:
        shutil.copytree(site.directory / SPARE, disk.path / SPARE)
        for name in ("api", "cloud"):
            (disk.path / name).mkdir()
        disk.fill()
        try:
            full = failures(site, every_command(site, disk.path))
        finally:
            disk.free()
        disk.make_read_only()
        read_only = failures(site, every_command(site, disk.path))
        for lines, reason in (
            (full, "the file system is full" if disk.is_mounted else "file too large"),
            (read_only, "the file system is read-only" if disk.is_mounted else "permission denied"),
        ):
            for line, name in zip(lines, ("api", "cloud", SPARE), strict=True):
                assert line.endswith(f"{disk.path / name}: cannot be used as a data directory: {reason}"), line
    (tmp_path / "file").touch()
    long = tmp_path / ("d" * 100)
    shutil.copytree(site.directory / SPARE, long / SPARE)
    check_failures(
        site,
        [
            (apiserver(tmp_path / "file"), "file: is not a directory"),
            (cloudcore(site, tmp_path / "file" / "x"), "a part of the path is not a directory"),
            (edgecore(tmp_path / "nothing"), "not a node's directory: there is no edgecore.yaml; run `edgecore join`"),
            (cloudcore(site, long / "cloud"), "longer than 107 bytes: choose a shorter directory"),
            (edgecore(long / SPARE), "longer than 107 bytes: choose a shorter directory"),
            (apiserver(site.directory / "api"), r"in use by process \d+; stop it or choose another"),
            (cloudcore(site, site.directory / "cloud"), r"in use by process \d+; stop it or choose another"),
            (edgecore(site.directory / "edge-1"), r"in use by process \d+; stop it or choose another"),
            (["cloudcore", "status", "--data-dir", str(tmp_path)], "cloudcore is not running .*start it"),
            (["edgecore", "status", "--data-dir", str(tmp_path)], "edgecore is not running .*start it"),
        ],
    )


@pytest.mark.timeout(90)
def test_a_disk_that_becomes_full_stops_nothing_else_and_is_over_when_there_is_space(town: Town) -> None:
    site = town.site
    with SmallDisk() as disk:
        home = site.directory / "full"
        shutil.copytree(site.directory / SPARE, disk.path / SPARE)
        home.symlink_to(disk.path / SPARE)
        town.apply(device("on-a-full-disk", node=SPARE))
        port = free_port()
        process = site.start("full", *edgecore(home, **{"mqtt-listen": f"127.0.0.1:{port}", "api": LOCAL}))
        site.until(lambda: site.ask("edgecore", "full").get("inSync"), "in sync", process)
        # Its twin begins a moment after being in sync; before that it is no device of this node.
        site.until(lambda: site.ask("edgecore", "full")["devices"], "the node knows its device")
        api = site.ask("edgecore", "full")["api"]
        with listening(port) as mapper:
            # An answer comes after the commit of all before it. A twin that still waits for its own answers nobody.
            mapper.publish(topic("on-a-full-disk", GET), '{"event_id": "there"}')
            mapper.answer(topic("on-a-full-disk", ANSWERS[GET]), "there")
            disk.fill(process.pid)
            twin = {"temperature": {"actual": {"value": "33"}}}
            mapper.publish(topic("on-a-full-disk", UPDATE), update("kept", twin))
            refused = mapper.answer(topic("on-a-full-disk", "twin/update/result"), "kept")
            assert refused["code"] == 500
            assert "not stored yet, still trying" in refused["reason"]
            town.apply(device("on-a-full-disk", USUAL.replace("20", "44"), node=SPARE))
            site.until(lambda: "cannot commit" in site.ask("edgecore", "full").get("problem", ""), "the link says so")
            time.sleep(3.0)  # long enough that a storm of new connections would show
            status = site.run("edgecore", "status", "--data-dir", str(home)).stdout
            assert re.search(r"(?m)^problem .*edge\.db: ", status), status
            assert "full" in status or not disk.is_mounted
            # What was committed is still served, and the others go on.
            held = site.kubectl(town.kubectl, "get", "device", "on-a-full-disk", "-o", "json", server=api).stdout
            assert json.loads(held)["spec"]["properties"][1]["desired"]["value"] == "20"
            town.apply(device("device-edge-2", USUAL.replace("20", "45"), node="edge-2"))
            site.until(lambda: town.link("edge-2")[0], "another node is in sync")
            assert process.log.read_text().count("link up") < 10
            disk.free(process.pid)
            site.until(lambda: site.ask("edgecore", "full").get("inSync"), "in sync again", process)
            taken = mapper.answer(topic("on-a-full-disk", "twin/update/result"), "kept")
            assert taken["twin"]["temperature"]["actual"]["value"] == "33"
            site.until(lambda: town.reported("on-a-full-disk") == "33", "the report that was kept")
        site.until(lambda: not site.ask("edgecore", "full")["storeProblem"], "the status says no more")
        assert process.stop() == 0
    site.kubectl(town.kubectl, "delete", "device", "on-a-full-disk", "--wait=false")


# ---- a broker and an apiserver that are away


def test_a_broker_that_is_away_stops_nothing_else(town: Town) -> None:
    site = town.site
    process = site.processes["edge-1"]
    assert process.stop() == 0
    town.mosquitto.stop()
    try:
        process = town.start_edge("edge-1")
        site.until(lambda: site.ask("edgecore", "edge-1").get("mqttProblem"), "the status says why", process)
        told = site.run("edgecore", "status", "--data-dir", str(site.directory / "edge-1")).stdout
        assert re.search(rf"(?m)^mqtt .*{town.mosquitto.port} not connected \(Connection refused\)", told), told
        assert re.search(r"(?m)^link .*in sync", told), told
        town.apply(device("device-edge-1", USUAL.replace("20", "32")))
        site.until(
            lambda: (
                '"value":"32"'
                in site.kubectl(
                    town.kubectl,
                    "get",
                    "--raw",
                    "/apis/devices.kubeedge.io/v1beta1/namespaces/default/devices/device-edge-1",
                    server=site.local_api("edge-1"),
                ).stdout
            ),
            "the local API has what the cloud changed",
        )
    finally:
        town.mosquitto.start()
    site.until(lambda: site.ask("edgecore", "edge-1")["mqttConnected"], "connected once it is there")
    town.mosquitto.stop()
    site.until(lambda: not site.ask("edgecore", "edge-1")["mqttConnected"], "the loss is noticed")
    town.mosquitto.start()
    site.until(lambda: site.ask("edgecore", "edge-1")["mqttConnected"], "connected again")
    with listening(town.port("edge-1")) as mapper:
        mapper.report("device-edge-1", "17", "after")
        site.until(lambda: town.reported("device-edge-1") == "17", "a report after it")
    assert process.is_running()


def test_an_apiserver_that_is_away_is_waited_for(town: Town) -> None:
    site = town.site
    assert site.processes["api"].stop() == 0
    assert site.processes["cloud"].stop() == 0
    flags = {"listen": f"127.0.0.1:{site.ports['link']}", "join-listen": f"127.0.0.1:{site.ports['join']}"}
    cloud = site.start("cloud", *cloudcore(site, site.directory / "cloud", **flags))
    site.until(lambda: site.ask("cloudcore", "cloud").get("problem"), "the status says so", cloud)
    told = site.run("cloudcore", "status", "--data-dir", str(site.directory / "cloud")).stdout
    assert re.search(r"(?m)^problem .*waiting for .*no answer from the apiserver at https://127", told), told
    assert "waiting for the apiserver" in cloud.tail()
    check_failures(
        site, [(["cloudcore", "token", "create", "--kubeconfig", str(site.kubeconfig)], "no answer from the apiserver")]
    )
    site.start_api()
    site.until(lambda: all(town.link(node)[0] for node in NODES), "the nodes are back", cloud)
    # While it runs: nodes stay connected, and what devices say meanwhile arrives afterwards.
    before = town.link("edge-2")
    assert site.processes["api"].stop() == 0
    with listening(town.port("edge-2")) as mapper:
        mapper.report("device-edge-2", "18", "meanwhile")
        assert "code" not in mapper.answer(topic("device-edge-2", "twin/update/result"), "meanwhile")
    site.until(
        lambda: any("no answer" in each["problem"] for each in site.ask("cloudcore", "cloud")["resources"]),
        "the status says so",
    )
    site.start_api()
    site.until(lambda: town.reported("device-edge-2") == "18", "the report of meanwhile")
    site.until(
        lambda: not any(each["problem"] for each in site.ask("cloudcore", "cloud")["resources"]), "all is watched again"
    )
    assert town.link("edge-2")[1] == before[1]


# ---- configuration and flags


def test_a_wrong_configuration_is_refused_with_its_line(town: Town, tmp_path: Path) -> None:
    site = town.site
    number = iter(range(100))

    def edge(text: str) -> list[str]:
        home = tmp_path / f"edge-{next(number)}"
        shutil.copytree(site.directory / SPARE, home)
        (home / "edgecore.yaml").write_text(text)
        return edgecore(home)

    def cloud(text: str) -> list[str]:
        path = tmp_path / f"cloud-{next(number)}.yaml"
        path.write_text(text)
        return cloudcore(site, tmp_path / path.stem, config=path)

    def kubeconfig(text: str) -> list[str]:
        path = tmp_path / f"kubeconfig-{next(number)}"
        path.write_text(text)
        return cloudcore(site, tmp_path / f"{path.name}-data", kubeconfig=path)

    begin = "node: spare\ncloud: {link: '127.0.0.1:1'}\n"
    right = site.kubeconfig.read_text()
    check_failures(
        site,
        [
            (
                edge(begin + "mqqt: {broker: embedded}\n"),
                r'edgecore\.yaml:3: unknown key "mqqt", did you mean "mqtt"\?',
            ),
            (edge(begin + "api:\n  enabled: yes\n"), r'yaml:4: api\.enabled: expected true or false, got "yes"'),
            (edge(begin + "api: {listen: '10550'}\n"), r"yaml:3: api\.listen: .*write 127\.0\.0\.1:10550"),
            (edge(begin + "mqtt: {broker: mosquitto}\n"), "mqtt.broker .*: write the broker as mqtt://HOST:PORT"),
            (edge(begin.replace("}", ", key: gone.key}")), "cannot read .*gone.key: No such file"),
            (edge("node: [a]\n"), r"yaml:1: node: expected text, got a list"),
            (edge("\t"), r"yaml:1: is not YAML"),
            (edge(""), "node is missing"),
            (cloud("link: {heartbeatSecond: 5}\n"), r':1: link: unknown key .*did you mean "heartbeatSeconds"\?'),
            (cloud("link: {heartbeatSeconds: often}\n"), r":1: link\.heartbeatSeconds: expected a number"),
            (cloud("link:\n  heartbeatSeconds: 0\n"), r":2: link\.heartbeatSeconds: 0 is out of range: 1 to 3600"),
            (
                cloud("placement:\n- {resource: secrets, by: sight}\n"),
                r':2: placement\[0\]\.by: "sight" is none of field',
            ),
            (
                cloud("placement:\n- {resource: secrets, by: field}\n"),
                r":2: placement\[0\]: a rule by field needs path",
            ),
            (
                cloud("placement:\n- {resource: nothing.example.com}\n"),
                'placement: .* no resource "nothing.example.com"',
            ),
            (kubeconfig("rubbish: ["), "is not a kubeconfig"),
            (
                kubeconfig(re.sub('"token": "[^"]*"', '"token": "x"', right)),
                "does not accept the cred.*with --kubeconfig",
            ),
            (cloudcore(site, tmp_path / "c", kubeconfig=tmp_path / "none"), "none: there is no such kubeconfig"),
        ],
    )
    authority = base64.b64encode((site.directory / RAW / "pki" / "ca.crt").read_bytes()).decode()
    path = tmp_path / "another-authority"
    path.write_text(re.sub('(authority-data": )"[^"]*"', rf'\1"{authority}"', right))
    check_failures(site, [(["cloudcore", "token", "list", "--kubeconfig", str(path)], "certificate verify failed")])


COMMANDS = (
    *(f"edgecore {command}".strip() for command in ("", "run", "join", "status", "resync", "config")),
    *(f"cloudcore {command}".strip() for command in ("", "run", "crds", "status", "resync", "config")),
    *(f"cloudcore token {command}".strip() for command in ("", "create", "list", "delete")),
    *(
        "apiserver.dev",
        "apiserver.dev run",
        "mappers.runtime",
        "mappers.runtime run",
        "mappers.runtime drivers",
        "demo",
    ),
)


IN_TURN = """
import contextlib, io, json, runpy, sys
for words in json.load(sys.stdin):
    sys.argv, out, err, code = words[:], io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        except SystemExit as exc:
            code = exc.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
"""Commands of one program, each as python -m runs it, in one process: what they import is most of what they cost."""


def test_every_command_has_an_example_and_refuses_a_wrong_flag(town: Town) -> None:
    site = town.site

    def check(commands: Sequence[str]) -> None:
        lines = [[*command.split(), flag] for command in commands for flag in ("--help", "--no-such-flag")]
        done = subprocess.run(
            [sys.executable, "-c", IN_TURN],
            input=json.dumps(lines),
            capture_output=True,
            text=True,
            timeout=60,
            env=site.environment,
            cwd=ROOT,
            check=True,
        )
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        for words, (code, shown, told) in zip(lines, answers, strict=True):
            if words[-1] == "--help":
                assert code == 0, (words, told)
                assert re.search(r"(?m)^example:\n  \w", shown), shown
            else:
                assert code == 2, (words, told)
                assert "error: " in told.splitlines()[-1]

    programs = {command.split()[0] for command in COMMANDS}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(check, [[each for each in COMMANDS if each.split()[0] == program] for program in programs]))
    mapper = ["mappers.runtime", "run"]
    url = ["--mqtt", "mqtt://127.0.0.1:1"]
    check_failures(
        site,
        [
            ([*mapper, "nothing", *url], '"?nothing"?.*(host|simulated)'),
            ([*mapper, "host", "--mqtt", "http://x"], "write the broker as mqtt://HOST:PORT"),
            ([*mapper, "host", *url, "--device", "x"], "not <namespace>/<name>"),
            ([*mapper, "host", *url, "--driver", "no.such:Class"], "no.such"),
            (["edgecore", "run", "--data-dir", "x", "--api", "10550"], "has no port: write 127.0.0.1:10550"),
            (["cloudcore", "token", "create", "--ttl", "soon"], "is no duration: write 30m, 12h or 7d"),
        ],
        code=2,
    )


# ---- twice, and stopping


def test_a_second_mapper_of_one_name_is_told_of_in_the_log(town: Town) -> None:
    site = town.site
    url = f"mqtt://127.0.0.1:{town.port('edge-2')}"
    command = ("mappers.runtime", "run", "simulated", "--mqtt", url, "--name", "one")
    both = [site.start(name, *command) for name in ("mapper-1", "mapper-2")]
    site.until(
        lambda: any("does another mapper use this name?" in each.log.read_text() for each in both),
        "one of them says so",
    )
    for process in both:
        assert process.is_running()
        assert process.stop() == 0


@pytest.mark.timeout(90)
def test_sigterm_in_the_middle_of_work_ends_everything_within_five_seconds(town: Town) -> None:
    site = town.site
    mapper = site.start("mapper", "mappers.runtime", "run", "host", "--mqtt", f"mqtt://127.0.0.1:{town.port('edge-2')}")
    town.apply("".join(device(f"busy-{number}", node="edge-2") for number in range(50)))
    busy = threading.Event()

    def flood(port: int) -> None:
        with contextlib.suppress(OSError, RuntimeError, ValueError), listening(port) as somebody:
            number = 0
            while not busy.is_set():
                number += 1
                twin = {"temperature": {"actual": {"value": str(number % 100)}}}
                somebody.publish(topic(f"busy-{number % 50}", UPDATE), update(str(number), twin))
                if number % 20 == 0:
                    time.sleep(0.01)

    def edit() -> None:
        number = 0
        while not busy.is_set():
            number += 1
            text = "".join(
                device(f"busy-{each}", USUAL.replace("20", str(number % 60)), node="edge-2") for each in range(10)
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                site.kubectl(town.kubectl, "apply", "-f", "-", stdin=text, check=False)

    workers = [threading.Thread(target=flood, args=(town.port("edge-2"),)), threading.Thread(target=edit)]
    for worker in workers:
        worker.start()
    try:
        site.until(lambda: town.reported("busy-7"), "there is work")
        watch = subprocess.Popen(
            [str(town.kubectl), "--kubeconfig", str(site.kubeconfig), "get", "devices", "--watch"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=site.environment,
        )
        codes = {name: site.processes[name].stop() for name in ("edge-2", "cloud", "api", "edge-1")}
        codes["mapper"] = mapper.stop()
    finally:
        busy.set()
        for worker in workers:
            worker.join(20)
    watch.terminate()
    watch.wait(10)
    assert codes == dict.fromkeys(codes, 0)
    left = list(site.directory.rglob("*.sock"))
    assert not left, left
