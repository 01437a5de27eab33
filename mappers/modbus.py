"""
The driver `modbus`: devices that speak Modbus over TCP, or RTU on a serial line.

What is where in the device is the user's to say, property by property: mappers/registers.py. Properties that are due
together and lie side by side are read in one request: mappers/batches.py. Devices behind one gateway or on one serial
line share it: mappers/modbusline.py.

A property that the device refuses to read has no value and disturbs no other: after a refused batch its properties are
read one by one, and what was refused alone is never again read together with others until the next connect().

Settings (`protocol.configData`, KubeEdge's names where it has them): docs/mappers.md.
"""

from collections.abc import Collection, Mapping

from apimachinery.objects import JSON
from mappers.batches import MAX_REGISTERS, Batch, batches
from mappers.driver import CALL_TIMEOUT_S, BadConfig, Device, DeviceSilent, DriverFactory, Reading, Value, WriteRefused
from mappers.faults import Faults
from mappers.modbusline import Line, Lines, Patience, Refused, SerialAddress, TcpAddress
from mappers.registers import Point
from mappers.settings import Settings

DEFAULT_PORT = 502
DEFAULT_BAUD_RATE = 9600
BAUD_RATES = range(50, 4_000_001)
MAX_UNIT = 255  # 248 to 255 are reserved on serial lines, but TCP devices without a unit go by 255
MAX_GAP = 100
_PARITIES = {"none": "N", "even": "E", "odd": "O", "N": "N", "E": "E", "O": "O"}
_MODES = ("TCP", "RTU")
_PASSED_OVER = ("serialType", "customizedValues")
"""KubeEdge's, and the kernel's business: it turns an RS-485 line round."""


def modbus() -> DriverFactory:
    """The drivers of one process, which share their lines."""
    lines = Lines()
    return lambda device: Modbus(device, lines)


class Modbus:
    """One unit."""

    def __init__(self, device: Device, lines: Lines) -> None:
        settings = Settings("protocol.configData", _flat(device.settings), _PASSED_OVER)
        self._address = _address(settings)
        self._unit = settings.whole("slaveID", 1, minimum=0, maximum=MAX_UNIT)
        self._patience = Patience(
            settings.number("timeout", 1.0, minimum=0.05, maximum=CALL_TIMEOUT_S / 2),
            settings.whole("retries", 1, minimum=0, maximum=10),
        )
        if self._patience.all_s > CALL_TIMEOUT_S:
            raise settings.bad("retries", f"times timeout must stay below {CALL_TIMEOUT_S:g} s")
        self._max_gap = settings.whole("maxGap", 0, minimum=0, maximum=MAX_GAP)
        self._max_registers = settings.whole("maxRegisters", MAX_REGISTERS, minimum=1, maximum=MAX_REGISTERS)
        settings.done()
        self._points = {name: Point.of_property(device, name) for name in device.properties}
        self._faults = Faults(device.id, self._points)
        self._alone: set[str] = set()
        """Properties that are not read together with others."""
        self._lines = lines
        self._line: Line | None = None

    async def connect(self) -> None:
        """Open the line, if no other device has done so."""
        self._alone.clear()
        self._line = self._lines.take(self._address, self._patience)
        await self._line.open()

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        """What these properties' registers hold."""
        spans = {name: self._points[name].span for name in names if name not in self._alone}
        requests = batches(spans, max_registers=self._max_registers, max_gap=self._max_gap)
        requests += [Batch(self._points[name].span, (name,)) for name in names if name in self._alone]
        readings: dict[str, Reading] = {}
        for request in requests:
            readings |= await self._fetch(request)
        if (silence := self._faults.silence()) is not None:
            raise silence
        return readings

    async def write(self, name: str, value: Value) -> None:
        """Set a coil, a bit of a holding register, or holding registers."""
        assert self._line, "the runtime connects first"
        point = self._points[name]
        if not point.span.table.is_writable:
            raise WriteRefused(f"{point} is read-only in the device; say accessMode: ReadOnly in the model")
        try:
            if point.bit is not None:
                await self._line.write_bits(self._unit, point.span, point.mask(value))
            else:
                await self._line.write(self._unit, point.span, point.encode(value))
        except Refused as exc:
            raise WriteRefused(f"unit {self._unit} refuses {value!r} for {point}: {exc}") from exc

    async def close(self) -> None:
        """Let go of the line; others may still use it."""
        line, self._line = self._line, None
        if line is not None:
            self._lines.give_back(line)

    async def _fetch(self, batch: Batch) -> dict[str, Reading]:
        assert self._line, "the runtime connects first"
        try:
            words = await self._line.read(self._unit, batch.span)
        except Refused as exc:
            if len(batch.names) > 1:
                return await self._fetch_singly(batch)
            (name,) = batch.names
            self._faults.found(name, f"unit {self._unit} refuses to read {self._points[name]}: {exc}")
            return {}
        except DeviceSilent as exc:
            some = ", ".join(batch.names[:3]) + (", …" if len(batch.names) > 3 else "")
            raise DeviceSilent(f"{exc} ({some})") from exc
        readings: dict[str, Reading] = {}
        for name in batch.names:
            point = self._points[name]
            self._faults.over(name)
            start = point.span.address - batch.span.address
            if (value := point.decode(words[start : start + point.span.size])) is not None:
                readings[name] = Reading(value)
        return readings

    async def _fetch_singly(self, batch: Batch) -> dict[str, Reading]:
        """One of them is refused, or the whole is more than the device gives at once."""
        readings: dict[str, Reading] = {}
        refused: set[str] = set()
        for name in batch.names:
            found = await self._fetch(Batch(self._points[name].span, (name,)))
            readings |= found
            if not found:
                refused.add(name)
        self._alone |= refused or set(batch.names)
        return readings


def _address(settings: Settings) -> TcpAddress | SerialAddress:
    """The line that `protocol.configData` names. Raises BadConfig."""
    mode = settings.choice("communicateMode", _MODES, "RTU" if "serialPort" in settings else "TCP")
    if mode == "TCP":
        if "serialPort" in settings:
            raise settings.bad("serialPort", "is for communicateMode RTU")
        return TcpAddress(settings.text("ip"), settings.whole("port", DEFAULT_PORT, minimum=1, maximum=65535))
    if "ip" in settings:
        raise settings.bad("ip", "is for communicateMode TCP; RTU needs serialPort")
    return SerialAddress(
        path=settings.text("serialPort"),
        baud_rate=settings.whole("baudRate", DEFAULT_BAUD_RATE, minimum=BAUD_RATES.start, maximum=BAUD_RATES.stop - 1),
        data_bits=settings.whole("dataBits", 8, minimum=7, maximum=8),
        parity=_PARITIES[settings.choice("parity", _PARITIES, "none")],
        stop_bits=settings.whole("stopBits", 1, minimum=1, maximum=2),
    )


def _flat(settings: Mapping[str, JSON]) -> dict[str, JSON]:
    """
    `protocol.configData` in one form.

    KubeEdge's older form nests `com` and `tcp`, and its samples have numbers as texts.
    """
    found = {name: value for name, value in settings.items() if name not in ("com", "tcp")}
    for nest in ("com", "tcp"):
        inner = settings.get(nest, {})
        if not isinstance(inner, Mapping):
            raise BadConfig(f"protocol.configData.{nest} must be a map, or its members stand beside the others")
        found |= inner
    return {
        name: _number_in(value) if name in ("port", "slaveID", "baudRate") else value for name, value in found.items()
    }


def _number_in(value: JSON) -> JSON:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value
