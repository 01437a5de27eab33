"""The link over real sockets, with and without TLS."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from apimachinery.keys import ObjectKey
from apimachinery.resources import NODES
from componentbase import pki
from componentbase.doorway import Limits
from link.codec import decode, encode
from link.errors import LinkClosed, LinkError
from link.fields import MAX_FRAME_BYTES
from link.frames import Cancel, Frame, Goodbye, GoodbyeCode, Ping, Push, Report, ReportEntry, Welcome
from link.peer import Role
from link.pump import Pump
from link.transports import TURN_MESSAGES
from link.websocket import PATH, Listener, WebSocket, dial, listen
from link.wsframes import masked
from tests.harness.sides import HELLO, Side
from tests.harness.tls import contexts


@asynccontextmanager
async def serving(
    opened: Callable[[WebSocket], Pump], context: ssl.SSLContext | None = None
) -> AsyncIterator[Listener]:
    listener = await listen("127.0.0.1", 0, context, opened)
    try:
        yield listener
    finally:
        await listener.close()


async def test_frames_go_both_ways_and_a_goodbye_ends_it() -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with serving(hub.opened) as listener, asyncio.timeout(5):
        await dial("127.0.0.1", listener.port, None, edge.opened)
        assert await hub.frames.get() == HELLO
        assert await edge.frames.get() == Welcome("e", 0, False, 20.0)
        for size in (10, 200_000):
            seq = hub.pump.push((), synced=size == 10)
            assert await edge.frames.get() == Push(seq, (), size == 10)
        hub.pump.close(GoodbyeCode.SHUTDOWN, "stopping", retry_after_s=3.0)
        error = await edge.lost
        assert isinstance(error, LinkClosed)
        assert (error.code, error.reason, error.retry_after_s) == (GoodbyeCode.SHUTDOWN, "stopping", 3.0)
        assert isinstance(await hub.lost, LinkClosed)


async def test_a_connection_that_breaks_is_noticed_by_both() -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with serving(hub.opened) as listener, asyncio.timeout(5):
        connection = await dial("127.0.0.1", listener.port, None, edge.opened)
        await edge.frames.get()
        assert connection._transport is not None
        connection._transport.abort()
        assert isinstance(await edge.lost, LinkClosed)
        assert isinstance(await hub.lost, LinkClosed)


async def test_a_peer_that_breaks_the_protocol_is_told_and_dropped() -> None:
    hub = Side(Role.HUB)
    async with serving(hub.opened) as listener, asyncio.timeout(5):
        async with connect(f"ws://127.0.0.1:{listener.port}{PATH}", compression=None) as client:
            await client.send(encode(Ping(1)))
            goodbye = await client.recv()
            assert isinstance(goodbye, bytes)
            assert decode(goodbye) == Goodbye(GoodbyeCode.PROTOCOL, "edge may not say Ping while opening", 0.0)
        assert "may not say Ping" in str(await hub.lost)


@pytest.mark.parametrize(
    "message", ["text", b"rubbish", b"x" * (MAX_FRAME_BYTES + 1)], ids=["text", "rubbish", "too large"]
)
async def test_rubbish_ends_its_own_connection_only(message: str | bytes) -> None:
    sides: list[Side] = []

    def opened(connection: WebSocket) -> Pump:
        sides.append(Side(Role.HUB))
        return sides[-1].opened(connection)

    async with serving(opened) as listener, asyncio.timeout(10):
        good = Side(Role.EDGE)
        await dial("127.0.0.1", listener.port, None, good.opened)
        await good.frames.get()
        client = await connect(f"ws://127.0.0.1:{listener.port}{PATH}", compression=None)
        with pytest.raises(ConnectionClosed):  # whichever call meets the end first
            await client.send(message)
            while True:
                await client.recv()
        await sides[1].lost
        assert not sides[0].lost.done()
        assert not good.lost.done()


async def test_another_path_and_plain_http_are_refused() -> None:
    hub = Side(Role.HUB)
    async with serving(hub.opened) as listener, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read(12)).startswith(b"HTTP/1.1 ")
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"\x16\x03\x01rubbish" * 2000)
        assert b"101" not in await reader.read(100)
        writer.close()


async def test_dialling_says_what_failed(unused_tcp_port: int) -> None:
    edge = Side(Role.EDGE)
    with pytest.raises(LinkClosed, match="cannot connect to"):
        await dial("127.0.0.1", unused_tcp_port, None, edge.opened)

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LinkClosed):
            await dial("127.0.0.1", port, None, edge.opened)


async def test_identity_is_the_common_name_of_the_verified_certificate(tmp_path: Path) -> None:
    hub_context, [edge_context] = contexts(tmp_path, ["127.0.0.1"], ["n"])
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with serving(hub.opened, hub_context) as listener, asyncio.timeout(5):
        await dial("127.0.0.1", listener.port, edge_context, edge.opened)
        assert await edge.frames.get() == Welcome("e", 0, False, 20.0)
        assert hub.pump.transport.identity == "system:node:n"
        assert hub.pump.transport.key == pki.key_id((tmp_path / "n").read_bytes())
        assert edge.pump.transport.key == "", "an edge has no use for a hub's"
        edge.pump.close(GoodbyeCode.SHUTDOWN, "done")
        assert str(await hub.lost) == "done"


async def test_without_a_certificate_nobody_gets_in(tmp_path: Path) -> None:
    hub_context, _ = contexts(tmp_path, ["127.0.0.1"], [])
    hub, edge = Side(Role.HUB, answer=False), Side(Role.EDGE)
    stranger = ssl.create_default_context(cafile=str(tmp_path / "ca"))
    async with serving(hub.opened, hub_context) as listener, asyncio.timeout(5):
        try:
            await dial("127.0.0.1", listener.port, stranger, edge.opened)
            await edge.lost  # with TLS 1.3 the refusal comes after the client's handshake
        except LinkClosed:
            pass
        assert hub.frames.empty()


async def test_a_hub_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    hub_context, [edge_context] = contexts(tmp_path, ["another.example"], ["n"])
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with serving(hub.opened, hub_context) as listener, asyncio.timeout(5):
        with pytest.raises(LinkClosed, match="not to be trusted"):
            await dial("127.0.0.1", listener.port, edge_context, edge.opened)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_both_ends_say_that_a_nodes_certificate_is_not_trusted(
    runner: Callable[[Coroutine[None, None, None]], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub_context, _ = contexts(tmp_path, ["127.0.0.1"], [])
    trusting = ssl.create_default_context(cafile=str(tmp_path / "ca"))
    key, csr = pki.make_key_and_csr("system:node:n", "system:nodes")
    other = pki.create_ca("other", 1)
    (tmp_path / "n").write_bytes(pki.sign_client_csr(other, csr, "system:node:n", "system:nodes", 1) + key)
    trusting.load_cert_chain(tmp_path / "n")

    async def dial_twice() -> None:
        async with serving(Side(Role.HUB).opened, hub_context) as listener, asyncio.timeout(5):
            for _ in range(2):
                with pytest.raises(LinkClosed, match="the hub may not trust this node's certificate"):
                    await dial("127.0.0.1", listener.port, trusting, Side(Role.EDGE).opened)

    runner(dial_twice())
    [told] = [each for each in caplog.records if each.message == "client certificate not trusted"]
    assert "local issuer" in vars(told)["reason"]
    assert vars(told)["remote"].startswith("127.0.0.1:")


async def test_a_node_that_poses_as_a_hub_is_not_trusted(tmp_path: Path) -> None:
    ca = pki.create_ca("test", 1)
    key, csr = pki.make_key_and_csr("system:node:evil", "system:nodes")
    names = ["127.0.0.1"]
    (tmp_path / "evil").write_bytes(pki.sign_server_csr(ca, csr, "system:node:evil", "system:nodes", names, 1) + key)
    posing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    posing.load_cert_chain(tmp_path / "evil")
    trusting = ssl.create_default_context(cadata=ca.cert_pem.decode())
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with serving(hub.opened, posing) as listener, asyncio.timeout(5):
        with pytest.raises(LinkClosed, match="system:node:evil is a node, not a hub"):
            await dial("127.0.0.1", listener.port, trusting, edge.opened)


async def test_closing_the_listener_ends_every_connection() -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with asyncio.timeout(5):
        async with serving(hub.opened) as listener:
            connection = await dial("127.0.0.1", listener.port, None, edge.opened)
            await edge.frames.get()
        assert isinstance(await edge.lost, LinkClosed)
        await connection.lost


async def test_a_flood_on_one_connection_leaves_the_others_their_turn() -> None:
    """7,000 frames in one read; whoever says something meanwhile waits for TURN_MESSAGES of them, not for all."""
    order: list[str] = []

    class Noting(Side):
        def __init__(self, name: str) -> None:
            super().__init__(Role.HUB, answer=False)
            self.name = name

        def frame_received(self, frame: Frame) -> None:
            order.append(self.name)
            super().frame_received(frame)

    sides = [Noting("flood"), Noting("good")]
    waiting = iter(sides)
    async with serving(lambda connection: next(waiting).opened(connection)) as listener, asyncio.timeout(10):
        clients = [await connect(f"ws://127.0.0.1:{listener.port}{PATH}", compression=None) for _ in range(2)]
        for client, side in zip(clients, sides, strict=True):
            await client.send(encode(HELLO))
            assert await side.frames.get() == HELLO
            side.pump.send(Welcome("e", 0, False, 20.0))
            await client.recv()
        order.clear()
        # Ordinary writes would be read one by one. These are in the kernel before the hub comes round.
        flood, good = (client.transport.get_extra_info("socket") for client in clients)
        flooding = b"".join(masked(encode(Cancel(number)), b"abcd") for number in range(1000))
        os.write(flood.fileno(), flooding)
        os.write(good.fileno(), masked(encode(Cancel(1)), b"abcd"))
        while len(order) < 1001:
            await asyncio.sleep(0)
        assert order.index("good") <= 2 * TURN_MESSAGES
        assert order.count("flood") == 1000, "nothing is lost"
        for client in clients:
            await client.close()


@pytest.mark.parametrize("is_secure", [False, True])
async def test_what_came_whole_before_the_end_is_handed_on(tmp_path: Path, is_secure: bool) -> None:
    """More than one turn's frames, and the end of the stream in the same read."""
    hub_context, [edge_context] = contexts(tmp_path, ["127.0.0.1"], ["n1"]) if is_secure else (None, [None])
    entry = ReportEntry(ObjectKey(NODES, "", "n1"), "nodeInfo", b"{}")
    reports = [Report(number, (entry,)) for number in range(1, 11)]
    said: list[Frame] = [*(Ping(number) for number in range(2 * TURN_MESSAGES)), *reports]
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with serving(hub.opened, hub_context) as listener, asyncio.timeout(5):
        connection = await dial("127.0.0.1", listener.port, edge_context, edge.opened)
        await edge.frames.get()
        transport = connection._transport
        assert transport is not None
        transport.write(b"".join(masked(encode(frame), b"abcd") for frame in said))
        transport.close()
        assert isinstance(await hub.lost, LinkClosed)
        heard = [hub.frames.get_nowait() for _ in range(hub.frames.qsize())]
        assert [frame for frame in heard if isinstance(frame, Report)] == reports


