"""
Which Modbus tables there are, and how values that lie side by side are read in one request.

A request costs a round trip, on a serial line some 20 ms, whether it brings one register or a hundred. So what is
due is read in as few requests as the protocol's limits allow.

Invariants
    every name is in exactly one batch, and its whole span lies within the batch: no value is torn in two
    a batch never exceeds the limit of its table, and reads no address nobody asked for beyond max_gap in a row

Pure. The driver is mappers/modbus.py.
"""

import enum
from collections.abc import Mapping
from typing import NamedTuple

MAX_BITS = 2000  # 0x7D0: MODBUS Application Protocol V1.1b3, 6.1 and 6.2
MAX_REGISTERS = 125  # 0x7D: 6.3 and 6.4


class Table(enum.StrEnum):
    """One of the four tables of a Modbus device, by KubeEdge's word for it."""

    COIL = "CoilRegister"
    DISCRETE_INPUT = "DiscreteInputRegister"
    HOLDING = "HoldingRegister"
    INPUT = "InputRegister"

    @property
    def holds_bits(self) -> bool:
        """Whether an address is one bit; otherwise it is a register of 16."""
        return self in (Table.COIL, Table.DISCRETE_INPUT)

    @property
    def is_writable(self) -> bool:
        """Whether the protocol has a request to write to it."""
        return self in (Table.COIL, Table.HOLDING)


_WORDS = {
    Table.COIL: "coil",
    Table.DISCRETE_INPUT: "discrete input",
    Table.HOLDING: "holding register",
    Table.INPUT: "input register",
}


class Span(NamedTuple):
    """Consecutive addresses of one table."""

    table: Table
    address: int
    """As it is in the request: the first one is 0."""
    size: int
    """How many addresses."""

    @property
    def end(self) -> int:
        """The address after the last."""
        return self.address + self.size

    def __str__(self) -> str:
        word = _WORDS[self.table]
        return f"{word} {self.address}" if self.size == 1 else f"{word}s {self.address} to {self.end - 1}"


class Batch(NamedTuple):
    """One request, and whose values it brings."""

    span: Span
    names: tuple[str, ...]


def batches(spans: Mapping[str, Span], *, max_registers: int = MAX_REGISTERS, max_gap: int = 0) -> list[Batch]:
    """
    The requests that read these spans, none of which exceeds its table's limit by itself.

    max_gap: how many addresses that nobody asked for may be read along to save a request. Devices may refuse to read
    addresses they do not have, so it is the user's to say that there are none.
    """
    found: list[Batch] = []
    for name, span in sorted(spans.items(), key=lambda item: (item[1].table, item[1].address, item[0])):
        limit = MAX_BITS if span.table.holds_bits else max_registers
        if found:
            last = found[-1].span
            end = max(last.end, span.end)
            if span.table is last.table and span.address <= last.end + max_gap and end - last.address <= limit:
                found[-1] = Batch(last._replace(size=end - last.address), (*found[-1].names, name))
                continue
        found.append(Batch(span, (name,)))
    return found
