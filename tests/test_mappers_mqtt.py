"""One connection, against a real mosquitto."""

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from componentbase.brokers import BrokerAddress
from componentbase.endpoints import Endpoint
from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.server import listen
from mappers.mqtt import (
    INBOX_LIMIT,
    RECONNECT_LAST_S,
    BrokerRefused,
    BrokerUnreachable,
    Connection,
    ConnectionLost,
    Message,
    connect,
    reconnect_after_s,
)
from tests.conftest import need_tool
from tests.harness.mosquitto import Mosquitto
from tests.harness.tls import BrokerFiles

WILL = Message("wills/one", b"dead", retain=True)


def here(port: int) -> BrokerAddress:
    return BrokerAddress(Endpoint("127.0.0.1", port))


@pytest.fixture(scope="module")
def shared() -> Iterator[Mosquitto]:
    with Mosquitto() as one:
        yield one


@pytest.fixture
def broker(shared: Mosquitto) -> BrokerAddress:
    return here(shared.port)


@pytest.fixture
async def watcher(broker: BrokerAddress) -> AsyncIterator[Connection]:
    """Sees every will; retained ones of earlier tests are cleared."""
    async with connect(broker, "watcher", Message("wills/watcher", b"")) as connection:
        connection.publish(Message(WILL.topic, b"", retain=True))
        connection.subscribe(["wills/#", "chat/#"])
        await soon(connection, "chat/ready")
        yield connection


async def soon(connection: Connection, topic: str) -> None:
    """Until what was published and subscribed before is in effect at the broker."""
    connection.publish(Message(topic, b""))
    while (await connection.receive()).topic != topic:
        pass


async def next_message(connection: Connection) -> Message:
    async with asyncio.timeout(10):
        return await connection.receive()


# --- waiting times


def test_waiting_times_grow_are_bounded_and_spread() -> None:
    assert reconnect_after_s(1, 0.0) == 0.25
    assert reconnect_after_s(1, 1.0) == 0.5
    assert reconnect_after_s(2, 1.0) == 1.0
    assert reconnect_after_s(1000, 1.0) == RECONNECT_LAST_S
    assert reconnect_after_s(1000, 0.0) == RECONNECT_LAST_S / 2


# --- a connection


async def test_messages_arrive_once_and_in_order(broker: BrokerAddress, watcher: Connection) -> None:
    async with connect(broker, "one", WILL) as one:
        for number in range(100):
            one.publish(Message("chat/one", str(number).encode()))
        assert [(await next_message(watcher)).payload for _ in range(100)] == [str(n).encode() for n in range(100)]


async def test_what_was_published_last_is_sent_before_the_goodbye(broker: BrokerAddress, watcher: Connection) -> None:
    async with connect(broker, "one", WILL) as one:
        one.publish(Message("chat/one", b"x" * 200_000))
    assert len((await next_message(watcher)).payload) == 200_000
    await soon(watcher, "chat/ready")  # the will would have come before


async def test_the_will_comes_when_the_connection_is_let_go_of_without_a_goodbye(
    broker: BrokerAddress, watcher: Connection
) -> None:
    with pytest.raises(ConnectionLost):
        async with connect(broker, "one", WILL) as one:
            one.abort()
            await one.receive()
    assert await next_message(watcher) == Message("wills/one", b"dead")


async def test_a_successor_of_the_same_name_brings_the_will_before_its_own_words(
    broker: BrokerAddress, watcher: Connection
) -> None:
    async with connect(broker, "one", WILL), connect(broker, "one", WILL) as successor:
        successor.publish(Message("chat/one", b"here I am"))
        assert [await next_message(watcher) for _ in range(2)] == [
            Message("wills/one", b"dead"),
            Message("chat/one", b"here I am"),
        ]


async def test_a_lost_connection_gives_what_it_had_and_then_says_so() -> None:
    with Mosquitto() as mosquitto:
        with pytest.raises(ConnectionLost):
            async with connect(here(mosquitto.port), "one", WILL) as one:
                one.subscribe(["chat/#"])
                one.publish(Message("chat/one", b"last"))
                while not one.has_messages():
                    await asyncio.sleep(0.01)
                mosquitto.kill()
                assert (await next_message(one)).payload == b"last"
                await next_message(one)
        with pytest.raises(ConnectionLost):
            one.publish(Message("chat/one", b"too late"))


