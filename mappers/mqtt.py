"""
One MQTT connection of a mapper, on asyncio: paho-mqtt's home in this package.

A connection lives once: it is made, used, and lost or closed; whoever wants another makes another. So
nothing of an old connection (half-sent messages, a stale will) can leak into the next.

Invariants
    connect() returns only after the broker has said yes, and raises one of the errors below otherwise
    receive() gives every message once, in order, and raises ConnectionLost after the last one
    at most INBOX_LIMIT messages are held: beyond that the socket is not read, so TCP slows the broker down
    about OUTBOX_LIMIT messages wait for the broker: beyond that has_room() says no, and at twice that they are dropped

Errors
    MqttError          any of them: wait and connect again
      BrokerUnreachable  nobody listens there, or does not answer
      BrokerRefused      the broker says no; the argument is its reason
      ConnectionLost     the connection was there and has gone
"""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, Protocol

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from componentbase import tcp
from componentbase.brokers import BrokerAccessError, BrokerAddress, dial

KEEPALIVE_S = 15
"""A machine that vanishes without a word is noticed, and its will published, after 1.5 times this (MQTT 3.1.2.10)."""
CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.0
INBOX_LIMIT = 256
OUTBOX_LIMIT = 4096
RECONNECT_FIRST_S = 0.5
RECONNECT_LAST_S = 15.0
_QOS = 1


class MqttError(Exception):
    """Connect again, after a while."""


class BrokerUnreachable(MqttError):
    """Nobody answers at the broker's address."""


class BrokerRefused(MqttError):
    """The broker does not want this client."""


class ConnectionLost(MqttError):
    """The connection has gone."""


class Message(NamedTuple):
    """A message as it came, or as it is to be sent."""

    topic: str
    payload: bytes
    retain: bool = False


def reconnect_after_s(attempt: int, chance: float) -> float:
    """
    How long to wait before connection attempt number `attempt`, counted from 1 after a connection that held.

    chance: uniform in [0, 1), so that the mappers of a restarted broker do not all come at once; half of the wait
    is fixed, half is chance.
    """
    limit = min(RECONNECT_FIRST_S * 2.0 ** min(attempt - 1, 30), RECONNECT_LAST_S)
    return limit * (0.5 + 0.5 * chance)


class Listener(Protocol):
    """Who takes messages as they come, from the event loop's thread; neither method may block or raise."""

    def heard(self, message: Message) -> None:
        """A message came."""
        ...

    def lost(self, reason: str) -> None:
        """The connection is lost, or was closed; this is said once."""
        ...


