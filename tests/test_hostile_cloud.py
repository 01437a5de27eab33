"""
A hub that is not what it should be, with a certificate of the right CA, against a real edgecore: the node keeps serving
its local API, keeps what it held, and fills neither its memory nor its disk. SECURITY.md has the table.
"""

import asyncio
import contextlib
import ssl
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import canonical, revision_of
from apimachinery.resources import CONFIG_MAPS, NODES
from componentbase import config, pki
from componentbase.endpoints import Endpoint
from edgecore.settings import CloudConfig, EdgeConfig, TransportMode
from link import quicserver
from link.codec import decode, encode
from link.frames import (
    Ack,
    Answer,
    AnswerHead,
    Delta,
    Frame,
    Goodbye,
    GoodbyeCode,
    Granted,
    Hello,
    Inventory,
    Nack,
    Part,
    Ping,
    Pong,
    Push,
    ReportAck,
    Span,
    Taken,
    Traffic,
    Welcome,
)
from link.packing import pack
from link.peer import MAX_CHATTER
from link.quic import LiveCredentials, Quic
from link.transports import KINDS
from link.websocket import Listener, WebSocket, listen
from tests.harness.hostile import Cost, cost
from tests.harness.site import Site

pytestmark = pytest.mark.timeout(120)

GROWS_MIB = 32.0  # of a node of 40
P99_MS = 500.0  # of a request to the local API meanwhile; alone it takes 4
NODE = "edge-1"
FOREIGN = Resource("evil.example", "v1", "things", "Thing", True)


def upsert(name: str, text: str = "x", resource: Resource = CONFIG_MAPS) -> Delta:
    body = canonical(
        {
            "apiVersion": resource.api_version,
            "data": {"text": text},
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": "default", "uid": name},
        }
    )
    return Delta(ObjectKey(resource, "default", name), ObjectVersion(name, revision_of(body)), body)


class RawHub:
    """Listens where edgecore dials, and says what it is told to."""

    def __init__(self) -> None:
        self.connection: WebSocket | Quic
        self.heard: list[Frame] = []
        self.count = 0
        """Connections so far."""
        self.on_hello: Callable[[], None] = lambda: self.say(Welcome(f"e{self.count}", 0, False, 20.0))
        self._came = asyncio.Event()

    # As link.quic.Streaming

    @property
    def is_streaming(self) -> bool:
        return True

    def opened(self, connection: WebSocket | Quic) -> "RawHub":
        self.connection = connection
        self.count += 1
        self.heard.clear()
        return self

    def message_received(self, data: bytes) -> None:

        frame = decode(data)
        if isinstance(frame, Ping):
            self.say(Pong(frame.number))
            return
        self.heard.append(frame)
        if isinstance(frame, Hello):
            self.on_hello()
        self._came.set()

    def bytes_arrived(self) -> None:
        pass

    def connection_lost(self, reason: str) -> None:
        self._came.set()

    def say(self, *frames: Frame | bytes) -> None:
        self.connection.write([each if isinstance(each, bytes) else encode(each) for each in frames])

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._came.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self._came.wait()

    def said(self, kind: type[Frame]) -> list[Frame]:
        return [frame for frame in self.heard if isinstance(frame, kind)]

    async def anew(self, on_hello: Callable[[], None] | None = None) -> None:
        """End what there is; returns when the node has come back and said Hello."""
        before = self.count
        self.on_hello = on_hello or (lambda: self.say(Welcome(f"e{self.count}", 0, False, 20.0)))
        self.say(Goodbye(GoodbyeCode.RESYNC, "again", 0.0))
        self.connection.close()
        await self.until(lambda: self.count > before and self.said(Hello))


