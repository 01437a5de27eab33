"""The protocol and the drivers that come with the project must fit each other; mypy checks it through these lines."""

from pathlib import Path

from mappers import driver
from mappers.driver import Device, Driver, DriverFactory, SubscribingDriver
from mappers.host import Host
from mappers.http import Http
from mappers.modbus import modbus
from mappers.mqttdevice import MqttDevice
from mappers.opcua import OpcUa
from mappers.simulated import Thermostat
from mappers.sysfs import Sysfs

FACTORIES: list[DriverFactory] = [Host, modbus(), OpcUa, Thermostat, Http, MqttDevice, Sysfs]
SPEAKING: list[type[SubscribingDriver]] = [OpcUa, MqttDevice]
ROOT = Path(__file__).resolve().parent.parent


def test_the_drivers_that_come_with_the_project_are_drivers() -> None:
    for factory in FACTORIES:
        wanted = {
            OpcUa: {"url": "opc.tcp://10.0.0.4:4840"},
            FACTORIES[1]: {"ip": "10.0.0.4"},
            Http: {"url": "http://x"},
        }
        one: Driver = factory(Device("default/one", wanted.get(factory, {}), {}))
        assert all(callable(getattr(one, method)) for method in ("connect", "read", "write", "close"))
        assert isinstance(one, SubscribingDriver) is (factory in SPEAKING)


def test_everything_a_driver_needs_is_imported_from_one_module() -> None:
    assert set(driver.__all__) >= {"Driver", "Device", "Reading", "Value", "DeviceSilent", "WriteRefused", "BadConfig"}


def test_the_example_is_under_forty_lines_and_the_one_in_the_docs() -> None:
    example = (ROOT / "examples" / "mappers" / "filedriver.py").read_text()
    assert len(example.splitlines()) < 40
    assert example in (ROOT / "docs" / "mappers.md").read_text()
