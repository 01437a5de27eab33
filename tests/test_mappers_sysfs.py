"""The sysfs driver on a tree that a process of its own plays."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devicetwin.messages import DeviceConfig, DeviceId, PropertyConfig, ProtocolConfig
from mappers.driver import BadConfig, Device, DeviceSilent, Property, Reading, WriteRefused
from mappers.sysfs import Sysfs
from tests.harness.devices import a_device, a_property
from tests.harness.fake_sysfs import BAD_CRC, SENSOR
from tests.harness.mapper import MapperProcess
from tests.harness.mosquitto import Mosquitto
from tests.harness.mqtt_edge import MqttEdge
from tests.harness.server import Server

PUMP = a_property("BOOLEAN", writable=True, chip="board", gpio=3)
FLOW = a_property("BOOLEAN", gpio=514)
"""Joined to the pump's pin by a wire."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "sys"


@pytest.fixture
def kernel(root: Path) -> Iterator[Server]:
    with Server("tests.harness.fake_sysfs", str(root)) as one:
        yield one


def device(root: Path, **properties: Property) -> Device:
    return a_device({"root": str(root)}, **properties)


async def until(driver: Sysfs, name: str, condition: Callable[[object], object]) -> None:
    """Read until it is so. What the kernel does at once takes its player some milliseconds."""
    value: object = None
    for _ in range(1000):
        try:
            reading = (await driver.read([name])).get(name)
        except DeviceSilent:
            reading = None
        value = reading.value if reading is not None else None
        if condition(value):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{name} is {value}")


async def test_an_output_switches_what_an_input_sees(kernel: Server, root: Path) -> None:
    driver = Sysfs(device(root, pump=PUMP, flow=FLOW))
    await driver.connect()
    await until(driver, "flow", lambda value: value is False)
    await until(driver, "pump", lambda value: value is False)
    await driver.write("pump", True)
    await until(driver, "flow", lambda value: value is True)
    assert await driver.read(["pump", "flow"]) == {"pump": Reading(True), "flow": Reading(True)}
    await driver.close()


async def test_a_pump_that_runs_is_not_stopped_by_a_mapper_that_starts(kernel: Server, root: Path) -> None:
    driver = Sysfs(device(root, pump=PUMP, flow=FLOW))
    await driver.connect()
    await until(driver, "pump", lambda value: value is False)
    await driver.write("pump", True)
    await until(driver, "flow", lambda value: value is True)
    await driver.close()
    successor = Sysfs(device(root, pump=PUMP, flow=FLOW))
    await successor.connect()
    for _ in range(10):
        assert await successor.read(["pump", "flow"]) == {"pump": Reading(True), "flow": Reading(True)}
    await successor.close()


async def test_an_input_that_becomes_an_output_keeps_its_level(kernel: Server, root: Path) -> None:
    pump = Sysfs(device(root, pump=PUMP))
    await pump.connect()
    await until(pump, "pump", lambda value: value is False)
    await pump.write("pump", True)
    flow = Sysfs(device(root, flow=FLOW))
    await until(flow, "flow", lambda value: value is True)
    now_output = Sysfs(device(root, flow=a_property("BOOLEAN", writable=True, gpio=514)))
    await until(now_output, "flow", lambda value: value is True)
    assert (root / "class/gpio/gpio514/direction").read_text() == "out\n"


async def test_a_low_level_may_mean_on(kernel: Server, root: Path) -> None:
    relay = a_property("INT", writable=True, gpio=515, activeLow=True)
    driver = Sysfs(device(root, relay=relay))
    await driver.connect()
    await until(driver, "relay", lambda value: value == 1)  # the pin was low, so it is on, and stays so
    await driver.write("relay", 0)
    flow = Sysfs(device(root, flow=FLOW))
    await until(flow, "flow", lambda value: value is True)
    assert await driver.read(["relay"]) == {"relay": Reading(0)}


