"""
What a mapper takes: memory and processor, by protocol, for one device and for many.

Each is the shipped mapper on a real mosquitto, with devices of twenty properties that are read every second; the
devices' side is that of the tests (tests/harness), where all values change but those of Modbus and sysfs. The edge is a
plain MQTT client.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks import procfs
from benchmarks.figures import Figure, Measured
from devicetwin.messages import DeviceConfig, DeviceId, PropertyConfig, ProtocolConfig
from tests.harness.fake_sysfs import SENSOR
from tests.harness.mapper import MapperProcess
from tests.harness.mosquitto import Mosquitto
from tests.harness.mqtt_edge import MqttEdge
from tests.harness.server import Server

PROPERTIES = 20
COUNTS = (1, 50)
SIMULATED = 1000
CYCLE_MS = 1000
WINDOW_S = 5.0
PROTOCOLS = ("modbus", "opcua", "http", "mqtt", "sysfs")


def measure(runs: int, quick: bool) -> Iterator[list[Measured]]:
    """Each protocol by itself."""
    yield asyncio.run(_alone("host", [_host()], runs, quick))
    counts = (1, 5) if quick else (1, SIMULATED)
    for count in counts:
        yield asyncio.run(_alone("simulated", [_thermostat(number) for number in range(count)], runs, quick))
    for protocol in PROTOCOLS:
        for count in (1, 3) if quick else COUNTS:
            yield asyncio.run(_at_devices(protocol, count, runs, quick))


async def _alone(driver: str, devices: list[DeviceConfig], runs: int, quick: bool) -> list[Measured]:
    with Mosquitto() as broker:
        return await _measured(driver, devices, broker, runs, quick)


async def _at_devices(protocol: str, count: int, runs: int, quick: bool) -> list[Measured]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        Mosquitto() as broker,
        _world(protocol, Path(directory), broker) as (settings, visitors),
    ):
        properties = tuple(
            PropertyConfig(f"p{place}", "FLOAT", collect_cycle_ms=CYCLE_MS, visitors=ProtocolConfig(protocol, each))
            for place, each in enumerate(visitors)
        )
        ids = [DeviceId(protocol, f"d{number:03}") for number in range(count)]
        where = ProtocolConfig(protocol, settings)
        devices = [DeviceConfig(each, "edge-1", "plant", where, properties) for each in ids]
        return await _measured(protocol, devices, broker, runs, quick)


async def _measured(
    driver: str, devices: list[DeviceConfig], broker: Mosquitto, runs: int, quick: bool
) -> list[Measured]:
    resident, used = [], []
    for _ in range(runs):
        with MqttEdge(broker.port) as edge:
            for device in devices:
                edge.configure(device)
            async with _mapper(driver, broker) as mapper:
                await edge.until(lambda edge=edge: len(_heard(edge)) >= len(devices), "every device")  # type: ignore[misc]
                began, before = time.monotonic(), procfs.cpu_s(mapper.pid)
                await asyncio.sleep(1.0 if quick else WINDOW_S)
                used.append((procfs.cpu_s(mapper.pid) - before) / (time.monotonic() - began) * 100)
                resident.append(procfs.memory(mapper.pid).resident)
    about = f"mapper {driver}, {len(devices):,} device{'s' if len(devices) > 1 else ''}"
    return [
        Figure(f"{about}: resident", "MB", resident),
        Figure(f"{about}: processor", "% of a core", used, note="read every second"),
    ]


def _heard(edge: MqttEdge) -> set[DeviceId]:
    return {heard.device for heard in edge.updates}


@asynccontextmanager
async def _mapper(driver: str, broker: Mosquitto) -> AsyncIterator[MapperProcess]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        where = ("run", driver, "--mqtt", f"mqtt://127.0.0.1:{broker.port}")
        with MapperProcess(*where, directory=Path(directory)) as mapper:
            yield mapper


@contextmanager
def _world(
    protocol: str, directory: Path, broker: Mosquitto
) -> Iterator[tuple[dict[str, object], list[dict[str, object]]]]:
    """A device's side of this protocol: the settings of a device, and those of each of its properties."""
    with ExitStack() as stack:
        visitor: dict[str, object]
        match protocol:
            case "modbus":
                port = stack.enter_context(Server("tests.harness.modbus_device", "tcp", "0")).port
                registers = [{"register": "HoldingRegister", "offset": 100 + place} for place in range(PROPERTIES)]
                yield {"ip": "127.0.0.1", "port": port}, list(registers)
                return
            case "opcua":
                port = stack.enter_context(Server("tests.harness.opcua_device", "0")).port
                settings: dict[str, object] = {"url": f"opc.tcp://127.0.0.1:{port}/device"}
                visitor = {"nodeID": "ns=2;s=counter"}
            case "http":
                port = stack.enter_context(Server("tests.harness.http_device", "0")).port
                settings, visitor = {"url": f"http://127.0.0.1:{port}"}, {"url": "/state", "pointer": "/level"}
            case "mqtt":
                stack.enter_context(Server("tests.harness.mqtt_device", "tasmota", str(broker.port)))
                settings = {"broker": f"mqtt://127.0.0.1:{broker.port}"}
                visitor = {"state": "tele/plug/SENSOR", "pointer": "/ENERGY/Power"}
            case _:
                stack.enter_context(Server("tests.harness.fake_sysfs", str(directory / "sys")))
                settings, visitor = {"root": str(directory / "sys")}, {"w1": SENSOR}
        yield settings, [visitor] * PROPERTIES


def _thermostat(number: int) -> DeviceConfig:
    properties = (
        PropertyConfig("setpoint", "FLOAT", writable=True, minimum="5", maximum="30", collect_cycle_ms=CYCLE_MS),
        PropertyConfig("temperature", "FLOAT", collect_cycle_ms=CYCLE_MS),
        PropertyConfig("heater", "BOOLEAN", collect_cycle_ms=CYCLE_MS),
    )
    protocol = ProtocolConfig("simulated", {"timeConstant": 5})
    return DeviceConfig(DeviceId("default", f"t{number:04}"), "edge-1", "thermostat", protocol, properties)


def _host() -> DeviceConfig:
    names = ("load1", "cpuPercent", "memoryUsedPercent", "diskUsedPercent", "temperature")
    properties = tuple(PropertyConfig(name, "FLOAT", collect_cycle_ms=CYCLE_MS) for name in names)
    return DeviceConfig(DeviceId("default", "host"), "edge-1", "host", ProtocolConfig("host", {}), properties)
