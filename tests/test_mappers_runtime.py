"""The mapper as a process: real mosquitto, real signals, an edge played by a plain MQTT client."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devicetwin.messages import Channel, DeviceConfig, DeviceId, PropertyConfig, ProtocolConfig
from mappers.runtime import main
from tests.harness.mapper import MapperProcess
from tests.harness.mosquitto import Mosquitto
from tests.harness.mqtt_edge import MqttEdge

ROOT = Path(__file__).resolve().parent.parent
THERMOSTAT = DeviceId("default", "thermostat")
HOST = DeviceId("default", "host")


Start = Callable[..., MapperProcess]


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    with Mosquitto() as one:
        yield one


@pytest.fixture
def edge(broker: Mosquitto) -> Iterator[MqttEdge]:
    with MqttEdge(broker.port) as one:
        yield one


@pytest.fixture
def start(broker: Mosquitto, tmp_path: Path) -> Iterator[Start]:
    """Starts mappers on the broker and ends what is left of them."""
    started: list[MapperProcess] = []

    def start_one(*arguments: str) -> MapperProcess:
        url = f"mqtt://127.0.0.1:{broker.port}"
        started.append(MapperProcess("run", *arguments, "--mqtt", url, directory=tmp_path))
        return started[-1]

    yield start_one
    for each in started:
        each.kill()


def thermostat(
    device: DeviceId = THERMOSTAT, *, protocol: str = "simulated", node: str = "edge-1", **settings: object
) -> DeviceConfig:
    def a_property(name: str, kind: str = "FLOAT", **more: object) -> PropertyConfig:
        return PropertyConfig(name, kind, collect_cycle_ms=50)._replace(**more)  # type: ignore[arg-type]

    return DeviceConfig(
        id=device,
        node=node,
        model="thermostat",
        protocol=ProtocolConfig(protocol, {"timeConstant": 5, **settings}),
        properties=(
            a_property("setpoint", writable=True, minimum="5", maximum="30"),
            a_property("temperature"),
            a_property("heater", "BOOLEAN"),
        ),
    )


def host() -> DeviceConfig:
    names = ("load1", "cpuPercent", "memoryUsedPercent", "diskUsedPercent", "temperature")
    properties = [PropertyConfig(name, "FLOAT", collect_cycle_ms=50) for name in names]
    properties.append(PropertyConfig("uptime", "INT", collect_cycle_ms=50))
    properties.append(PropertyConfig("samplingInterval", "FLOAT", writable=True, minimum="0.05", collect_cycle_ms=50))
    return DeviceConfig(HOST, "edge-1", "host", ProtocolConfig("host", {"samplingInterval": 3600}), tuple(properties))


async def test_a_desired_setpoint_warms_the_simulated_room(edge: MqttEdge, start: Start) -> None:
    edge.configure(thermostat(initialTemperature=18, setpoint=18))
    edge.desire(THERMOSTAT, 1, setpoint="24")  # before the mapper starts: it must ask
    start("simulated")
    await edge.until(lambda: edge.reported(THERMOSTAT).get("setpoint") == "24", "the setpoint")
    await edge.until(lambda: edge.reported(THERMOSTAT)["heater"] == "true", "the heater")
    await edge.until(lambda: float(edge.reported(THERMOSTAT)["temperature"]) > 19, "warmth")
    assert edge.answered(THERMOSTAT, "setpoint") == 1
    assert edge.states_of(THERMOSTAT) == ["online"]
    edge.desire(THERMOSTAT, 2, setpoint="99")
    await edge.until(lambda: edge.answered(THERMOSTAT, "setpoint") == 2, "an answer to nonsense")
    assert float(edge.reported(THERMOSTAT)["setpoint"]) == 24


async def test_the_host_is_read_and_its_sampling_interval_obeyed(edge: MqttEdge, start: Start) -> None:
    edge.configure(host())
    start("host")
    await edge.until(lambda: "uptime" in edge.reported(HOST), "the first report")
    values = edge.reported(HOST)
    assert set(values) >= {"load1", "cpuPercent", "memoryUsedPercent", "diskUsedPercent", "samplingInterval"}
    assert 0 <= float(values["memoryUsedPercent"]) <= 100
    edge.desire(HOST, 1, samplingInterval="0.05")
    await edge.until(lambda: edge.reported(HOST)["samplingInterval"] == "0.05", "the interval")
    heard = len(edge.updates)
    await edge.until(lambda: len(edge.updates) > heard + 3, "the machine's life, sampled quickly")


async def test_devices_come_change_and_go_while_it_runs(edge: MqttEdge, start: Start) -> None:
    second = DeviceId("default", "second")
    mapper = start("simulated", "--name", "one")
    await edge.until(lambda: edge.mappers, "the mapper")
    edge.configure(thermostat())
    await edge.until(lambda: edge.reported(THERMOSTAT), "the first device")
    edge.configure(thermostat(second))
    await edge.until(lambda: edge.reported(second), "the second device")
    await edge.until(lambda: edge.mappers[-1][1].devices == (second, THERMOSTAT), "the mapper's list")

    edge.configure(thermostat(second, initialTemperature=-5, setpoint=5))
    await edge.until(lambda: float(edge.reported(second)["temperature"]) < 5, "the change")

    edge.remove(second)
    await edge.until(lambda: edge.mappers[-1][1].devices == (THERMOSTAT,), "the shorter list")
    assert edge.states_of(second) == ["online"]

    edge.configure(thermostat(THERMOSTAT, protocol="modbus"))
    await edge.until(lambda: edge.mappers[-1][1].devices == (), "the empty list")
    assert edge.states_of(THERMOSTAT) == ["online", "offline"]
    assert mapper.stop() == 0


async def test_only_devices_that_are_meant_are_served(edge: MqttEdge, start: Start) -> None:
    elsewhere, other = DeviceId("default", "elsewhere"), DeviceId("default", "other")
    edge.configure(thermostat(other))
    edge.configure(thermostat(elsewhere, node="edge-2"))
    edge.configure(host())
    edge.configure(thermostat())
    start("simulated", "--node", "edge-1", "--device", "default/thermostat", "--device", "default/elsewhere")
    await edge.until(lambda: edge.reported(THERMOSTAT), "the device")
    await edge.until(lambda: edge.mappers[-1][1].devices == (THERMOSTAT,), "the list")
    assert {heard.device for heard in edge.updates} == {THERMOSTAT}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_cleanly(edge: MqttEdge, start: Start, number: signal.Signals) -> None:
    edge.configure(thermostat())
    mapper = start("simulated", "--name", "one")
    await edge.until(lambda: edge.states_of(THERMOSTAT) == ["online"], "online")
    began = time.monotonic()
    assert mapper.stop(number) == 0
    assert time.monotonic() - began < 5
    await edge.until(lambda: edge.mappers[-1][1].state == "offline", "the mapper's goodbye")
    await edge.until(lambda: edge.states_of(THERMOSTAT) == ["online", "offline"], "the device's last word")
    assert not mapper.said("a bug: no code expected this exception")
    assert [line for line in mapper.log() if line["level"] in ("stray", "error", "critical")] == []


async def test_killed_it_leaves_a_will_and_its_successor_takes_over(edge: MqttEdge, start: Start) -> None:
    edge.configure(thermostat())
    mapper = start("simulated", "--name", "one")
    await edge.until(lambda: edge.states_of(THERMOSTAT) == ["online"], "online")
    mapper.kill()
    await edge.until(lambda: edge.mappers[-1][1].state == "offline", "the will")
    name, will = edge.mappers[-1]
    assert (name, will.devices) == ("one", None)
    start("simulated", "--name", "one")
    await edge.until(lambda: edge.states_of(THERMOSTAT) == ["online", "online"], "the successor")
    assert (edge.mappers[-1][1].state, edge.mappers[-1][1].devices) == ("online", (THERMOSTAT,))


async def test_it_waits_for_a_broker_that_is_down(broker: Mosquitto, edge: MqttEdge, start: Start) -> None:
    edge.configure(thermostat())
    mapper = start("simulated")
    await edge.until(lambda: edge.states_of(THERMOSTAT), "online")
    edge.__exit__(None, None, None)
    broker.stop()
    await edge.until(lambda: mapper.said("connection lost, trying again"), "the loss to be told")
    await edge.until(lambda: mapper.said("broker not reachable, trying again"), "the tries to be told")
    broker.start()
    with MqttEdge(broker.port) as later:
        later.configure(thermostat())
        await later.until(lambda: later.states_of(THERMOSTAT), "online")
        await later.until(lambda: later.reported(THERMOSTAT), "a report")
        later.desire(THERMOSTAT, 1, setpoint="23")
        await later.until(lambda: later.answered(THERMOSTAT, "setpoint") == 1, "the answer")
    broker.stop()
    assert mapper.stop() == 0


async def test_what_was_deleted_while_the_connection_was_lost_is_let_go(
    broker: Mosquitto, edge: MqttEdge, start: Start
) -> None:
    second = DeviceId("default", "second")
    edge.configure(thermostat())
    edge.configure(thermostat(second))
    start("simulated")
    await edge.until(lambda: edge.reported(THERMOSTAT) and edge.reported(second), "both")
    edge.__exit__(None, None, None)
    broker.stop()
    broker.start()
    later = MqttEdge(broker.port)
    later.members = [THERMOSTAT]
    with later:
        # The mapper may ask before this edge listens; edgecore says it all again when it connects, as here.
        later.configure(thermostat())
        later.publish("$hw/events/node/edge-1/membership/get", b"{}")
        await later.until(lambda: later.mappers and later.mappers[-1][1].devices == (THERMOSTAT,), "the shorter list")


async def test_rubbish_from_the_edge_is_told_and_disturbs_nothing(edge: MqttEdge, start: Start) -> None:
    other = DeviceId("default", "other")
    edge.configure(thermostat())
    mapper = start("simulated")
    await edge.until(lambda: edge.reported(THERMOSTAT), "the device")
    for payload in (b"{", b"[]", b'{"id":"x"}', b"\xff", thermostat(other).encode(), b"null", b'{"properties":3}'):
        edge.publish(Channel.CONFIG.topic(THERMOSTAT), payload)
    for suffix in ("membership/updated", "membership/get/result"):
        edge.publish(f"$hw/events/node/edge-1/{suffix}", b"nonsense")
    edge.publish("$hw/events/device/a/b/c/config", b"{}")
    edge.desire(THERMOSTAT, 5, setpoint="25")
    await edge.until(lambda: edge.answered(THERMOSTAT, "setpoint") == 5, "the answer")
    ignored = [line for line in mapper.log() if line["message"] == "message ignored"]
    assert len(ignored) == 9


async def test_a_device_with_settings_that_cannot_be_does_not_stop_the_others(edge: MqttEdge, start: Start) -> None:
    bad = DeviceId("default", "bad")
    edge.configure(thermostat(bad, timeConstant="long"))
    edge.configure(thermostat())
    mapper = start("simulated")
    await edge.until(lambda: edge.states_of(bad) == ["unhealthy"], "the bad one's state")
    await edge.until(lambda: edge.reported(THERMOSTAT), "the good one")
    (line,) = [line for line in mapper.log() if line["level"] == "error"]
    assert line["problem"] == "protocol.configData.timeConstant must be a number"


async def test_the_driver_of_the_docs_works(edge: MqttEdge, start: Start, tmp_path: Path) -> None:
    (tmp_path / "filedriver.py").write_text((ROOT / "examples" / "mappers" / "filedriver.py").read_text())
    directory = tmp_path / "lamp"
    lamp = DeviceId("default", "lamp")
    brightness = PropertyConfig("brightness", "INT", writable=True, minimum="0", maximum="100", collect_cycle_ms=50)
    label = PropertyConfig("label", "STRING", writable=True, collect_cycle_ms=50)
    files = ProtocolConfig("files", {"directory": str(directory)})
    edge.configure(DeviceConfig(lamp, "edge-1", "lamp", files, (brightness, label)))
    start("files", "--driver", "filedriver:Files")
    await edge.until(lambda: edge.states_of(lamp) == ["offline"], "offline: there is no such directory")
    directory.mkdir()
    (directory / "brightness").write_text("7\n")
    await edge.until(lambda: edge.states_of(lamp) == ["offline", "online"], "online")
    await edge.until(lambda: edge.reported(lamp) == {"brightness": "7"}, "the first report")
    edge.desire(lamp, 1, brightness="70", label="x")
    await edge.until(lambda: edge.reported(lamp)["brightness"] == "70", "the answer")
    assert (directory / "brightness").read_text() == "70"
    assert not (directory / "label").exists()


async def test_many_devices_in_one_process(edge: MqttEdge, start: Start) -> None:
    devices = [DeviceId("default", f"t{number:03}") for number in range(200)]
    for device in devices:
        edge.configure(thermostat(device))
    start("simulated", "--name", "many")
    await edge.until(lambda: len({heard.device for heard in edge.updates}) == len(devices), "every device")
    await edge.until(lambda: edge.mappers[-1][1].devices == tuple(devices), "the list")
    assert len(edge.mappers) < 20


# --- the command line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required: COMMAND"),
        (["run", "simulated"], "required: --mqtt"),
        (
            ["run", "lamp", "--mqtt", "mqtt://x"],
            'no driver "lamp"; there are: host, http, modbus, mqtt, opcua, simulated, sysfs',
        ),
        (["run", "simulated", "--mqtt", "x:1883"], "write the broker as mqtt://HOST:PORT"),
        (["run", "simulated", "--mqtt", "mqtt://x", "--device", "lamp"], "is not <namespace>/<name>"),
        (["run", "simulated", "--mqtt", "mqtt://x", "--name", "a/b"], '"a/b" must be'),
        (["run", "lamp", "--driver", "nowhere:Lamp", "--mqtt", "mqtt://x"], "cannot be imported"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_reason(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--help"])
    assert ended.value.code == 0
    assert "mapper run simulated --mqtt mqtt://127.0.0.1:1883" in capsys.readouterr().out


def test_the_drivers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drivers"]) == 0
    assert capsys.readouterr().out.split() == ["host", "http", "modbus", "mqtt", "opcua", "simulated", "sysfs"]
