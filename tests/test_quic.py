"""The link over QUIC, over real sockets: what it carries, whom it lets in, what stays when the way changes."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvloop

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from componentbase import pki
from componentbase.tls import LiveContext, client_context, server_context
from link import websocket
from link.errors import LinkClosed, LinkError
from link.frames import (
    Ack,
    Cancel,
    Frame,
    GoodbyeCode,
    Lane,
    Push,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Traffic,
    Welcome,
)
from link.lanes import framed
from link.peer import Role
from link.pump import Pump, Transport
from link.quic import Credentials, Quic, dial
from link.quicserver import listen
from link.transports import TURN_MESSAGES
from tests.harness import netns
from tests.harness.nat import nat
from tests.harness.quic import NAMES, Certificates, quic_hub
from tests.harness.sides import HELLO, Side

KEY = ObjectKey(DEVICES, "default", "lamp")


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


async def connected(side: Side, port: int, credentials: Credentials, host: str = "127.0.0.1") -> Quic:
    connection = await dial(host, port, credentials, side.opened)
    assert isinstance(await side.frames.get(), Welcome)
    return connection


async def pushed(hub: Side, edge: Side, count: int = 1) -> None:
    """So many go down, and their acknowledgement comes up."""
    last = [hub.pump.push((), synced=False) for _ in range(count)][-1]
    while (frame := await edge.frames.get()) != Push(last, (), False):
        assert isinstance(frame, Push)
    edge.pump.send(Ack(last))
    while await hub.frames.get() != Ack(last):
        pass


async def test_frames_go_both_ways_and_a_goodbye_ends_it(certificates: Certificates) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        connection = await connected(edge, listener.port, certificates.node())
        assert await hub.frames.get() == HELLO
        transport = hub.pump.transport
        assert (connection.kind, connection.identity, transport.identity) == ("quic", "127.0.0.1", "system:node:n")
        assert len(transport.key) == 64
        await pushed(hub, edge)
        await pushed(hub, edge, 60)
        entries = tuple(ReportEntry(KEY, f"property/{at}", b"1" * 100_000) for at in range(9))
        edge.pump.report(entries)
        assert await hub.frames.get() == Report(1, entries)
        hub.pump.close(GoodbyeCode.SHUTDOWN, "stopping", retry_after_s=3.0)
        error = await edge.lost
        assert isinstance(error, LinkClosed)
        assert (error.code, error.reason, error.retry_after_s) == (GoodbyeCode.SHUTDOWN, "stopping", 3.0)
        assert isinstance(await hub.lost, LinkClosed)
        assert isinstance(transport, Quic)
        assert await transport.lost == await connection.lost == "connection closed"


async def test_closing_the_listener_ends_every_connection(certificates: Certificates) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with asyncio.timeout(10):
        async with quic_hub(hub.opened, certificates) as listener:
            await connected(edge, listener.port, certificates.node())
        assert isinstance(await edge.lost, LinkClosed)


async def test_a_hub_that_has_gone_is_noticed_by_silence(certificates: Certificates) -> None:
    hub, edge = Side(Role.HUB, heartbeat_s=0.1), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10), nat(listener.port) as between:
        connection = await connected(edge, between.port, certificates.node())
        between.is_blocked = True
        assert "nothing heard for " in str(await edge.lost)
        between.is_blocked = False
        await connection.lost


async def test_a_hub_that_has_restarted_says_that_it_does_not_know_the_connection(certificates: Certificates) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with asyncio.timeout(10):
        async with quic_hub(hub.opened, certificates) as listener, nat(listener.port) as between:
            connection = await connected(edge, between.port, certificates.node())
            between.is_blocked = True  # so it ends without a word
            async with quic_hub(Side(Role.HUB).opened, certificates) as successor:
                between.server = ("127.0.0.1", successor.port)
                between.is_blocked = False
                edge.pump.send(Cancel(1))
                assert "it has restarted" in str(await edge.lost)
            await connection.lost
            assert isinstance(hub.pump.transport, Quic)
            hub.pump.transport.give_up("nobody is there to answer")


async def test_messages_come_in_turns(certificates: Certificates) -> None:
    order: list[Frame] = []
    others: list[int] = []

    class Noting(Side):
        def frame_received(self, frame: Frame) -> None:
            super().frame_received(frame)
            if isinstance(frame, Cancel):
                order.append(frame)
                if len(order) == 1:
                    asyncio.get_running_loop().call_soon(lambda: others.append(len(order)))

    hub, edge = Noting(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await connected(edge, listener.port, certificates.node())
        many = 5 * TURN_MESSAGES
        for number in range(1, many + 1):
            edge.pump.send(Cancel(number))
        while len(order) < many:
            await hub.frames.get()
        assert order == [Cancel(number) for number in range(1, many + 1)]
        assert others[0] <= TURN_MESSAGES


# ---- whom it lets in


def test_quic_verifies_clients_as_the_websocket_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each certificate goes through the whole handshake of both, and both say the same."""
    certificates, other = Certificates(), pki.create_ca("test", 1)
    old = pki.create_ca("old", 1, below=1)
    cross = pki.cross_sign(old, certificates.ca.cert_pem, 1)
    with monkeypatch.context() as past:
        past.setattr(pki, "_now", lambda: datetime.now(UTC).replace(microsecond=0) - timedelta(days=3))
        expired = certificates.shown_by()
    with monkeypatch.context() as future:
        future.setattr(pki, "_now", lambda: datetime.now(UTC).replace(microsecond=0) + timedelta(hours=9))
        early = certificates.shown_by()
    own = certificates.shown_by()
    shown = {
        "its own": (own, certificates.ca.cert_pem),
        "its own, where two CAs are trusted": (own, other.cert_pem + certificates.ca.cert_pem),
        "another CA's of the same name": (certificates.shown_by(ca=other), certificates.ca.cert_pem),
        "a server's": (certificates.server.cert_pem + certificates.server.key_pem, certificates.ca.cert_pem),
        "expired": (expired, certificates.ca.cert_pem),
        "not yet valid": (early, certificates.ca.cert_pem),
        # A cross-signature is for servers: nobody becomes a node of the old CA by it.
        "behind a cross-signature": (_between(own, cross), old.cert_pem),
        "of a CA that is trusted no more": (own, old.cert_pem),
    }
    over_quic = {name: asyncio.run(_lets_in_quic(certificates, *each)) for name, each in shown.items()}
    over_tls = {name: asyncio.run(_lets_in_tls(certificates, tmp_path, *each)) for name, each in shown.items()}
    assert over_quic == over_tls
    assert [name for name, let_in in over_quic.items() if let_in] == list(shown)[:2]


