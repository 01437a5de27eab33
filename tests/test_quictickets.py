"""A session over QUIC that is resumed, over real sockets: who is believed by a ticket, and who is not."""

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.connection import MAX_EARLY_DATA
from aioquic.tls import CipherSuite, PskKeyExchangeMode, SessionTicket

from apimachinery.keys import Node
from cloudhub.lobby import Denial
from componentbase import pki
from link import quic, quictickets
from link.errors import LinkClosed
from link.frames import GoodbyeCode, Welcome
from link.peer import Role
from link.pump import Pump, Transport
from link.quic import Credentials, Quic, dial
from link.quiccore import Connection, Tls
from link.quictickets import CHAIN_BYTES, LIFETIME_S, NUMBER_BYTES, Slot, Ticket, Tickets
from tests.harness.hubsite import Site
from tests.harness.nat import nat
from tests.harness.quic import Certificates, quic_hub
from tests.harness.sides import Side

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


class Hub:
    """Keeps the hub's end of each link."""

    def __init__(self) -> None:
        self.sides: list[Side] = []

    def opened(self, transport: Transport) -> Pump:
        self.sides.append(Side(Role.HUB))
        return self.sides[-1].opened(transport)

    @property
    def last(self) -> Quic:
        transport = self.sides[-1].pump.transport
        assert isinstance(transport, Quic)
        return transport


async def linked(port: int, credentials: Credentials, slot: Slot) -> bool:
    """A link that lives until there is a ticket of it; whether it resumed the session before."""
    edge = Side(Role.EDGE)
    connection = await dial("127.0.0.1", port, credentials, edge.opened, slot=slot)
    assert isinstance(await edge.frames.get(), Welcome)
    while slot._kept is None:
        await asyncio.sleep(0.005)
    edge.pump.close(GoodbyeCode.SHUTDOWN, "")
    await connection.lost
    return connection._library.is_resumed


async def refusal(port: int, credentials: Credentials, slot: Slot) -> str:
    """Why there is no link: a client may be done with the handshake before it is refused."""
    edge = Side(Role.EDGE)
    try:
        await dial("127.0.0.1", port, credentials, edge.opened, slot=slot)
    except LinkClosed as exc:
        return str(exc)
    return str(await edge.lost)


def changed(slot: Slot, **fields: object) -> None:
    """Have the edge believe something else of its ticket."""
    assert slot._kept is not None
    whose, ticket = slot._kept
    slot.put(whose, ticket._replace(session=replace(ticket.session, **fields)))  # type: ignore[arg-type]


def copied(slot: Slot) -> Slot:
    copy = Slot()
    copy._kept = slot._kept
    return copy


def bare(credentials: Credentials, slot: Slot) -> Credentials:
    """Shows no certificate; the ticket, if it has one, is offered all the same."""
    made = credentials._replace(configuration=replace(credentials.configuration, certificate=None, private_key=None))
    if slot._kept is not None:
        whose, ticket = slot._kept
        assert isinstance(whose, tuple)
        slot.put(whose[:2], ticket)
    return made


async def test_who_dials_again_shows_no_certificate_and_is_the_same_to_everybody_behind(
    certificates: Certificates,
) -> None:
    hub, slot, node = Hub(), Slot(), certificates.node()
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        resumed = [await linked(listener.port, node, slot) for _ in range(3)]
        assert resumed == [False, True, True]
        ends = [side.pump.transport for side in hub.sides]
        assert {(each.kind, each.identity, each.key) for each in ends} == {
            ("quic", "system:node:n", ends[0].key),
        }
        assert len(ends[0].key) == 64
        assert hub.last._library.tls._peer_certificate is None
        assert len(listener._tickets) == 1


