"""The broker's sockets: listening, stopping, slow readers, and the durable client through paho."""

import asyncio
import contextlib
import queue
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from devicetwin.broker.access import Account
from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.packets import (
    Connack,
    Connect,
    Decoder,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Will,
    encode,
)
from devicetwin.broker.server import BrokerServer, ListenError, listen
from devicetwin.broker.users import UserFile, changing, hashed
from tests.harness.pahoclient import hang_up

DEADLINE_S = 10.0
REPORT = "$hw/events/device/default/d/twin/update"


class Client:
    """A peer over a real socket, on the test's own loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = Decoder()

    async def send(self, *packets: Packet) -> None:
        self.writer.write(b"".join(map(encode, packets)))
        await self.writer.drain()

    async def next(self) -> Packet | None:
        """The next packet; None at the end of the connection."""
        async with asyncio.timeout(DEADLINE_S):
            while (packet := self.decoder.next()) is None:
                try:
                    data = await self.reader.read(65536)
                except ConnectionResetError:
                    data = b""
                if not data:
                    return None
                self.decoder.feed(data)
            return packet

    async def ask(self, question: Packet, *answers: Packet) -> None:
        await self.send(question)
        for answer in answers:
            assert await self.next() == answer


async def connected(port: int, client_id: str, *, will: Will | None = None, limit: int = 65536) -> Client:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=limit)
    client = Client(reader, writer)
    await client.ask(Connect(client_id, will=will), Connack(False, 0))
    return client


@contextlib.asynccontextmanager
async def running(config: BrokerConfig) -> AsyncIterator[BrokerServer]:
    async with await listen(config) as server, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.run(), name="mqtt-broker")
        yield server
        task.cancel()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


# -- listening and stopping -----------------------------------------------------------------------------------------


async def test_port_zero_takes_a_free_port_and_says_which() -> None:
    async with running(BrokerConfig(port=0)) as one, running(BrokerConfig(port=0)) as two:
        assert 0 < one.port != two.port
        client = await connected(one.port, "c")
        await client.ask(Pingreq(), Pingresp())
        client.writer.close()


async def test_taken_port_is_an_error_that_says_what_to_do() -> None:
    async with running(BrokerConfig(port=0)) as server:
        with pytest.raises(ListenError, match=f"port {server.port} is taken: .* on 127.0.0.1:{server.port}$"):
            await listen(BrokerConfig(port=server.port))


async def test_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(ListenError, match=r"192\.0\.2\.1"):
        await listen(BrokerConfig(host="192.0.2.1", port=0))


async def test_stop_ends_connections_without_wills_and_frees_the_port() -> None:
    async with running(BrokerConfig(port=0)) as server:
        watcher = await connected(server.port, "watcher")
        await watcher.ask(Subscribe(1, (("w", 0),)), Suback(1, (0,)))
        other = await connected(server.port, "other", will=Will("w", b"gone", 0, False))
        silent_reader, silent_writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await watcher.next() is None
    assert await other.next() is None
    assert await silent_reader.read() == b""
    for writer in (watcher.writer, other.writer, silent_writer):
        writer.close()
    async with running(BrokerConfig(port=server.port)):
        pass


async def test_cancelled_run_stops_the_broker() -> None:
    server = await listen(BrokerConfig(port=0))
    client = await connected(server.port, "c")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(server.run(), name="mqtt-broker")
        await client.ask(Pingreq(), Pingresp())
        task.cancel()
    assert await client.next() is None
    client.writer.close()
    await server.close()  # once more is harmless


async def test_one_connection_too_many_is_closed_at_once() -> None:
    async with running(BrokerConfig(port=0, max_connections=1)) as server:
        first = await connected(server.port, "first")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await first.ask(Pingreq(), Pingresp())
        writer.close()
        first.writer.close()


async def test_silent_connection_is_closed_after_the_connect_timeout() -> None:
    async with running(BrokerConfig(port=0, connect_timeout_s=0.05)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == b""
        writer.close()


async def test_bug_in_the_core_ends_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def receive(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    async with await listen(BrokerConfig(port=0)) as server:
        monkeypatch.setattr(server._broker, "receive", receive)
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(encode(Connect("c")))
        with pytest.raises(ZeroDivisionError):
            async with asyncio.timeout(DEADLINE_S):
                await server.run()
        writer.close()


async def test_clients_share_the_read_buffer_but_not_their_bytes() -> None:
    async with running(BrokerConfig(port=0)) as server:
        clients = [await connected(server.port, f"c{n}") for n in range(3)]
        for n, client in enumerate(clients):
            await client.ask(Subscribe(1, ((f"t{n}", 0),)), Suback(1, (0,)))
        packets = [encode(Publish(f"t{n}", b"%d" % n * 300)) for n in range(3)]
        for start in range(0, len(packets[0]), 50):
            for client, packet in zip(clients, packets, strict=True):
                client.writer.write(packet[start : start + 50])
                await client.writer.drain()
        for n, client in enumerate(clients):
            assert await client.next() == Publish(f"t{n}", b"%d" % n * 300)
            client.writer.close()


# -- slow readers ---------------------------------------------------------------------------------------------------


async def test_slow_reader_loses_qos_0_gets_qos_1_and_delays_nobody() -> None:
    payload = bytes(100_000)
    async with running(BrokerConfig(port=0)) as server:
        # A small limit makes the reader stop reading from its socket; what the kernel holds is beyond us.
        slow, fast = await connected(server.port, "slow", limit=1024), await connected(server.port, "fast")
        sender = await connected(server.port, "sender")
        for client in (slow, fast):
            await client.ask(Subscribe(1, (("t", 1),)), Suback(1, (1,)))
        count = 200
        for _ in range(count):
            await sender.send(Publish("t", payload))
            assert await fast.next() == Publish("t", payload)
        await sender.ask(Publish("t", b"last", 1, packet_id=1), Puback(1))
        assert await fast.next() == Publish("t", b"last", 1, packet_id=1)
        came = 0
        while await slow.next() != Publish("t", b"last", 1, packet_id=1):
            came += 1
        assert 0 < came < count
        for client in (slow, fast, sender):
            client.writer.close()


async def test_reader_beyond_the_bound_is_disconnected_and_others_live() -> None:
    config = BrokerConfig(port=0, write_high_bytes=1000, max_write_bytes=300_000)
    async with running(config) as server:
        good = await connected(server.port, "good")
        await good.ask(Publish("r", bytes(200_000), 1, True, packet_id=1), Puback(1))
        greedy = await connected(server.port, "greedy", limit=1024)
        with contextlib.suppress(ConnectionError):
            for _ in range(200):  # asks for 40 MB and reads nothing
                await greedy.send(Subscribe(1, (("r", 0),)))
        await until(lambda: server._broker.connection_count == 1)
        await good.ask(Pingreq(), Pingresp())
        greedy.writer.close()
        good.writer.close()


async def test_client_that_does_not_read_can_be_taken_over() -> None:
    async with running(BrokerConfig(port=0)) as server:
        sender = await connected(server.port, "sender")
        await sender.ask(Publish("r", bytes(200_000), 1, True, packet_id=1), Puback(1))
        stuck = await connected(server.port, "same", limit=1024)
        for _ in range(60):
            await stuck.send(Subscribe(1, (("r", 0),)))
        await until(lambda: any(client.is_choked for client in server._clients.values()))
        new = await connected(server.port, "same")
        await until(lambda: len(server._clients) == 2)
        await new.ask(Pingreq(), Pingresp())
        for client in (sender, stuck, new):
            client.writer.transport.abort()


async def test_refused_client_reads_why_before_the_connection_ends() -> None:
    async with running(BrokerConfig(port=0)) as server:
        client = Client(*await asyncio.open_connection("127.0.0.1", server.port))
        await client.ask(Connect("", clean_session=False), Connack(False, 2))
        assert await client.next() is None
        client.writer.close()


async def test_stop_does_not_wait_for_a_reader_that_does_not_read() -> None:
    async with running(BrokerConfig(port=0)) as server:
        sender = await connected(server.port, "sender")
        await sender.ask(Publish("r", bytes(200_000), 1, True, packet_id=1), Puback(1))
        stuck = await connected(server.port, "stuck", limit=1024)
        for _ in range(60):
            await stuck.send(Subscribe(1, (("r", 0),)))
        await sender.ask(Pingreq(), Pingresp())
        sender.writer.close()
    stuck.writer.transport.abort()


async def test_stop_gives_last_bytes_a_moment_and_then_cuts() -> None:
    async with running(BrokerConfig(port=0, write_high_bytes=16 << 20)) as server:
        stuck = await connected(server.port, "stuck", limit=1024)
        await stuck.ask(Publish("r", bytes(200_000), 1, True, packet_id=1), Puback(1))
        for _ in range(60):  # 12 MB: more than the kernel takes, less than would count as slow
            await stuck.send(Subscribe(1, (("r", 0),)))
        await until(lambda: any(c.transport.get_write_buffer_size() > 0 for c in server._clients.values()))
        assert not any(client.is_choked for client in server._clients.values())
    assert not server._clients
    stuck.writer.transport.abort()


# -- the durable client, through paho with acknowledgements by hand ---------------------------------------------------


class InsideClient(paho.Client):
    """paho on the connection that only the broker's own process can make."""

    sock: socket.socket

    def _create_socket_connection(self) -> socket.socket:
        return self.sock


