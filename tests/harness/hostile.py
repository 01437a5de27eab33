"""
Ends of the link that keep to nothing, and a well-behaved neighbour by which is seen what that costs the others.

    async with neighbour(site, "good") as good:
        async with cost("a flood", hub_process, good.round_trips) as told: ...an attack...
        told.grown_mib, told.p99_ms, told.before_ms
"""

import asyncio
import contextlib
import itertools
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from apimachinery.inventory import digest
from link import quic
from link.codec import decode, encode
from link.errors import LinkClosed
from link.frames import PROTOCOL, Ack, Frame, Goodbye, Hello, Ping, Pong, Push, Welcome
from link.quic import Credentials, Quic
from link.websocket import WebSocket, dial
from tests.harness.site import Process

PING_EVERY_S = 0.01  # half of what a peer may say that carries nothing
WITHIN_S = 60.0
BEFORE_S = 0.15  # for what a round trip takes with no attack: the machine may be busy with something else


def node_context(home: Path) -> ssl.SSLContext:
    """As `edgecore join` left the identity there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=home / "pki" / "ca.crt")
    context.load_cert_chain(home / "pki" / "edge.crt", home / "pki" / "edge.key")
    return context


class RawEdge:
    """Says any bytes as a message; what comes is kept, and pushes are acknowledged where that is wanted."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.obliging = True
        self.pongs: dict[int, float] = {}
        """Number of a Pong to when it came."""
        self._connection: WebSocket | Quic
        self._came = asyncio.Event()

    @classmethod
    async def dialled(cls, port: int, context: ssl.SSLContext | None) -> "RawEdge":
        """Raises LinkClosed."""
        edge = cls()
        edge._connection = await dial("127.0.0.1", port, context, lambda _: edge)
        return edge

    @classmethod
    async def dialled_over_quic(cls, port: int, credentials: Credentials) -> "RawEdge":
        """Raises LinkClosed."""
        edge = cls()
        edge._connection = await quic.dial("127.0.0.1", port, credentials, lambda _: edge)
        return edge

    @classmethod
    async def greeting(cls, port: int, context: ssl.SSLContext, node: str, term: int | None = None) -> "RawEdge":
        """It holds nothing, said so and was welcomed."""
        edge = await cls.dialled(port, context)
        edge.say(hello(node, term))
        assert isinstance(await edge.heard(Welcome, Goodbye), Welcome), edge.frames
        return edge

    # As link.quic.Streaming

    @property
    def is_streaming(self) -> bool:
        return True

    def message_received(self, data: bytes) -> None:
        frame = decode(data)
        if isinstance(frame, Pong):
            self.pongs[frame.number] = time.monotonic()
            return
        self.frames.append(frame)
        if isinstance(frame, Push) and self.obliging:
            self.say(Ack(frame.seq))
        self._came.set()

    def bytes_arrived(self) -> None:
        pass

    def connection_lost(self, reason: str) -> None:
        self._came.set()

    # As a test

    @property
    def is_lost(self) -> bool:
        return self._connection.lost.done()

    def say(self, *frames: Frame | bytes) -> None:
        self._connection.write([each if isinstance(each, bytes) else encode(each) for each in frames])

    def say_raw(self, data: bytes) -> None:
        """Bytes that need not be a websocket's."""
        assert isinstance(self._connection, WebSocket)
        assert self._connection._transport is not None
        self._connection._transport.write(data)

    async def heard(self, *kinds: type[Frame]) -> Frame:
        """The next frame of these kinds that was not asked for yet. LinkClosed where the connection ends first."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                for place, frame in enumerate(self.frames):
                    if isinstance(frame, kinds):
                        del self.frames[: place + 1]
                        return frame
                if self.is_lost:
                    raise LinkClosed(self._connection.lost.result())
                self._came.clear()
                await self._came.wait()

    async def goodbye(self) -> str:
        """Why the other side ended it: "CODE: reason", "" where it did without a word."""
        try:
            found = await self.heard(Goodbye)
        except LinkClosed:
            return ""
        assert isinstance(found, Goodbye)
        return f"{found.code.value}: {found.reason}"

    async def abort(self) -> None:
        """Gone without a word."""
        if isinstance(self._connection, Quic):
            self._connection.give_up("gone")
        elif self._connection._transport is not None:
            self._connection._transport.abort()
        await self._connection.lost

    async def close(self) -> None:
        self._connection.close()
        await self._connection.lost


_terms = itertools.count(time.time_ns() // 1_000_000)


def next_term() -> int:
    """Higher than any before."""
    return next(_terms)


def hello(node: str, term: int | None = None) -> Hello:
    """Of a node that holds nothing."""
    return Hello(PROTOCOL, node, None, digest(()), "raw", term or next_term())


class Cost:
    """What an attack cost."""

    def __init__(self) -> None:
        self.grown_mib = 0.0
        self.took_s = 0.0
        self.p99_ms = 0.0
        """Of a neighbour's, or a local client's, round trip meanwhile."""
        self.before_ms = 0.0
        """... and before it."""
        self.waited_ms = 0.0
        """For how long meanwhile the machine let either end wait for a processor: that is no cost of the attack."""


Probe = Callable[[], list[float]]
"""Round trips in seconds since it was called last."""


class Neighbour:
    """A good node that pings all the time."""

    def __init__(self, edge: RawEdge) -> None:
        self.edge = edge
        self._sent: dict[int, float] = {}

    async def run(self) -> None:
        number = 0
        while True:
            number += 1
            self._sent[number] = time.monotonic()
            self.edge.say(Ping(number))
            await asyncio.sleep(PING_EVERY_S)

    def round_trips(self) -> list[float]:
        """A Ping that is not answered yet counts with what it has waited."""
        assert not self.edge.is_lost, "the neighbour was thrown out"
        now = time.monotonic()
        found = [self.edge.pongs.get(number, now) - at for number, at in self._sent.items()]
        self._sent = {number: at for number, at in self._sent.items() if number not in self.edge.pongs}
        self.edge.pongs.clear()
        return found


@contextlib.asynccontextmanager
async def neighbour(port: int, context: ssl.SSLContext, node: str) -> AsyncIterator[Neighbour]:
    made = Neighbour(await RawEdge.greeting(port, context, node))
    pinging = asyncio.create_task(made.run(), name="neighbour")
    try:
        yield made
    finally:
        pinging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pinging
        await made.edge.close()


@contextlib.asynccontextmanager
async def cost(name: str, process: Process, probe: Probe) -> AsyncIterator[Cost]:
    """Measured while the block runs, and printed as a row of a table."""
    told = Cost()
    probe()
    await asyncio.sleep(BEFORE_S)
    told.before_ms = _p99_ms(probe())
    _reset_peak(process)
    before, began, waited_ms = process.rss_kb()[0], time.monotonic(), _waited_ms(process)
    yield told
    told.took_s = time.monotonic() - began
    told.p99_ms = _p99_ms(probe())
    told.waited_ms = _waited_ms(process) - waited_ms
    told.grown_mib = max(0, _peak_kb(process) - before) / 1024
    print(f"| {name} | +{told.grown_mib:.1f} MiB | {told.p99_ms:.0f} ms ({told.before_ms:.0f}) |")


def _p99_ms(trips: list[float]) -> float:
    return 1000 * sorted(trips)[int(0.99 * (len(trips) - 1))] if trips else 0.0


def _waited_ms(process: Process) -> float:
    """Of its main thread and ours, able to run and not running, so far (proc(5), schedstat); 0 where none is kept."""
    waited_ns = 0
    for pid in (process.pid, os.getpid()):
        with contextlib.suppress(FileNotFoundError):
            waited_ns += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    return waited_ns / 1e6


def _reset_peak(process: Process) -> None:
    """VmHWM begins anew (proc(5), clear_refs)."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def _peak_kb(process: Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
