"""The MQTT driver with devices in processes of their own, on a real mosquitto."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from componentbase.brokers import BrokerAddress
from componentbase.endpoints import Endpoint
from devicetwin.messages import DeviceConfig, DeviceId, PropertyConfig, ProtocolConfig
from mappers.driver import BadConfig, Device, DeviceSilent, Property, Reading, Sink, WriteRefused
from mappers.mqtt import Message, connect
from mappers.mqttdevice import MqttDevice
from mappers.sink import Word
from tests.harness.devices import a_device, a_property
from tests.harness.mapper import MapperProcess
from tests.harness.mosquitto import Mosquitto
from tests.harness.mqtt_edge import MqttEdge
from tests.harness.server import Server
from tests.harness.tls import BrokerFiles

FLOOD = 800
"""mosquitto holds 1,000 messages for a client, and drops what comes later."""
MODULE = "tests.harness.mqtt_device"

TASMOTA = {"topic": "plug", "availabilityTopic": "tele/{topic}/LWT"}
PLUG: dict[str, dict[str, object]] = {
    "power": {
        "state": ["stat/{topic}/RESULT", "tele/{topic}/STATE"],
        "pointer": "/POWER",
        "values": {"true": "ON", "false": "OFF"},
        "command": "cmnd/{topic}/POWER",
        "ask": "cmnd/{topic}/State",
    },
    "dimmer": {
        "state": ["stat/{topic}/RESULT", "tele/{topic}/STATE"],
        "pointer": "/Dimmer",
        "command": "cmnd/{topic}/Dimmer",
        "ask": "cmnd/{topic}/State",
    },
    "watts": {"state": "tele/{topic}/SENSOR", "pointer": "/ENERGY/Power"},
}
KINDS = {"power": "BOOLEAN", "dimmer": "INT", "watts": "FLOAT"}

ZIGBEE = {"name": "lamp", "availabilityTopic": ["zigbee2mqtt/bridge/state", "zigbee2mqtt/{name}/availability"]}


def plug(broker: Mosquitto, **settings: object) -> Device:
    properties = {name: a_property(KINDS[name], writable="command" in each, **each) for name, each in PLUG.items()}
    return a_device({"broker": f"mqtt://127.0.0.1:{broker.port}", **TASMOTA, **settings}, **properties)


def lamp(broker: Mosquitto) -> Device:
    common = {"state": "zigbee2mqtt/{name}", "command": "zigbee2mqtt/{name}/set", "timePointer": "/last_seen"}
    asks = {"ask": "zigbee2mqtt/{name}/get", "askPayload": '{"state": ""}'}
    return a_device(
        {"broker": f"mqtt://127.0.0.1:{broker.port}", **ZIGBEE},
        on=a_property(
            "BOOLEAN", writable=True, pointer="/state", payload='{"state": {json}}', **common, **asks
        )._replace(),
        brightness=a_property("INT", writable=True, pointer="/brightness", payload='{"brightness": {json}}', **common),
        effect=a_property("STRING", state="zigbee2mqtt/{name}", pointer="/effect"),
    )


def room(broker: Mosquitto, settings: dict[str, object] | None = None, **properties: Property) -> Device:
    return a_device({"broker": f"mqtt://127.0.0.1:{broker.port}", **(settings or {})}, **properties)


class Ears:
    """The device's task, as far as a driver sees it."""

    def __init__(self, driver: MqttDevice, names: list[str], *, at_once: bool) -> None:
        """at_once: it listens to each word, whatever comes right after it; else to what there is when it looks."""
        self.driver = driver
        self.sink = Sink(names, self.listen if at_once else lambda: None)
        self.words: list[Word] = []
        self.values: dict[str, Reading | None] = {}
        self.away: str | None = "never heard of"
        self.lost: Exception | None = None

    def listen(self) -> None:
        if self.lost is not None or not self.sink.has_word():
            return
        try:
            word = self.sink.collect()
        except DeviceSilent as exc:
            self.lost = exc
            return
        self.words.append(word)
        self.values.update(word.readings)
        self.away = word.away

    async def until(self, condition: Callable[[], object], what: str) -> None:
        for _ in range(1500):
            self.listen()
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"waited for {what} in vain; {self.values}, away: {self.away}, lost: {self.lost}")

    def value(self, name: str) -> object:
        reading = self.values.get(name)
        return None if reading is None else reading.value


