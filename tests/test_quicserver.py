"""A hub's door for QUIC: who is turned away before anything is made for it, and what rubbish comes to."""

import asyncio
import contextlib
import os
import random
import socket

import pytest
from aioquic.quic.connection import QuicConnection

from componentbase.doorway import BROKEN, NO_CERTIFICATE, NO_ROOM, TIMEOUT, UNTRUSTED, Limits
from link import quicserver
from link.errors import LinkClosed
from link.peer import Role
from link.quic import dial
from link.quiccore import Connection
from link.quicprobe import answers, question
from link.quicserver import Listener
from tests.harness.quic import Certificates, quic_hub
from tests.harness.sides import Side


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


class Stranger:
    """A socket that says what it likes."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((address, 0))
        self.sock.setblocking(False)
        self._hub = ("127.0.0.1", port)

    def __enter__(self) -> "Stranger":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, data: bytes) -> None:
        self.sock.sendto(data, self._hub)

    async def hear(self) -> bytes:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self.sock, 2048)


def hello(certificates: Certificates) -> bytes:
    """The first packet of a handshake that will never go on."""
    configuration = certificates.node().configuration
    configuration.server_name = "127.0.0.1"
    made = Connection(configuration)
    made.connect(("127.0.0.1", 1), 0.0)
    return made.datagrams_to_send(0.0)[0][0]


async def at_door(listener: Listener, count: int) -> None:
    async with asyncio.timeout(5):
        while len(listener._threshold) != count:
            await asyncio.sleep(0.005)


async def test_more_at_the_door_than_may_be_are_refused_and_an_open_link_makes_room(certificates: Certificates) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    limits = Limits(each=2, overall=9)
    async with quic_hub(hub.opened, certificates, at_door=limits) as listener, asyncio.timeout(10):
        with Stranger(listener.port) as one:
            one.say(hello(certificates))
            await at_door(listener, 1)
            await dial("127.0.0.1", listener.port, certificates.node(), edge.opened)
            await at_door(listener, 1)
            one.say(hello(certificates))
            await at_door(listener, 2)
            with pytest.raises(LinkClosed, match="QUIC error 0x2"):
                await dial("127.0.0.1", listener.port, certificates.node(), Side(Role.EDGE).opened)
        assert not edge.lost.done()


async def test_where_many_are_at_the_door_an_address_is_proved_first(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quicserver, "RETRY_FROM", 1)
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        with Stranger(listener.port) as first, Stranger(listener.port, "127.0.0.9") as flood:
            first.say(hello(certificates))
            await at_door(listener, 1)
            for _ in range(50):
                flood.say(hello(certificates))
                assert len(await flood.hear()) < 200, "less than came"
            assert len(listener._threshold) == 1, "nothing was made for them"
            await dial("127.0.0.1", listener.port, certificates.node(), edge.opened)
        assert not edge.lost.done()


async def test_a_packet_belongs_to_the_link_that_it_names_and_who_has_none_is_a_stranger(
    certificates: Certificates,
) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await dial("127.0.0.1", listener.port, certificates.node(), edge.opened)
        await hub.frames.get()
        (known,) = listener.connections
        number = next(iter(known._ids))
        assert listener._owner(b"\x40" + number + bytes(30)) is known
        assert listener._owner(b"\xc0" + bytes(4) + bytes((len(number),)) + number + bytes(30)) is known
        for rubbish in (b"", b"\x40", b"\xc0\0\0\0\1", b"\xc0\0\0\0\1\xff", b"\x40" + bytes(30), bytes(9)):
            assert listener._owner(rubbish) is None
        with Stranger(listener.port) as one:
            one.say(hello(certificates))
            await at_door(listener, 1)
            (unknown,) = listener.connections - {known}
            assert listener._owner(b"\x40" + next(iter(unknown._ids)) + bytes(30)) is None, "it is at the door"


async def test_a_full_hub_takes_nobody_more(certificates: Certificates) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await dial("127.0.0.1", listener.port, certificates.node(), edge.opened)
        listener._max_connections = 1
        with pytest.raises(LinkClosed):
            await dial("127.0.0.1", listener.port, certificates.node(), Side(Role.EDGE).opened)
        assert not edge.lost.done()


async def test_a_handshake_that_stands_still_is_given_up(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("link.quic.OPEN_S", 0.2)
    async with quic_hub(Side(Role.HUB).opened, certificates) as listener:
        with Stranger(listener.port) as slow:
            slow.say(hello(certificates))
            await at_door(listener, 1)
            (connection,) = listener.connections
            assert await connection.lost == "no handshake in time"
            await asyncio.sleep(0)  # whoever waits for that hears of it in its turn
        assert len(listener._threshold) == 0
        assert listener.refusals[TIMEOUT] == 1
        assert not listener.connections
        assert not listener._routes


async def test_handshakes_that_came_to_nothing_are_counted_by_why(certificates: Certificates) -> None:
    others = Certificates()
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    nobody = certificates.node()
    nobody.configuration.certificate = nobody.configuration.private_key = None
    stranger = certificates.node(others.shown_by())
    async with quic_hub(hub.opened, certificates, at_door=Limits(each=1, overall=9)) as listener, asyncio.timeout(10):
        for come in (stranger, nobody):
            lost = Side(Role.EDGE)
            with contextlib.suppress(LinkClosed):
                await dial("127.0.0.1", listener.port, come, lost.opened)
                await lost.lost  # a client is done before the hub has looked at its certificate
            await at_door(listener, 0)
        with Stranger(listener.port) as slow:
            slow.say(hello(certificates))
            await at_door(listener, 1)
            with pytest.raises(LinkClosed):
                await dial("127.0.0.1", listener.port, certificates.node(), Side(Role.EDGE).opened)
            (connection,) = listener.connections
            connection.give_up("it said something else")
            await at_door(listener, 0)
        await dial("127.0.0.1", listener.port, certificates.node(), edge.opened)
        assert listener.refusals == {UNTRUSTED: 1, NO_CERTIFICATE: 1, NO_ROOM: 1, BROKEN: 1, TIMEOUT: 0}


async def test_a_version_that_nobody_has_is_answered_with_those_there_are(certificates: Certificates) -> None:
    async with quic_hub(Side(Role.HUB).opened, certificates) as listener:
        with Stranger(listener.port) as asking:
            asking.say(question(b"8 bytes!", b"elsewise"))
            assert answers(await asking.hear(), b"8 bytes!", b"elsewise")
            # Nothing smaller is answered: a packet with a forged address must not be worth its price.
            asking.say(question(b"8 bytes!", b"elsewise")[:600])
            asking.say(question(b"8 bytes?", b"elsewise"))
            assert answers(await asking.hear(), b"8 bytes?", b"elsewise")
        assert not listener.connections


async def test_rubbish_makes_nothing_and_costs_the_others_nothing(certificates: Certificates) -> None:
    """Noise, and packets of a handshake and of an open connection with bits changed or cut."""
    rng = random.Random(5)
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(20):
        connection = await dial("127.0.0.1", listener.port, certificates.node(), edge.opened)
        await edge.frames.get()
        library: QuicConnection = connection._library
        routes = len(listener._routes)
        with Stranger(listener.port) as evil:
            seeds = [
                hello(certificates),
                b"\x40" + library._peer_cid.cid + os.urandom(60),
                question(b"a" * 8, b"b" * 8),
            ]
            for _ in range(600):
                packet = bytearray(rng.choice(seeds))
                for _ in range(rng.randrange(1, 20)):
                    packet[rng.randrange(len(packet))] = rng.randrange(256)
                evil.say(bytes(packet[: rng.randrange(1, len(packet) + 1)] if rng.random() < 0.5 else packet))
                if rng.random() < 0.05:
                    await asyncio.sleep(0)
        edge.pump.peer.heartbeat_s = 0.1
        seq = hub.pump.push((), synced=True)
        assert (await edge.frames.get())[0] == seq
        assert not edge.lost.done()
        for stranger in list(listener.connections - {hub.pump.transport}):
            stranger.give_up("the test is over")
        assert len(listener._routes) == routes


async def test_a_taken_port_is_an_error(certificates: Certificates) -> None:
    async with quic_hub(Side(Role.HUB).opened, certificates) as listener:
        with pytest.raises(OSError, match="in use"):
            await quicserver.listen("127.0.0.1", listener.port, certificates.hub, Side(Role.HUB).opened)
