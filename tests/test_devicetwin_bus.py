"""The bus against a real mosquitto, and against listeners that misbehave."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from componentbase.brokers import BrokerAddress
from componentbase.endpoints import Endpoint
from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.packets import Publish, encode
from devicetwin.broker.server import listen
from devicetwin.broker.users import UserFile
from devicetwin.bus import CONNECT_TIMEOUT_S, IN_LIMIT, OUT_LIMIT, READ_BYTES, Arrived, Bus, Online
from devicetwin.wire import Publication
from tests.harness.mosquitto import Mosquitto, free_port
from tests.harness.tls import BrokerFiles

DEADLINE_S = 10.0


async def until(is_so: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(bus: Bus) -> AsyncIterator[Bus]:
    task = asyncio.create_task(bus.run(), name="bus")
    try:
        yield bus
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def bus_to(port: int, client_id: str = "edge", *topics: str, user: str = "") -> Bus:
    return Bus(
        BrokerAddress.parse(f"mqtt://{user}127.0.0.1:{port}"), client_id, [(topic, 1) for topic in topics or ("t/#",)]
    )


@pytest.fixture
def mosquitto() -> Iterator[Mosquitto]:
    with Mosquitto("max_queued_messages 0", persistent=True) as broker:
        yield broker


async def arrived(bus: Bus, count: int) -> list[Arrived]:
    got: list[Arrived] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(got) < count:
            got += [each for each in await bus.receive(64) if isinstance(each, Arrived)]
    return got


async def test_what_is_published_arrives_and_is_acknowledged(mosquitto: Mosquitto) -> None:
    async with running(bus_to(mosquitto.port)) as bus:
        assert await bus.receive(9) == [Online(1)]
        assert bus.publish(Publication("t/1", b"one"))
        (message,) = await arrived(bus, 1)
        assert (message.topic, message.payload, message.retained) == ("t/1", b"one", False)
        bus.acknowledge([message.receipt])
        await until(lambda: bus.status().waiting_out == 0)
        assert bus.status().connected


async def test_the_socket_does_not_wait_to_fill_packets(mosquitto: Mosquitto) -> None:
    async with running(bus_to(mosquitto.port)) as bus:
        await until(lambda: bus.status().connected)
        sock = bus._socket
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(mosquitto: Mosquitto) -> None:
    async with running(bus_to(mosquitto.port)) as bus:
        await until(lambda: bus.status().connected)
        for number in range(5):
            bus.publish(Publication(f"t/{number}", b""))
        first = await arrived(bus, 5)
        bus.acknowledge(each.receipt for each in first[:2])
        # A round trip behind the acknowledgements, so that the broker has them.
        bus.publish(Publication("elsewhere", b""))
        await until(lambda: bus.status().waiting_out == 0)
    async with running(bus_to(mosquitto.port)) as again:
        assert [each.topic for each in await arrived(again, 3)] == ["t/2", "t/3", "t/4"]


async def test_a_receipt_of_an_earlier_connection_acknowledges_nothing(mosquitto: Mosquitto) -> None:
    async with running(bus_to(mosquitto.port)) as bus:
        await until(lambda: bus.status().connected)
        bus.publish(Publication("t/1", b"1"))
        (old,) = await arrived(bus, 1)
        mosquitto.stop()
        await until(lambda: not bus.status().connected)
        mosquitto.start()
        (new,) = await arrived(bus, 1)
        assert new.payload == b"1"
        assert new.receipt != old.receipt
        bus.acknowledge([old.receipt])
    async with running(bus_to(mosquitto.port)) as again:
        assert (await arrived(again, 1))[0].payload == b"1"


async def test_a_full_queue_stops_the_reading_and_nothing_is_lost(mosquitto: Mosquitto) -> None:
    count = 3 * IN_LIMIT
    async with running(bus_to(mosquitto.port)) as bus, running(bus_to(mosquitto.port, "sender", "none")) as sender:
        await until(lambda: bus.status().connected and sender.status().connected)
        for number in range(count):
            sender.publish(Publication("t/x", str(number).encode(), quality=0))
        # Nobody receives: the queue fills to its bound, plus what one read brings.
        await until(lambda: bus.status().waiting_in >= IN_LIMIT)
        assert bus._paused
        await asyncio.sleep(0.05)
        smallest = len(encode(Publish("t/x", b"0")))
        assert bus.status().waiting_in < IN_LIMIT + READ_BYTES // smallest + 1
        got = await arrived(bus, count)
        assert [int(each.payload) for each in got] == list(range(count))
        assert bus.status().dropped_in == 0


async def test_a_stuck_broker_bounds_what_waits_to_be_published(mosquitto: Mosquitto) -> None:
    async with running(bus_to(mosquitto.port)) as bus:
        await until(lambda: bus.status().connected)
        for _ in range(OUT_LIMIT):
            assert bus.publish(Publication("other/x", b""))
        assert not bus.publish(Publication("other/x", b""))
        assert bus.status().dropped_out == 1
        async with asyncio.timeout(DEADLINE_S):
            await bus.room()
        assert bus.publish(Publication("other/x", b""))


async def test_without_a_connection_publishing_and_waiting_for_room_return_at_once() -> None:
    bus = bus_to(free_port())
    assert not bus.publish(Publication("t/1", b""))
    await bus.room()
    bus.acknowledge([None])
    assert bus.status().dropped_out == 0


async def test_a_broker_that_is_down_is_one_warning_and_is_found_when_it_comes(
    mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    mosquitto.stop()
    async with running(bus_to(mosquitto.port)) as bus:
        await until(lambda: bus.status().problem)
        assert "refused" in bus.status().problem.lower()
        await asyncio.sleep(0.05)
        mosquitto.start()
        await until(lambda: bus.status().connected)
        assert bus.status().problem == ""
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


async def test_a_wrong_password_is_told() -> None:
    with Mosquitto("allow_anonymous false") as strict:
        async with running(bus_to(strict.port, user="me:wrong@")) as bus:
            await until(lambda: bus.status().problem)
            assert "the broker refused us" in bus.status().problem
            assert not bus.status().connected


@pytest.mark.timeout(10)  # what cannot be read must not be read for ever
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64, b"\x20\x01"])
async def test_what_is_no_broker_ends_the_attempt_and_not_the_bus(answer: bytes) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server, running(bus_to(server.sockets[0].getsockname()[1])) as bus:
        await until(lambda: bus.status().problem)
        assert not bus.status().connected
    # It dials again; a server that is closed waits for nobody, not for whom it has just accepted either.
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


async def test_it_stops_at_once_while_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with running(bus_to(silent.getsockname()[1])):
            await asyncio.sleep(0.05)
            start = time.monotonic()
    assert time.monotonic() - start < CONNECT_TIMEOUT_S / 2  # which is what waiting for an answer would take


async def test_over_tls_what_came_in_one_piece_is_read_to_its_end(tmp_path: Path) -> None:
    # TLS decrypts more than is read at once; what is left over no wire announces. mosquitto sends each message in a
    # piece of its own, the embedded broker all that one read caused in one.
    files = BrokerFiles(tmp_path)
    async with await listen(BrokerConfig(port=0), None, files.server_context()) as server:
        there = BrokerAddress(Endpoint("127.0.0.1", server.port), tls=True, authority=files.authority)
        async with (
            running(Bus(there, "edge", [("t/#", 1)])) as bus,
            running(Bus(there, "sender", [("n", 1)])) as sender,
        ):
            await until(lambda: bus.status().connected and sender.status().connected)
            for number in range(200):
                sender.publish(Publication("t/x", str(number).encode(), quality=0))
            assert [int(each.payload) for each in await arrived(bus, 200)] == list(range(200))


async def test_a_broker_in_this_process_is_dialled_from_inside(tmp_path: Path) -> None:
    config = BrokerConfig(port=0, durable_client_id="edge")
    async with await listen(config, UserFile(None, anonymous=False)) as server:
        address = BrokerAddress(Endpoint("127.0.0.1", server.port))
        async with running(Bus(address, "edge", [("t/#", 1)], server.dial_inside)) as bus:
            await until(lambda: bus.status().connected)
            bus.publish(Publication("t/1", b"one"))
            assert (await arrived(bus, 1))[0].payload == b"one"
        async with running(Bus(address, "edge", [("t/#", 1)])) as outside:
            await until(lambda: "Not authorized" in outside.status().problem)