async def twin_client(server: BrokerServer) -> "tuple[paho.Client, queue.Queue[paho.MQTTMessage]]":
    twin = InsideClient(CallbackAPIVersion.VERSION2, "twin", clean_session=False, manual_ack=True)
    twin.sock = await server.dial_inside()
    arrived: queue.Queue[paho.MQTTMessage] = queue.Queue()
    twin.on_message = lambda _client, _userdata, message: arrived.put(message)
    twin.connect("inside")
    twin.loop_start()
    return twin, arrived


async def take(arrived: "queue.Queue[paho.MQTTMessage]") -> paho.MQTTMessage:
    return await asyncio.to_thread(arrived.get, timeout=DEADLINE_S)


DURABLE = BrokerConfig(
    port=0, durable_client_id="twin", durable_filters=("$hw/events/device/+/+/twin/+",), max_queued=10
)


async def test_mapper_is_acknowledged_when_paho_has_acknowledged_by_hand() -> None:
    async with running(DURABLE) as server:
        mapper = await connected(server.port, "mapper")
        await mapper.send(Publish(REPORT, b"20", 1, packet_id=5))
        twin, arrived = await twin_client(server)  # connects only now: its session was there before
        message = await take(arrived)
        await mapper.ask(Pingreq(), Pingresp())  # and no PUBACK yet
        twin.ack(message.mid, message.qos)
        assert await mapper.next() == Puback(5)
        await asyncio.to_thread(hang_up, twin)
        mapper.writer.close()


