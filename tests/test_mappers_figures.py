"""What mappers of HTTP, MQTT and sysfs take; run by `make bench`."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from devicetwin.messages import DeviceConfig, DeviceId, PropertyConfig, ProtocolConfig
from tests.harness.fake_sysfs import SENSOR
from tests.harness.mapper import MapperProcess
from tests.harness.mosquitto import Mosquitto
from tests.harness.mqtt_edge import MqttEdge
from tests.harness.server import Server


@contextmanager
def world(protocol: str, directory: Path, broker: Mosquitto) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    """A device of this protocol, its settings, and those of each of its properties."""
    with ExitStack() as stack:
        match protocol:
            case "http":
                server = stack.enter_context(Server("tests.harness.http_device", "0"))
                yield {"url": f"http://127.0.0.1:{server.port}"}, {"url": "/state", "pointer": "/level"}
            case "mqtt":
                stack.enter_context(Server("tests.harness.mqtt_device", "tasmota", str(broker.port)))
                visitor: dict[str, object] = {"state": "tele/plug/SENSOR", "pointer": "/ENERGY/Power"}
                yield {"broker": f"mqtt://127.0.0.1:{broker.port}"}, visitor
            case _:
                stack.enter_context(Server("tests.harness.fake_sysfs", str(directory / "sys")))
                yield {"root": str(directory / "sys")}, {"w1": SENSOR}


@pytest.mark.bench
@pytest.mark.parametrize("protocol", ["http", "mqtt", "sysfs"])
async def test_how_much_memory_and_time_a_mapper_takes(protocol: str, tmp_path: Path) -> None:
    with (
        Mosquitto() as broker,
        MqttEdge(broker.port) as edge,
        world(protocol, tmp_path, broker) as (settings, visitor),
    ):
        for count in (1, 50):
            devices = [DeviceId(protocol, f"d{number:03}") for number in range(count)]
            properties = tuple(
                PropertyConfig(f"p{number}", "FLOAT", visitors=ProtocolConfig(protocol, visitor))
                for number in range(20)
            )
            for device in devices:
                edge.configure(DeviceConfig(device, "edge-1", "d", ProtocolConfig(protocol, settings), properties))
            arguments = ("run", protocol, "--mqtt", f"mqtt://127.0.0.1:{broker.port}")
            with MapperProcess(*arguments, directory=tmp_path) as mapper:
                for device in devices:
                    await edge.until(lambda device=device: edge.reported(device), "a report")  # type: ignore[misc]
                used = mapper.cpu_s()
                await asyncio.sleep(5)
                print(
                    f"\nmapper {protocol}, {count} devices × 20 properties each second: "
                    f"{mapper.resident_mib():.1f} MiB RSS, {(mapper.cpu_s() - used) / 5:.0%} of a core"
                )
            edge.updates.clear()
