"""The driver for Modbus, and the mapper with it, against real servers in processes of their own."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

import pytest

from apimachinery.devices import PropertyModel, PropertyType
from apimachinery.objects import JSON
from mappers.batches import Span
from mappers.driver import BadConfig, Device, DeviceSilent, Property, Reading, WriteRefused
from mappers.modbus import Modbus, modbus
from mappers.modbusline import Line, Lines
from tests.harness.cable import Cable
from tests.harness.server import Server

INT, FLOAT, BOOLEAN, STRING = PropertyType.INT, PropertyType.FLOAT, PropertyType.BOOLEAN, PropertyType.STRING

Properties = Mapping[str, tuple[PropertyType, Mapping[str, JSON]]]

HOLDING = {"register": "HoldingRegister"}
PLANT: Properties = {
    "temperature": (FLOAT, {**HOLDING, "offset": 10, "scale": 0.1}),
    "pressure": (FLOAT, {**HOLDING, "offset": 20, "limit": 2}),
    "name": (STRING, {**HOLDING, "offset": 30, "limit": 4}),
    "speed": (INT, {**HOLDING, "offset": 5}),
    "level": (INT, {"register": "InputRegister", "offset": 3}),
    "pump": (BOOLEAN, {"register": "CoilRegister", "offset": 2}),
    "door": (BOOLEAN, {"register": "DiscreteInputRegister", "offset": 1}),
    "flag": (BOOLEAN, {**HOLDING, "offset": 110, "bit": 4}),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("tests.harness.modbus_device", "tcp", "0") as one:
        yield one


def a_device(settings: Mapping[str, JSON], properties: Properties = PLANT, name: str = "plant") -> Device:
    return Device(
        f"default/{name}",
        {"timeout": 4, **settings},
        {
            name: Property(PropertyModel(name, kind, True, "", "", ""), visitors, 1.0, 60.0, True, 0.0)
            for name, (kind, visitors) in properties.items()
        },
    )


def at(server: Server, properties: Properties = PLANT, **settings: JSON) -> Device:
    return a_device({"ip": "127.0.0.1", "port": server.port, **settings}, properties)


@asynccontextmanager
async def connected(device: Device, lines: Lines | None = None) -> AsyncIterator[Modbus]:
    driver = Modbus(device, lines or Lines())
    try:
        await driver.connect()
        yield driver
    finally:
        await driver.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read from devices, request by request; the requests are made all the same."""
    spans: list[str] = []
    read = Line.read

    async def listening(self: Line, unit: int, span: Span) -> list[int]:
        spans.append(str(span))
        return await read(self, unit, span)

    monkeypatch.setattr(Line, "read", listening)
    return spans


async def test_every_table_is_read_with_its_types(server: Server) -> None:
    async with connected(at(server)) as driver:
        assert await driver.read(list(PLANT)) == {
            "temperature": Reading(21.5),
            "pressure": Reading(21.5),
            "name": Reading("FAIRLEAD"),
            "speed": Reading(5),
            "level": Reading(103),
            "pump": Reading(True),
            "door": Reading(True),
            "flag": Reading(False),
        }


async def test_only_what_is_due_is_read_and_neighbours_together(server: Server, asked: list[str]) -> None:
    properties = {f"p{address}": (INT, {**HOLDING, "offset": address}) for address in (0, 1, 2, 5, 100, 101)}
    async with connected(at(server, properties)) as driver:
        assert await driver.read(["p0", "p2"]) == {"p0": Reading(0), "p2": Reading(2)}
        await driver.read(list(properties))
    assert asked == [
        *("holding register 0", "holding register 2"),
        *("holding registers 0 to 2", "holding register 5", "holding registers 100 to 101"),
    ]


async def test_gaps_are_read_along_and_requests_kept_short_where_the_user_says_so(
    server: Server, asked: list[str]
) -> None:
    properties = {f"p{address}": (INT, {**HOLDING, "offset": address}) for address in (0, 2, 4, 6)}
    async with connected(at(server, properties, maxGap=1, maxRegisters=5)) as driver:
        assert await driver.read(list(properties)) == {f"p{address}": Reading(address) for address in (0, 2, 4, 6)}
    assert asked == ["holding registers 0 to 4", "holding register 6"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pump", False),
        ("pump", True),
        ("speed", 42),
        ("speed", 5),
        ("flag", True),
        ("name", "fairlead"),
        ("pressure", 0.7),
    ],
)
async def test_what_is_written_is_read_back(server: Server, name: str, value: bool | int | float | str) -> None:
    async with connected(at(server)) as driver:
        before = (await driver.read([name]))[name].value
        await driver.write(name, value)
        assert await driver.read([name]) == {name: Reading(value)}
        await driver.write(name, before)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("speed", 101, r"refuses 101 for speed \(holding register 5, uint16\): exception 3, illegal data value"),
        ("speed", 70000, "speed .* cannot hold 70000"),
        ("level", 1, r"level \(input register 3, uint16\) is read-only in the device; say accessMode: ReadOnly"),
        ("door", True, r"door \(discrete input 1, bool\) is read-only"),
    ],
)
async def test_a_refused_write_names_property_and_register(server: Server, name: str, value: int, words: str) -> None:
    async with connected(at(server)) as driver:
        with pytest.raises(WriteRefused, match=words):
            await driver.write(name, value)