class LocalClient(threading.Thread):
    """Asks the node's API all the time, as pods do."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._trips: list[float] = []
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(0.02):
            began = time.monotonic()
            with urllib.request.urlopen(f"{self._url}/api/v1/namespaces/default/configmaps/kept", timeout=20) as answer:
                assert answer.status == 200
            self._trips.append(time.monotonic() - began)

    def round_trips(self) -> list[float]:
        assert self.is_alive(), "the local API failed"
        found, self._trips = self._trips, []
        return found

    def stop(self) -> None:
        self._ends.set()
        self.join()


class Ground:
    """A node that is connected and holds one object, and its local client."""

    def __init__(self, hub: RawHub, site: Site) -> None:
        self.hub = hub
        self.process = site.start_edge(NODE, wait=False)
        self.client: LocalClient
        self._site = site

    async def restart(self) -> None:
        self.client.stop()
        self.process.stop()
        before = self.hub.count
        self.process = self._site.start_edge(NODE, wait=False)
        await self.hub.until(lambda: self.hub.count > before and self.hub.said(Hello))
        await self.serving()

    async def serving(self) -> None:
        """Until the node holds what its client asks for."""
        self.hub.say(Push(1, (upsert("kept"),), True))
        await self.hub.until(lambda: Ack(1) in self.hub.heard)
        self.client = LocalClient(self._site.local_api(NODE))
        self.client.start()

    @contextlib.asynccontextmanager
    async def attacked(self, name: str) -> AsyncIterator[Cost]:
        async with cost(name, self.process, self.client.round_trips) as told:
            yield told
        assert told.grown_mib < GROWS_MIB, name
        assert told.p99_ms < P99_MS + 10 * told.before_ms + told.waited_ms, name
        assert sum(path.stat().st_size for path in (self._site.directory / NODE).glob("edge.db*")) < 64 << 20


@pytest.fixture(scope="module")
def authority() -> pki.KeyPair:
    return pki.create_ca("test", 1)


@contextlib.contextmanager
def node_home(home: Path, authority: pki.KeyPair, port: int, over: str) -> Iterator[None]:
    """As `edgecore join` would have left it."""
    (home / "pki").mkdir(parents=True)
    key, csr = pki.make_key_and_csr(f"system:node:{NODE}", "system:nodes")
    signed = pki.sign_client_csr(authority, csr, f"system:node:{NODE}", "system:nodes", 1)
    for name, content in (("edge.key", key), ("edge.crt", signed), ("ca.crt", authority.cert_pem)):
        (home / "pki" / name).write_bytes(content)
        (home / "pki" / name).chmod(0o600)
    at = CloudConfig(link=Endpoint("127.0.0.1", port), transport=TransportMode(over), quic_port=port)
    settings = EdgeConfig(node=NODE, cloud=at)
    (home / "edgecore.yaml").write_text(config.dump(settings))
    yield


@pytest.fixture
async def ground(tmp_path: Path, authority: pki.KeyPair, request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    over = getattr(request, "param", "websocket")
    server = pki.issue_server_cert(authority, ["127.0.0.1"], 1)
    (tmp_path / "server").write_bytes(server.cert_pem + server.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server")
    hub = RawHub()
    listener: Listener | quicserver.Listener
    if over == "quic":
        credentials = LiveCredentials()
        credentials.replace(server.cert_pem + server.key_pem, authority.cert_pem.decode())
        listener = await quicserver.listen("127.0.0.1", 0, credentials, hub.opened)
    else:
        listener = await listen("127.0.0.1", 0, context, hub.opened)
    site = Site(tmp_path)
    try:
        with node_home(tmp_path / NODE, authority, listener.port, over):
            made = Ground(hub, site)
            await hub.until(lambda: hub.said(Hello))
            await made.serving()
            try:
                yield made
            finally:
                made.client.stop()
    finally:
        for each in site.processes.values():
            each.kill()
        await listener.close()


async def test_a_hub_that_means_ill_is_outlived(ground: Ground) -> None:
    """One node and one connection after another: a start of edgecore for each attack would be the most of the time."""
    hub = ground.hub
    async with ground.attacked("objects of a kind nobody asked for, of other names than they say, of no kind at all"):
        lying = upsert("kept")._replace(key=ObjectKey(CONFIG_MAPS, "default", "other"))
        await hub.anew()
        hub.say(
            Push(
                1,
                (upsert("thing", resource=FOREIGN), lying, Delta(ObjectKey(NODES, "d", "n"), lying.version, b"[]")),
                True,
            )
        )
        await hub.until(lambda: hub.said(Ack))
        [nack] = hub.said(Nack)
        assert isinstance(nack, Nack)
        assert len(nack.refusals) == 2

    async with ground.attacked(
        "bombs: packed bodies that say 1 byte, or 3 MiB, and are 100 MiB of zeros; a lying base"
    ):
        await hub.anew()
        bomb = pack(b"\0" * (100 << 20))
        version = ObjectVersion("u", "r" * 24)
        key = ObjectKey(CONFIG_MAPS, "default", "bomb")
        made = [Delta(key, version, bomb, size=size) for size in (1, 3 << 20)] + [
            Delta(key, version, bomb, "base", 3 << 20)
        ]
        for seq, delta in enumerate(made, 1):
            hub.say(Push(seq, (delta,), True))
        await hub.until(lambda: Ack(3) in hub.heard)
        assert all(refusal.whole for nack in hub.said(Nack) for refusal in nack.refusals)  # type: ignore[union-attr]
        assert len(hub.said(Nack)) == 3
    async with ground.attacked(
        "600 answers nobody asked for, and 300 transfers that are dropped when they are all but there"
    ):
        await hub.anew()
        hub.say(*[Answer(9, AnswerHead(200), b"x" * 15_000, False)] * 600)
        # All at once they are more than the hub's own end of the connection lets lie unread (UNREAD_BYTES).
        await hub.until(lambda: Taken(600) in hub.heard)
        for number in range(1, 301):
            hub.say(*[Part(number, 45_001, b"x" * 15_000)] * 3, Part(number, 0, b""))
        await hub.until(lambda: Taken(1800) in hub.heard)

    async with ground.attacked("heartbeats of a nanosecond and of a day"):
        for heartbeat_s in (1e-9, 86_400.0):
            await hub.anew(lambda: hub.say(Welcome("e", 0, False, heartbeat_s)))  # noqa: B023  # called at once
            await asyncio.sleep(0.05)
    async with ground.attacked("an inventory asked for 10 times, goodbyes that say come back at once"):
        for _ in range(10):
            await hub.anew(lambda: hub.say(Welcome("e", 0, True, 20.0)))
        await hub.until(lambda: hub.said(Inventory))
    await hub.anew()
    hub.say(Push(1, (upsert("after"),), True))
    await hub.until(lambda: hub.said(Ack))
    assert ground.process.is_running()


BREAKING: dict[str, list[bytes]] = {
    "a window overrun by 2,000 pushes that are not waited for": [
        encode(Push(seq, (upsert(f"w{seq % 50}", "x" * 20_000),), False)) for seq in range(1, 2001)
    ],
    "a frame of 4 MiB of empty arrays": [b"\xdc\x03\xf8" + (b"\xdc\x10\x00" + b"\x90" * 4096) * 1016],
    "transfers of 3 MiB, one beside the other": [encode(Part(number, 3 << 20, b"x")) for number in range(1, 99)],
    "a push of a transfer that never was": [encode(Push(1, (), True, (), 7))],
    "pushes out of order": [encode(Push(7, (), True))],
    "acknowledgements of reports that were never made": [encode(ReportAck(Traffic.DEVICES, (Span(1, 99),)))],
    "decisions on interests that nobody has": [encode(Granted(5, (), ()))],
    "a flood of pongs": [encode(Pong(0))] * (MAX_CHATTER + 1),
    "an edge's frame": [encode(Inventory((), True))],
    "a second welcome": [encode(Welcome("e", 0, False, 1.0))],
}


@pytest.mark.parametrize("ground", KINDS, indirect=True)
@pytest.mark.parametrize(
    "names",
    [list(BREAKING)[:2], pytest.param(list(BREAKING), marks=[pytest.mark.soak, pytest.mark.timeout(0)])],
    ids=["short", "all"],
)
async def test_what_breaks_the_protocol_ends_the_link_and_nothing_else(ground: Ground, names: list[str]) -> None:
    """The node comes back half a minute later, which is why it is started again here."""
    hub = ground.hub
    for name in names:
        async with ground.attacked(name):
            hub.say(*BREAKING[name])
            await hub.until(lambda: hub.said(Goodbye) or hub.connection.lost.done())
        assert ground.process.is_running()
        if name != names[-1]:
            await ground.restart()
