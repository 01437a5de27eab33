"""
The driver `sysfs`: pins (GPIO) and 1-wire thermometers through the files that Linux has for them.

Settings (`protocol.configData`)
    root        where sysfs is; /sys
Settings of a property (`visitors.configData`), one of gpio and w1
    gpio        the pin's number, or with `chip` its number on that chip
    chip        the chip's label, such as pinctrl-bcm2711: global numbers differ from kernel to kernel
    direction   in or out; out where the model lets the property be written
    activeLow   true where a low level means on
    w1          a thermometer, such as 28-0316a2794bff: degrees Celsius

A pin that is not exported is exported, where that is permitted, and stays so: letting go of it could switch it off,
and a mapper that restarts must not stop a pump. So a pin that is an output already keeps its level, too.
The files are read in a thread, for a 1-wire sensor takes 750 ms to answer.
"""

import asyncio
import errno
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from apimachinery.devices import PropertyType
from mappers.driver import BadConfig, Device, DeviceSilent, Reading, Value, WriteRefused
from mappers.faults import Faults
from mappers.onewire import celsius
from mappers.settings import Settings, shown

READ_CHARS = 4096
"""A page: the kernel gives no more."""
MAX_GPIO = 1 << 20
_SENSOR_CHARS = frozenset("0123456789abcdef-")

_Level = bool | int | float


class Pin(NamedTuple):
    """A GPIO."""

    number: int
    chip: str
    """The chip whose number it is; "" for the global number."""
    is_output: bool
    is_active_low: bool
    kind: PropertyType


class Sensor(NamedTuple):
    """A 1-wire thermometer."""

    id: str


class Sysfs:
    """Pins and thermometers that make one device."""

    def __init__(self, device: Device) -> None:
        settings = Settings.of_device(device)
        self._root = Path(settings.text("root", "/sys"))
        if not self._root.is_absolute():
            raise settings.bad("root", "must be an absolute path, such as /sys")
        settings.done()
        self._points = {name: _point(device, name) for name in device.properties}
        self._faults = Faults(device.id, self._points)
        self._pins: dict[str, Path] = {}
        """The directories of the pins that are ready."""

    async def connect(self) -> None:
        """Make every pin what it is to be. One that cannot be is tried again at each reading."""
        if not self._root.is_dir():
            raise DeviceSilent(f"{self._root} is not there: look at protocol.configData.root")

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        """The levels and temperatures now."""
        readings: dict[str, Reading] = {}
        for name, found in (await asyncio.to_thread(self._read_all, list(names))).items():
            if isinstance(found, str):
                self._faults.found(name, found)
                self._pins.pop(name, None)
            else:
                self._faults.over(name)
                readings[name] = Reading(found)
        if (silence := self._faults.silence()) is not None:
            raise silence
        return readings

    async def write(self, name: str, value: Value) -> None:
        """Switch an output."""
        point = self._points[name]
        if not isinstance(point, Pin) or not point.is_output:
            raise WriteRefused(f"{name} is an input: visitors.configData.direction must be out for it to be set")
        if value not in (0, 1):
            raise WriteRefused(f"{name} can be 0 or 1 only")
        try:
            await asyncio.to_thread(lambda: _write(self._ready(name, point) / "value", str(int(value))))
        except (OSError, ValueError) as exc:
            self._pins.pop(name, None)
            raise WriteRefused(f"{name}: {_reason(exc)}") from exc

    async def close(self) -> None:
        """Nothing is held open, and the pins stay as they are."""
        self._pins.clear()

    # --- in the thread

    def _read_all(self, names: list[str]) -> dict[str, _Level | str]:
        """A value for each name, or a sentence."""
        found: dict[str, _Level | str] = {}
        for name in names:
            try:
                found[name] = self._read(name)
            except (OSError, ValueError) as exc:
                found[name] = _reason(exc)
        return found

    def _read(self, name: str) -> _Level:
        point = self._points[name]
        if isinstance(point, Sensor):
            return self._temperature(point)
        text = _read(self._ready(name, point) / "value").strip()
        if text not in ("0", "1"):
            raise ValueError(f'GPIO {point.number} has the level "{shown(text)}", which is neither 0 nor 1')
        return text == "1" if point.kind is PropertyType.BOOLEAN else int(text)

    def _temperature(self, sensor: Sensor) -> float:
        directory = self._root / "bus/w1/devices"
        try:
            return celsius(_read(directory / sensor.id / "w1_slave"))
        except FileNotFoundError:
            there = ", ".join(sorted(each.name for each in directory.glob("??-*"))) or "none"
            raise ValueError(
                f"there is no 1-wire sensor {sensor.id}; there are: {there}. "
                "Look at its cable, and whether w1-gpio and w1-therm are loaded"
            ) from None

    def _ready(self, name: str, pin: Pin) -> Path:
        """The pin's directory, the pin being exported and of the right direction. Raises OSError, ValueError."""
        if name in self._pins:
            return self._pins[name]
        gpio = self._root / "class/gpio"
        number = pin.number + (_base_of(gpio, pin.chip) if pin.chip else 0)
        directory = gpio / f"gpio{number}"
        if not directory.exists():
            _export(gpio, number)
        if not directory.exists():
            raise ValueError(f"GPIO {number} is not there yet though it was exported")
        self._set_up(directory, pin)
        self._pins[name] = directory
        return directory

    def _set_up(self, directory: Path, pin: Pin) -> None:
        was_low = _read(directory / "active_low").strip() == "1"
        is_high = (_read(directory / "value").strip() == "1") != was_low
        if was_low != pin.is_active_low:
            _write(directory / "active_low", str(int(pin.is_active_low)))
        wanted = "out" if pin.is_output else "in"
        if _read(directory / "direction").strip() != wanted:
            # "out" would make it low for a moment; "high" and "low" are levels at the pin, whatever active_low says.
            _write(directory / "direction", ("high" if is_high else "low") if pin.is_output else "in")
        if (direction := _read(directory / "direction").strip()) != wanted:
            raise ValueError(f'{directory.name} does not become "{wanted}", it is "{shown(direction)}"')