def _between(shown: bytes, issuer: bytes) -> bytes:
    at = shown.index(b"-----BEGIN PRIVATE KEY")
    return shown[:at] + issuer + shown[at:]


async def _lets_in_quic(certificates: Certificates, shown: bytes, trusted: bytes) -> bool:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates, trusted=trusted) as listener, asyncio.timeout(10):
        with contextlib.suppress(LinkClosed):
            await dial("127.0.0.1", listener.port, certificates.node(shown), edge.opened)
        return await _is_welcome(edge)


async def _lets_in_tls(certificates: Certificates, directory: Path, shown: bytes, trusted: bytes) -> bool:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    (directory / "hub").write_bytes(certificates.server.cert_pem + certificates.server.key_pem)
    (directory / "node").write_bytes(shown)
    live = LiveContext(server_context(), ssl.CERT_REQUIRED)
    live.replace(str(directory / "hub"), trusted.decode())
    context = client_context()
    context.load_verify_locations(cadata=certificates.ca.cert_pem.decode())
    context.load_cert_chain(directory / "node")
    listener = await websocket.listen("127.0.0.1", 0, live.context, hub.opened)
    try:
        async with asyncio.timeout(10):
            with contextlib.suppress(LinkClosed):
                await websocket.dial("127.0.0.1", listener.port, context, edge.opened)
            return await _is_welcome(edge)
    finally:
        await listener.close()


async def _is_welcome(edge: Side) -> bool:
    """A client is done with the handshake of TLS 1.3 before its certificate is looked at."""
    if not hasattr(edge, "pump"):
        return False
    welcomed = asyncio.create_task(edge.frames.get(), name="welcome")
    edge.lost.add_done_callback(lambda _: welcomed.cancel())
    with contextlib.suppress(asyncio.CancelledError):
        return isinstance(await welcomed, Welcome)
    return False


