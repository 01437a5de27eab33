"""
The broker's sockets: bytes to the core, the core's effects to the transports.

    async with await listen(config) as server:  # bound: server.port is known, clients are served
        tasks.create_task(server.run(), name="mqtt-broker")
        ...                                     # cancelling the task, or leaving the block, stops the broker cleanly

One read buffer serves all connections: a callback has copied what it brought before the next read begins. That is why
this is a BufferedProtocol and no stream: a plain Protocol on asyncio's own loop allocates 256 KiB per read, and a
stream costs a task and a buffer per client.

A slow reader costs others nothing. Above write_high_bytes of unread bytes the core is told, drops QoS 0 for that client
and keeps the rest in its bounded queue; above max_write_bytes the connection is cut. Reading from a slow reader goes
on: were both sides to wait until the other one reads, neither would.

edgecore's own client does not come through the listener: dial_inside() gives it one end of a pair of sockets. So nobody
else can be it, whatever they know, and the listener's TLS is none of its business. Passwords are verified in a thread,
one at a time, so that guessing takes at most one core and 16 MB.

What goes wrong with one client ends that client's connection. A bug in the core ends run(), and so whoever awaits it.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from componentbase.endpoints import why_not_listening
from devicetwin.broker.access import Account
from devicetwin.broker.config import BrokerConfig
from devicetwin.broker.core import Broker, Close, Connection, Effect, Pause, Resume, Send, Verify
from devicetwin.broker.users import UserFile

if TYPE_CHECKING:
    import ssl

logger = logging.getLogger(__name__)

READ_BYTES = 16 * 1024  # one read's worth, for all connections together; larger reads measured no faster
TICK_S = 1.0  # keepalives are whole seconds
STOP_GRACE_S = 1.0  # for a client to read its last bytes when the broker stops


class ListenError(Exception):
    """The address cannot be listened on: free it, or choose another."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(reason)
        self.host = host
        self.port = port