class Connection:
    """A connection that the broker has accepted. Made by connect(), or opened and closed, from one event loop."""

    def __init__(
        self,
        broker: BrokerAddress,
        client_id: str,
        will: Message | None = None,
        listener: Listener | None = None,
    ) -> None:
        """listener: who takes messages as they come; receive() then gives none."""
        self._broker = broker
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._inbox: deque[Message] = deque()
        self._news = asyncio.Event()
        self._unconfirmed: set[int] = set()
        self._flushed = asyncio.Event()
        self._lost: str | None = None
        self._socket: socket.socket | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._reads = False
        client = _Client(client_id)
        client.max_queued_messages_set(2 * OUTBOX_LIMIT)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=_QOS, retain=will.retain)
        client.on_connect = lambda _client, _data, _flags, reason, _properties: self._on_connack(reason)
        client.on_message = lambda _client, _data, message: self._on_message(message)
        client.on_publish = lambda _client, _data, mid, _reason, _properties: self._on_confirmed(mid)
        client.on_disconnect = lambda _client, _data, _flags, reason, _properties: self._on_lost(str(reason))
        client.on_socket_close = lambda _client, _data, _socket: self._unwatch()
        self._client = client

    # --- using it

    def subscribe(self, filters: Iterable[str]) -> None:
        """Subscribe with QoS 1. Raises ConnectionLost."""
        self._check()
        self._client.subscribe([(each, _QOS) for each in filters])

    def unsubscribe(self, filters: Iterable[str]) -> None:
        """Raises ConnectionLost."""
        self._check()
        self._client.unsubscribe(list(filters))

    def has_room(self) -> bool:
        """False while so many messages wait for the broker that ordinary ones should not be added."""
        return len(self._unconfirmed) < OUTBOX_LIMIT

    def publish(self, message: Message, qos: int = _QOS) -> None:
        """Send. Whoever sends more than a few asks has_room() first. Raises ConnectionLost."""
        self._check()
        sent = self._client.publish(message.topic, message.payload, qos=qos, retain=message.retain)
        if qos and sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._unconfirmed.add(sent.mid)

    async def confirmed(self) -> None:
        """Wait until the broker has all that was published with QoS 1 or 2. Raises ConnectionLost."""
        while self._unconfirmed:
            self._check()
            self._flushed.clear()
            await self._flushed.wait()

    def has_messages(self) -> bool:
        """Whether receive() would return at once."""
        return bool(self._inbox)

    async def receive(self) -> Message:
        """The next message. Raises ConnectionLost when there is none and will be none."""
        while not self._inbox:
            self._check()
            self._news.clear()
            await self._news.wait()
        message = self._inbox.popleft()
        if len(self._inbox) < INBOX_LIMIT // 2:
            self._watch_reads(True)
        return message

    def _check(self) -> None:
        if self._lost is not None:
            raise ConnectionLost(self._lost)

    # --- opening and closing, as connect() below does

    async def open(self) -> None:
        """Once, and followed by one close() or abort() also where it fails. Raises MqttError."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                broker = self._broker
                if broker.username is not None:
                    self._client.username_pw_set(broker.username, broker.secret())
                self._client.dialled = await dial(broker)
                # No socket callback is set yet, so paho writes CONNECT from here, into a socket with an empty buffer.
                self._client.connect(broker.endpoint.host, broker.endpoint.port, KEEPALIVE_S)
                self._watch()
                reason = await self._answer
        except TimeoutError:
            raise BrokerUnreachable(f"{self._broker} does not answer") from None
        except OSError as exc:
            raise BrokerUnreachable(f"{self._broker}: {tcp.why(exc)}") from exc
        except BrokerAccessError as exc:  # a file that was there at the start is gone, or is being replaced
            raise BrokerUnreachable(str(exc)) from exc
        if reason.is_failure:
            raise BrokerRefused(str(reason))

    async def close(self) -> None:
        """Send what waits, say goodbye (so that the will is not published) and let go, within CLOSE_TIMEOUT_S."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while self._lost is None and self._unconfirmed:
                    self._flushed.clear()
                    await self._flushed.wait()
                if self._lost is None:
                    self._client.disconnect()
                while self._socket is not None:
                    self._news.clear()
                    await self._news.wait()
        self.abort()

    def abort(self) -> None:
        """Let go at once; the broker publishes the will."""
        sock = self._socket
        self._unwatch()
        if sock is not None:
            sock.close()
        if self._lost is None:
            self._lost = "closed"

    # --- the socket

    def _watch(self) -> None:
        sock = self._client.socket()
        assert isinstance(sock, socket.socket), "reconnect() returned, so there is a socket"
        self._socket = sock
        self._client.on_socket_register_write = lambda *_: self._watch_writes(True)
        self._client.on_socket_unregister_write = lambda *_: self._watch_writes(False)
        self._watch_reads(True)
        self._watch_writes(self._client.want_write())
        self._on_tick()

    def _watch_reads(self, wanted: bool) -> None:
        if self._socket is None or wanted == self._reads:
            return
        self._reads = wanted
        if wanted:
            self._loop.add_reader(self._socket, self._readable)
            self._read_on_later()
        else:
            self._loop.remove_reader(self._socket)

    def _readable(self) -> None:
        self._client.loop_read()
        if self._socket is not None:
            tcp.acknowledge_now(self._socket)
            self._read_on_later()

    def _read_on_later(self) -> None:
        """What TLS decrypted already is to be read, too; nothing on the wire will call for it."""
        if self._socket is not None and tcp.holds_more(self._socket):
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._reads and self._socket is not None and tcp.holds_more(self._socket):
            self._readable()

    def _watch_writes(self, wanted: bool) -> None:
        if self._socket is None:
            return
        if wanted:
            self._loop.add_writer(self._socket, self._client.loop_write)
        else:
            self._loop.remove_writer(self._socket)

    def _unwatch(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        if self._socket is not None:
            self._watch_reads(False)
            self._loop.remove_writer(self._socket)
            self._socket = None
        self._news.set()

    def _on_tick(self) -> None:
        # Half the keepalive: paho pings when it has sent nothing for a whole one.
        self._tick = self._loop.call_later(KEEPALIVE_S / 2, self._on_tick)
        self._client.loop_misc()

    # --- paho's callbacks, called from within its loop_ methods, so on the event loop

    def _on_connack(self, reason: ReasonCode) -> None:
        if not self._answer.done():
            self._answer.set_result(reason)

    def _on_message(self, message: paho.MQTTMessage) -> None:
        came = Message(message.topic, bytes(message.payload), message.retain)
        if self._listener is not None:
            self._listener.heard(came)
            return
        self._inbox.append(came)
        if len(self._inbox) >= INBOX_LIMIT:
            self._watch_reads(False)
        self._news.set()

    def _on_confirmed(self, mid: int) -> None:
        self._unconfirmed.discard(mid)
        if not self._unconfirmed:
            self._flushed.set()

    def _on_lost(self, reason: str) -> None:
        if self._lost is None and self._listener is not None:
            self._listener.lost(reason)
        self._lost = reason
        if not self._answer.done():
            self._answer.set_exception(ConnectionLost(reason))
        self._news.set()
        self._flushed.set()


class _Client(paho.Client):
    """paho's client on a socket that the event loop connected: its own way to connect would block the loop."""

    def __init__(self, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=True, reconnect_on_failure=False
        )
        self.dialled: socket.socket | None = None

    def _create_socket_connection(self) -> socket.socket:
        dialled, self.dialled = self.dialled, None
        assert dialled is not None, "connect without a socket"
        return dialled


@asynccontextmanager
async def connect(broker: BrokerAddress, client_id: str, will: Message | None) -> AsyncIterator[Connection]:
    """
    A connection that is closed at the end of the block; an MqttError that leaves the block means it was lost.

    A client of the same id that is still connected is thrown out by the broker, which publishes its will first.
    """
    connection = Connection(broker, client_id, will)
    try:
        await connection.open()
        yield connection
    except MqttError:
        connection.abort()
        raise
    finally:
        await connection.close()
