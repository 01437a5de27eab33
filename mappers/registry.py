"""
Which driver is meant by a name: a built-in one, one that an installed package brings, or MODULE:CLASS.

A driver is imported when it is chosen and not before: the library that one protocol needs is no burden to
a mapper of another, and need not even be installed.
"""

import importlib
from importlib import metadata

from mappers.driver import DriverFactory

ENTRY_POINTS = "fairlead.drivers"
"""The entry point group in which another distribution names its drivers."""

BUILT_IN = ("host", "http", "modbus", "mqtt", "opcua", "simulated", "sysfs")


class UnknownDriver(Exception):
    """No driver of this name, or one that cannot be loaded; the argument says what to do."""


def find_driver(name: str) -> DriverFactory:
    """The driver with this name. Raises UnknownDriver."""
    match name:
        case "host":
            return _host()
        case "http":
            return _http()
        case "modbus":
            return _modbus()
        case "mqtt":
            from mappers.mqttdevice import MqttDevice

            return MqttDevice
        case "opcua":
            return _opcua()
        case "simulated":
            from mappers.simulated import Thermostat

            return Thermostat
        case "sysfs":
            from mappers.sysfs import Sysfs

            return Sysfs
    for entry in metadata.entry_points(group=ENTRY_POINTS, name=name):
        return load_driver(entry.value)
    raise UnknownDriver(f'there is no driver "{name}"; there are: {", ".join(driver_names())}')


def driver_names() -> list[str]:
    """Every driver there is: the built-in ones and those that installed packages add."""
    return sorted({*BUILT_IN, *(entry.name for entry in metadata.entry_points(group=ENTRY_POINTS))})


def load_driver(target: str) -> DriverFactory:
    """Import MODULE:CLASS. Raises UnknownDriver."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise UnknownDriver(f'"{target}" is not MODULE:CLASS, such as mydrivers.lamp:Lamp')
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except ImportError as exc:
        raise UnknownDriver(f'driver "{target}" cannot be imported: {exc}') from exc
    except AttributeError as exc:
        raise UnknownDriver(f'driver "{target}": the module {module_name} has no {attribute}') from exc
    missing = [method for method in ("connect", "read", "write", "close") if not hasattr(factory, method)]
    if isinstance(factory, type) and missing:
        raise UnknownDriver(f'driver "{target}" has no method {", ".join(missing)}')
    if not callable(factory):
        raise UnknownDriver(f'driver "{target}" is not a class')
    return factory  # type: ignore[no-any-return]  # what a module holds has no type here; checked above


def _host() -> DriverFactory:
    try:
        from mappers.host import Host
    except ImportError as exc:
        raise _lacks("host", exc, "mapper") from exc
    return Host


def _http() -> DriverFactory:
    try:
        from mappers.http import Http
    except ImportError as exc:
        raise _lacks("http", exc, "mapper-http") from exc
    return Http


def _modbus() -> DriverFactory:
    try:
        from mappers.modbus import modbus
    except ImportError as exc:
        raise _lacks("modbus", exc, "mapper-modbus") from exc
    return modbus()


def _opcua() -> DriverFactory:
    try:
        from mappers.opcua import OpcUa
    except ImportError as exc:
        raise _lacks("opcua", exc, "mapper-opcua") from exc
    return OpcUa


def _lacks(driver: str, error: ImportError, extra: str) -> UnknownDriver:
    return UnknownDriver(f"the driver {driver} needs {error.name}: pip install 'fairlead[{extra}]'")