async def test_more_at_the_door_than_may_be_are_closed_and_an_open_link_makes_room() -> None:
    side = Side(Role.HUB)
    listener = await listen("127.0.0.1", 0, None, side.opened, at_door=Limits(each=2, overall=9))
    try:
        async with asyncio.timeout(5):
            idle = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2)]
            reader, one_more = await asyncio.open_connection("127.0.0.1", listener.port)
            assert await reader.read() == b""
            one_more.close()
            idle[0][1].close()
            edge = Side(Role.EDGE)
            while True:  # until the hub has seen that it left
                with contextlib.suppress(LinkClosed):
                    await dial("127.0.0.1", listener.port, None, edge.opened)
                    break
            another = await asyncio.open_connection("127.0.0.1", listener.port)
            another[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await another[0].read(12)).startswith(b"HTTP/1.1 "), "who is open does not count"
            for _, writer in (idle[1], another):
                writer.close()
    finally:
        await listener.close()


async def test_a_full_hub_takes_nobody_more() -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    listener = await listen("127.0.0.1", 0, None, hub.opened, max_connections=1)
    try:
        async with asyncio.timeout(5):
            await dial("127.0.0.1", listener.port, None, edge.opened)
            with pytest.raises(LinkClosed):
                await dial("127.0.0.1", listener.port, None, Side(Role.EDGE).opened)
            assert not edge.lost.done()
    finally:
        await listener.close()


def test_a_connection_that_was_cut_off_is_told_to_its_handler_whatever_was_still_written() -> None:
    async def cut_off_while_writing() -> LinkError:
        hub, edge = Side(Role.HUB), Side(Role.EDGE)
        async with serving(hub.opened) as listener, asyncio.timeout(5):
            connection = await dial("127.0.0.1", listener.port, None, edge.opened)
            await edge.frames.get()
            assert connection._transport is not None
            connection._transport.abort()
            edge.pump.send(Ping(1))
            edge.pump.close(GoodbyeCode.SHUTDOWN, "stopping")
            return await edge.lost

    assert isinstance(uvloop.run(cut_off_while_writing()), LinkClosed)