async def test_a_ticket_counts_no_longer_than_an_hour_after_a_key_was_shown_and_resuming_makes_it_no_longer(
    certificates: Certificates,
) -> None:
    hub, slot, node = Hub(), Slot(), certificates.node()
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        ends = []
        for _ in range(2):
            await linked(listener.port, node, slot)
            assert slot._kept is not None
            [(_, kept)] = listener._tickets._by_number.values()
            ends.append((slot._kept[1].session.not_valid_after, kept.session.not_valid_after))
        assert ends[0] == ends[1]
        assert all(each <= datetime.now(UTC) + timedelta(seconds=LIFETIME_S) for each in ends[0])
        # An edge whose clock is slow offers it all the same.
        number, (identity, kept) = listener._tickets._by_number.popitem()
        over = replace(kept.session, not_valid_after=datetime.now(UTC))
        listener._tickets._by_number[number] = (identity, kept._replace(session=over))
        assert not await linked(listener.port, node, slot)


async def test_a_hub_that_knows_no_ticket_goes_on_with_certificates(certificates: Certificates) -> None:
    """It has restarted, or is another replica."""
    hub, slot, node = Hub(), Slot(), certificates.node()
    async with (
        asyncio.timeout(10),
        quic_hub(hub.opened, certificates) as first,
        quic_hub(hub.opened, certificates) as second,
        nat(first.port) as between,
    ):
        assert not await linked(between.port, node, slot)
        between.server = ("127.0.0.1", second.port)
        assert not await linked(between.port, node, slot)
        assert await linked(between.port, node, slot)


