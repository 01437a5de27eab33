"""
The connection to the MQTT broker: paho-mqtt on the event loop, with sessions that outlive us.

The broker may be mosquitto or our own; it may be down, come back, or have forgotten everything. None of this
is anybody else's concern: what arrives is handed out in order, with a mark for every new connection, and what
cannot be published is dropped and told so, because whoever publishes knows how to say it again.

Invariants
    a message of quality of service 1 is acknowledged by `acknowledge` only, on the connection it came with
    at most IN_LIMIT messages wait to be received, and what one read or the broker's window of unacknowledged ones adds
    at most OUT_LIMIT messages wait for the broker's acknowledgement
    an outage is one warning, not one per attempt

The home of paho-mqtt.
"""

import asyncio
import logging
import random
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from componentbase import tcp
from componentbase.brokers import BrokerAddress, dial
from componentbase.errors import CommandError
from devicetwin.wire import Publication

logger = logging.getLogger(__name__)

KEEPALIVE_S = 60  # paho's default; half-open connections are found after at most twice that
CONNECT_TIMEOUT_S = 5.0  # as paho's; a broker is near
BACKOFF_S = (0.2, 15.0)  # first and greatest upper bound of the pause before the next attempt, drawn from 0 to it
IN_LIMIT = 1024
OUT_LIMIT = 4096
OUT_FULL = OUT_LIMIT // 2  # above this `room` waits
OUT_IN_FLIGHT = 0  # any number, as mosquitto takes; with a limit paho walks through all of them at each acknowledgement
READ_BYTES = 64 << 10


class Receipt(NamedTuple):
    """What acknowledges a message; the connection counts, for another one reuses the numbers."""

    connection: int
    number: int


class Arrived(NamedTuple):
    """One message from the broker."""

    topic: str
    payload: bytes
    retained: bool
    receipt: Receipt | None
    """None: nothing to acknowledge."""


class Online(NamedTuple):
    """A connection is there, with its subscriptions; what was published since the last one ended is lost."""

    connection: int


class BusStatus(NamedTuple):
    """How things stand, for people."""

    address: str
    connected: bool
    problem: str
    """Why not, "" while connected or not yet tried."""
    waiting_in: int
    waiting_out: int
    dropped_in: int
    """Messages of quality of service 0 that came while the queue was full and the broker stuck."""
    dropped_out: int
    """Messages that could not be published because the broker was stuck; without a connection none are counted."""


