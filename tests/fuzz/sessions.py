"""
Whole sessions, in memory: what several clients do at the MQTT broker one after the other, and a connection's requests.

A parser that takes every packet may still be brought out of step by their order. Here bytes are decisions: who says
what, who leaves, how much time passes, and now and then a byte that is changed.
"""

import asyncio
import atexit
import functools
import re
from collections.abc import AsyncIterator
from typing import Any

from apimachinery.errors import NotFound
from apiserver import http
from apiserver.messages import Request, Response
from devicetwin.broker.access import Access, Account
from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.core import Broker, Close, Connection, Effect, Send, Verify
from devicetwin.broker.packets import (
    Connect,
    Decoder,
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
)

# ---- MQTT

_CONFIG = BrokerConfig(
    durable_client_id="edge",
    durable_filters=("a/#",),
    connect_timeout_s=10.0,
    max_logins_per_peer=1,
    max_logins=2,
    max_connections=3,
    max_sessions=4,
    max_subscriptions=3,
    max_packet_bytes=300,
    max_inflight=2,
    max_inflight_bytes=100,
    durable_inflight=3,
    max_queued=3,
    max_queued_bytes=120,
    max_retained=2,
    max_retained_bytes=60,
)
_MAPPER = Account(name="m", password="p", mapper=True, topics=("a/#", "b"))
_ACCESSES = (
    Access({"m": _MAPPER}),
    Access({"m": _MAPPER}, anonymous=False),
    Access(),
    Access({"m": Account(name="m")}),
)
_SLOTS = 4
"""Clients at a time; the first is edgecore's own."""

_PACKETS: tuple[Packet, ...] = (
    Connect("edge", clean_session=False),
    Connect("one", clean_session=False, keepalive_s=5),
    Connect("two", will=Will("a/will", b"gone", 1, True)),
    Connect("m", clean_session=False, username="m", password=b"right", will=Will("b", b"gone", 2, False)),
    Connect("", clean_session=True, level=4),
    Subscribe(1, (("a/#", 1),)),
    Subscribe(2, (("#", 2), ("+/b", 0), ("b", 1), ("c", 1))),
    Unsubscribe(3, ("#", "b")),
    Publish("a/b", b"zero"),
    *(Publish("a/b", b"one", 1, packet_id=number) for number in (1, 2, 3)),
    Publish("a/b", b"again", 1, dup=True, packet_id=1),
    *(Publish("b", b"two", 2, packet_id=number) for number in (1, 2)),
    Publish("a/c", b"kept", 1, retain=True, packet_id=4),
    Publish("a/c", b"", retain=True),
    Publish("$hw/events/device/d/x/twin/update", b"{}", 1, packet_id=5),
    *(Puback(number) for number in (1, 2, 3)),
    *(Pubrec(number) for number in (1, 2)),
    *(Pubrel(number) for number in (1, 2)),
    *(Pubcomp(number) for number in (1, 2)),
    Pingreq(),
    Disconnect(),
)
_SAID = tuple(map(encode, _PACKETS))
_CHANGED = 128
"""From this value on a byte of the packet is another: the next two bytes say which, and what it becomes."""

MQTT_SEEDS = (
    # edgecore comes, a mapper subscribes and publishes at QoS 1, edgecore acknowledges, and both leave.
    bytes((0x80, 0, 0, 0x81, 1, 5, 1, 9, 0x80, 18, 0x81, 10, 25, 0x80, 18, 26)),
    # Two at QoS 2, one of whom is taken over by another with its name, and comes again.
    bytes((0x81, 1, 6, 0x82, 1, 13, 23, 14, 24, 0x81, 1, 21, 23, 25, 0xC1, 0x82, 1, 22)),
    # A login that is verified, one that is not, time, users that change.
    bytes((0x81, 3, 0xD1, 5, 9, 15, 0x82, 3, 0xD6, 0xC8, 0xC8, 40, 0xE1, 11, 0xC8, 200)),
    # A queue that fills while its reader is slow, and a publisher that has to wait.
    bytes((0x80, 0, 0xC4, 0x81, 1, 9, 10, 11, 9, 10, 11, 9, 10, 0x80, 0xC5, 18, 19, 18, 19)),
)
"""As mqtt_session() reads them: 0x80 to 0x83 choose who does what follows."""