@asynccontextmanager
async def heard(device: Device, *, at_once: bool = False) -> AsyncIterator[Ears]:
    driver = MqttDevice(device)
    ears = Ears(driver, list(device.properties), at_once=at_once)
    try:
        await driver.connect()
        assert set(await driver.subscribe(ears.sink)) == set(device.properties)
        yield ears
    finally:
        await driver.close()


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as one:
        yield one


async def say(broker: Mosquitto, topic: str, payload: bytes, *, retain: bool = False) -> None:
    address = BrokerAddress(Endpoint("127.0.0.1", broker.port))
    async with connect(address, "somebody", Message("wills/somebody", b"")) as connection:
        connection.publish(Message(topic, payload, retain))


# --- Tasmota


async def test_a_tasmota_plug_is_heard_and_obeys(broker: Mosquitto) -> None:
    with Server(MODULE, "tasmota", str(broker.port)):
        async with heard(plug(broker)) as ears:
            await ears.until(lambda: ears.value("power") is False, "the answer to the question")
            assert ears.value("dimmer") == 30
            await ears.until(lambda: ears.value("watts"), "telemetry")
            await ears.driver.write("power", True)
            await ears.until(lambda: ears.value("power") is True, "the plug's own word")
            await ears.driver.write("dimmer", 70)
            await ears.until(lambda: ears.value("dimmer") == 70, "the dimmer")
            assert (await ears.driver.read(["power", "dimmer"])) == {"power": Reading(True), "dimmer": Reading(70)}
            assert ears.away is None


async def test_a_plug_that_dies_is_gone_by_its_last_will_and_comes_back(broker: Mosquitto) -> None:
    with Server(MODULE, "tasmota", str(broker.port)) as device:
        async with heard(plug(broker)) as ears:
            await ears.until(lambda: ears.value("watts"), "telemetry")
            device.kill()
            await ears.until(lambda: ears.away, "the last will")
            assert ears.away == "tele/plug/LWT says that it is offline"
            assert await ears.driver.read(["watts"]) == {}, "what it said before is not what it will be"
            ears.values.clear()
            device.start()
            await ears.until(lambda: ears.away is None and ears.value("power") is False, "the plug again")


async def test_a_plug_that_was_dead_before_is_never_online(broker: Mosquitto) -> None:
    await say(broker, "tele/plug/STATE", b'{"POWER": "ON"}', retain=True)
    await say(broker, "tele/plug/LWT", b"Offline", retain=True)
    async with heard(plug(broker)) as ears:
        await ears.until(lambda: ears.away == "tele/plug/LWT says that it is offline", "the will")
        assert ears.values == {}
        await say(broker, "tele/plug/LWT", b"Online")
        await ears.until(lambda: ears.value("power") is True, "what was kept by the broker")


# --- Zigbee2MQTT


async def test_a_lamp_behind_zigbee2mqtt_is_asked_heard_and_obeys(broker: Mosquitto) -> None:
    with Server(MODULE, "zigbee", str(broker.port)):
        async with heard(lamp(broker)) as ears:
            await ears.until(lambda: ears.values, "the answer to the question")
            assert ears.values == {
                "on": Reading(False, 1_700_000_000_000),
                "brightness": Reading(100, 1_700_000_000_000),
                "effect": None,
            }
            await ears.driver.write("on", True)
            await ears.driver.write("brightness", 300)
            await ears.until(lambda: ears.value("on") is True and ears.value("brightness") == 254, "what it took")


