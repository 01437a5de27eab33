"""Drivers by name: built-in, by entry point, by MODULE:CLASS."""

import subprocess
import sys
from pathlib import Path

import pytest

from mappers.driver import Device
from mappers.host import Host
from mappers.http import Http
from mappers.modbus import Modbus
from mappers.mqttdevice import MqttDevice
from mappers.opcua import OpcUa
from mappers.registry import UnknownDriver, driver_names, find_driver, load_driver
from mappers.simulated import Thermostat
from mappers.sysfs import Sysfs

DRIVER = """
class Lamp:
    def __init__(self, device): pass
    async def connect(self): pass
    async def read(self, names): return {}
    async def write(self, name, value): pass
    async def close(self): pass

class Half:
    async def connect(self): pass

NUMBER = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed distribution that brings a driver."""
    (tmp_path / "lamps.py").write_text(DRIVER)
    info = tmp_path / "lamps-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lamps\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fairlead.drivers]\nlamp = lamps:Lamp\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lamps", raising=False)
    return "lamps"


def test_built_in_drivers_are_found() -> None:
    assert find_driver("simulated") is Thermostat
    assert find_driver("host") is Host
    assert find_driver("http") is Http
    assert find_driver("mqtt") is MqttDevice
    assert find_driver("opcua") is OpcUa
    assert find_driver("sysfs") is Sysfs
    assert type(find_driver("modbus")(Device("default/one", {"ip": "10.0.0.4"}, {}))) is Modbus


def test_a_driver_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("mappers.modbus", "mappers.opcua", "mappers.host", "mappers.http", "mappers.webclient")
    for driver, library in (("http", "h11"), ("modbus", "pymodbus"), ("opcua", "asyncua"), ("host", "psutil")):
        for module in [name for name in sys.modules if name.startswith(ours)]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, library, None)
        extra = "mapper" if driver == "host" else f"mapper-{driver}"
        with pytest.raises(
            UnknownDriver, match=rf"the driver {driver} needs {library}.*: pip install 'fairlead\[{extra}\]'"
        ):
            find_driver(driver)


def test_a_driver_is_imported_only_when_it_is_chosen() -> None:
    program = "import sys; from mappers.registry import find_driver; find_driver('simulated'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pymodbus", "serial", "asyncua", "cryptography", "psutil", "h11"} & set(loaded)


def test_an_installed_package_adds_a_driver(package: str) -> None:
    assert "lamp" in driver_names()
    assert getattr(find_driver("lamp"), "__name__", "") == "Lamp"


def test_an_unknown_name_is_told_with_the_names_there_are() -> None:
    with pytest.raises(UnknownDriver, match="there are: host, http, modbus, mqtt, opcua, simulated, sysfs"):
        find_driver("lamp")


def test_a_class_is_loaded_by_module_and_name(package: str) -> None:
    assert getattr(load_driver("lamps:Lamp"), "__name__", "") == "Lamp"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("lamps", "is not MODULE:CLASS"),
        (":Lamp", "is not MODULE:CLASS"),
        ("nolamps:Lamp", "cannot be imported"),
        ("lamps:Torch", "has no Torch"),
        ("lamps:Half", "has no method read, write, close"),
        ("lamps:NUMBER", "is not a class"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_reason(package: str, target: str, words: str) -> None:
    with pytest.raises(UnknownDriver, match=words):
        load_driver(target)