async def test_a_temperature_is_read_and_a_wrong_checksum_is_none(
    kernel: Server, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Sysfs(device(root, flow=FLOW, inside=a_property("FLOAT", w1=SENSOR)))
    await driver.connect()
    await until(driver, "flow", lambda value: value is False)
    assert await driver.read(["inside"]) == {"inside": Reading(23.125)}
    (root / "bus/w1/devices" / SENSOR / "w1_slave").write_text(BAD_CRC)
    assert await driver.read(["inside"]) == {}
    told = [vars(line)["reason"] for line in caplog.records if vars(line).get("property") == "inside"]
    assert told == ["the checksum is wrong: look at the cable, its length and the pull-up resistor"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("w1", f"there is no 1-wire sensor 28-0000; there are: {SENSOR}. Look at its cable"),
        ("chip", 'there is no GPIO chip "bord"; there are: board'),
        ("number", "GPIO 9 is not there yet though it was exported"),
    ],
)
async def test_what_is_not_there_is_told_with_what_is(kernel: Server, root: Path, name: str, words: str) -> None:
    properties = {
        "w1": a_property("FLOAT", w1="28-0000"),
        "chip": a_property("INT", gpio=1, chip="bord"),
        "number": a_property("INT", gpio=9),
    }
    driver = Sysfs(device(root, **{name: properties[name]}))
    await driver.connect()
    with pytest.raises(DeviceSilent, match=f"no property can be read; {name}: {words}"):
        await driver.read([name])


async def test_a_machine_without_sysfs_is_told_what_it_lacks(root: Path) -> None:
    with pytest.raises(DeviceSilent, match=f"{root} is not there: look at protocol.configData.root"):
        await Sysfs(device(root, pump=PUMP)).connect()
    root.mkdir()
    driver = Sysfs(device(root, pin=a_property("INT", gpio=1)))
    await driver.connect()
    with pytest.raises(DeviceSilent, match=r"pin: .*class/gpio is not there: the kernel needs CONFIG_GPIO_SYSFS"):
        await driver.read(["pin"])


async def test_a_pin_that_must_not_be_exported_is_told_how_to_get_it(root: Path) -> None:
    (root / "class/gpio").mkdir(parents=True)
    driver = Sysfs(device(root, pin=a_property("INT", gpio=5000)))
    await driver.connect()
    with pytest.raises(DeviceSilent, match=r"GPIO 5000 cannot be exported .*: write 5000 into .*/export as root"):
        await driver.read(["pin"])
    # A file of the real kernel that refuses the number as sysfs refuses one that is no pin.
    (root / "class/gpio/export").symlink_to("/proc/self/oom_score_adj")
    with pytest.raises(DeviceSilent, match="there is no GPIO 5000; set `chip`"):
        await driver.read(["pin"])


async def test_a_level_that_is_none_is_told(kernel: Server, root: Path) -> None:
    driver = Sysfs(device(root, flow=FLOW))
    await driver.connect()
    await until(driver, "flow", lambda value: value is False)
    kernel.kill()
    (root / "class/gpio/gpio514/value").write_text("warm\n" * 10_000)
    with pytest.raises(DeviceSilent, match='flow: GPIO 514 has the level "warm'):
        await driver.read(["flow"])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("flow", True, "flow is an input: visitors.configData.direction must be out"),
        ("inside", 3.0, "inside is an input"),
        ("relay", 2, "relay can be 0 or 1 only"),
        ("away", 1, 'away: there is no GPIO chip "bord"'),
    ],
)
async def test_a_refused_write_names_the_property_and_the_reason(
    kernel: Server, root: Path, name: str, value: bool | int | float, words: str
) -> None:
    driver = Sysfs(
        device(
            root,
            flow=FLOW,
            inside=a_property("FLOAT", w1=SENSOR),
            relay=a_property("INT", writable=True, gpio=515),
            away=a_property("INT", writable=True, gpio=1, chip="bord"),
        )
    )
    await driver.connect()
    with pytest.raises(WriteRefused, match=words):
        await driver.write(name, value)


