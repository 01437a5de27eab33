"""
One Modbus line: a TCP connection or a serial port, shared by all devices behind it. pymodbus's home.

A gateway usually takes one connection and serves many units; a serial port has one owner in any case. So the
devices of a mapper that name the same line share it: one request at a time, in the order they were made.

Invariants
    a line is open while some device holds it, and closed with the last one
    a line is opened when it is needed, never by a timer behind our back: whether to try again is the runtime's business
    an answer is taken only for the request it belongs to: a serial line, which has no transaction ids, is closed when
    an answer may still be on its way, and not used before it must have come and been thrown away
    after IN_VAIN_LIMIT requests in vain a TCP connection counts as dead, whoever made them

Errors
    Refused        the device answers with an exception; code, and what the standard says it means
    DeviceSilent   no answer, or one that is none
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, assert_never

from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ExceptionResponse, ModbusPDU

from mappers.batches import Span, Table
from mappers.registers import Mask
from mappers.words import DeviceSilent

IN_VAIN_LIMIT = 2
MEANINGS = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, but not done yet",
    6: "device busy",
    8: "memory parity error",
    10: "gateway has no path to the device",
    11: "the gateway's device does not answer",
}
"""MODBUS Application Protocol V1.1b3, 7."""
_GATEWAYS_OWN = (10, 11)
_ILLEGAL_FUNCTION = 1
_EXCEPTION = 0x80
"""Added to the function code in an exception's answer."""

logger = logging.getLogger(__name__)


class Refused(Exception):
    """The device answers, with an exception."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"exception {self.code}, {MEANINGS.get(self.code, 'which the standard does not know')}"


class TcpAddress(NamedTuple):
    """Where a device or a gateway listens."""

    host: str
    port: int

    @property
    def key(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class SerialAddress(NamedTuple):
    """A serial port of this machine."""

    path: str
    baud_rate: int
    data_bits: int
    parity: str
    """N, E or O."""
    stop_bits: int

    @property
    def key(self) -> str:
        return self.path

    def __str__(self) -> str:
        return f"{self.path} ({self.baud_rate} {self.data_bits}{self.parity}{self.stop_bits})"


class Patience(NamedTuple):
    """How long to wait for an answer, and how often to ask again without one."""

    timeout_s: float
    retries: int

    @property
    def all_s(self) -> float:
        """For all tries. A device that took longer would be of no use, so by then every answer has come."""
        return self.timeout_s * (self.retries + 1)


Client = AsyncModbusTcpClient | AsyncModbusSerialClient


class Lines:
    """All lines of one process. Used from one event loop."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}

    def take(self, address: TcpAddress | SerialAddress, patience: Patience) -> "Line":
        """
        Hold a line, new or shared; give it back once. Raises DeviceSilent when it is in use with other settings.

        That may be over when the other device's configuration has changed too, so it is worth trying again.
        """
        line = self._lines.get(address.key)
        if line is None:
            line = self._lines[address.key] = Line(address, patience)
        elif (line.address, line.patience) != (address, patience):
            raise DeviceSilent(f"{address.key} is in use with other settings by another device: {line.settings}")
        line.holders += 1
        return line

    def give_back(self, line: "Line") -> None:
        """No longer needed by one of its holders."""
        line.holders -= 1
        if line.holders == 0:
            del self._lines[line.address.key]
            line.close()


