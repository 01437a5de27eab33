"""
A Modbus device as a process of its own: python -m tests.harness.modbus_device tcp PORT | rtu PATH.

Units 1 and 2 hold the same tables; unit 9 is there and answers every request with "device busy". Its behaviour can be
changed while it runs, by what is written to holding register 900 of unit 1: see Mood.

Holding 0 to 9: 0 to 9. 10: 215. 20 and 21: float32 21.5. 30 to 33: "FAIRLEAD". 100 to 299: zero. 900: the mood.
Input 0 to 9: 100 to 109. Coils 0 to 15: every other one is on, from 0. Discrete inputs 0 to 15: likewise, from 1.
Every other address is refused with exception 2. Register 5 takes no value above 100 (exception 3). Units that are not
there do not answer.
"""

import asyncio
import enum
import struct
import sys

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


class Mood(enum.IntEnum):
    """What is done to answers from now on."""

    FINE = 0
    SILENT = 1
    RUBBISH = 2
    """Bytes that are no frame."""
    SHORT = 3
    """Half a frame."""
    ALIEN = 4
    """Answers of another unit."""
    SLOW = 5
    """Holding registers are read in SLOW_S."""
    OTHER = 6
    """Answers to another function, 4 for 3."""


MOOD_REGISTER = 900
READ_HOLDING_REGISTERS = 3
SLOW_S = 0.3
BUSY_UNIT = 9
UNITS = (1, 2, BUSY_UNIT)


class Device:
    """The state behind the server."""

    def __init__(self, unit_at: int) -> None:
        """unit_at: where the unit's number stands in a packet."""
        self.mood = Mood.FINE
        self._unit_at = unit_at

    async def act(
        self,
        function_code: int,
        start: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called by the server for each request, before it is carried out."""
        if self.mood is Mood.SLOW and values is None and function_code == READ_HOLDING_REGISTERS:
            await asyncio.sleep(SLOW_S)
        if values is None or function_code not in (6, 16):
            return None
        if address <= 5 < address + count and values[5 - address] > 100:
            return ExcCodes.ILLEGAL_VALUE
        if address == MOOD_REGISTER:
            self.mood = Mood(int(values[0]))
        return None

    def send(self, sending: bool, octets: bytes) -> bytes:
        """Called by the server for each packet in and out."""
        if not sending or not octets:
            return octets
        if octets[self._unit_at] not in UNITS:
            return b""
        match self.mood:
            case Mood.FINE | Mood.SLOW:
                return octets
            case Mood.SILENT:
                return b""
            case Mood.RUBBISH:
                return bytes(range(200, 230)) * 4
            case Mood.SHORT:
                return octets[: len(octets) // 2]
            case Mood.OTHER:
                code = octets[self._unit_at + 1] ^ 7
                return octets[: self._unit_at + 1] + bytes([code]) + octets[self._unit_at + 2 :]
            case Mood.ALIEN:
                return octets[: self._unit_at] + bytes([77]) + octets[self._unit_at + 1 :]


async def busy(*_: object) -> ExcCodes:
    """Of unit 9."""
    return ExcCodes.DEVICE_BUSY


def a_unit(number: int, device: Device) -> SimDevice:
    def registers(address: int, values: list[int]) -> SimData:
        return SimData(address, values=values, datatype=DataType.REGISTERS)

    def bits(first: bool) -> SimData:
        return SimData(0, values=[first, not first] * 8, datatype=DataType.BITS)

    holding = [
        registers(0, list(range(10))),
        registers(10, [215]),
        registers(20, list(struct.unpack(">2H", struct.pack(">f", 21.5)))),
        registers(30, list(struct.unpack(">4H", b"FAIRLEAD"))),
        registers(100, [0] * 200),
        registers(MOOD_REGISTER, [0]),
    ]
    action = busy if number == BUSY_UNIT else device.act
    return SimDevice(
        number, simdata=([bits(True)], [bits(False)], holding, [registers(0, list(range(100, 110)))]), action=action
    )


async def serve(kind: str, where: str) -> None:
    device = Device(unit_at=6 if kind == "tcp" else 0)
    # 0 stands for all others: the server would answer for them with an exception, and send() keeps that back.
    units = [a_unit(number, device) for number in (0, *UNITS)]
    if kind == "tcp":
        tcp = ModbusTcpServer(units, address=("127.0.0.1", int(where)), trace_packet=device.send)
        await tcp.serve_forever(background=True)
        assert isinstance(tcp.transport, asyncio.Server)
        where = str(tcp.transport.sockets[0].getsockname()[1])
    else:
        rtu = ModbusSerialServer(
            units,
            framer=FramerType.RTU,
            port=where,
            baudrate=19200,
            trace_packet=device.send,
        )
        await rtu.serve_forever(background=True)
    print("ready", where, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
