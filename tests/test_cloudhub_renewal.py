"""Who gets his next certificate, asked over mutual TLS on loopback, with a clock that the test sets."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apimachinery.keys import Node
from apimachinery.resources import SECRETS
from cloudhub.authority import CaLapsed
from cloudhub.keyturns import HOUR_S, MOST
from cloudhub.renewal import too_late
from cloudhub.roster import Roster
from cloudhub.vault import NAMESPACE
from componentbase import pki
from componentbase.certificates import validity
from edgehub.joinhub import Answer, Busy, Hub, JoinError, Refused
from tests.harness.joining import JoinableHub, joinable_hub

EDGE = Node("edge-1")
WINDOW = timedelta(days=30)
LIFE = timedelta(days=365)


@pytest.fixture
async def hub() -> AsyncIterator[JoinableHub]:
    async with joinable_hub(window_s=WINDOW.total_seconds()) as hub:
        yield hub


class Edge:
    """A node with what it was given last."""

    def __init__(self, hub: JoinableHub, folder: Path, node: str = EDGE) -> None:
        self.node = node
        self.key = b""
        self.certificate = b""
        self.next_key = b""
        self._hub = hub
        self._folder = folder

    async def join(self, token: str) -> None:
        self.key, csr = self.new_key()
        request = {"node": self.node, "csr": csr, "token": token}
        self.take(await asyncio.to_thread(self._asked.join, self._ca, request))

    async def renew(self, csr: str | None = None) -> Answer:
        """Asks, and goes on with what it has: take() is another matter."""
        self.next_key, made = self.new_key()
        return await asyncio.to_thread(self._asked.renew, self._context(), {"csr": csr or made})

    async def confirm(self) -> None:
        await asyncio.to_thread(self._asked.confirm, self._context())

    def take(self, answer: Answer, key: bytes = b"") -> None:
        self.certificate, self.key = answer.certificate.encode(), key or self.key

    def new_key(self) -> tuple[bytes, str]:
        key, csr = pki.make_key_and_csr(f"system:node:{self.node}", "system:nodes")
        return key, csr.decode()

    @property
    def _asked(self) -> Hub:
        return Hub(self._hub.endpoint, 10.0)

    @property
    def _ca(self) -> str:
        return self._hub.authority.certificate_pem.decode()

    def _context(self) -> ssl.SSLContext:
        path = self._folder / "shown"
        path.write_bytes(self.certificate + self.key)
        context = self._asked.trusting(self._ca)
        context.load_cert_chain(path)
        return context


@pytest.fixture
async def edge(hub: JoinableHub, tmp_path: Path) -> Edge:
    edge = Edge(hub, tmp_path)
    await edge.join(await hub.token(labels={"site": "berlin"}))
    return edge


async def refused(asked: Awaitable[object]) -> str:
    with pytest.raises(Refused) as caught:
        await asked
    assert caught.value.status == 403
    return str(caught.value)


@pytest.mark.parametrize(
    ("after", "window", "is_late"),
    [
        (-LIFE, WINDOW, False),
        (timedelta(0), WINDOW, False),
        (WINDOW - timedelta(seconds=1), WINDOW, False),
        (WINDOW, WINDOW, True),
        (-timedelta(seconds=1), timedelta(0), False),
        (timedelta(0), timedelta(0), True),
    ],
)
def test_how_long_after_its_end_a_certificate_renews(after: timedelta, window: timedelta, *, is_late: bool) -> None:
    lapses = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    refusal = too_late(EDGE, lapses, lapses + after, window)
    assert (refusal is not None) == is_late
    if refusal:
        assert "cloudcore token create --replace --nodes edge-1" in refusal
        assert "lapsed at 2026-11-23T12:00:00Z" in refusal


async def test_a_node_gets_a_certificate_for_another_key_and_keeps_its_labels(hub: JoinableHub, edge: Edge) -> None:
    answer = await edge.renew()
    assert pki.common_name(answer.certificate.encode()) == "system:node:edge-1"
    assert pki.key_id(answer.certificate.encode()) != pki.key_id(edge.certificate)
    assert answer.ca.encode() == hub.authority.certificate_pem
    roster = Roster(hub.objects)
    assert await roster.labels(EDGE) == {"site": "berlin"}
    identity = (await roster.identities())[EDGE]
    assert identity.former == pki.key_id(edge.certificate)
    assert identity.expires == validity(answer.certificate.encode()).lapses


async def test_an_answer_that_was_lost_costs_nobody_his_name(hub: JoinableHub, edge: Edge) -> None:
    await edge.renew()
    answer, key = await edge.renew(), edge.next_key  # with another key, as after a disk that lost the first
    edge.take(answer, key)
    await edge.confirm()
    await edge.confirm()  # that answer may be lost, too
    edge.take(await edge.renew(), edge.next_key)
    await edge.confirm()
    assert (await Roster(hub.objects).identities())[EDGE].is_confirmed


async def test_a_node_gets_so_many_certificates_in_an_hour(hub: JoinableHub, edge: Edge) -> None:
    for _ in range(MOST):
        await edge.renew()
    _, csr = edge.new_key()
    with pytest.raises(Busy, match="too many certificates were asked for as edge-1: come back in 3600 s") as told:
        await edge.renew(csr)
    assert told.value.wait_s == HOUR_S
    assert hub.counts.renewed == MOST
    hub.monotonic_s += HOUR_S
    for _ in range(2):
        await edge.renew(csr)


async def test_what_was_renewed_renews_no_more_once_the_new_one_was_shown(edge: Edge) -> None:
    former = edge.certificate, edge.key
    edge.take(await edge.renew(), edge.next_key)
    await edge.confirm()
    edge.certificate, edge.key = former
    assert "another key has the name edge-1 by now" in await refused(edge.renew())
    assert "another key has the name edge-1 by now" in await refused(edge.confirm())


async def test_a_certificate_that_has_lapsed_renews_within_its_window(hub: JoinableHub, edge: Edge) -> None:
    hub.now += LIFE + WINDOW - timedelta(minutes=10)
    await edge.renew()
    hub.now += timedelta(minutes=20)
    assert "may be renewed for 30 days after that" in await refused(edge.renew())
    assert "join again" in await refused(edge.confirm())


async def test_tls_lets_a_lapsed_certificate_ask_and_policy_decides(
    hub: JoinableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others move the hub's clock; here OpenSSL's clock is past its end, too."""
    edge = Edge(hub, tmp_path)
    with monkeypatch.context() as past:
        past.setattr(pki, "_now", lambda: datetime.now(UTC).replace(microsecond=0) - LIFE - timedelta(days=1))
        key, csr = edge.new_key()
        ca = next(iter(hub.authority._cas)).pair
        certificate = pki.sign_client_csr(ca, csr.encode(), "system:node:edge-1", "system:nodes", 365)
    edge.certificate, edge.key = certificate, key
    await edge.renew()
    hub.now += WINDOW
    assert "join again" in await refused(edge.renew())


