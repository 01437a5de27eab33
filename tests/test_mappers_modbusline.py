"""Lines to real Modbus servers: over TCP, and on a serial cable made of pseudo-terminals."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from mappers.batches import Span, Table
from mappers.modbusline import Line, Lines, Patience, Refused, SerialAddress, TcpAddress
from mappers.registers import Mask
from mappers.words import DeviceSilent
from tests.harness.cable import Cable
from tests.harness.modbus_device import MOOD_REGISTER, SLOW_S, Mood
from tests.harness.server import Server

PATIENCE = Patience(timeout_s=5.0, retries=1)
"""With a device that is there: however long its process is kept waiting for the processor."""
BRISK = Patience(timeout_s=0.2, retries=1)
"""With one that is not, or says nothing. What the device does answer then is waited for with at_last()."""
SOME = Span(Table.HOLDING, 0, 3)


@pytest.fixture(scope="module")
def tcp() -> Iterator[TcpAddress]:
    with Server("tests.harness.modbus_device", "tcp", "0") as one:
        yield TcpAddress("127.0.0.1", one.port)


@pytest.fixture(scope="module")
def rtu() -> Iterator[SerialAddress]:
    with Cable() as cable, Server("tests.harness.modbus_device", "rtu", cable.far_end):
        yield SerialAddress(cable.near_end, 19200, 8, "N", 1)


@pytest.fixture(params=["tcp", "rtu"])
def address(request: pytest.FixtureRequest) -> TcpAddress | SerialAddress:
    """Of a line of each kind."""
    found: TcpAddress | SerialAddress = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def line(address: TcpAddress | SerialAddress) -> AsyncIterator[Line]:
    lines = Lines()
    one = lines.take(address, PATIENCE)
    yield one
    lines.give_back(one)


@pytest.fixture
async def brisk(address: TcpAddress | SerialAddress) -> AsyncIterator[Line]:
    lines = Lines()
    one = lines.take(address, BRISK)
    yield one
    lines.give_back(one)


async def at_last(line: Line, unit: int, span: Span) -> list[int]:
    """What is read once there is an answer, as a device is asked again until there is one; the first must be right."""
    while True:
        with contextlib.suppress(DeviceSilent):
            return await line.read(unit, span)


async def be(line: Line, mood: Mood) -> None:
    """The device takes it in, whether it answers or not."""
    try:
        await line.write(1, Span(Table.HOLDING, MOOD_REGISTER, 1), [mood])
    except DeviceSilent:
        assert mood is not Mood.FINE


@pytest.mark.parametrize(
    ("unit", "span", "words"),
    [
        (1, Span(Table.HOLDING, 2, 3), [2, 3, 4]),
        (2, Span(Table.HOLDING, 0, 1), [0]),
        (1, Span(Table.INPUT, 8, 2), [108, 109]),
        (1, Span(Table.COIL, 4, 3), [1, 0, 1]),
        (1, Span(Table.DISCRETE_INPUT, 0, 10), [0, 1] * 5),
        (1, Span(Table.HOLDING, 100, 125), [0] * 125),
    ],
)
async def test_all_four_tables_are_read(line: Line, unit: int, span: Span, words: list[int]) -> None:
    assert await line.read(unit, span) == words


async def test_coils_bits_and_registers_are_written(line: Line) -> None:
    coil, pair, one = Span(Table.COIL, 9, 1), Span(Table.HOLDING, 200, 2), Span(Table.HOLDING, 200, 1)
    for word in (1, 0):
        await line.write(1, coil, [word])
        assert await line.read(1, coil) == [word]
    await line.write(1, pair, [0x1234, 0x5678])
    await line.write(1, one, [0x00FF])
    await line.write_bits(1, one, Mask(keep=0xFFFE, set=0))
    assert await line.read(1, pair) == [0x00FE, 0x5678]


async def test_what_the_device_refuses_has_the_standards_words(line: Line) -> None:
    with pytest.raises(Refused, match="exception 2, illegal data address"):
        await line.read(1, Span(Table.HOLDING, 8, 5))
    with pytest.raises(Refused, match="exception 3, illegal data value"):
        await line.write(1, Span(Table.HOLDING, 5, 1), [101])
    with pytest.raises(Refused, match="exception 6, device busy"):
        await line.read(9, SOME)
    assert str(Refused(200)) == "exception 200, which the standard does not know"


async def test_a_unit_that_is_not_there_is_silent_and_the_others_go_on(brisk: Line) -> None:
    began = time.monotonic()
    with pytest.raises(DeviceSilent, match=r"no answer from unit 5 at .* about holding registers 0 to 2"):
        await brisk.read(5, SOME)
    assert time.monotonic() - began > BRISK.timeout_s * (BRISK.retries + 1)
    assert await at_last(brisk, 1, SOME) == [0, 1, 2]


@pytest.mark.parametrize("mood", [Mood.SILENT, Mood.RUBBISH, Mood.SHORT, Mood.ALIEN, Mood.OTHER])
async def test_no_answer_and_rubbish_are_silence_and_it_recovers(brisk: Line, mood: Mood) -> None:
    await be(brisk, mood)
    for _ in range(3):
        with pytest.raises(DeviceSilent):
            await brisk.read(1, SOME)
    while True:  # what was sent in vain may still be on its way
        try:
            await be(brisk, Mood.FINE)
            break
        except AssertionError:
            continue
    assert await at_last(brisk, 1, SOME) == [0, 1, 2]


async def test_the_answer_to_an_earlier_try_is_not_taken_for_the_next_request(rtu: SerialAddress) -> None:
    # On a serial line only: the server that plays the device mixes up the numbers of transactions that overlap.
    lines, patience = Lines(), Patience(timeout_s=0.2, retries=4)
    line = lines.take(rtu, patience)
    assert patience.timeout_s < SLOW_S < patience.all_s / 2  # the other half is for a device that is kept waiting
    await be(line, Mood.SLOW)
    for register in (1, 2):
        assert await line.read(1, Span(Table.HOLDING, register, 1)) == [register]
    await be(line, Mood.FINE)
    assert await line.read(1, Span(Table.HOLDING, 4, 1)) == [4]
    lines.give_back(line)


async def test_many_devices_at_once_take_turns(line: Line) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(line.read(1 + number % 2, Span(Table.INPUT, number % 10, 1)), name=f"ask[{number}]")
            for number in range(60)
        ]
    assert [task.result() for task in tasks] == [[100 + number % 10] for number in range(60)]


async def test_devices_on_one_address_share_the_line_until_the_last_has_gone(tcp: TcpAddress) -> None:
    lines = Lines()
    one, other = lines.take(tcp, PATIENCE), lines.take(tcp, PATIENCE)
    assert one is other
    await one.open()
    lines.give_back(one)
    assert await other.read(1, SOME) == [0, 1, 2]
    lines.give_back(other)
    assert lines.take(tcp, PATIENCE) is not one


async def test_a_port_in_use_with_other_settings_is_told_with_both(rtu: SerialAddress) -> None:
    lines = Lines()
    line = lines.take(rtu, BRISK)
    with pytest.raises(DeviceSilent, match=r"in use with other settings by another device: .*19200 8N1.*0\.2 s"):
        lines.take(rtu._replace(baud_rate=9600), BRISK)
    lines.give_back(line)
    assert lines.take(rtu._replace(baud_rate=9600), BRISK).holders == 1


async def test_a_server_that_is_killed_is_silent_and_found_again() -> None:
    lines = Lines()
    with Server("tests.harness.modbus_device", "tcp", "0") as server:
        line = lines.take(TcpAddress("127.0.0.1", server.port), BRISK)
        assert await at_last(line, 1, SOME) == [0, 1, 2]
        server.kill()
        for _ in range(2):
            with pytest.raises(DeviceSilent):
                await line.read(1, SOME)
        with pytest.raises(DeviceSilent, match="nobody listens there"):
            await line.open()
        server.start()
        assert await at_last(line, 1, SOME) == [0, 1, 2]
        lines.give_back(line)


async def test_a_serial_port_that_is_not_there_or_not_ours_is_told_with_the_reason(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch, rtu: SerialAddress
) -> None:
    lines = Lines()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await lines.take(SerialAddress(f"{tmp_path}/nowhere", 9600, 8, "N", 1), PATIENCE).open()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="into the port's group"):
        await lines.take(rtu, PATIENCE).open()


async def test_the_answer_to_a_request_given_up_is_not_taken_for_the_next(brisk: Line) -> None:
    for number in range(10):
        given_up = asyncio.ensure_future(brisk.read(1, Span(Table.HOLDING, 9, 1)))
        while not brisk._turn.locked():
            await asyncio.sleep(0)
        for _ in range(number):  # before and after it is sent
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        assert await at_last(brisk, 1, Span(Table.HOLDING, 1, 1)) == [1]
