"""
What Modbus registers mean: one property's place in the device's tables, and its value from and to 16-bit words.

The protocol knows bits and words and nothing else. How many words make a number, in which order, and what it is
multiplied by is written in a manual, and from there in `visitors.configData`. Its members are KubeEdge's where
KubeEdge has them (register, offset, limit, scale, isSwap, isRegisterSwap, dataType), so that its YAML goes on working.

Invariants
    decode(encode(value)) == value, or encode() raises WriteRefused: no device is told to hold what it cannot hold,
    since its reading would differ from the wish for ever
    decode() takes any words of the span's length and never raises

Pure. The driver is mappers/modbus.py.
"""

import enum
import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from apimachinery.devices import PropertyType
from mappers.batches import MAX_REGISTERS, Span, Table
from mappers.settings import RUNTIMES_OWN, Settings
from mappers.values import shortest_single
from mappers.words import Device, Value, WriteRefused

FIRST_INVALID_ADDRESS = 0x10000
KUBEEDGES_OWN = frozenset({"max", "min"})
"""In KubeEdge's samples; here the model says what is allowed."""
_NUMBERS = (PropertyType.INT, PropertyType.FLOAT, PropertyType.DOUBLE)
_DIGITS = 12
"""Of a scaled number: what is beyond comes from the multiplication, 3 × 0.1 being 0.30000000000000004."""


class DataType(enum.StrEnum):
    """How the words of a property are to be read."""

    BOOL = "bool"
    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    BYTES = "bytes"


_LAYOUTS = {
    DataType.INT16: "h",
    DataType.UINT16: "H",
    DataType.INT32: "i",
    DataType.UINT32: "I",
    DataType.INT64: "q",
    DataType.UINT64: "Q",
    DataType.FLOAT32: "f",
    DataType.FLOAT64: "d",
}
"""Formats of the struct module, always big-endian: "MODBUS uses a 'big-Endian' representation" (V1.1b3, 4.2)."""
_INTEGERS = {1: DataType.UINT16, 2: DataType.UINT32, 4: DataType.UINT64}
_FLOATS = {1: DataType.UINT16, 2: DataType.FLOAT32, 4: DataType.FLOAT64}
_LOOSE: Mapping[str, Mapping[int, DataType]] = {
    "int": _INTEGERS,
    "float": _FLOATS,
    "double": _FLOATS,
    "boolean": {1: DataType.BOOL},
}
"""KubeEdge's words, and the words of models in lower case: what they mean by the number of registers."""
_FITTING: Mapping[DataType, tuple[PropertyType, ...]] = {
    **dict.fromkeys(_LAYOUTS, _NUMBERS),
    DataType.BOOL: (PropertyType.BOOLEAN, *_NUMBERS),
    DataType.STRING: (PropertyType.STRING, PropertyType.STREAM),
    DataType.BYTES: (PropertyType.BYTES,),
}


class Mask(NamedTuple):
    """A change of single bits in one register: MODBUS Application Protocol V1.1b3, 6.16."""

    keep: int
    """The bits that stay as they are."""
    set: int
    """The others' new values."""