@pytest.mark.parametrize(
    ("pin", "words"),
    [
        (a_property("INT"), "pin: visitors.configData.gpio or .w1, one of the two"),
        (a_property("INT", gpio=1, w1=SENSOR), "gpio or .w1, one of the two"),
        (a_property("INT", gpio="17"), "gpio must be a whole number"),
        (a_property("INT", gpio=-1), "gpio must be from 0"),
        (a_property("INT", gpio=1, direction="up"), "direction must be in or out"),
        (a_property("INT", gpio=1, activeLow="yes"), "activeLow must be true or false"),
        (a_property("INT", gpio=1, activelow=True), "activelow is not known to this driver"),
        (a_property("FLOAT", gpio=1), "pin: a GPIO must be BOOLEAN or INT in the DeviceModel, not FLOAT"),
        (a_property("INT", w1=SENSOR), "pin: a temperature must be FLOAT or DOUBLE"),
        (a_property("FLOAT", writable=True, w1=SENSOR), "a temperature must be .* ReadOnly"),
        (a_property("FLOAT", w1="../../x"), "w1 must be a sensor such as 28-0316a2794bff"),
        (a_property("FLOAT", w1=SENSOR, chip="board"), "chip is not known to this driver"),
    ],
)
def test_a_property_that_cannot_be_is_refused(pin: Property, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        Sysfs(a_device({}, pin=pin))


@pytest.mark.parametrize(
    ("settings", "words"), [({"root": "sys"}, "root must be an absolute path"), ({"rot": "/sys"}, "rot is not known")]
)
def test_a_device_that_cannot_be_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadConfig, match=f"protocol.configData.{words}"):
        Sysfs(a_device(settings, pump=PUMP))


async def test_the_mapper_serves_pins_over_a_reboot_of_what_they_are_on(
    kernel: Server, root: Path, tmp_path: Path
) -> None:
    greenhouse = DeviceId("default", "greenhouse")

    def a_config(name: str, kind: str, *, writable: bool = False, **settings: object) -> PropertyConfig:
        return PropertyConfig(name, kind, writable=writable, collect_cycle_ms=50)._replace(
            visitors=ProtocolConfig("sysfs", settings)
        )

    properties = (
        a_config("pump", "BOOLEAN", writable=True, gpio=515),
        a_config("flow", "BOOLEAN", gpio=514),
        a_config("inside", "FLOAT", w1=SENSOR),
    )
    config = DeviceConfig(greenhouse, "edge-1", "greenhouse", ProtocolConfig("sysfs", {"root": str(root)}), properties)
    with (
        Mosquitto() as broker,
        MqttEdge(broker.port) as edge,
        MapperProcess("run", "sysfs", "--mqtt", f"mqtt://127.0.0.1:{broker.port}", directory=tmp_path) as mapper,
    ):
        edge.configure(config)
        await edge.until(
            lambda: edge.reported(greenhouse) == {"pump": "false", "flow": "false", "inside": "23.125"}, "the report"
        )
        edge.desire(greenhouse, 1, pump="true")
        await edge.until(lambda: edge.reported(greenhouse)["flow"] == "true", "the flow")
        kernel.kill()
        kernel.start()
        # Both, for a wish for what the mapper takes the pump to do already is answered by a reading and not written.
        rebooted = {"pump": "false", "flow": "false"}
        await edge.until(lambda: rebooted.items() <= edge.reported(greenhouse).items(), "the reboot")
        edge.desire(greenhouse, 2, pump="true")
        await edge.until(lambda: edge.reported(greenhouse)["flow"] == "true", "the flow again")
        assert mapper.stop() == 0
        assert [line for line in mapper.log() if line["level"] in ("stray", "error", "critical")] == []
