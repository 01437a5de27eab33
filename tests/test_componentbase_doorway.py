"""Who may be at the door: how many, of whom, for how long, and what becomes of one more."""

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from componentbase import doorway
from componentbase.doorway import (
    BROKEN,
    NO_CERTIFICATE,
    NO_ROOM,
    TIMEOUT,
    UNTRUSTED,
    Doorway,
    Leave,
    Limits,
    open_doorway,
)
from tests.harness.tls import contexts


class Guest(asyncio.Protocol):
    """Stays at the door until it is told to leave it, or ends."""

    def __init__(self, leave: Leave) -> None:
        self.leave = leave
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.leave()


class House:
    """A doorway and who came through it."""

    def __init__(self) -> None:
        self.guests: list[Guest] = []
        self.door: Doorway

    def made(self, leave: Leave) -> Guest:
        self.guests.append(Guest(leave))
        return self.guests[-1]

    @property
    def port(self) -> int:
        port: int = self.door.sockets[0].getsockname()[1]
        return port

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.door) != count:
                await asyncio.sleep(0.005)

    async def until_refused(self, why: str, count: int = 1) -> None:
        async with asyncio.timeout(5):
            while self.door.refusals[why] != count:
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def house(
    limits: Limits, context: ssl.SSLContext | None = None, handshake_s: float = 5.0
) -> AsyncIterator[House]:
    made = House()
    made.door = await open_doorway(made.made, "127.0.0.1", 0, limits, context=context, handshake_s=handshake_s)
    try:
        yield made
    finally:
        made.door.close()
        await made.door.wait_closed()
        for guest in made.guests:
            if isinstance(guest.transport, asyncio.Transport):
                guest.transport.abort()


async def comes(port: int, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))


async def is_turned_away(port: int, source: str = "127.0.0.1", within_s: float = 5.0) -> bool:
    reader, writer = await comes(port, source)
    try:
        async with asyncio.timeout(within_s):
            return await reader.read() == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    finally:
        writer.close()


async def test_one_address_leaves_room_for_the_others_and_all_together_have_a_bound() -> None:
    async with house(Limits(each=2, overall=3)) as made:
        kept = [await comes(made.port), await comes(made.port)]
        await made.until(2)
        assert await is_turned_away(made.port)
        kept.append(await comes(made.port, "127.0.0.2"))
        await made.until(3)
        assert await is_turned_away(made.port, "127.0.0.3")
        assert made.door.refusals[NO_ROOM] == 2
        kept.pop()[1].close()
        await made.until(2)
        assert not await is_turned_away(made.port, "127.0.0.3", within_s=0.3)
        for _, writer in kept:
            writer.close()


async def test_whoever_has_left_the_door_does_not_count_and_says_so_as_often_as_he_likes() -> None:
    async with house(Limits(each=1, overall=1)) as made:
        _, one = await comes(made.port)
        await made.until(1)
        made.guests[0].leave()
        made.guests[0].leave()
        assert len(made.door) == 0
        _, other = await comes(made.port)
        await made.until(1)
        one.close()
        while not (left := made.guests[0].transport) or not left.is_closing():  # two programs' work
            await asyncio.sleep(0.005)
        assert len(made.door) == 1
        other.close()


async def test_a_handshake_counts_from_its_first_byte_and_ends_in_time(tmp_path: Path) -> None:
    context, _ = contexts(tmp_path, ["127.0.0.1"], [])
    # Whoever is to be found at the door has as long as all of this takes; whoever is to be gone has not.
    for handshake_s in (30.0, 0.2):
        async with house(Limits(each=2, overall=9), context, handshake_s) as made:
            slow = [await comes(made.port) for _ in range(2)]
            slow[0][1].write(b"\x16\x03\x01\x02\x00\x01")  # a ClientHello begins, and drips
            if handshake_s > 1:
                await made.until(2)
                assert await is_turned_away(made.port)
                assert made.door.refusals[NO_ROOM] == 1
            else:
                await made.until_refused(TIMEOUT, 2)
                assert len(made.door) == 0
            for _, writer in slow:
                writer.close()
            await made.until(0)
            assert made.guests[0].transport is None, "nobody came through"
            rubbish = await comes(made.port)
            rubbish[1].write(b"GET / HTTP/1.1\r\n\r\n")
            assert await rubbish[0].read(1) in (b"", b"\x15")
            await made.until(0)
            rubbish[1].close()