class Bus:
    """One client of one broker, with a persistent session. Belongs to one event loop; one task receives."""

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        subscriptions: Sequence[tuple[str, int]],
        dial_inside: Callable[[], Awaitable[socket.socket]] | None = None,
    ) -> None:
        """
        client_id: names the session, so it must be this node's alone and the same at each start. dial_inside: how to
        reach a broker that is in this process; the address then only says where others find it.
        """
        self.address = address
        self._dial_inside = dial_inside
        self._subscriptions = list(subscriptions)
        self._client = client = _Client(client_id)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_socket_open = self._on_socket_open
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_want_write
        client.on_socket_unregister_write = self._on_wrote
        self._inbound: deque[Arrived | Online] = deque()
        self._arrival = asyncio.Event()
        self._drained = asyncio.Event()
        self._answered = asyncio.Event()
        self._ended = asyncio.Event()
        self._connection = 0
        self._admitted = False
        """The broker took us in: messages of our session come, and may be answered."""
        self._connected = False
        """The broker also took our subscriptions."""
        self._session_present = False
        self._paused = False
        self._waiting_out = 0
        self._room_wanted = False
        self._problem = ""
        self._refusal = ""
        self._dropped_in = 0
        self._dropped_out = 0

    # --- for the one who uses it

    async def run(self) -> None:
        """Stay connected until cancelled."""
        failures = 0
        try:
            while True:
                try:
                    await self._connect()
                except TimeoutError:
                    self._note("the broker does not answer")
                except OSError as error:
                    self._note(tcp.why(error))
                except CommandError as error:  # a file that was there at the start is gone, or is being replaced
                    self._note(str(error))
                else:
                    failures = 0
                    await self._serve()
                    self._note(self._refusal or "the broker closed the connection")
                self._hang_up()
                bound = min(BACKOFF_S[0] * 2**failures, BACKOFF_S[1])
                failures = min(failures + 1, 30)
                await asyncio.sleep(random.uniform(0, bound))  # noqa: S311  spreads attempts, keeps no secret
        finally:
            self._client.disconnect()
            self._client.loop_write()
            self._hang_up()

    async def receive(self, limit: int) -> list[Arrived | Online]:
        """At least one thing that happened, at most `limit`, in order."""
        while not self._inbound:
            self._arrival.clear()
            await self._arrival.wait()
        taken = [self._inbound.popleft() for _ in range(min(limit, len(self._inbound)))]
        if len(self._inbound) <= IN_LIMIT // 2:
            self._resume()
        return taken

    def publish(self, publication: Publication) -> bool:
        """Hand over to the broker; False where it is away or stuck, and the message is dropped."""
        if not self._admitted:
            return False
        if self._waiting_out < OUT_LIMIT:
            handed = self._client.publish(
                publication.topic, publication.payload, publication.quality, publication.retain
            )
            if handed.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._waiting_out += 1
                return True
        self._dropped_out += 1
        return False

    async def room(self) -> None:
        """
        Wait until the broker has acknowledged enough for more to be published, or is away.

        Reading goes on meanwhile, even with a full queue, for the acknowledgements come the same way.
        """
        while self._admitted and self._waiting_out > OUT_FULL:
            self._room_wanted = True
            self._resume()
            self._answered.clear()
            await self._answered.wait()
        self._room_wanted = False

    def acknowledge(self, receipts: Iterable[Receipt | None]) -> None:
        """Tell the broker that messages are taken care of. Those of an earlier connection will come again."""
        for receipt in receipts:
            if receipt is not None and receipt.connection == self._connection:
                self._client.ack(receipt.number, 1)

    def status(self) -> BusStatus:
        return BusStatus(
            address=str(self.address),
            connected=self._connected,
            problem=self._problem,
            waiting_in=len(self._inbound),
            waiting_out=self._waiting_out,
            dropped_in=self._dropped_in,
            dropped_out=self._dropped_out,
        )

    # --- one connection

    async def _connect(self) -> None:
        """Raises OSError, TimeoutError or CommandError with what to tell."""
        self._answered.clear()
        self._ended.clear()
        self._refusal = ""
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            address = self.address
            if self._dial_inside is not None:
                self._client.dialled = await self._dial_inside()
            else:
                if address.username is not None:
                    self._client.username_pw_set(address.username, address.secret())
                self._client.dialled = await dial(address)
            self._client.connect(address.endpoint.host, address.endpoint.port, KEEPALIVE_S)
            while not self._connected:
                if self._ended.is_set():
                    raise ConnectionError(self._refusal or "the broker closed the connection")
                self._answered.clear()
                await self._answered.wait()

    async def _serve(self) -> None:
        """Keep the connection alive until it ends."""
        while not self._ended.is_set():
            try:
                async with asyncio.timeout(1):
                    await self._ended.wait()
            except TimeoutError:
                self._client.loop_misc()

    def _hang_up(self) -> None:
        """Close what paho left open, for example after a connect that was given up."""
        self._admitted = self._connected = False
        self._connection += 1
        self._answered.set()
        if (left := self._client.socket()) is not None:
            self._on_wrote(None, None, left)
            self._on_socket_close(None, None, left)
            left.close()

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            logger.warning(
                "no connection to the MQTT broker, trying again; devices wait, all else goes on",
                extra={"broker": str(self.address), "problem": problem},
            )

    # --- called by paho, on the event loop

    def _on_connect(self, client: object, userdata: object, flags: Any, reason: ReasonCode, props: object) -> None:
        if reason.is_failure:
            self._refusal = f"the broker refused us: {reason}"
            return
        # From here on the session's messages come in and are answered, before the subscriptions are confirmed.
        self._admitted = True
        self._connection += 1
        self._session_present = bool(flags.session_present)
        self._client.subscribe(self._subscriptions)

    def _on_subscribe(self, client: object, userdata: object, mid: int, reasons: Any, props: object) -> None:
        refused = [topic for (topic, _), reason in zip(self._subscriptions, reasons, strict=False) if reason.is_failure]
        if refused:
            self._refuse(f"the broker does not let us subscribe to {', '.join(refused)}")
            return
        self._connected = True
        self._problem = ""
        logger.info(
            "connected to the MQTT broker",
            extra={"broker": str(self.address), "session_present": self._session_present},
        )
        self._inbound.append(Online(self._connection))
        self._arrival.set()
        self._answered.set()

    def _on_disconnect(self, client: object, userdata: object, flags: object, reason: object, props: object) -> None:
        self._admitted = self._connected = False
        self._connection += 1
        self._ended.set()
        self._answered.set()

    def _on_message(self, client: object, userdata: object, message: mqtt.MQTTMessage) -> None:
        receipt = Receipt(self._connection, message.mid) if message.qos else None
        if len(self._inbound) >= IN_LIMIT:
            if not self._room_wanted:
                self._pause()
            elif receipt is None:
                # Reading must go on for the acknowledgements in between. One that may be acknowledged is kept: the
                # broker has only so many of them in flight.
                self._dropped_in += 1
                return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        self._inbound.append(Arrived(topic, bytes(message.payload), message.retain, receipt))
        self._arrival.set()

    def _on_publish(self, client: object, userdata: object, mid: int, reason: object, props: object) -> None:
        self._waiting_out -= 1
        if self._waiting_out <= OUT_FULL:
            self._answered.set()

    def _on_socket_open(self, client: object, userdata: object, sock: Any) -> None:
        self._paused = self._client.is_held = False
        asyncio.get_running_loop().add_reader(sock, self._readable)

    def _on_socket_close(self, client: object, userdata: object, sock: Any) -> None:
        asyncio.get_running_loop().remove_reader(sock)

    def _on_want_write(self, client: object, userdata: object, sock: Any) -> None:
        asyncio.get_running_loop().add_writer(sock, self._client.loop_write)

    def _on_wrote(self, client: object, userdata: object, sock: Any) -> None:
        asyncio.get_running_loop().remove_writer(sock)

    def _readable(self) -> None:
        try:
            # paho handles a few packets per call; what it has already taken off the socket makes nobody wake us again.
            code = self._client.loop_read()
            # A packet that cannot be read ends the connection, and what came behind it is nobody's.
            while code == MQTTErrorCode.MQTT_ERR_SUCCESS and self._client.has_unread and not self._client.is_held:
                code = self._client.loop_read()
            if isinstance(sock := self._client.socket(), socket.socket):
                tcp.acknowledge_now(sock)
                if tcp.holds_more(sock):
                    asyncio.get_running_loop().call_soon(self._read_on, sock)
        except Exception as error:  # the root of everything that reads: a broken packet ends this connection only
            self._refuse(f"the broker sent what cannot be read: {error!r}")

    def _read_on(self, sock: socket.socket) -> None:
        """What TLS decrypted already; nothing on the wire will call for it."""
        if self._client.socket() is sock and not self._paused and tcp.holds_more(sock):
            self._readable()

    def _refuse(self, why: str) -> None:
        """End this connection."""
        self._refusal = why
        self._ended.set()
        self._answered.set()

    def _pause(self) -> None:
        sock = self._client.socket()
        if sock is not None and not self._paused:
            self._paused = self._client.is_held = True
            asyncio.get_running_loop().remove_reader(sock)

    def _resume(self) -> None:
        sock = self._client.socket()
        if sock is not None and self._paused:
            self._paused = self._client.is_held = False
            asyncio.get_running_loop().add_reader(sock, self._readable)
            # What was taken off the socket already wakes nobody.
            if self._client.has_unread:
                asyncio.get_running_loop().call_soon(self._readable)
            elif isinstance(sock, socket.socket):
                asyncio.get_running_loop().call_soon(self._read_on, sock)


