"""
What goes wrong on MQTT beyond the single message: bursts, doubles, impossible topics, two mappers; and what is told.

Real processes, and both brokers: edge-1 has mosquitto, edge-2 the embedded one. docs/bad-input.md has it as a table;
single messages are in test_bad_input.py.
"""

import itertools
import json
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.harness.mqtt_fuzz import MqttFuzz
from tests.harness.pahoclient import hang_up
from tests.test_bad_input import ANSWERS, NODES, UPDATE, Town, device, listening, topic, town

__all__ = ["town"]

pytestmark = pytest.mark.timeout(180)

BURST = 10_000
BETWEEN = 50  # inputs between two good reports


def ours(node: str) -> str:
    return f"device-{node}"


def raw_connection(port: int, client_id: str) -> socket.socket:
    """A client that checks nothing before it sends it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    body = b"\0\4MQTT\4\2\0\0" + struct.pack("!H", len(client_id)) + client_id.encode()
    connection.sendall(bytes([0x10, len(body)]) + body)
    assert connection.recv(4) == b"\x20\x02\x00\x00"
    return connection


def raw_publish(name: str, payload: bytes = b"{}") -> bytes:
    body = struct.pack("!H", len(name.encode())) + name.encode() + b"\0\1" + payload
    assert len(body) < 128
    return bytes([0x32, len(body)]) + body


@pytest.mark.parametrize("node", NODES)
def test_a_topic_with_a_wildcard_ends_its_connection_and_a_device_called_dots_is_unknown(town: Town, node: str) -> None:
    with listening(town.port(node)) as mapper:
        for wrong in ("$hw/events/device/+/x/twin/update", "$hw/events/device/default/#"):
            connection = raw_connection(town.port(node), f"wild-{time.monotonic_ns()}")
            connection.sendall(raw_publish(wrong))
            assert connection.recv(16) == b"", "the broker closes it"
            connection.close()
        for name in ("..", "../..", "%2e%2e"):
            mapper.publish(topic(name, UPDATE), json.dumps({"event_id": name, "twin": {}})).wait_for_publish(10)
        # Two levels are a device, and there is none of that name; three are none of our topics.
        for name in ("..", "%2e%2e"):
            assert mapper.answer(topic(name, ANSWERS[UPDATE]), name)["code"] == 404
        mapper.report(ours(node), "20", "after")
        assert "code" not in mapper.answer(topic(ours(node), ANSWERS[UPDATE]), "after")


@pytest.mark.parametrize("node", NODES)
def test_a_doubled_and_a_missing_event_id_are_answered_each_time(town: Town, node: str) -> None:
    result = topic(ours(node), ANSWERS[UPDATE])
    twin = {"temperature": {"actual": {"value": "33"}}}
    with listening(town.port(node)) as mapper:
        for _ in range(2):
            mapper.publish(topic(ours(node), UPDATE), json.dumps({"event_id": "twice", "twin": twin}))
        first, second = (mapper.answer(result, "twice") for _ in range(2))
        assert first["twin"]["temperature"]["actual"]["value"] == "33"
        assert second["twin"]["temperature"]["actual"]["value"] == "33"
        mapper.publish(topic(ours(node), UPDATE), json.dumps({"twin": twin}))
        assert "code" not in mapper.answer(result, "")
        town.site.until(lambda: town.reported(ours(node)) == "33", "it is in the cloud, once or twice")


class Flood:
    """Publishes updates as fast as paho can, and hears what is answered."""

    def __init__(self, port: int, name: str) -> None:
        self.answered: set[str] = set()
        self.refused = 0
        self._name = name
        ready = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"flood-{time.monotonic_ns()}")
        self.client.max_inflight_messages_set(0)
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.subscribe(topic(name, ANSWERS[UPDATE]), 1)
        self.client.loop_start()
        assert ready.wait(10)

    def _on_message(self, client: object, userdata: object, message: mqtt.MQTTMessage) -> None:
        answer: dict[str, Any] = json.loads(message.payload)
        self.refused += "code" in answer
        self.answered.add(answer["event_id"])

    def send(self, number: int, value: str = "") -> mqtt.MQTTMessageInfo:
        twin = {"temperature": {"actual": {"value": value or str(number % 100)}}}
        payload = json.dumps({"event_id": str(number), "sequence": number, "twin": twin})
        return self.client.publish(topic(self._name, UPDATE), payload, 1)

    def close(self) -> None:
        hang_up(self.client)


@pytest.fixture
def flooding(town: Town, request: pytest.FixtureRequest) -> Iterator[Flood]:
    flood = Flood(town.port(request.param), ours(request.param))
    yield flood
    flood.close()


@pytest.mark.parametrize(("node", "flooding"), [(each, each) for each in NODES], indirect=["flooding"])
def test_of_a_burst_of_10_000_updates_each_one_is_taken_or_told_as_missing(
    town: Town, node: str, flooding: Flood
) -> None:
    """
    The embedded broker makes the sender wait, and acknowledges what is on disk. mosquitto, as it comes, drops what is
    beyond 1,000 for one client without a word; the numbers of the updates show it.
    """
    before = town.site.ask("edgecore", node)["mqttMissed"]
    for sent in [flooding.send(number) for number in range(1, BURST + 1)]:
        sent.wait_for_publish(120)

    def missed() -> int:
        return int(town.site.ask("edgecore", node)["mqttMissed"] - before)

    def is_settled() -> bool:
        # One more, until it comes through: it shows what is missing before it.
        flooding.send(BURST + 1)
        return str(BURST + 1) in flooding.answered

    town.site.until(is_settled, "the burst is dealt with")
    # Answers may be lost to a client that does not read as fast as it writes; what is told as missing was not answered.
    assert 0 < len({each for each in flooding.answered if int(each) <= BURST}) <= BURST - missed()
    assert flooding.refused == 0
    assert (missed() == 0) == (NODES[node] == "embedded")
    with listening(town.port(node)) as mapper:
        mapper.report(ours(node), "44", "afterwards")
        assert "code" not in mapper.answer(topic(ours(node), ANSWERS[UPDATE]), "afterwards")
    # By the client of the flood, too: what it still has under way came before.
    flooding.send(BURST + 2, "44")
    town.site.until(lambda: town.reported(ours(node)) == "44", "the last value is in the cloud")


def events_of(town: Town, name: str) -> dict[str, dict[str, Any]]:
    """The Events about a Device by reason, the last of each."""
    found = town.get("events", "--field-selector", f"involvedObject.name={name},involvedObject.kind=Device")["items"]
    return {each["reason"]: each for each in found}


@pytest.mark.parametrize("node", NODES)
def test_two_mappers_at_one_device_are_told_and_so_is_the_end_of_the_last(town: Town, node: str) -> None:
    name = ours(node)
    says = json.dumps({"event_id": "m", "state": "online", "devices": [f"default/{name}"]})
    will = json.dumps({"event_id": "w", "state": "offline"})
    with listening(town.port(node)) as mapper:
        mapper.publish(topic(name, "state/update"), json.dumps({"event_id": "s", "state": "online"}))
        mapper.answer(topic(name, "state/update/result"), "s")
        for each in ("first", "second"):
            mapper.publish(f"$hw/events/mapper/{each}-{node}/state/update", says).wait_for_publish(10)
        town.site.until(lambda: town.site.ask("edgecore", node)["devicesContested"] == 1, "it is noticed")
        status = town.site.run("edgecore", "status", "--data-dir", str(town.site.directory / node)).stdout
        assert re.search(rf"contest +default/{name}: first-{node}, second-{node}", status)
        log = town.site.processes[node].log.read_text()
        assert "a mapper claims devices that another one serves, the last word counts" in log
        town.site.until(lambda: "TwoMappers" in events_of(town, name), "the Event")
        # Both are served: the last word counts.
        mapper.report(name, "55", "first's")
        mapper.report(name, "56", "second's")
        town.site.until(lambda: town.reported(name) == "56", "the last word")
        mapper.publish(f"$hw/events/mapper/first-{node}/state/update", will).wait_for_publish(10)
        town.site.until(lambda: town.site.ask("edgecore", node)["devicesContested"] == 0, "one let go")
        assert town.get("device", name)["status"]["state"] == "online"
        mapper.publish(f"$hw/events/mapper/second-{node}/state/update", will).wait_for_publish(10)
        town.site.until(lambda: town.get("device", name)["status"]["state"] == "offline", "the device is offline")
        town.site.until(lambda: "MapperGone" in events_of(town, name), "the Event")
        gone = events_of(town, name)["MapperGone"]
        assert (gone["type"], gone["count"]) == ("Warning", 1)
        assert f"second-{node}" in gone["message"]
        described = town.site.kubectl(town.kubectl, "describe", "device", name).stdout
        assert "MapperGone" in described


@pytest.mark.parametrize("node", NODES)
def test_a_device_that_goes_comes_back_and_refuses_is_told_to_who_describes_it(town: Town, node: str) -> None:
    name = f"moody-{node}"
    town.apply(device(name, "{name: temperature}, {name: setpoint, desired: {value: '40'}}", node=node))

    def setpoint() -> dict[str, Any]:
        twins = town.get("device", name).get("status", {}).get("twins", [])
        return next((twin for twin in twins if twin["propertyName"] == "setpoint"), {})

    with listening(town.port(node)) as mapper:
        town.site.until(lambda: "observedDesired" in setpoint(), "the node knows the device")
        for number, state in enumerate(("online", "offline", "online")):
            mapper.publish(topic(name, "state/update"), json.dumps({"event_id": f"s{number}", "state": state}))
            mapper.answer(topic(name, "state/update/result"), f"s{number}")
        version = int(setpoint()["observedDesired"]["metadata"]["version"])

        def say(event_id: str, **entry: Any) -> dict[str, Any]:
            entry |= {"expected_version": {"cloud": version, "edge": 0}}
            mapper.publish(topic(name, UPDATE), json.dumps({"event_id": event_id, "twin": {"setpoint": entry}}))
            return mapper.answer(topic(name, ANSWERS[UPDATE]), event_id)

        # As a mapper says it: what the device is like, and why it does not become what is desired.
        answer = say("no", actual={"value": "20"}, problem="the child lock is on")
        assert answer["twin"]["setpoint"]["problem"] == "the child lock is on"
        town.site.until(lambda: setpoint().get("sync") == "rejected", "the refusal")
        assert setpoint()["reason"] == "the child lock is on"
        synced = town.condition(name, "Synced")
        assert (synced["status"], synced["reason"]) == ("False", "Rejected")
        assert town.condition(name)["status"] == "True", "the desired value itself is a valid one"
        told = {"DeviceOffline", "DeviceOnline", "DesiredRejected"}
        town.site.until(lambda: told <= events_of(town, name).keys(), "the Events")
        described = town.site.kubectl(town.kubectl, "describe", "device", name).stdout
        for reason in told:
            assert re.search(rf"(Normal|Warning) +{reason} ", described)
        assert 'setpoint: the device does not take "40": the child lock is on' in described

        too_long = say("long", problem="x" * 1025)
        assert (too_long["code"], "problem is longer than 1024 bytes" in too_long["reason"]) == (400, True)
        say("yes", actual={"value": "40"})
        town.site.until(lambda: setpoint().get("sync") == "synced", "it obeys after all")
    town.site.kubectl(town.kubectl, "delete", "device", name, "--wait=false")


def test_a_device_that_flaps_and_a_wish_that_is_refused_are_few_events(town: Town) -> None:
    name = "flapping"
    town.apply(device(name, node="edge-2"))
    with listening(town.port("edge-2")) as mapper:

        def is_known() -> bool:
            mapper.publish(topic(name, "twin/get"), json.dumps({"event_id": "known"}))
            return "code" not in mapper.answer(topic(name, "twin/get/result"), "known")

        town.site.until(is_known, "the device is there, whichever others are still or not yet gone")
        for number in range(40):
            state = ("online", "offline")[number % 2]
            mapper.publish(topic(name, "state/update"), json.dumps({"event_id": f"f{number}", "state": state}))
            mapper.answer(topic(name, "state/update/result"), f"f{number}")
    town.apply(device(name, "{name: temperature}, {name: setpoint, desired: {value: '999'}}", node="edge-2"))
    town.site.until(lambda: "DesiredRejected" in events_of(town, name), "the refusal")
    assert "999 is above the model's maximum of 60" in events_of(town, name)["DesiredRejected"]["message"]
    found = town.get("events", "--field-selector", f"involvedObject.name={name},reason=DeviceOffline")["items"]
    assert len(found) == 1, "the next would come after a minute, with a count"
    town.site.kubectl(town.kubectl, "delete", "device", name, "--wait=false")


def test_the_history_of_a_device_is_drawn_with_edgecore_running_and_stopped(town: Town) -> None:
    node, name = "edge-2", ours("edge-2")
    where = ("--data-dir", str(town.site.directory / node))
    with listening(town.port(node)) as mapper:
        for value in ("10", "40"):
            mapper.report(name, value, f"h{value}")
            mapper.answer(topic(name, ANSWERS[UPDATE]), f"h{value}")
        mapper.report(name, "40", "again")

    def history(*flags: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        answer = town.site.run("edgecore", "device", "history", *flags, *where, check=False)
        assert answer.returncode == code, answer.stderr
        return answer

    running = history(name, "temperature")
    assert running.stdout.startswith(f"temperature of default/{name}: 40\n")
    assert re.search(r"(?m)^ *[0-9]+ \|.*[*\u2022]", running.stdout)
    facts = json.loads(history(name, "temperature", "-o", "json").stdout)
    assert facts["samples"][-1][1] == "40"
    assert facts["present"]["value"] == "40"
    assert "there is something of: " in history(name, "nothing", code=1).stderr
    assert "has reported nothing" in history("nobody", "temperature", "-n", "other", code=1).stderr
    assert "no duration" in history(name, "temperature", "--since", "soon", code=2).stderr
    town.site.processes[node].kill()
    stopped = json.loads(history(name, "temperature", "-o", "json").stdout)
    assert stopped == facts
    town.start_edge(node)


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize(
    "count",
    [2000, pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(0)])],
    ids=["2k", "100k"],
)
def test_inputs_that_are_almost_right_stop_nothing_and_no_report_beside_them_is_lost(
    town: Town, node: str, count: int
) -> None:
    town.apply("".join(device(f"{name}-{node}", node=node) for name in ("fuzzed", "other")))
    inputs = iter(MqttFuzz(count))
    with listening(town.port(node)) as mapper:
        for number in range(0, count, BETWEEN):
            for on, payload, _ in itertools.islice(inputs, BETWEEN):
                place = re.sub("default/(fuzzed|other)", rf"default/\1-{node}", on)
                if place and not set(place) & set("+#\0"):  # those are the broker's business
                    mapper.publish(place, payload)
            # The answer also says that what came before was dealt with: nothing piles up.
            mapper.report(ours(node), str(number % 100), f"good{number}")
            assert "code" not in mapper.answer(topic(ours(node), ANSWERS[UPDATE]), f"good{number}"), number
            mapper.heard.clear()
        mapper.report(ours(node), "77", "last")
        assert "code" not in mapper.answer(topic(ours(node), ANSWERS[UPDATE]), "last")
    town.site.until(lambda: town.reported(ours(node)) == "77", "the last good report is in the cloud")
    assert town.site.processes[node].is_running()
    assert "Traceback" not in town.site.processes[node].log.read_text()
    town.site.kubectl(town.kubectl, "delete", "device", f"fuzzed-{node}", f"other-{node}", "--wait=false")