async def shakes_hands(port: int, context: ssl.SSLContext) -> None:
    """With TLS 1.3 the client is done before the server has looked at its certificate."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    with contextlib.suppress(OSError):
        assert await reader.read() == b""
    writer.close()


async def test_handshakes_that_came_to_nothing_are_counted_by_why(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    context, [node] = contexts(tmp_path, ["127.0.0.1"], ["n"])
    _, [stranger] = contexts(tmp_path / "others", ["127.0.0.1"], ["n"])
    stranger.load_verify_locations(tmp_path / "ca")
    nobody = ssl.create_default_context(cafile=str(tmp_path / "ca"))
    none = dict.fromkeys((UNTRUSTED, NO_CERTIFICATE, BROKEN, TIMEOUT, NO_ROOM), 0)
    async with house(Limits(each=1, overall=9), context, handshake_s=30.0) as made:
        for come, why in ((stranger, UNTRUSTED), (nobody, NO_CERTIFICATE)):
            await shakes_hands(made.port, come)
            await made.until_refused(why)
        _, rubbish = await comes(made.port)
        rubbish.write(b"GET / HTTP/1.1\r\n\r\n")
        await made.until_refused(BROKEN)
        _, guest = await asyncio.open_connection("127.0.0.1", made.port, ssl=node)
        await made.until(1)
        assert await is_turned_away(made.port)
        assert made.door.refusals == none | dict.fromkeys((UNTRUSTED, NO_CERTIFICATE, BROKEN, NO_ROOM), 1)
        for writer in (rubbish, guest):
            writer.close()
    async with house(Limits(each=1, overall=9), context, handshake_s=0.3) as made:
        _, slow = await comes(made.port)
        await made.until_refused(TIMEOUT)
        assert (len(made.door), made.door.refusals) == (0, none | {TIMEOUT: 1})
        slow.close()


async def test_a_process_without_file_descriptors_accepts_again_when_it_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doorway, "PAUSE_S", 0.02)
    async with house(Limits(each=9, overall=9)) as made:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        clients = [socket.socket() for _ in range(2)]
        try:
            highest = max(each.fileno() for each in clients)
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            with contextlib.ExitStack() as stack:
                with contextlib.suppress(OSError):
                    while True:  # what is free below
                        stack.enter_context(socket.socket())
                for client in clients:
                    client.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", made.port))
                await asyncio.sleep(0.05)
                assert len(made.door) == 0
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await made.until(2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for client in clients:
                client.close()


async def test_those_turned_away_are_told_of_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async with house(Limits(each=0, overall=9)) as made:
        for _ in range(5):
            assert await is_turned_away(made.port)
    assert [each.message for each in caplog.records] == ["too many connections"]


async def test_a_taken_port_leaves_no_socket_behind() -> None:
    async with house(Limits(1, 1)) as made:
        with pytest.raises(OSError, match="in use"):
            await open_doorway(Guest, "127.0.0.1", made.port, Limits(1, 1), context=None, handshake_s=1.0)


async def test_every_address_of_the_machine_gets_the_same_port() -> None:
    door = await open_doorway(Guest, "", 0, Limits(1, 1), context=None, handshake_s=1.0)
    try:
        assert len({each.getsockname()[1] for each in door.sockets}) == 1
    finally:
        door.close()
        await door.wait_closed()


async def test_small_packets_are_not_held_back() -> None:
    async with house(Limits(1, 1)) as made:
        _, writer = await comes(made.port)
        async with asyncio.timeout(5):
            while not made.guests or (transport := made.guests[0].transport) is None:
                await asyncio.sleep(0.005)
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