async def test_a_hub_that_has_an_address_proved_first_resumes_as_well(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("link.quicserver.RETRY_FROM", 0)
    hub, slot, node = Hub(), Slot(), certificates.node()
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        assert [await linked(listener.port, node, slot) for _ in range(2)] == [False, True]


async def test_where_nobody_answered_the_ticket_is_offered_again(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, slot, node = Hub(), Slot(), certificates.node()
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10), nat(listener.port) as between:
        await linked(between.port, node, slot)
        between.is_blocked = True
        with monkeypatch.context() as hasty:
            hasty.setattr("link.quic.OPEN_S", 0.1)
            assert "no handshake in time" in await refusal(between.port, node, slot)
        between.is_blocked = False
        assert await linked(between.port, node, slot)


# ---- what counts now, and not when the ticket was given


async def test_tickets_are_forgotten_with_what_the_hub_shows_and_whom_it_trusts() -> None:
    certificates, hub, slot = Certificates(), Hub(), Slot()
    node = certificates.node()
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await linked(listener.port, node, slot)
        certificates.hub.replace(
            certificates.server.cert_pem + certificates.server.key_pem, certificates.ca.cert_pem.decode()
        )
        assert not await linked(listener.port, node, slot)
        assert await linked(listener.port, node, slot)


async def test_a_link_that_began_before_a_rotation_leaves_no_ticket_after_it() -> None:
    certificates, hub, edge, slot = Certificates(), Hub(), Side(Role.EDGE), Slot()
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        before = listener._tickets
        certificates.hub.replace(
            certificates.server.cert_pem + certificates.server.key_pem, certificates.ca.cert_pem.decode()
        )
        await linked(listener.port, certificates.node(), slot)
        assert listener._tickets is not before
        assert (len(before), len(listener._tickets)) == (0, 1)
        del edge


async def test_who_is_of_a_ca_that_is_trusted_no_more_is_refused_as_with_its_certificate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The ticket is left to the hub by force: rotations forget it before that."""
    certificates, hub, slot = Certificates(), Hub(), Slot()
    node, own = certificates.node(), certificates.server.cert_pem + certificates.server.key_pem
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await linked(listener.port, node, slot)
        certificates.hub.replace(own, pki.create_ca("another", 1).cert_pem.decode())
        listener._tickets_of = certificates.hub.now
        told = [await refusal(listener.port, node, each) for each in (slot, Slot())]
        assert len(listener._tickets) == 0
        assert len(hub.sides) == 1
        assert told[0] == told[1]
        assert "the hub does not trust this node's certificate" in told[0]
    reasons = [vars(each)["reason"] for each in caplog.records if each.message == "client certificate not trusted"]
    assert len(set(reasons)) == 1, "of both"


async def test_a_certificate_that_has_ended_is_refused_whatever_its_ticket_says(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is made to have kept one of three days ago: nobody waits here until a certificate ends."""
    hub, slot, node = Hub(), Slot(), certificates.node()
    with monkeypatch.context() as past:
        past.setattr(pki, "_now", lambda: datetime.now(UTC).replace(microsecond=0) - timedelta(days=3))
        ended = certificates.node(certificates.shown_by())
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await linked(listener.port, node, slot)
        [(number, (identity, kept))] = listener._tickets._by_number.items()
        listener._tickets._by_number[number] = (identity, kept._replace(chain=pki.encoded(ended.shown)))
        told = [await refusal(listener.port, *each) for each in ((node, slot), (ended, Slot()))]
        assert told[0] == told[1]
        assert "the hub does not trust this node's certificate" in told[0]
        assert len(listener._tickets) == 0, "it was offered, and taken"
        assert len(hub.sides) == 1


@pytest.mark.parametrize("code", [GoodbyeCode.BANNED, GoodbyeCode.REPLACED])
async def test_who_is_banned_and_whose_key_was_replaced_is_turned_away_with_a_ticket_too(
    certificates: Certificates, code: GoodbyeCode
) -> None:
    site, slot, node, edge = Site(), Slot(), certificates.node(), Side(Role.EDGE)
    assert node.configuration.certificate is not None
    async with quic_hub(site.hub.opened, certificates) as listener, asyncio.timeout(10):
        assert not await linked(listener.port, node, slot)
        shown = "n" if code is GoodbyeCode.BANNED else _key_of(node)
        site.door.refused = {shown: Denial(code, "not you")}
        connection = await dial("127.0.0.1", listener.port, node, edge.opened, slot=slot)
        error = await edge.lost
        assert isinstance(error, LinkClosed)
        assert (error.code, error.reason) == (code, "not you")
        assert connection._library.is_resumed
        assert site.hub.counters.banned + site.hub.counters.replaced == 1
        site.hub.recheck(Node("n"))


def _key_of(node: Credentials) -> str:
    return pki.Trusted(node.configuration.cadata or b"").client(node.shown).key_id


# ---- an edge


async def test_an_edge_offers_its_ticket_to_the_hub_that_gave_it_and_with_its_own_certificate_only(
    certificates: Certificates,
) -> None:
    hub, slot, node = Hub(), Slot(), certificates.node()
    async with (
        asyncio.timeout(10),
        quic_hub(hub.opened, certificates) as listener,
        nat(listener.port) as elsewhere,
    ):
        for port, credentials in ((elsewhere.port, node), (listener.port, certificates.node())):
            await linked(listener.port, node, slot)
            assert len(listener._tickets) == 1
            [number] = listener._tickets._by_number
            assert not await linked(port, credentials, slot)
            assert number not in listener._tickets._by_number, "the newer one is in its place"


async def test_an_edge_verifies_the_hubs_certificate_anew_and_takes_no_ticket_of_whom_it_does_not_trust(
    certificates: Certificates,
) -> None:
    hub, slot = Hub(), Slot()
    node, other = certificates.node(), pki.create_ca("another", 1)
    distrusting = node._replace(trusted=pki.Trusted(other.cert_pem))
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        assert "validation failed" in await refusal(listener.port, distrusting, slot)
        assert slot._kept is None
        await linked(listener.port, node, slot)
        edge = Side(Role.EDGE)
        with pytest.raises(LinkClosed, match="validation failed"):
            await dial("127.0.0.1", listener.port, distrusting, edge.opened, slot=slot)
        assert not hasattr(edge, "pump")
        assert slot._kept is None


# ---- whoever means ill


async def test_no_ticket_is_kept_of_whom_the_hub_does_not_trust(certificates: Certificates) -> None:
    hub, slot = Hub(), Slot()
    strangers = certificates.node(certificates.shown_by(ca=pki.create_ca("another", 1)))
    key, csr = pki.make_key_and_csr("system:node:n", "system:masters")
    nameless = pki.sign_client_csr(certificates.ca, csr, "system:node:n", "system:masters", 1) + key
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await refusal(listener.port, strangers, slot)
        await refusal(listener.port, bare(strangers, slot), slot)
        edge = Side(Role.EDGE)
        await dial("127.0.0.1", listener.port, certificates.node(nameless), edge.opened, slot=slot)
        assert isinstance(await edge.frames.get(), Welcome)
        assert len(listener._tickets) == 0


class WithoutDhe(Connection):
    """Offers to take the ticket's secret alone, of which no key of the session would be forgotten."""

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._psk_key_exchange_modes = [PskKeyExchangeMode.PSK_KE]


class Skipping(Tls):
    """Overhears that it is asked for a certificate."""

    def _client_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        self._certificate_request = None
        super()._client_handle_finished(input_buf, output_buf)


class Overhearing(Connection):
    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls.__class__ = Skipping


def tampered(session: SessionTicket) -> bytes:
    return bytes((session.ticket[0] ^ 1,)) + session.ticket[1:]


ATTACKS: dict[str, tuple[Callable[[SessionTicket], dict[str, object]], type[Connection], str]] = {
    "a number that nobody gave": (lambda _: {"ticket": os.urandom(64)}, Connection, ""),
    "a number that was changed": (lambda own: {"ticket": tampered(own)}, Connection, ""),
    "no number at all": (lambda _: {"ticket": b""}, Connection, ""),
    "without Diffie-Hellman": (lambda _: {}, WithoutDhe, ""),
    "without the secret": (lambda _: {"resumption_secret": bytes(48)}, Connection, "PSK validation failed"),
    "with early data": (lambda _: {"max_early_data_size": MAX_EARLY_DATA}, Connection, "early data is not taken"),
    "a certificate that was asked for is left out": (
        lambda _: {"ticket": os.urandom(64)},
        Overhearing,
        "AlertUnexpectedMessage|TLS alert 10|unexpected",
    ),
}


@pytest.mark.parametrize("has_certificate", [True, False])
@pytest.mark.parametrize("attack", ATTACKS)
async def test_nobody_comes_in_by_a_ticket_that_is_not_his_to_use(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, attack: str, has_certificate: bool
) -> None:
    """Who has a certificate, and no ticket that counts, comes in by that; who means ill is refused, and has neither."""
    change, hostile, reason = ATTACKS[attack]
    hub, slot, node = Hub(), Slot(), certificates.node()
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await linked(listener.port, node, slot)
        assert slot._kept is not None
        changed(slot, **change(slot._kept[1].session))
        monkeypatch.setattr(quic, "Connection", hostile)
        shown = node if has_certificate else bare(node, slot)
        if has_certificate and not reason:
            edge = Side(Role.EDGE)
            connection = await dial("127.0.0.1", listener.port, shown, edge.opened, slot=slot)
            assert isinstance(await edge.frames.get(), Welcome)
            assert not connection._library.is_resumed
            assert not hub.last._library.is_resumed
            assert len(hub.sides) == 2
            return
        told = await refusal(listener.port, shown, slot)
        assert re.search(reason or "no certificate was shown", told)
        assert len(hub.sides) == 1


@pytest.mark.parametrize("has_certificate", [True, False])
async def test_a_ticket_that_was_used_is_nobodys_any_more(certificates: Certificates, has_certificate: bool) -> None:
    hub, slot, node = Hub(), Slot(), certificates.node()
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await linked(listener.port, node, slot)
        copy = copied(slot)
        assert await linked(listener.port, node, slot)
        if has_certificate:
            assert not await linked(listener.port, node, copy)
        else:
            assert "no certificate was shown" in await refusal(listener.port, bare(node, copy), copy)
            assert len(hub.sides) == 2


async def test_the_number_of_another_nodes_ticket_makes_nobody_that_node(certificates: Certificates) -> None:
    hub, slot, others = Hub(), Slot(), Slot()
    node, other = certificates.node(), certificates.node(certificates.shown_by("other"))
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await linked(listener.port, node, slot)
        await linked(listener.port, other, others)
        assert slot._kept is not None
        changed(others, ticket=slot._kept[1].session.ticket)
        assert "PSK validation failed" in await refusal(listener.port, other, others)
        assert len(hub.sides) == 2
        assert not await linked(listener.port, node, slot), (
            "by that it was used, and what is lost is a round of signing"
        )


async def test_a_ticket_whose_secret_nobody_had_to_show_stands_for_nobody(certificates: Certificates) -> None:
    """With other ciphers the library finds the ticket, and goes on without it: then it is not looked at any more."""
    hub, slot, suite = Hub(), Slot(), CipherSuite.CHACHA20_POLY1305_SHA256
    node, other = certificates.node(), certificates.node(certificates.shown_by("other"))
    other = other._replace(configuration=replace(other.configuration, cipher_suites=[suite]))
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        for has_certificate in (True, False):
            await linked(listener.port, node, slot)
            assert slot._kept is not None
            changed(slot, cipher_suite=suite, resumption_secret=bytes(32))
            thief = bare(other, slot)
            if has_certificate:
                thief = thief._replace(configuration=other.configuration)
                slot.put(("127.0.0.1", listener.port, *pki.encoded(thief.shown)), slot._kept[1])
                assert not await linked(listener.port, thief, slot)
                assert hub.last.identity == "system:node:other"
            else:
                assert "no certificate was shown" in await refusal(listener.port, thief, slot)
            assert "system:node:n" not in listener._tickets._numbers, "it was found, and is used"
        assert len(hub.sides) == 3


async def test_early_data_without_a_ticket_that_counts_is_dropped_unread(certificates: Certificates) -> None:
    """A hub that knows no ticket has no key for it, and goes on with certificates."""
    hub, slot, node, edge = Hub(), Slot(), certificates.node(), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        await linked(listener.port, node, slot)
        changed(slot, ticket=os.urandom(64), max_early_data_size=MAX_EARLY_DATA)
        connection = await dial("127.0.0.1", listener.port, node, edge.opened, slot=slot)
        assert isinstance(await edge.frames.get(), Welcome)
        assert not connection._library.is_resumed


# ---- what is kept


def ticket(number: bytes, chain: tuple[bytes, ...] = (b"der",)) -> Ticket:
    session = SessionTicket(0, 0, NOW, NOW, b"secret", "", number)  # type: ignore[arg-type]
    return Ticket(session, chain)


def test_a_hub_keeps_one_of_each_node_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quictickets, "TICKETS", 3)
    tickets = Tickets()
    for at in range(3):
        tickets.add(f"n{at}", ticket(b"%d" % at))
    tickets.add("n0", ticket(b"again"))
    assert tickets.take(b"0") is None
    tickets.add("n3", ticket(b"3"))
    assert len(tickets) == 3
    assert [tickets.take(number) is not None for number in (b"1", b"again", b"2", b"3")] == [False, True, True, True]
    assert (len(tickets), tickets._numbers) == (0, {})
    assert tickets.take(b"3") is None