async def test_a_lamp_is_gone_when_it_or_its_gateway_is(broker: Mosquitto) -> None:
    with Server(MODULE, "zigbee", str(broker.port)) as gateway:
        async with heard(lamp(broker)) as ears:
            await ears.until(lambda: ears.away is None, "the lamp")
            await say(broker, "zigbee2mqtt/lamp/unplug", b"")
            await ears.until(lambda: ears.away == "zigbee2mqtt/lamp/availability says that it is offline", "the lamp's")
            gateway.kill()
            await ears.until(lambda: ears.away == "zigbee2mqtt/bridge/state says that it is offline", "the gateway's")
            gateway.start()
            await ears.until(lambda: ears.away is None, "the lamp again")


# --- others


async def test_plain_texts_are_values_too(broker: Mosquitto) -> None:
    with Server(MODULE, "sensor", str(broker.port)):
        temperature = a_property("FLOAT", state="room/temperature", format="text")
        async with heard(room(broker, temperature=temperature)) as ears:
            assert ears.away is not None
            await ears.until(lambda: ears.value("temperature") == 21.5, "what the broker kept")
            await say(broker, "room/say/temperature", b"22")
            await ears.until(lambda: ears.value("temperature") == 22.0, "the next")


async def test_what_cannot_be_read_is_told_once_and_disturbs_nothing(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    level = a_property("INT", state="room/level", pointer="/level")
    other = a_property("INT", state="room/level", pointer="/other")
    async with heard(room(broker, {"maxBytes": 100}, level=level, other=other)) as ears:
        for payload in (b"7", b'{"level": "high", "other": 1}', b"{", b'{"other": 2}', b"x" * 101, b'{"other": 3}'):
            await say(broker, "room/level", payload)
        await ears.until(lambda: ears.value("other") == 3, "the other")
        assert ears.value("level") is None
        (told, *more) = [line for line in caplog.records if vars(line).get("property") == "level"]
        assert more == []
        assert vars(told)["reason"].startswith('room/level: "high" is not a number')
    async with heard(room(broker, {"maxBytes": 100}, level=level)):
        caplog.clear()
        await say(broker, "room/level", b"x" * 101)
        await ears.until(lambda: caplog.records, "the warning")
        assert vars(caplog.records[0])["reason"] == "room/level: a message of 101 bytes, and maxBytes is 100"


async def test_a_device_that_says_nothing_for_too_long_is_gone_until_it_speaks(broker: Mosquitto) -> None:
    level = a_property("INT", state="room/level", ask="room/ask")
    async with heard(room(broker, {"silentAfter": 0.2}, level=level), at_once=True) as ears:
        await say(broker, "room/level", b"7")
        await ears.until(lambda: Word({"level": Reading(7)}, None) in ears.words, "a word")
        await ears.until(lambda: ears.away == "nothing has come from it for 0.2 s", "the silence")
        assert await ears.driver.read(["level"]) == {}
        await say(broker, "room/level", b"8")
        await ears.until(lambda: Word({"level": Reading(8)}, None) in ears.words, "the next word")


async def test_a_device_that_speaks_only_when_asked_is_asked_again_after_a_silence(broker: Mosquitto) -> None:
    level = a_property("INT", state="room/level", ask="room/ask", askPayload="{property}?")
    address = BrokerAddress(Endpoint("127.0.0.1", broker.port))
    async with connect(address, "watcher", Message("wills/watcher", b"")) as watcher:
        watcher.subscribe(["room/ask"])
        async with heard(room(broker, {"silentAfter": 0.1}, level=level)), asyncio.timeout(10):
            for _ in range(3):
                assert await watcher.receive() == Message("room/ask", b"level?")


async def test_what_can_only_be_commanded_is_reported_as_it_was_sent(broker: Mosquitto) -> None:
    scene = a_property("STRING", writable=True, command="room/scene", retain=True)
    async with heard(room(broker, scene=scene)) as ears:
        await ears.until(lambda: ears.away is None, "there is nothing to wait for")
        await ears.driver.write("scene", "evening")
        await ears.until(lambda: ears.value("scene") == "evening", "the word")
        assert await ears.driver.read(["scene"]) == {"scene": Reading("evening")}
    address = BrokerAddress(Endpoint("127.0.0.1", broker.port))
    async with connect(address, "watcher", Message("wills/watcher", b"")) as watcher, asyncio.timeout(10):
        watcher.subscribe(["room/scene"])
        assert await watcher.receive() == Message("room/scene", b"evening", retain=True)


async def test_a_value_without_a_word_is_refused_with_its_property(broker: Mosquitto) -> None:
    level = a_property("STRING", writable=True, command="room/level", values={"low": 1})
    async with heard(room(broker, level=level)) as ears:
        with pytest.raises(WriteRefused, match="level: `values` has no word for high"):
            await ears.driver.write("level", "high")


async def test_a_broker_may_ask_for_tls_and_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLEAD_SECRETS", str(tmp_path))
    (tmp_path / "room").write_text("s3cret\n")
    (tmp_path / "wrong").write_text("wr0ng\n")
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(tmp_path / "passwords"), "mapper", "s3cret"], check=True)
    files = BrokerFiles(tmp_path)
    lines = files.mosquitto(f"password_file {tmp_path / 'passwords'}", "allow_anonymous false")
    scene = a_property("STRING", writable=True, command="room/scene")
    with Mosquitto(*lines) as guarded:
        url = f"mqtts://127.0.0.1:{guarded.port}"
        settings: dict[str, object] = {"broker": url, "username": "mapper", "caFile": str(files.authority)}
        async with heard(a_device({**settings, "passwordFile": "room"}, scene=scene)) as ears:
            await ears.driver.write("scene", "evening")
        for more, words in (
            ({"passwordFile": "wrong"}, f"{url} refuses the mapper .*: look at username and passwordFile"),
            ({"passwordFile": "none"}, f"passwordFile: {tmp_path}/none: No such file"),
            ({"passwordFile": "room", "caFile": "/no/such/ca"}, "/no/such/ca: cannot be read"),
            ({"passwordFile": "room", "caFile": ""}, "certificate"),
        ):
            driver = MqttDevice(a_device({**settings, **more}, scene=scene))
            with pytest.raises(DeviceSilent, match=words) as silence:
                await driver.connect()
            await driver.close()
            assert "wr0ng" not in str(silence.value)