def mqtt_session(data: bytes) -> None:
    """
    Whatever several clients do: nobody closed is written to, each bound holds, and all is empty in the end.

    A byte under 128 chooses what the present client says, and with 64 cuts it into two reads. 0x80 to 0xbf change the
    client, or with their bit 5 a byte of what it says next. From 0xc0 on: connections that go, that do not read, time
    that passes, users that change.
    """
    broker = Broker(_CONFIG, _ACCESSES[0])
    house = _House(broker)
    rest = iter(data)
    slot, change = 0, (0, -1)
    for byte in rest:
        if byte < _CHANGED:
            said = _SAID[byte % 64 % len(_SAID)]
            if change[1] >= 0:
                place = change[0] % len(said)
                said, change = said[:place] + bytes((change[1],)) + said[place + 1 :], (0, -1)
            cut = len(said) // 2 if byte & 64 else len(said)
            house.hear(slot, said[:cut])
            house.hear(slot, said[cut:])
        elif byte < 0xC0:
            slot = byte % _SLOTS
            if byte & 32:
                change = (next(rest, 0), next(rest, 0))
        else:
            house.happens(slot, byte & 63, next(rest, 0) if byte & 8 else 0)
        house.check()
    house.end()


class _House:
    """A broker and its clients."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.now = 0.0
        self.clients: list[Connection | None] = [None] * _SLOTS
        self.waiting: list[Connection] = []
        """For whom a password is verified."""
        self.gone: set[Connection] = set()
        """Nothing may be written to them."""

    def hear(self, slot: int, data: bytes) -> None:
        client = self.clients[slot]
        if client is None or client in self.gone:
            client = self.clients[slot] = self.broker.open(self.now, f"192.0.2.{slot}", inside=slot == 0)
        if client is not None and data:
            self.perform(self.broker.receive(client, data, self.now))

    def happens(self, slot: int, what: int, more: int) -> None:
        client = self.clients[slot]
        match what & 7:
            case 0 if what & 8:
                self.now += more / 4
                self.perform(self.broker.expire(self.now))
            case 1 if self.waiting and what & 16:
                self.perform(self.broker.verified(self.waiting.pop(0), _MAPPER, self.now))
            case 6 if self.waiting:
                self.perform(self.broker.verified(self.waiting.pop(0), None, self.now))
            case 2 | 3 if what & 32:
                self.perform(self.broker.adopt(_ACCESSES[(what >> 3) % len(_ACCESSES)]))
            case _ if client is None or client in self.gone:
                return
            case 1:
                self.gone.add(client)
                self.perform(self.broker.lost(client))
            case 4:
                self.broker.choke(client)
            case 5:
                self.perform(self.broker.unchoke(client))

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(connection, said):
                    assert connection not in self.gone, "written to after it was closed"
                    decoder = Decoder(1 << 16)
                    decoder.feed(said)
                    assert decoder.next() is not None, "half a packet"
                    assert decoder.next() is None, "more than a packet"
                case Close(connection, _):
                    assert connection not in self.gone, "closed twice"
                    self.gone.add(connection)
                case Verify(connection):
                    self.waiting.append(connection)

    def check(self) -> None:
        broker = self.broker
        assert broker.connection_count <= _CONFIG.max_connections + 1  # edgecore's own is let in always
        assert len(broker._sessions) <= _CONFIG.max_sessions + 1
        for session in broker._sessions.values():
            assert len(session.inflight) <= session.window.max_inflight
            assert session.inflight_bytes == sum(each.message.size for each in session.inflight.values())
            assert session.inflight_bytes <= _CONFIG.max_inflight_bytes or len(session.inflight) == 1
            if session.writable and session.queue:
                assert not session._may_send(session.queue[0])
            assert len(session.queue) <= _CONFIG.max_queued + _CONFIG.max_retained
            assert session.queued_bytes == sum(each.message.size for each in session.queue)
            assert len(session.owed) <= _CONFIG.max_queued
            assert len(session.subscriptions) <= _CONFIG.max_subscriptions
            assert session.attached == (session in broker._connections)
        for connection in broker._stalled:
            assert connection not in self.gone

    def end(self) -> None:
        while self.waiting:
            self.perform(self.broker.verified(self.waiting.pop(), None, self.now))
        self.perform(self.broker.expire(self.now + 3600.0))
        self.perform(self.broker.stop())
        assert self.broker.connection_count == 0
        assert not self.broker._logins
        assert not self.broker._stalled


# ---- HTTP

HTTP_SEEDS = (
    b"\x00GET /a HTTP/1.1\r\nHost: x\r\n\r\nHEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n"
    b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x07POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /none HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x03PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nT: v\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"\x01GET /a HTTP/1.0\r\n\r\nGET /a HTTP/1.1\r\n\r\n",
)
"""The first byte and five are how many bytes come at a time."""
HTTP_WORDS = (
    b"\r\n",
    b"\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 99999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Upgrade: h2c\r\n",
    b"Host: y\r\n",
    b" ",
    b"\0",
    b"0\r\n\r\n",
    b"ffffffffff\r\n",
)
_BODY_BYTES = 64
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


def http_session(data: bytes) -> None:
    """
    Any bytes on one connection: however they are cut up, they get the same answers, and nothing of it stays behind.

    Of one in four it is tried how they are answered in one piece, which takes as long again.
    """
    if len(data) < 2:
        return
    step, stream = 5 + data[0], data[1:]

    parts = _runner().run(_answers(stream, step))
    if data[0] % 4 == 0:
        whole = _runner().run(_answers(stream, len(stream)))
        assert whole == parts, (whole, parts)


@functools.cache
def _runner() -> asyncio.Runner:
    """A loop for all sessions: to make one takes longer than most of them."""
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner


async def _answers(stream: bytes, step: int) -> list[bytes]:
    """The statuses of what was answered."""
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        server = http.Server(_handler, group, max_body=_BODY_BYTES, max_connections=2, idle_s=5.0, tls=False)
        left: list[None] = []
        connection = http._Connection(server, lambda: left.append(None))
        wire = _Wire()
        connection.connection_made(wire)
        for start in range(0, len(stream), step):
            if wire.is_closed:
                break
            piece = stream[start : start + step]
            connection.get_buffer(len(piece))[: len(piece)] = piece
            connection.buffer_updated(len(piece))
            await _rest(connection)
        if not wire.is_closed:
            connection.eof_received()
        while connection._task is not None and not connection._task.done():
            await asyncio.sleep(0)
        connection.connection_lost(None)
        assert wire.is_closed, "left open"
        assert not wire.is_aborted, "cut off, as over a bug"
        assert (server.connections, len(left)) == (0, 1)
    return _STATUS.findall(b"".join(wire.written))


async def _rest(connection: "http._Connection") -> None:
    """Until it waits for more, or has ended."""
    task = connection._task
    assert task is not None, "there is room for it"
    while (waits := connection._readable) is None or waits.done():
        if task.done():
            return
        await asyncio.sleep(0)


async def _handler(request: Request) -> Response:
    assert len(request.body) <= _BODY_BYTES
    match request.path:
        case "/none":
            raise NotFound("there is none")
        case "/stream":
            return Response(200, [], _streamed())
        case _:
            return Response(200, [("content-type", "text/plain")], b"some text" * 3)


async def _streamed() -> AsyncIterator[bytes]:
    for part in (b"some", b"text"):
        await asyncio.sleep(0)
        yield part


class _Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = self.is_aborted = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def write(self, data: Any) -> None:
        assert not self.is_closed, "written to after it was closed"
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...