def test_what_is_too_much_to_keep_is_not_kept_and_nothing_outlives_its_certificate(certificates: Certificates) -> None:
    shown = certificates.node().shown
    session = ticket(b"1").session
    session = replace(
        session, not_valid_after=NOW + timedelta(days=1), max_early_data_size=9, other_extensions=[(1, b"")]
    )
    made = Ticket.of(session, shown)
    assert made is not None
    assert made.session == replace(
        session,
        not_valid_after=NOW + timedelta(seconds=LIFETIME_S),
        max_early_data_size=None,
        other_extensions=[],
    )
    assert pki.decoded(made.chain) == shown
    former = ticket(b"0")
    again = former.followed(session)
    assert again is not None
    assert (again.session, again.chain) == (replace(made.session, not_valid_after=NOW), former.chain)
    assert former.followed(replace(session, ticket=bytes(NUMBER_BYTES + 1))) is None
    [brief] = certificates.node(certificates.shown_by(days=60 / 86400)).shown
    short = Ticket.of(session, [brief])
    assert short is not None
    assert short.session.not_valid_after == brief.not_valid_after_utc
    assert Ticket.of(session, []) is None
    assert Ticket.of(session, shown * (CHAIN_BYTES // len(made.chain[0]) + 1)) is None
    assert Ticket.of(replace(session, ticket=bytes(NUMBER_BYTES + 1)), shown) is None