def _point(device: Device, name: str) -> Pin | Sensor:
    model = device.properties[name].model
    settings = Settings.of_property(device, name)
    if ("gpio" in settings) == ("w1" in settings):
        raise settings.bad("gpio", "or .w1, one of the two, must say what the property is")
    point: Pin | Sensor
    if "w1" in settings:
        sensor = settings.text("w1")
        if not set(sensor) <= _SENSOR_CHARS:
            raise settings.bad("w1", f'must be a sensor such as 28-0316a2794bff, not "{shown(sensor)}"')
        if model.type not in (PropertyType.FLOAT, PropertyType.DOUBLE) or model.writable:
            raise BadConfig(f"property {name}: a temperature must be FLOAT or DOUBLE, and ReadOnly, in the DeviceModel")
        point = Sensor(sensor)
    else:
        if model.type not in (PropertyType.BOOLEAN, PropertyType.INT):
            raise BadConfig(f"property {name}: a GPIO must be BOOLEAN or INT in the DeviceModel, not {model.type}")
        point = Pin(
            number=settings.whole("gpio", minimum=0, maximum=MAX_GPIO),
            chip=settings.text("chip", ""),
            is_output=settings.choice("direction", ("in", "out"), "out" if model.writable else "in") == "out",
            is_active_low=settings.flag("activeLow", False),
            kind=model.type,
        )
    settings.done()
    return point


def _base_of(gpio: Path, label: str) -> int:
    chips = {_read(chip / "label").strip(): chip for chip in sorted(gpio.glob("gpiochip*"))}
    if label not in chips:
        raise ValueError(f'there is no GPIO chip "{label}"; there are: {", ".join(sorted(chips)) or "none"}')
    return int(_read(chips[label] / "base"))


def _export(gpio: Path, number: int) -> None:
    if not gpio.is_dir():
        raise ValueError(f"{gpio} is not there: the kernel needs CONFIG_GPIO_SYSFS")
    try:
        _write(gpio / "export", str(number))
    except OSError as exc:
        if exc.errno == errno.EBUSY:
            raise ValueError(f"GPIO {number} is used by a driver of the kernel, or is exported already") from exc
        if exc.errno == errno.EINVAL:
            raise ValueError(f"there is no GPIO {number}; set `chip` if the number is the chip's own") from exc
        raise ValueError(
            f"GPIO {number} cannot be exported ({exc.strerror}): write {number} into {gpio}/export as root, "
            "or put the mapper's user into the group that owns the file"
        ) from exc


def _read(path: Path) -> str:
    with path.open(encoding="ascii", errors="replace") as file:
        return file.read(READ_CHARS)


def _write(path: Path, text: str) -> None:
    # For writing only, which is all that `export` permits, and in one call, which is one command to the kernel.
    # Never created: a file in the place of a missing one would take every value in silence.
    file = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(file, text.encode())
    except OSError as exc:
        exc.filename = str(path)
        raise
    finally:
        os.close(file)


def _reason(exc: OSError | ValueError) -> str:
    return f"{exc.filename}: {exc.strerror}" if isinstance(exc, OSError) and exc.filename else str(exc)