class Line:
    """Made by Lines."""

    def __init__(self, address: TcpAddress | SerialAddress, patience: Patience) -> None:
        self.address = address
        self.patience = patience
        self.holders = 0
        self._turn = asyncio.Lock()
        self._in_vain = 0
        self._quiet_at = 0.0
        """When no answer to an earlier request can come any more."""
        self._client = _client(address, patience)
        if not logging.getLogger().isEnabledFor(logging.DEBUG):
            # What it says, we say with the device's name.
            logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

    @property
    def settings(self) -> str:
        """For an operator."""
        return f"{self.address}, timeout {self.patience.timeout_s:g} s, {self.patience.retries} retries"

    async def open(self) -> None:
        """Connect if it is not connected. Raises DeviceSilent, or an OSError with the reason."""
        async with self._turn:
            await self._open()

    def close(self) -> None:
        """Let go of it; it opens again when it is needed."""
        self._client.close()

    async def read(self, unit: int, span: Span) -> list[int]:
        """The words, or bits as 0 and 1, of a span. Raises Refused or DeviceSilent."""
        client = self._client
        match span.table:
            case Table.COIL:
                code, ask = 1, client.read_coils
            case Table.DISCRETE_INPUT:
                code, ask = 2, client.read_discrete_inputs
            case Table.HOLDING:
                code, ask = 3, client.read_holding_registers
            case Table.INPUT:
                code, ask = 4, client.read_input_registers
            case _:
                assert_never(span.table)
        found = await self._ask(unit, span, code, lambda: ask(span.address, count=span.size, device_id=unit))
        if span.table.holds_bits:
            found = found[: span.size]  # they come in whole bytes
        if len(found) != span.size:
            self._missed()
            raise DeviceSilent(f"unit {unit} at {self.address} answers {span} with {len(found)} values")
        return [int(each) for each in found]

    async def write(self, unit: int, span: Span, words: Sequence[int]) -> None:
        """Write a coil or holding registers. Raises Refused or DeviceSilent."""
        client = self._client
        if span.table is Table.COIL:
            await self._ask(unit, span, 5, lambda: client.write_coil(span.address, bool(words[0]), device_id=unit))
            return
        if span.size == 1:
            try:
                await self._ask(unit, span, 6, lambda: client.write_register(span.address, words[0], device_id=unit))
            except Refused as exc:
                if exc.code != _ILLEGAL_FUNCTION:
                    raise
            else:
                return
        # Some devices know only the one request, some only the other.
        await self._ask(unit, span, 16, lambda: client.write_registers(span.address, list(words), device_id=unit))

    async def write_bits(self, unit: int, span: Span, mask: Mask) -> None:
        """Change single bits of a holding register, in the device. Raises Refused or DeviceSilent."""
        await self._ask(
            unit,
            span,
            22,
            lambda: self._client.mask_write_register(
                address=span.address, and_mask=mask.keep, or_mask=mask.set, device_id=unit
            ),
        )

    async def _ask(
        self, unit: int, span: Span, code: int, request: Callable[[], Awaitable[ModbusPDU]]
    ) -> Sequence[int]:
        """Make one request; the bits or words of its answer. code: the request's function code, V1.1b3, 5.1."""
        async with self._turn:
            await self._open()
            try:
                answer = await request()
            except ModbusException as exc:
                self._missed()
                raise DeviceSilent(f"no answer from unit {unit} at {self.address} about {span}") from exc
            except asyncio.CancelledError:
                self._missed()
                raise
            if answer.function_code & ~_EXCEPTION != code:
                self._missed()
                raise DeviceSilent(f"unit {unit} at {self.address} answers something else when asked about {span}")
            if answer.retries and isinstance(self.address, SerialAddress):
                self._shut()  # the answers to the other tries are still to come
            if isinstance(answer, ExceptionResponse):
                self._in_vain = 0
                if answer.exception_code in _GATEWAYS_OWN:
                    raise DeviceSilent(f"unit {unit} at {self.address}: {MEANINGS[answer.exception_code]}")
                raise Refused(answer.exception_code)
            self._in_vain = 0
            return answer.bits if span.table.holds_bits else answer.registers

    async def _open(self) -> None:
        if self._client.connected:
            return
        if isinstance(self.address, SerialAddress):
            await asyncio.sleep(self._quiet_at - asyncio.get_running_loop().time())
            await asyncio.to_thread(_check_port, self.address.path)
        if not await self._client.connect():
            raise DeviceSilent(f"{self.address} cannot be opened: nobody listens there, or it does not answer")
        self._in_vain = 0

    def _missed(self) -> None:
        self._in_vain += 1
        if isinstance(self.address, SerialAddress) or self._in_vain >= IN_VAIN_LIMIT:
            self._shut()

    def _shut(self) -> None:
        """Have what may still come thrown away: opening a port empties its buffer."""
        self._client.close()
        self._quiet_at = asyncio.get_running_loop().time() + self.patience.all_s


def _client(address: TcpAddress | SerialAddress, patience: Patience) -> Client:
    if isinstance(address, TcpAddress):
        return AsyncModbusTcpClient(
            address.host,
            port=address.port,
            timeout=patience.timeout_s,
            retries=patience.retries,
            reconnect_delay=0,
        )
    return AsyncModbusSerialClient(
        address.path,
        framer=FramerType.RTU,
        baudrate=address.baud_rate,
        bytesize=address.data_bits,
        parity=address.parity,
        stopbits=address.stop_bits,
        timeout=patience.timeout_s,
        retries=patience.retries,
        reconnect_delay=0,
    )


def _check_port(path: str) -> None:
    """pymodbus says only that it did not work; the reason is worth having."""
    Path(path).stat()
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(f"{path}: no permission to read and write; put the mapper's user into the port's group")