async def test_both_ends_say_that_a_nodes_certificate_is_not_trusted(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    shown = certificates.shown_by(ca=pki.create_ca("other", 1))
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        with contextlib.suppress(LinkClosed):
            await dial("127.0.0.1", listener.port, certificates.node(shown), edge.opened)
        assert "the hub does not trust this node's certificate" in str(await edge.lost)
    [told] = [each for each in caplog.records if each.message == "client certificate not trusted"]
    assert "validation failed" in vars(told)["reason"]


async def test_without_a_certificate_nobody_gets_in(certificates: Certificates) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    bare = certificates.node()
    bare = bare._replace(configuration=replace(bare.configuration, certificate=None, private_key=None))
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        with contextlib.suppress(LinkClosed):
            await dial("127.0.0.1", listener.port, bare, edge.opened)
            await edge.lost
        assert not hasattr(hub, "pump")
        assert edge.frames.empty()


async def test_a_certificate_of_another_organisation_makes_nobody_a_node(certificates: Certificates) -> None:
    """A cluster's CA signs for others, too; the session hears of a stranger without a name, and turns it away."""
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    key, csr = pki.make_key_and_csr("system:node:n", "system:masters")
    shown = pki.sign_client_csr(certificates.ca, csr, "system:node:n", "system:masters", 1) + key
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await connected(edge, listener.port, certificates.node(shown))
        assert (hub.pump.transport.identity, hub.pump.transport.key) == ("", "")


async def test_a_certificate_shown_without_its_key_is_none(certificates: Certificates) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    stolen, other = certificates.node(), certificates.node()
    thief = stolen._replace(configuration=replace(stolen.configuration, private_key=other.configuration.private_key))
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        with contextlib.suppress(LinkClosed):
            await dial("127.0.0.1", listener.port, thief, edge.opened)
            await edge.lost
        assert not hasattr(hub, "pump")


@pytest.mark.parametrize(
    ("names", "host", "match"),
    [
        (("another.example",), "127.0.0.1", "doesn't match"),
        (("localhost",), "127.0.0.1", "doesn't match"),
        (("hub.example", *NAMES), "127.0.0.1", ""),
    ],
    ids=["another's", "its name but not its address", "several names"],
)
async def test_a_hub_is_trusted_under_its_names_only(names: tuple[str, ...], host: str, match: str) -> None:
    certificates = Certificates(names)
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        if not match:
            await connected(edge, listener.port, certificates.node(), host)
            return
        with pytest.raises(LinkClosed, match=match):
            await dial(host, listener.port, certificates.node(), edge.opened)
        assert not hasattr(edge, "pump")


async def test_a_node_that_poses_as_a_hub_is_none(certificates: Certificates) -> None:
    key, csr = pki.make_key_and_csr("system:node:evil", "system:nodes")
    shown = pki.sign_server_csr(certificates.ca, csr, "system:node:evil", "system:nodes", NAMES, 1) + key
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates, shown=shown) as listener, asyncio.timeout(10):
        with pytest.raises(LinkClosed, match="system:node:evil is a node, not a hub"):
            await dial("127.0.0.1", listener.port, certificates.node(), edge.opened)


async def test_certificates_and_cas_are_replaced_while_it_listens() -> None:
    """A rotation: the new CA signs a node while the hub shows the old one's certificate with a cross-signature."""
    old, new = pki.create_ca("old", 1, below=1), Certificates()
    hub, edge, after = Side(Role.HUB), Side(Role.EDGE), Side(Role.EDGE)
    before = Certificates(ca=old)
    async with quic_hub(hub.opened, before) as listener, asyncio.timeout(10):
        await connected(edge, listener.port, before.node())
        with pytest.raises(LinkClosed):
            await dial("127.0.0.1", listener.port, new.node(), after.opened)
        served = pki.issue_server_cert(new.ca, NAMES, 1)
        shown = served.cert_pem + pki.cross_sign(old, new.ca.cert_pem, 1) + served.key_pem
        before.hub.replace(shown, (new.ca.cert_pem + old.cert_pem).decode())
        # Who trusts the old one only believes the new one's server, and both CAs' nodes come in.
        for credentials in (before.node(), new.node(trusted=new.ca.cert_pem)):
            await connected(side := Side(Role.EDGE), listener.port, credentials)
            side.pump.close(GoodbyeCode.SHUTDOWN, "")
        assert not edge.lost.done()


# ---- when the way changes


async def test_a_nat_that_forgets_its_port_does_not_end_the_connection(certificates: Certificates) -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with (
        quic_hub(hub.opened, certificates) as listener,
        asyncio.timeout(10),
        nat(listener.port) as between,
    ):
        connection = await connected(edge, between.port, certificates.node())
        transport = hub.pump.transport
        assert transport.remote == f"127.0.0.1:{between.outer_port}"
        for _ in range(3):
            between.rebind()
            edge.pump.send(Cancel(1))
            while await hub.frames.get() != Cancel(1):
                pass
            await pushed(hub, edge, 3)
            assert transport.remote == f"127.0.0.1:{between.outer_port}"
            # The new address was proved by a challenge: until then no more than thrice of what came is sent there.
            assert isinstance(transport, Quic)
            assert transport._library._network_paths[0].is_validated
        assert not edge.lost.done()
        edge.pump.close(GoodbyeCode.SHUTDOWN, "enough")
        await connection.lost


