"""
The connection to the MQTT broker: devicetwin.mqttclient on a socket, with sessions that outlive us.

The broker may be mosquitto or our own; it may be down, come back, or have forgotten everything. None of this
is anybody else's concern: what arrives is handed out in order, with a mark for every new connection, and what
cannot be published is dropped and told so, because whoever publishes knows how to say it again.

Invariants
    a message of quality of service 1 is acknowledged by `acknowledge` only, on the connection it came with
    at most IN_LIMIT messages wait to be received, and what one read or the broker's window of unacknowledged ones adds
    at most OUT_LIMIT messages wait for the broker's acknowledgement
    an outage is one warning, not one per attempt
"""

import asyncio
import logging
import random
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from componentbase import tcp
from componentbase.brokers import BrokerAddress, dial
from componentbase.errors import CommandError
from devicetwin.broker.packets import ProtocolError, Publish
from devicetwin.mqttclient import Accepted, BrokerRefusal, BrokerSilent, MqttClient, Subscribed
from devicetwin.wire import Publication

logger = logging.getLogger(__name__)

KEEPALIVE_S = 60  # what most clients take; half-open connections are found after at most twice that
CONNECT_TIMEOUT_S = 5.0  # a broker is near
BACKOFF_S = (0.2, 15.0)  # first and greatest upper bound of the pause before the next attempt, drawn from 0 to it
IN_LIMIT = 1024
OUT_LIMIT = 4096
OUT_FULL = OUT_LIMIT // 2  # above this `room` waits
READ_BYTES = 16 << 10  # a hundred reports, some 2 ms to take apart


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
        self._client = MqttClient(client_id, subscriptions, KEEPALIVE_S)
        self._socket: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._inbound: deque[Arrived | Online] = deque()
        self._arrival = asyncio.Event()
        self._answered = asyncio.Event()
        self._ended = asyncio.Event()
        self._connection = 1
        self._admitted = False
        """The broker took us in: messages of our session come, and may be answered."""
        self._connected = False
        """The broker also took our subscriptions."""
        self._session_present = False
        self._paused = False
        self._is_flush_due = False
        self._waits_to_write = False
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
            if self._admitted:
                self._client.close()
                self._flush()
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
        if self._client.waiting >= OUT_LIMIT:
            self._dropped_out += 1
            return False
        self._client.publish(publication.topic, publication.payload, publication.quality, publication.retain)
        self._flush_soon()
        return True

    async def room(self) -> None:
        """
        Wait until the broker has acknowledged enough for more to be published, or is away.

        Reading goes on meanwhile, even with a full queue, for the acknowledgements come the same way.
        """
        while self._admitted and self._client.waiting > OUT_FULL:
            self._room_wanted = True
            self._resume()
            self._answered.clear()
            await self._answered.wait()
        self._room_wanted = False

    def acknowledge(self, receipts: Iterable[Receipt | None]) -> None:
        """Tell the broker that messages are taken care of. Those of an earlier connection will come again."""
        for receipt in receipts:
            if receipt is not None and receipt.connection == self._connection:
                self._client.acknowledge(receipt.number)
                self._flush_soon()

    def status(self) -> BusStatus:
        return BusStatus(
            address=str(self.address),
            connected=self._connected,
            problem=self._problem,
            waiting_in=len(self._inbound),
            waiting_out=self._client.waiting,
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
                self._socket = await self._dial_inside()
                self._client.open(self._loop.time())
            else:
                self._socket = await dial(address)
                self._client.open(self._loop.time(), address.username, address.secret())
            self._paused = self._waits_to_write = False
            self._loop.add_reader(self._socket, self._readable)
            self._flush()
            while not self._connected:
                if self._ended.is_set():
                    raise ConnectionError(self._refusal or "the broker closed the connection")
                self._answered.clear()
                await self._answered.wait()

    async def _serve(self) -> None:
        """Keep the connection alive until it ends."""
        while not self._ended.is_set():
            try:
                async with asyncio.timeout_at(self._client.next_deadline()):
                    await self._ended.wait()
            except TimeoutError:
                try:
                    self._client.handle_deadline(self._loop.time())
                except BrokerSilent as error:
                    self._refuse(str(error))
                self._flush_soon()

    def _hang_up(self) -> None:
        """Close the socket, if there is one; what was published stays with the client."""
        self._admitted = self._connected = False
        self._connection += 1
        self._answered.set()
        if (sock := self._socket) is not None:
            self._socket = None
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)
            sock.close()

    def _refuse(self, why: str) -> None:
        """End this connection."""
        self._admitted = self._connected = False
        self._connection += 1
        self._refusal = why
        self._ended.set()
        self._answered.set()

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            logger.warning(
                "no connection to the MQTT broker, trying again; devices wait, all else goes on",
                extra={"broker": str(self.address), "problem": problem},
            )

    # --- reading

    def _readable(self) -> None:
        sock = self._socket
        if sock is None or self._paused or self._ended.is_set():
            return
        try:
            data = sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._refuse(tcp.why(error))
            return
        if not data:
            self._refuse("the broker closed the connection")
            return
        tcp.acknowledge_now(sock)
        self._take(data)
        if tcp.holds_more(sock):  # TLS decrypted it already; nothing on the wire will call for it
            self._loop.call_soon(self._readable)

    def _take(self, data: bytes) -> None:
        try:
            events = self._client.receive(data)
        except BrokerRefusal as refusal:
            self._refuse(f"the broker refused us: {refusal}")
            return
        except ProtocolError as error:
            self._refuse(f"the broker sent what cannot be read: {error}")
            return
        for event in events:
            match event:
                case Accepted(session_present):
                    # From here on the session's messages come in and are answered, before the subscriptions are
                    # confirmed.
                    self._admitted = True
                    self._session_present = session_present
                case Subscribed(refused):
                    self._subscribed(refused)
                case _:
                    self._arrived(event)
        self._tell_room()
        self._flush_soon()

    def _subscribed(self, refused: Sequence[str]) -> None:
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

    def _arrived(self, message: Publish) -> None:
        receipt = Receipt(self._connection, message.packet_id) if message.qos else None
        if len(self._inbound) >= IN_LIMIT:
            if not self._room_wanted:
                self._pause()
            elif receipt is None:
                # Reading must go on for the acknowledgements in between. One that may be acknowledged is kept: the
                # broker has only so many of them in flight.
                self._dropped_in += 1
                return
        self._inbound.append(Arrived(message.topic, message.payload, message.retain, receipt))
        self._arrival.set()

    def _pause(self) -> None:
        if self._socket is not None and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._socket)

    def _resume(self) -> None:
        if self._socket is not None and self._paused:
            self._paused = False
            self._loop.add_reader(self._socket, self._readable)
            if tcp.holds_more(self._socket):
                self._loop.call_soon(self._readable)

    # --- writing

    def _flush_soon(self) -> None:
        """Once in a turn of the loop, however much is said in it: a packet each would cost a system call each."""
        if not self._is_flush_due and self._client.outgoing:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        sock, outgoing = self._socket, self._client.outgoing
        while sock is not None and outgoing and not self._ended.is_set():
            try:
                size = sock.send(outgoing)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                self._refuse(tcp.why(error))
                return
            self._client.sent(size, self._loop.time())
        self._tell_room()
        if sock is not None and bool(outgoing) is not self._waits_to_write:
            self._waits_to_write = not self._waits_to_write
            if self._waits_to_write:
                self._loop.add_writer(sock, self._flush)
            else:
                self._loop.remove_writer(sock)

    def _tell_room(self) -> None:
        if self._room_wanted and self._client.waiting <= OUT_FULL:
            self._answered.set()