async def test_flood_before_the_twin_is_there_waits_in_the_socket_and_arrives_whole() -> None:
    async with running(DURABLE) as server:
        mapper = await connected(server.port, "mapper")
        payloads = [b"%d" % n + bytes(2000) for n in range(1, 501)]
        flood = asyncio.create_task(
            mapper.send(*(Publish(REPORT, payload, 1, packet_id=n) for n, payload in enumerate(payloads, 1))),
            name="flood",
        )
        await until(lambda: not all(client.transport.is_reading() for client in server._clients.values()))
        other = await connected(server.port, "other")
        await other.ask(Publish("other", b"", 1, packet_id=1), Puback(1))  # is not held up
        twin, arrived = await twin_client(server)
        for payload in payloads:
            message = await take(arrived)
            assert message.payload == payload
            twin.ack(message.mid, message.qos)
        for n in range(1, 501):
            assert await mapper.next() == Puback(n)
        await flood
        await asyncio.to_thread(hang_up, twin)
        mapper.writer.close()
        other.writer.close()


# -- users ------------------------------------------------------------------------------------------------------------


async def login(port: int, client_id: str, user: str, password: str) -> tuple[int, Client]:
    """The code of CONNACK."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Client(reader, writer)
    await client.send(Connect(client_id, username=user, password=password.encode()))
    answer = await client.next()
    assert isinstance(answer, Connack)
    return answer.code, client


async def test_who_guesses_is_slowed_down_and_keeps_nobody_away(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    with changing(path) as users:
        users["modbus"] = Account(name="modbus", password=hashed("right password"), mapper=True)
    config = BrokerConfig(port=0, max_logins_per_peer=4)
    async with await listen(config, UserFile(path, anonymous=False)) as server, asyncio.TaskGroup() as tasks:
        running_server = tasks.create_task(server.run(), name="mqtt-broker")
        code, mapper = await login(server.port, "mapper", "modbus", "right password")
        assert code == 0
        began = asyncio.get_running_loop().time()
        guesses = [
            tasks.create_task(login(server.port, f"guess-{n}", "modbus", f"guess {n}"), name="guess") for n in range(12)
        ]
        await until(lambda: sum(each.done() for each in guesses) >= 8)  # told to come again, at once
        code, again = await login(server.port, "mapper", "modbus", "right password")
        assert code == 0, "known already: in, though every place for a login is taken"
        assert await mapper.next() is None, "taken over"
        codes = sorted([(await each)[0] for each in guesses])
        assert codes == [3] * 8 + [4] * 4
        assert asyncio.get_running_loop().time() - began >= 1.0
        assert server.logins_refused == 12
        for _, guesser in [each.result() for each in guesses]:
            guesser.writer.close()
        mapper.writer.close()
        again.writer.close()
        running_server.cancel()


# -- what it costs who does not use it --------------------------------------------------------------------------------


def _imports(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after a statement; and of our own, all."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    root = Path(__file__).parent.parent
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    return set(out.split())


def test_importing_devicetwin_does_not_import_the_broker() -> None:
    assert not any(name.startswith("devicetwin.broker") for name in _imports("import devicetwin"))


def test_broker_needs_the_standard_library_alone() -> None:
    tops = {name.partition(".")[0] for name in _imports("import devicetwin.broker.server")}
    tops -= {name.partition(".")[0] for name in _imports("pass")}  # what site packages load by themselves
    assert {name for name in tops if not name.startswith("_")} - set(sys.stdlib_module_names) == {
        "componentbase",  # its endpoints, which edgecore has loaded anyway, and which import nothing else
        "devicetwin",
        "orjson",  # what its messages are written with; edgecore has loaded it, too
    }


def test_client_sockets_have_no_delay() -> None:
    async def main() -> int:
        server = await listen(BrokerConfig(port=0))
        client = await connected(server.port, "c")
        (peer,) = server._clients.values()
        option: int = peer.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        client.writer.close()
        await server.close()
        return option

    assert asyncio.run(main()) != 0