async def test_a_replaced_machine_renews_nothing(hub: JoinableHub, edge: Edge, tmp_path: Path) -> None:
    await Edge(hub, tmp_path).join(await hub.token(may_replace=True))
    assert "cloudcore token create --replace --nodes edge-1" in await refused(edge.renew())


async def test_a_name_of_which_nothing_is_written_renews_and_is_written_down(hub: JoinableHub, edge: Edge) -> None:
    del hub.objects.kept[SECRETS, NAMESPACE, "node-edge-1"]
    await edge.renew()
    assert (await Roster(hub.objects).identities())[EDGE].ca == hub.authority.pin


async def test_only_a_nodes_own_certificate_renews_and_only_in_its_name(
    hub: JoinableHub, edge: Edge, tmp_path: Path
) -> None:
    asked = Hub(hub.endpoint, 10.0)
    bare = asked.trusting(hub.authority.certificate_pem.decode())
    assert "there is none" in await refused(asyncio.to_thread(asked.renew, bare, {"csr": edge.new_key()[1]}))
    other = Edge(hub, tmp_path, "edge-2")
    for csr, status in ((other.new_key()[1], 422), ("rubbish", 422), ("é", 422)):
        with pytest.raises(Refused) as caught:
            await edge.renew(csr)
        assert caught.value.status == status
    same = pki.make_csr(edge.key, "system:node:edge-1", "system:nodes").decode()
    with pytest.raises(Refused, match="has the old key"):
        await edge.renew(same)
    # For servers: TLS does not take it for a client's.
    key, made = edge.new_key()
    edge.certificate, edge.key = hub.authority.sign_serving(made.encode(), EDGE, []), key
    with pytest.raises(JoinError):
        await edge.renew()


async def test_renewals_count_as_joins_do(hub: JoinableHub, edge: Edge) -> None:
    for _ in range(10):
        with pytest.raises(Refused):
            await asyncio.to_thread(Hub(hub.endpoint, 10.0).join, edge._ca, {"node": "x", "csr": "", "token": "no"})
    with pytest.raises(Busy, match="come back in"):
        await edge.renew()


async def test_a_second_ca_is_trusted_then_signs_then_is_the_only_one(
    hub: JoinableHub, edge: Edge, tmp_path: Path
) -> None:
    first = hub.authority.certificate_pem
    token = await hub.token()
    await hub.rotate()
    answer = await edge.renew()
    assert answer.ca.encode().endswith(first), "the one that signs comes first"
    roster = Roster(hub.objects)
    assert (await roster.identities())[EDGE].ca == hub.authority.pin != pki.fingerprint(first)
    # Both pins, and whoever knows one CA only, are let in by what is shown.
    for number, text in enumerate((token, await hub.token())):
        asked = Hub(hub.endpoint, 10.0)
        pinned = await asyncio.to_thread(asked.fetch_ca, text.rpartition(".")[2])
        csr = Edge(hub, tmp_path, f"new-{number}").new_key()[1]
        await asyncio.to_thread(asked.join, pinned, {"node": f"new-{number}", "csr": csr, "token": text})
    edge.take(answer, edge.next_key)
    await edge.confirm()
    await hub.finish()
    edge.take(await edge.renew(), edge.next_key)
    assert hub.authority.certificate_pem not in first


async def test_a_ca_that_has_expired_is_told_to_who_asks(
    hub: JoinableHub, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "_now", lambda: datetime.now(UTC).replace(microsecond=0) + timedelta(days=9999))
    with pytest.raises(CaLapsed, match="cloudcore ca rotate"):
        hub.authority.server(["localhost"])
    for asking in (edge.renew(), edge.join(await hub.token())):
        with pytest.raises(Refused, match=r"the CA has expired on 20.*cloudcore ca rotate") as caught:
            await asking
        assert caught.value.status == 500