class Point(NamedTuple):
    """Where one property is in the device, and how to read it."""

    name: str
    kind: PropertyType
    span: Span
    type: DataType
    scale: float
    shift: float
    bit: int | None
    swaps_bytes: bool
    swaps_registers: bool

    @classmethod
    def of_property(cls, device: Device, name: str) -> "Point":
        """From `visitors.configData`. Raises BadConfig."""
        model, values = device.properties[name].model, device.properties[name].settings
        settings = Settings(f"property {name}: visitors.configData", values, RUNTIMES_OWN | KUBEEDGES_OWN)
        table = Table(settings.choice("register", list(Table), ""))
        address = settings.whole("offset", minimum=0, maximum=FIRST_INVALID_ADDRESS - 1)
        bit: int | None = settings.whole("bit", 0, minimum=0, maximum=15)
        if "bit" not in settings:
            bit = None
        if bit is not None and table.holds_bits:
            raise settings.bad("bit", f"is for registers; a {table} is one bit by itself")
        # 0 is how KubeEdge's samples say that they do not care.
        count = settings.whole("limit", 0, minimum=0, maximum=1 if table.holds_bits else MAX_REGISTERS)
        type_, count = _data_type(settings, model.type, count, is_bit=table.holds_bits or bit is not None)
        if model.type not in _FITTING[type_]:
            raise settings.bad("dataType", f"{type_} does not fit the model's type {model.type}")
        if address + count > FIRST_INVALID_ADDRESS:
            raise settings.bad("offset", f"must leave room for {count} addresses up to 65535")
        point = cls(
            name,
            model.type,
            Span(table, address, count),
            type_,
            settings.number("scale", 1.0),
            settings.number("valueOffset", 0.0),
            bit,
            settings.flag("isSwap", False),
            settings.flag("isRegisterSwap", False),
        )
        if point.scale == 0 or not math.isfinite(point.scale) or not math.isfinite(point.shift):
            raise settings.bad("scale", "must be a number other than 0")
        settings.done()
        return point

    def decode(self, words: Sequence[int]) -> Value | None:
        """The value of these words, or bits where the table holds bits; None where they are no number at all."""
        if self.type is DataType.BOOL:
            bit = bool(words[0]) if self.bit is None else bool(words[0] >> self.bit & 1)
            return bit if self.kind is PropertyType.BOOLEAN else int(bit)
        octets = self._swapped(struct.pack(f">{len(words)}H", *words))
        if self.type is DataType.BYTES:
            return octets
        if self.type is DataType.STRING:
            try:
                return octets.decode().rstrip("\0 ")
            except UnicodeDecodeError:
                return octets  # the runtime says that this is no string
        (number,) = struct.unpack(f">{_LAYOUTS[self.type]}", octets)
        return self._scaled(number)

    def encode(self, value: Value) -> list[int]:
        """The words, or the bit, to write. Raises WriteRefused with what is wrong and what would be right."""
        words = self._words(value)
        if (held := self.decode(words)) != (_tidy(value) if isinstance(value, float) else value):
            raise WriteRefused(f"{self} cannot hold {value!r}; the nearest it can hold is {held!r}")
        return words

    def mask(self, value: Value) -> Mask:
        """The change of one bit in a register."""
        assert self.bit is not None, "asked of a point that is no bit"
        return Mask(keep=0xFFFF ^ 1 << self.bit, set=int(self._truth(value)) << self.bit)

    def __str__(self) -> str:
        return f"{self.name} ({self.span}, {self.type})"

    def _words(self, value: Value) -> list[int]:
        if self.type is DataType.BOOL:
            return [int(self._truth(value))]
        try:
            octets = self._octets(value)
        except (struct.error, OverflowError):
            raise WriteRefused(f"{self} cannot hold {value!r}: it is out of range") from None
        octets = self._swapped(octets)
        return list(struct.unpack(f">{self.span.size}H", octets))

    def _octets(self, value: Value) -> bytes:
        size = 2 * self.span.size
        if isinstance(value, str | bytes):
            octets = value.encode() if isinstance(value, str) else value
            if len(octets) > size or (isinstance(value, bytes) and len(octets) < size):
                raise WriteRefused(f"{self} holds {size} bytes, not {len(octets)}")
            return octets.ljust(size, b"\0")
        raw = (value - self.shift) / self.scale if self._is_scaled() else value
        layout = _LAYOUTS[self.type]
        return struct.pack(f">{layout}", raw if layout in "fd" else round(raw))

    def _truth(self, value: Value) -> bool:
        if value not in (0, 1):
            raise WriteRefused(f"{self} is one bit: 0 or 1, not {value!r}")
        return bool(value)

    def _is_scaled(self) -> bool:
        return (self.scale, self.shift) != (1.0, 0.0)

    def _scaled(self, number: float) -> Value | None:
        if not math.isfinite(number):
            return None  # how many a device says that its sensor is broken or missing
        if self.type is DataType.FLOAT32:
            number = shortest_single(number)
        if self._is_scaled():
            number = _tidy(number * self.scale + self.shift)
            if not math.isfinite(number):
                return None
        return round(number) if self.kind is PropertyType.INT else number

    def _swapped(self, octets: bytes) -> bytes:
        """There and back: each order of bytes and registers is its own opposite."""
        pairs = [octets[at : at + 2] for at in range(0, len(octets), 2)]
        if self.swaps_registers:
            pairs.reverse()
        return b"".join(pair[::-1] if self.swaps_bytes else pair for pair in pairs)


def _data_type(settings: Settings, kind: PropertyType, count: int, *, is_bit: bool) -> tuple[DataType, int]:
    """What `dataType`, the table and the model say together, and how many addresses that takes."""
    word = settings.choice("dataType", [*DataType, *_LOOSE], _word_for(kind))
    if is_bit:
        if "dataType" in settings and word not in ("bool", "boolean", "int"):
            raise settings.bad("dataType", "must be left out: it is a single bit")
        if count > 1:
            raise settings.bad("limit", "must be left out: it is a single bit")
        return DataType.BOOL, 1
    if word in (DataType.STRING, DataType.BYTES):
        return DataType(word), count or 1
    if word in _LOOSE:
        meant = _LOOSE[word].get(count or 1)
        if meant is None:
            sizes = " or ".join(str(size) for size in _LOOSE[word])
            raise settings.bad("limit", f"must be {sizes} for a value of type {word}, not {count}")
        return meant, count or 1
    type_ = DataType(word)
    size = struct.calcsize(f">{_LAYOUTS[type_]}") // 2 if type_ in _LAYOUTS else 1
    if count not in (0, size):
        raise settings.bad("limit", f"must be {size} for {type_}, or left out")
    return type_, size


def _word_for(kind: PropertyType) -> str:
    return "string" if kind is PropertyType.STREAM else kind.lower()


def _tidy(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")