class BrokerServer:
    """A listening broker; made by listen(). Use it as a context manager, or close() it."""

    def __init__(self, config: BrokerConfig, users: UserFile, tls: "ssl.SSLContext | None") -> None:
        self.config = config
        self.port = config.port
        """The bound port, once listening."""
        self._users = users
        self._tls = tls
        self._hasher = ThreadPoolExecutor(1, "mqtt-login")
        self._broker = Broker(config, users.access)
        self._loop = asyncio.get_running_loop()
        self._listener: asyncio.Server | None = None
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._clients: dict[Connection, _Client] = {}
        self._bug: asyncio.Future[None] = self._loop.create_future()
        self._empty = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A task that is cancelled before its first step never reaches run()'s own close().
        await self.close()

    async def run(self) -> None:
        """Serve until cancelled, then close(). Raises what a bug in the core raised."""
        try:
            while True:
                # The future is only ever set to an exception; each timeout is a tick.
                await asyncio.wait((self._bug,), timeout=TICK_S)
                if self._bug.done():
                    self._bug.result()
                if (access := self._users.changed()) is not None:
                    self._perform(self._broker.adopt(access))
                self._perform(self._broker.expire(self._loop.time()))
        finally:
            await self.close()

    @property
    def denied(self) -> int:
        """Publications dropped because their senders had no right to make them."""
        return self._broker.denied

    @property
    def logins_refused(self) -> int:
        return self._broker.logins_refused

    async def dial_inside(self) -> socket.socket:
        """A connection for the process's own client, as connected and non-blocking as from a listener."""
        ours, theirs = socket.socketpair()
        try:
            for sock in (ours, theirs):
                sock.setblocking(False)
            await self._loop.connect_accepted_socket(lambda: _Client(self, inside=True), ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return theirs

    async def close(self) -> None:
        """Stop listening and end every connection, without wills. Harmless if called again."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.close()
        self._bug.cancel()
        self._hasher.shutdown(wait=False, cancel_futures=True)
        self._perform(self._broker.stop())
        if self._clients:
            try:
                async with asyncio.timeout(STOP_GRACE_S):
                    await self._empty.wait()
            except TimeoutError:
                for client in list(self._clients.values()):
                    client.transport.abort()
                await self._empty.wait()  # abort() reports a lost connection in the loop's next round
        logger.info("mqtt broker stopped", extra={"port": self.port})

    async def _listen(self) -> None:
        config = self.config
        try:
            self._listener = await self._loop.create_server(
                lambda: _Client(self),
                config.host,
                config.port,
                ssl=self._tls,
                ssl_handshake_timeout=config.connect_timeout_s if self._tls else None,
                ssl_shutdown_timeout=STOP_GRACE_S if self._tls else None,
            )
        except OSError as exc:
            raise ListenError(config.host, config.port, why_not_listening(config.host, config.port, exc)) from exc
        self.port = self._listener.sockets[0].getsockname()[1]
        logger.info("mqtt broker listens", extra={"host": config.host, "port": self.port, "tls": self._tls is not None})

    # -- from the clients' transports -------------------------------------------------------------------------------

    def _opened(self, client: "_Client") -> None:
        if self._listener is None or (connection := self._open(client)) is None:
            client.transport.abort()
            logger.warning("mqtt connection refused, there are too many", extra={"peer": client.peer})
            return
        client.connection = connection
        self._clients[connection] = client
        self._empty.clear()

    def _open(self, client: "_Client") -> Connection | None:
        peer = "" if client.inside else str(client.peer[0])
        return self._broker.open(self._loop.time(), peer, inside=client.inside)

    def _received(self, connection: Connection, size: int) -> None:
        try:
            effects = self._broker.receive(connection, self._buffer[:size], self._loop.time())
            self._perform(effects)
        except Exception as exc:  # the root of what a read sets off; see the module
            self._fail(exc)

    def _lost(self, connection: Connection) -> None:
        self._clients.pop(connection, None)
        if not self._clients:
            self._empty.set()
        if not connection.closed:
            logger.info("mqtt client lost", extra={"client": connection.client_id})
        self._guard(lambda: self._broker.lost(connection))

    def _choked(self, connection: Connection) -> None:
        self._broker.choke(connection)

    def _unchoked(self, connection: Connection) -> None:
        self._guard(lambda: self._broker.unchoke(connection))

    def _verify(self, verify: Verify) -> None:
        connection, username, password = verify
        if (account := self._users.recall(username, password)) is not None:
            self._perform(self._broker.verified(connection, account, self._loop.time()))
            return

        def verified(found: "asyncio.Future[Account | None]") -> None:
            if found.cancelled():
                return  # the broker stops
            if (account := found.result()) is not None:
                self._users.remember(account, password)
            self._guard(lambda: self._broker.verified(connection, account, self._loop.time()))

        self._loop.run_in_executor(self._hasher, self._users.verifier(username, password)).add_done_callback(verified)

    def _guard(self, step: Callable[[], list[Effect]]) -> None:
        try:
            self._perform(step())
        except Exception as exc:  # the root of a callback; see the module
            self._fail(exc)

    def _fail(self, exc: Exception) -> None:
        if not self._bug.done():
            self._bug.set_exception(exc)

    # -- to the clients' transports ---------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        """Do what the core wants. What goes to one connection leaves in one write."""
        unsent: dict[Connection, list[bytes]] = {}
        for effect in effects:
            match effect:
                case Send(connection, data):
                    if (parts := unsent.get(connection)) is None:
                        unsent[connection] = [data]
                    else:
                        parts.append(data)
                case Close(connection, reason):
                    self._write(connection, unsent.pop(connection, ()))
                    self._close(connection, reason)
                case Verify():
                    self._verify(effect)
                case Pause(connection):
                    if (client := self._clients.get(connection)) is not None:
                        client.transport.pause_reading()
                case Resume(connection):
                    if (client := self._clients.get(connection)) is not None:
                        client.transport.resume_reading()
        for connection, parts in unsent.items():
            self._write(connection, parts)

    def _write(self, connection: Connection, parts: Iterable[bytes]) -> None:
        client = self._clients.get(connection)
        if client is None or client.transport.is_closing():
            return
        transport = client.transport
        transport.write(b"".join(parts))
        if transport.get_write_buffer_size() > self.config.max_write_bytes:
            logger.warning("mqtt client does not read, disconnected", extra={"client": connection.client_id})
            transport.abort()

    def _close(self, connection: Connection, reason: str) -> None:
        client = self._clients.get(connection)
        if client is None:
            return
        who = {"client": connection.client_id} if connection.client_id else {"peer": connection.peer}
        logger.info("mqtt client closed", extra={**who, "reason": reason})
        if client.is_choked:
            client.transport.abort()  # close() would wait for a peer that does not read
        else:
            client.transport.close()


class _Client(asyncio.BufferedProtocol):
    """One client's transport."""

    __slots__ = ("connection", "inside", "is_choked", "peer", "server", "transport")

    transport: asyncio.Transport

    def __init__(self, server: BrokerServer, *, inside: bool = False) -> None:
        self.server = server
        self.inside = inside
        self.connection: Connection | None = None
        self.is_choked = False
        self.peer: tuple[object, ...] = ("",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # no isinstance: uvloop's are no subclasses
        self.transport = transport
        if not self.inside:
            self.peer = transport.get_extra_info("peername") or ("",)  # a peer that has gone already has no name
            sock = transport.get_extra_info("socket")
            # asyncio and uvloop set it too, but neither promises to; without it QoS 1 waits 40 ms for a delayed ACK.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # for clients with keepalive 0
        transport.set_write_buffer_limits(high=self.server.config.write_high_bytes)
        self.server._opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.server._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.connection is not None:
            self.server._received(self.connection, nbytes)

    def eof_received(self) -> None:
        """The transport closes itself: half-open connections are of no use to MQTT."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self.connection is not None:
            self.server._lost(self.connection)

    def pause_writing(self) -> None:
        self.is_choked = True
        if self.connection is not None:
            self.server._choked(self.connection)

    def resume_writing(self) -> None:
        self.is_choked = False
        if self.connection is not None:
            self.server._unchoked(self.connection)


async def listen(
    config: BrokerConfig, users: UserFile | None = None, tls: "ssl.SSLContext | None" = None
) -> BrokerServer:
    """
    A broker bound to its address and serving; ListenError if the address is taken or not ours.

    users: who may come, None for everybody. tls: what the listener shows and asks; None for plain MQTT.
    """
    server = BrokerServer(config, users or UserFile(None, anonymous=True), tls)
    await server._listen()
    return server