async def test_a_property_the_device_does_not_have_is_told_once_and_disturbs_no_other(
    server: Server, asked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    properties = {f"p{address}": (INT, {**HOLDING, "offset": address}) for address in (8, 9, 11)}
    async with connected(at(server, properties, maxGap=1)) as driver:
        for _ in range(3):
            assert await driver.read(list(properties)) == {"p8": Reading(8), "p9": Reading(9)}
    # The refused batch was read singly once; after that only what can be read together is.
    assert asked[:4] == ["holding registers 8 to 11", *(f"holding register {address}" for address in (8, 9, 11))]
    assert asked[4:] == ["holding registers 8 to 9", "holding register 11"] * 2
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert vars(record)["property"] == "p11"
    assert vars(record)["reason"] == (
        "unit 1 refuses to read p11 (holding register 11, uint16): exception 2, illegal data address"
    )


async def test_a_device_of_which_nothing_can_be_read_counts_as_silent(server: Server) -> None:
    async with connected(at(server, slaveID=9)) as driver:
        with pytest.raises(DeviceSilent, match=r"no property can be read; .*: unit 9 refuses .*, device busy"):
            await driver.read(list(PLANT))


async def test_silence_names_the_unit_and_the_properties(server: Server) -> None:
    async with connected(at(server, slaveID=7, timeout=0.2)) as driver:
        with pytest.raises(DeviceSilent, match=r"no answer from unit 7 at 127\.0\.0\.1:\d+ about .*speed"):
            await driver.read(["speed"])


async def test_units_behind_one_gateway_share_its_connection(server: Server) -> None:
    lines = Lines()
    async with (
        connected(at(server, slaveID=1, timeout=0.5), lines) as one,
        connected(at(server, slaveID=2, timeout=0.5), lines) as other,
        connected(at(server, slaveID=7, timeout=0.5), lines) as dead,
    ):
        assert one._line is other._line is dead._line
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.read(["speed"]), name="read") for each in (one, other) * 10]
        assert all(task.result() == {"speed": Reading(5)} for task in tasks)
        with pytest.raises(DeviceSilent):
            await dead.read(["speed"])
        assert await other.read(["speed"]) == {"speed": Reading(5)}
    assert not lines._lines


async def test_rtu_on_a_serial_line_reads_and_writes_likewise() -> None:
    with Cable() as cable, Server("tests.harness.modbus_device", "rtu", cable.far_end):
        settings: dict[str, JSON] = {"serialPort": cable.near_end, "baudRate": "19200", "parity": "none", "slaveID": 2}
        async with connected(a_device({"communicateMode": "RTU", **settings})) as driver:
            assert (await driver.read(["temperature", "pump"])) == {
                "temperature": Reading(21.5),
                "pump": Reading(True),
            }
            await driver.write("speed", 17)
            assert await driver.read(["speed"]) == {"speed": Reading(17)}
        async with connected(a_device({"com": {**settings, "dataBits": 8, "stopBits": 1}})) as driver:
            assert await driver.read(["speed"]) == {"speed": Reading(17)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "protocol.configData.ip is missing"),
        ({"ip": "10.0.0.1", "port": "x"}, "port must be a whole number"),
        ({"ip": "10.0.0.1", "port": 70000}, "port must be from 1 to 65535"),
        ({"ip": "10.0.0.1", "slaveID": 256}, "slaveID must be from 0 to 255"),
        ({"ip": "10.0.0.1", "serialPort": "/dev/ttyS0"}, "ip is for communicateMode TCP; RTU needs serialPort"),
        ({"serialPort": "/dev/ttyS0", "communicateMode": "TCP"}, "serialPort is for communicateMode RTU"),
        ({"communicateMode": "RTU"}, "serialPort is missing"),
        ({"communicateMode": "ASCII"}, "communicateMode must be RTU or TCP"),
        ({"serialPort": "/dev/ttyS0", "parity": "mark"}, "parity must be E or N or O or even"),
        ({"serialPort": "/dev/ttyS0", "baudRate": 1}, "baudRate must be from 50"),
        ({"ip": "10.0.0.1", "timeout": 4, "retries": 3}, "retries times timeout must stay below 10 s"),
        ({"ip": "10.0.0.1", "maxRegisters": 126}, "maxRegisters must be from 1 to 125"),
        ({"ip": "10.0.0.1", "slaveId": 3}, "slaveId is not known to this driver; it knows communicateMode"),
        ({"com": "ttyS0"}, "com must be a map"),
    ],
)
def test_a_device_that_cannot_work_is_refused_with_what_to_change(settings: dict[str, JSON], words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        modbus()(a_device(settings))


def test_kubeedges_sample_is_understood_as_it_stands() -> None:
    driver = Modbus(a_device({"communicateMode": "TCP", "port": "5502", "slaveID": 1, "ip": "10.244.1.3"}), Lines())
    assert str(driver._address) == "10.244.1.3:5502"