async def test_a_broker_that_dies_is_a_lost_device(broker: Mosquitto) -> None:
    level = a_property("INT", writable=True, state="room/level", command="room/set")
    async with heard(room(broker, level=level)) as ears:
        broker.kill()
        await ears.until(lambda: ears.lost, "the loss")
        assert str(ears.lost).startswith(f"mqtt://127.0.0.1:{broker.port}: ")
        with pytest.raises(DeviceSilent):
            await ears.driver.write("level", 3)


async def test_a_broker_that_is_not_there_is_silence() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        broker = f"mqtt://127.0.0.1:{bound.getsockname()[1]}"
        driver = MqttDevice(a_device({"broker": broker}, level=a_property("INT", state="x")))
        with pytest.raises(DeviceSilent, match=f"{broker}: Connection refused"):
            await driver.connect()
        await driver.close()


async def test_a_flood_is_held_as_one_word_of_each_property(broker: Mosquitto) -> None:
    level = a_property("INT", state="room/level")
    async with heard(room(broker, level=level)) as ears:
        address = BrokerAddress(Endpoint("127.0.0.1", broker.port))
        async with connect(address, "flood", Message("wills/flood", b"")) as flood:
            for number in range(FLOOD):
                flood.publish(Message("room/level", str(number).encode()))
        await ears.until(lambda: ears.value("level") == FLOOD - 1, "the last")