async def test_a_flood_is_held_back_by_the_socket_and_not_in_memory(broker: BrokerAddress) -> None:
    async with connect(broker, "reader", WILL) as reader, connect(broker, "writer", WILL) as writer:
        reader.subscribe(["chat/#"])
        await soon(reader, "chat/ready")
        for number in range(3 * INBOX_LIMIT):
            writer.publish(Message("chat/flood", str(number).encode()))
        deadline = time.monotonic() + 10
        while len(reader._inbox) < INBOX_LIMIT and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert INBOX_LIMIT <= len(reader._inbox) < INBOX_LIMIT + 50
        got = [int((await next_message(reader)).payload) for _ in range(3 * INBOX_LIMIT)]
        assert got == list(range(3 * INBOX_LIMIT))


async def test_an_answer_by_way_of_mosquitto_does_not_wait_for_a_delayed_acknowledgement(broker: BrokerAddress) -> None:
    """Our report is confirmed and then answered: two small packets to us, of which mosquitto holds the second back."""
    async with connect(broker, "device", WILL) as device, connect(broker, "edge", WILL) as edge:
        device.subscribe(["chat/answer"])
        edge.subscribe(["chat/report"])
        await soon(device, "chat/answer")
        await soon(edge, "chat/report")
        took_s = []
        for _ in range(20):
            start = time.monotonic()
            device.publish(Message("chat/report", b"1"))
            await next_message(edge)
            edge.publish(Message("chat/answer", b"1"))
            await next_message(device)
            took_s.append(time.monotonic() - start)
        # The kernel's delay is 40 ms, and would be in each of them; a machine that is busy delays not all.
        assert min(took_s) < 0.03


async def test_nobody_there_is_said_plainly(free_port: int) -> None:
    with pytest.raises(BrokerUnreachable, match=f"mqtt://127.0.0.1:{free_port}: Connection refused"):
        async with connect(here(free_port), "one", WILL):
            pass


async def test_a_listener_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mappers.mqtt.CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(BrokerUnreachable, match="does not answer"):
        async with connect(here(silent.getsockname()[1]), "one", WILL):
            pass


async def test_a_broker_that_refuses_gives_its_reason() -> None:
    with Mosquitto("allow_anonymous false") as mosquitto, pytest.raises(BrokerRefused, match="Not authorized"):
        async with connect(here(mosquitto.port), "one", WILL):
            pass


async def test_a_connection_being_made_can_be_cancelled() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            async with connect(here(silent.getsockname()[1]), "one", WILL):
                pass


async def test_over_tls_what_came_in_one_piece_is_read_to_its_end(tmp_path: Path) -> None:
    # TLS decrypts more than is read at once; what is left over no wire announces. mosquitto sends each message in a
    # piece of its own, the embedded broker all that one read caused in one.
    files = BrokerFiles(tmp_path)
    async with await listen(BrokerConfig(port=0, max_inflight=1000), None, files.server_context()) as server:
        there = BrokerAddress(Endpoint("127.0.0.1", server.port), tls=True, authority=files.authority)
        async with connect(there, "one", WILL) as one, connect(there, "two", WILL) as two:
            one.subscribe(["flood"])
            one.publish(Message("flood", b"ready"))
            assert (await next_message(one)).payload == b"ready"
            count = 3 * INBOX_LIMIT
            for number in range(count):
                two.publish(Message("flood", b"%d" % number))
            for number in range(count):
                assert (await next_message(one)).payload == b"%d" % number


async def test_a_broker_that_asks_for_a_password_gets_it_from_the_file(tmp_path: Path) -> None:
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    subprocess.run(
        [str(need_tool("mosquitto_passwd")), "-c", "-b", str(passwords), "me", "mine"], check=True, capture_output=True
    )
    passwords.chmod(0o644)
    with Mosquitto("allow_anonymous false", f"password_file {passwords}") as broker:
        there = BrokerAddress(Endpoint("127.0.0.1", broker.port), username="me", password_file=secret)
        with pytest.raises(BrokerUnreachable, match="secret: the password cannot be read"):
            async with connect(there, "one", WILL):
                pass
        secret.write_text("wrong")
        with pytest.raises(BrokerRefused, match="Not authorized"):
            async with connect(there, "one", WILL):
                pass
        secret.write_text("mine\n")
        async with connect(there, "one", WILL):
            pass