@contextlib.asynccontextmanager
async def wired(hub: Side, edge: Side) -> AsyncIterator[netns.Networks]:
    """Each in a network of the kernel's own, and connected."""
    certificates = Certificates(("10.77.0.1",))
    with netns.networks("10.77.0.1/24", "10.77.0.2/24") as networks:
        async with asyncio.timeout(20):
            with networks.inside(netns.HUB):
                listener = await listen("10.77.0.1", 0, certificates.hub, hub.opened)
            try:
                with networks.inside(netns.EDGE):
                    await connected(edge, listener.port, certificates.node(), "10.77.0.1")
                yield networks
                assert not edge.lost.done()
            finally:
                await listener.close()


@pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())
async def test_an_edge_that_gets_another_address_keeps_its_connection() -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with wired(hub, edge) as networks:
        assert hub.pump.transport.remote.startswith("10.77.0.2:")
        networks.ip(netns.EDGE, "addr del 10.77.0.2/24 dev wire")
        edge.pump.send(Cancel(1))  # there is no way now, and that is not the end of it
        networks.ip(netns.EDGE, "addr add 10.77.0.99/24 dev wire")
        await pushed(hub, edge, 20)
        assert hub.pump.transport.remote.startswith("10.77.0.99:")


@pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not())
async def test_packets_are_as_large_as_the_wire_takes_and_as_it_becomes() -> None:
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    entries = tuple(ReportEntry(KEY, f"property/{at}", b"1" * 100_000) for at in range(9))

    async def reported(first: int) -> int:
        """How large packets are when all is there."""
        edge.pump.report(entries)
        while await hub.frames.get() != Report(first, entries):
            pass
        hub.pump.send(ReportAck(Traffic.INFRASTRUCTURE, (Span(first, first + len(entries) - 1),)))
        assert isinstance(await edge.frames.get(), ReportAck)
        transport = edge.pump.transport
        assert isinstance(transport, Quic)
        return transport._library._max_datagram_size

    async with wired(hub, edge) as networks:
        assert await reported(1) == 1452
        for which in (netns.HUB, netns.EDGE):
            networks.ip(which, "link set wire mtu 1300")
        assert await reported(1 + len(entries)) == 1200


# ---- what it is not to do


@pytest.mark.parametrize(
    ("lane", "data", "match"),
    [
        (Lane.BULK, framed(b"\x92\x04\x01"), "a frame of lane PUSH came on BULK"),
        (Lane.REPORT, (5 << 20).to_bytes(4), "over 4194304"),
        (Lane.CONTROL, framed(b"rubbish"), "not a frame|must be an array"),
    ],
    ids=["another lane", "too large", "rubbish"],
)
async def test_what_breaks_the_rules_ends_its_own_connection_only(
    certificates: Certificates, lane: Lane, data: bytes, match: str
) -> None:
    sides: list[Side] = []

    def opened(transport: Transport) -> Pump:
        sides.append(Side(Role.HUB))
        return sides[-1].opened(transport)

    good, bad = Side(Role.EDGE), Side(Role.EDGE)
    async with quic_hub(opened, certificates) as listener, asyncio.timeout(10):
        await connected(good, listener.port, certificates.node())
        connection = await connected(bad, listener.port, certificates.node())
        connection._library.write(lane, data)
        connection._socket.add(connection)
        error: LinkError = await sides[1].lost
        assert re.search(match, str(error)), error
        await bad.lost
        await pushed(sides[0], good)


async def test_dialling_says_what_failed(
    certificates: Certificates, unused_udp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("link.quic.OPEN_S", 0.2)
    with pytest.raises(LinkClosed, match=r"no QUIC connection to 127\.0\.0\.1:.*: no handshake in time"):
        await dial("127.0.0.1", unused_udp_port, certificates.node(), Side(Role.EDGE).opened)
    with pytest.raises(LinkClosed, match=r"cannot connect to nowhere\.invalid"):
        await dial("nowhere.invalid", 1, certificates.node(), Side(Role.EDGE).opened)


def test_uvloop_serves_as_well(certificates: Certificates) -> None:
    async def serve() -> None:
        hub, edge = Side(Role.HUB), Side(Role.EDGE)
        async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
            await connected(edge, listener.port, certificates.node(), "localhost")
            await pushed(hub, edge, 9)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