# --- settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"broker": "http://x"}, "protocol.configData.broker .*mqtt"),
        ({"broker": "mqtt://u:p4ss@x"}, "broker must not hold a name and a password"),
        ({"broker": "mqtt://u@x"}, "broker must not hold a name and a password"),
        ({"caFile": "/ca"}, "caFile is for mqtts"),
        ({"username": "u"}, "username and password .* go together"),
        ({"silentAfter": -1}, "silentAfter must be a number from 0"),
        ({"maxBytes": 0}, "maxBytes must be from 1"),
        ({"availabilityTopic": "a/#"}, "availabilityTopic must be one topic of the device"),
        ({"availabilityTopic": "{property}"}, r"availabilityTopic \{property\} is not known here"),
    ],
)
def test_a_device_that_cannot_be_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadConfig, match=words) as refused:
        MqttDevice(a_device(settings, level=a_property("INT", state="x")))
    assert "p4ss" not in str(refused.value)


@pytest.mark.parametrize(
    ("level", "words"),
    [
        (a_property("INT"), "level: visitors.configData.state is missing"),
        (a_property("INT", writable=True, state="x"), "command is missing; else the model must say ReadOnly"),
        (a_property("INT", state="x/+"), 'state must be one topic of the device, without "\\+"'),
        (a_property("INT", state="$hw/events/x"), "state must be one topic"),
        (a_property("INT", writable=True, command="$hw/events/device/a/b/twin/update"), "command must be one topic"),
        (a_property("INT", writable=True, command="{where}"), "command must be one topic"),
        (a_property("INT", state="x" * 2000), "state is a topic of more than 1024 bytes"),
        (a_property("INT", state=[f"x/{number}" for number in range(17)]), "state must be at most 16 texts"),
        (a_property("INT", state="x", pointr="/a"), "pointr is not known"),
        (a_property("INT", writable=True, command="x", payload="{v}"), r"payload \{v\} is not known here"),
        (a_property("INT", state="x", ask="a", askPayload="{value}"), r"askPayload \{value\} is not known here"),
    ],
)
def test_a_property_that_cannot_be_is_refused(level: Property, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        MqttDevice(a_device({"where": "$hw/x"}, level=level))


# --- in the mapper's process


async def test_the_mapper_serves_a_plug_on_another_broker(tmp_path: Path) -> None:
    """Plug and broker are killed, and come back."""
    plug_id = DeviceId("default", "plug")
    properties = tuple(
        PropertyConfig(name, KINDS[name], writable="command" in each, visitors=ProtocolConfig("mqtt", each))
        for name, each in PLUG.items()
    )
    with Mosquitto() as edges, Mosquitto() as devices, MqttEdge(edges.port) as edge:
        protocol = ProtocolConfig("mqtt", {"broker": f"mqtt://127.0.0.1:{devices.port}", **TASMOTA})
        edge.configure(DeviceConfig(plug_id, "edge-1", "plug", protocol, properties))
        with (
            Server(MODULE, "tasmota", str(devices.port)) as device,
            MapperProcess("run", "mqtt", "--mqtt", f"mqtt://127.0.0.1:{edges.port}", directory=tmp_path) as mapper,
        ):
            await edge.until(lambda: set(edge.reported(plug_id)) == set(PLUG), "the first report")
            assert edge.states_of(plug_id) == ["online"]
            edge.desire(plug_id, 1, power="true", dimmer="70")
            await edge.until(lambda: edge.reported(plug_id)["power"] == "true", "the power")
            await edge.until(lambda: edge.reported(plug_id)["dimmer"] == "70", "the dimmer")
            assert edge.answered(plug_id, "dimmer") == 1

            device.kill()
            await edge.until(lambda: edge.states_of(plug_id)[-1] == "offline", "the plug's last will")
            edge.desire(plug_id, 2, dimmer="71")
            device.start()
            await edge.until(lambda: edge.states_of(plug_id)[-1] == "online", "the plug again")
            await edge.until(lambda: edge.reported(plug_id)["dimmer"] == "71", "what was desired meanwhile")

            devices.kill()
            await edge.until(lambda: edge.states_of(plug_id)[-1] == "offline", "the broker's end")
            devices.start()
            device.kill()
            device.start()
            await edge.until(lambda: edge.states_of(plug_id)[-1] == "online", "the broker again")
            assert mapper.stop() == 0
            assert [line for line in mapper.log() if line["level"] in ("stray", "error", "critical")] == []