class _Client(mqtt.Client):
    """paho's client on a socket that the event loop connected: its own way to connect would block the loop."""

    def __init__(self, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=mqtt.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self.max_inflight_messages_set(OUT_IN_FLIGHT)
        self.dialled: socket.socket | None = None
        self.is_held = False
        """Nothing is read for now; paho is told that there is nothing."""
        self._unread = bytearray()
        self._unread_at = 0

    def _create_socket_connection(self) -> socket.socket:
        dialled, self.dialled = self.dialled, None
        assert dialled is not None, "connect without a socket"
        self._unread.clear()
        self._unread_at = 0
        return dialled

    @property
    def has_unread(self) -> bool:
        """Whether there are bytes that were taken off the socket and not handled."""
        return self._unread_at < len(self._unread)

    def _sock_recv(self, bufsize: int) -> bytes:
        """
        paho asks for a packet's first byte, each byte of its length and then the rest: four system calls for each
        acknowledgement. Here it gets them out of one.
        """
        if self.is_held:
            raise BlockingIOError
        if not self.has_unread:
            self._unread = bytearray(super()._sock_recv(READ_BYTES))
            self._unread_at = 0
            if not self._unread:
                return b""  # the broker closed the connection
        taken = bytes(self._unread[self._unread_at : self._unread_at + bufsize])
        self._unread_at += len(taken)
        return taken
