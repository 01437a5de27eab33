"""
The link over websocket: the `websockets` library's sans-I/O protocol under asyncio, and whole messages past it.

The library's own asyncio server costs three times the CPU and twice the memory per connection of this
arrangement; its protocol core does all that is hard. Compression is off (bodies are compressed once
per object, if at all), and so is the library's keepalive (the heartbeat is Peer's).

One message of the link is one binary message. All connections of a process read into one buffer, which
is free again when buffer_updated returns.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CLIENT, SERVER, Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from componentbase import proxies, tcp
from componentbase.doorway import Doorway, Leave, Limits, open_doorway
from componentbase.proxies import Proxy
from link.errors import LinkClosed
from link.fields import MAX_FRAME_BYTES
from link.transports import (
    AT_DOOR,
    CLOSE_S,
    MAX_CONNECTIONS,
    NODE_PREFIX,
    NODES_ORGANIZATION,
    OPEN_S,
    TURN_MESSAGES,
    TURN_S,
    UNREAD_BYTES,
    UNTRUSTED,
    Receiving,
)
from link.wsframes import Cutter, framed, masked

PATH = "/v1/link"
READ_BYTES = 64 << 10
RECORD_BYTES = 2 << 10  # of TLS, at a time: OpenSSL's buffer stays as large as the largest, for each of 10,000 nodes
logger = logging.getLogger(__name__)
# The library logs every frame's bytes at DEBUG, and bodies are nobody's business, Secrets least of all.
_quiet = logging.getLogger(__name__ + ".library")
_quiet.setLevel(logging.WARNING)

_HEAD_END = b"\r\n\r\n"


Opened = Callable[["WebSocket"], Receiving]
"""Called when the upgrade is done; returns who takes the messages."""


class WriteBatch:
    """
    Connections that write when the loop comes round again, one after the other.

    Of a push and its acknowledgement, a hub of a thousand nodes took 77 us writing at once and takes 57 so: the
    kernel's code and Python's do not drive each other out of the processor's caches for every frame, and whoever reads
    on the other core is not woken for each.
    """

    def __init__(self) -> None:
        self._due: list[WebSocket] = []

    def add(self, connection: "WebSocket") -> None:
        if not self._due:
            asyncio.get_running_loop().call_soon(self._send)
        self._due.append(connection)

    def _send(self) -> None:
        due, self._due = self._due, []
        for connection in due:
            try:
                connection.send()
            except Exception:
                # The others of this batch have been told that they are in it, and would wait for ever.
                logger.exception("not sent", extra={"remote": connection.remote})


class WebSocket(asyncio.BufferedProtocol):
    """One connection, either end. Is a link.pump.Transport."""

    __slots__ = (
        "__weakref__",
        "_batch",
        "_cutter",
        "_ended",
        "_head",
        "_is_open",
        "_is_over_its_turn",
        "_is_secure",
        "_is_server",
        "_leave",
        "_library",
        "_loop",
        "_message",
        "_opened",
        "_receiving",
        "_siblings",
        "_timer",
        "_transport",
        "_unsent",
        "identity",
        "key",
        "lost",
        "remote",
    )
    kind: ClassVar[str] = "websocket"
    _buffer: ClassVar = memoryview(bytearray(READ_BYTES))

    def __init__(
        self,
        protocol: ServerProtocol | ClientProtocol,
        opened: Opened,
        batch: WriteBatch,
        siblings: "set[WebSocket] | None" = None,
        leave: Leave = lambda: None,
    ) -> None:
        """
        siblings: where it is to be found while it lasts, TLS handshake excluded. leave: it is open, or has ended.
        """
        self.identity = ""
        self.key = ""
        self.remote = ""
        self._library: Protocol | None = protocol
        """None once the handshake is done, and until something comes that is not a whole message: it takes 2 KB."""
        self._is_open = self._is_secure = False
        self._is_over_its_turn = False
        """Whether frames are left over that came and have not been looked at; nothing is read meanwhile."""
        self._ended: tuple[Exception | None] | None = None
        """Why the connection is gone, while frames are left over: its handler hears of it after them."""
        self._opened: Opened | None = opened
        self._batch = batch
        self._unsent: list[bytes] = []
        self._receiving: Receiving | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._message: list[bytes] = []
        """The parts of a fragmented message that came."""
        self._is_server = isinstance(protocol, ServerProtocol)
        self._cutter = Cutter(self._is_server, MAX_FRAME_BYTES)
        self._head = b""
        """The last bytes of the handshake, in which its end may have begun."""
        self._siblings = siblings if siblings is not None else set()
        self._leave: Leave | None = leave
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Resolves to the reason when the connection is gone."""

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast and no isinstance: uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        self._is_secure = transport.get_extra_info("ssl_object") is not None
        self._siblings.add(self)
        peer_name = transport.get_extra_info("peername")
        self.remote = f"{peer_name[0]}:{peer_name[1]}" if peer_name else "unknown"
        certificate = transport.get_extra_info("peercert") or {}
        self.identity = _common_name(certificate)
        self._timer = self._loop.call_later(OPEN_S, self._give_up, "no upgrade in time")
        if not self._is_server and self.identity.startswith(NODE_PREFIX):
            # A node's certificate for its own API is of the same CA and may name any address.
            self._give_up(f"{self.identity} is a node, not a hub")
            return
        if self.identity.startswith(NODE_PREFIX) and not _is_of_nodes(certificate):
            self.identity = ""  # of a CA that signs for others, too: a name alone makes nobody a node
        if self.identity.startswith(NODE_PREFIX):
            self.key = _key_id(transport.get_extra_info("ssl_object"))
        certificate.clear()  # nobody asks again, and the loop would keep its 2 KB for as long as the connection lasts
        if isinstance(self._library, ClientProtocol):
            self._library.send_request(self._library.connect())
            self._flush()

    @property
    def _protocol(self) -> Protocol:
        if self._library is None:
            side = SERVER if self._is_server else CLIENT
            self._library = Protocol(side, state=State.OPEN, max_size=MAX_FRAME_BYTES, logger=_quiet)
        return self._library

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(self._buffer[:nbytes])
        receiving = self._receiving
        if receiving is None:
            self._take_frames(self._shake_hands(data))
        elif self._is_open and not self._message and (message := self._cutter.whole(data)) is not None:
            receiving.message_received(message)
        else:
            receiving.bytes_arrived()
            self._take_frames(data)

    def _shake_hands(self, data: bytes) -> bytes:
        """Give the library what is the handshake's; returns what came after it, which is frames."""
        head = self._head + data
        end = head.find(_HEAD_END)
        self._head = head[-len(_HEAD_END) + 1 :]
        size = len(data) if end < 0 else end + len(_HEAD_END) - (len(head) - len(data))
        self._protocol.receive_data(data[:size])
        self._handle_events()
        if self._receiving is None:  # more of a head, or of an answer that refuses
            self._protocol.receive_data(data[size:])
            self._handle_events()
            return b""
        return data[size:]

    def _take_frames(self, data: bytes) -> None:
        if not data or self._receiving is None:
            return
        self._cutter.feed(data)
        if not self._is_over_its_turn:
            self._take_turn()

    def _take_turn(self) -> None:
        """Look at frames that came, but not at so many that the other connections wait for it."""
        cutter, receiving = self._cutter, self._receiving
        assert receiving is not None, "frames come after the upgrade"
        ends_at = self._loop.time() + TURN_S
        for _ in range(TURN_MESSAGES):
            if self._loop.time() > ends_at:
                break
            piece = cutter.next(self._is_open and not self._message)
            if piece is None:
                if self._is_over_its_turn:
                    self._is_over_its_turn = False
                    if self._ended is not None:
                        self._end(*self._ended)
                    elif self._transport is not None and not self._transport.is_closing():
                        self._transport.resume_reading()
                return
            is_message, content = piece
            if is_message:
                receiving.message_received(content)
            else:
                self._protocol.receive_data(content)
                self._handle_events()
        if not self._is_over_its_turn and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._is_over_its_turn = True
        self._loop.call_soon(self._take_turn)

    def eof_received(self) -> bool:
        if self._is_over_its_turn:
            return False  # what came before it is looked at first, and connection_lost follows
        self._protocol.receive_eof()
        self._handle_events()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._left_door()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_over_its_turn:
            self._ended = (exc,)
        else:
            self._end(exc)

    def _end(self, exc: Exception | None) -> None:
        self._siblings.discard(self)
        if not self.lost.done():
            self.lost.set_result(self._reason(exc))
        # Who takes messages knows the connection, too: else both, and all that hangs on them, wait for the collector.
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.connection_lost(self.lost.result())

    # The pump's side

    def write(self, messages: Sequence[bytes]) -> None:
        if self._transport is None or not self._is_open:
            return
        unsent = self._unsent
        if not unsent:
            self._batch.add(self)
        for message in messages:
            unsent.append(framed(message) if self._is_server else masked(message, os.urandom(4)))

    def send(self) -> None:
        """Hand the kernel what was written. The connection is over where the other side does not read."""
        unsent, self._unsent = self._unsent, []
        transport = self._transport
        if transport is None or not unsent or transport.is_closing():
            return
        data = unsent[0] if len(unsent) == 1 else b"".join(unsent)
        try:
            if self._is_secure and len(data) > RECORD_BYTES:
                for start in range(0, len(data), RECORD_BYTES):
                    transport.write(data[start : start + RECORD_BYTES])
            else:
                transport.write(data)
        except RuntimeError as exc:
            # So uvloop says that the connection is gone; asyncio's transports are silent about it.
            logger.debug("not sent", extra={"remote": self.remote, "reason": str(exc)})
            return
        if transport.get_write_buffer_size() > UNREAD_BYTES:
            self._give_up("the other side does not read")

    def close(self) -> None:
        if self._transport is None:
            return
        if self._is_open:
            self._is_open = False
            self._protocol.send_close(1000)
            self._flush()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(CLOSE_S, self._give_up, "closed")

    def _give_up(self, reason: str) -> None:
        if self._transport is not None:
            if not self.lost.done():
                self.lost.set_result(reason)
            self._transport.abort()

    def _handle_events(self) -> None:
        library = self._protocol
        for event in library.events_received():
            if isinstance(event, Request):
                self._upgrade(event)
            elif isinstance(event, Response):
                self._begin(library)
            elif isinstance(event, Frame):
                self._take(event)
            if self._transport is None:
                return
        self._flush()
        if self._library is None:
            return
        self._is_open = self._is_open and self._library.state is State.OPEN
        if self._library.handshake_exc is not None and not self._is_server:
            self._transport.close() if self._transport is not None else None
        if self._library.close_expected() and self._transport is not None and self._timer is None:
            self._timer = self._loop.call_later(CLOSE_S, self._give_up, "closed")

    def _upgrade(self, request: Request) -> None:
        library = self._library
        assert isinstance(library, ServerProtocol), "only a server gets requests"
        if request.path == PATH:
            response = library.accept(request)
        else:
            response = library.reject(404, f"the link is at {PATH}\n")
        library.send_response(response)
        self._flush()
        self._begin(library)

    def _begin(self, library: Protocol) -> None:
        if library.state is not State.OPEN:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._library = None
        self._is_open = True
        self._left_door()
        opened, self._opened = self._opened, None
        assert opened is not None, "a connection is opened once"
        # Not kept: mostly it is a method of who has the pump, which has this connection.
        self._receiving = opened(self)

    def _left_door(self) -> None:
        if self._leave is not None:
            self._leave()
            self._leave = None

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._protocol.fail(1003, "binary messages only")
            return
        if frame.opcode not in (Opcode.BINARY, Opcode.CONT) or self._receiving is None:
            return
        self._message.append(bytes(frame.data))
        if frame.fin:
            message = self._message[0] if len(self._message) == 1 else b"".join(self._message)
            self._message = []
            self._receiving.message_received(message)

    def _flush(self) -> None:
        """Hand the kernel what the library has to say, after what was written before."""
        if self._library is None:
            return
        chunks = self._library.data_to_send()
        self._unsent += [chunk for chunk in chunks if chunk]
        self.send()
        # An empty chunk is the library's word for the end of the stream.
        if not all(chunks) and self._transport is not None and not self._transport.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()

    def _reason(self, exc: Exception | None) -> str:
        library = self._library
        if self._is_secure and not self._is_server and self._receiving is None and not self._head:
            # All that is seen of a certificate that was refused, and of little else: a hub that is full says so before.
            told = f" ({exc.reason})" if isinstance(exc, ssl.SSLError) and exc.reason else ""
            return f"the connection ended before any answer{told}: the hub may not {UNTRUSTED}"
        failure = exc if library is None else library.handshake_exc or library.parser_exc or exc
        if isinstance(failure, InvalidStatus):
            return f"the server answered HTTP {failure.response.status_code}"
        if isinstance(failure, InvalidHandshake):
            return f"not a websocket server: {failure}"
        if failure is not None and not isinstance(failure, EOFError):
            return str(failure) or type(failure).__name__
        return "connection closed"


def _common_name(certificate: object) -> str:
    """The subject's common name of what ssl's getpeercert() gave; "" without a certificate."""
    return next(iter(_subject(certificate, "commonName")), "")


def _is_of_nodes(certificate: object) -> bool:
    return _subject(certificate, "organizationName") == [NODES_ORGANIZATION]


def _subject(certificate: object, field: str) -> list[str]:
    relatives = certificate.get("subject", ()) if isinstance(certificate, dict) else ()
    return [str(value) for relative in relatives for name, value in relative if name == field]


def _key_id(connection: ssl.SSLObject) -> str:
    """Which key the other side has proved to have, by its certificate."""
    # A hub has this anyway, to sign with; an edge, which never comes here, would pay megabytes for it.
    from componentbase import pki

    certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None, "it was verified, and has a name"
    return pki.key_id(ssl.DER_cert_to_PEM_cert(certificate).encode())


class Listener:
    """Accepts connections until closed."""

    kind = WebSocket.kind

    def __init__(self, server: Doorway, connections: set[WebSocket]) -> None:
        self._server = server
        self._connections = connections

    @property
    def port(self) -> int:
        """The port in use, also where 0 was asked for."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def refusals(self) -> Mapping[str, int]:
        """TLS handshakes that came to nothing, by componentbase.doorway.REASONS."""
        return self._server.refusals

    async def close(self) -> None:
        """Accept no more, end what is open, wait until all is gone."""
        self._server.close()
        for connection in list(self._connections):
            connection.close()
        for connection in list(self._connections):
            await connection.lost
        await self._server.wait_closed()


async def listen(
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    opened: Opened,
    *,
    reuse_port: bool = False,
    at_door: Limits = AT_DOOR,
    max_connections: int = MAX_CONNECTIONS,
) -> Listener:
    """
    Serve the link at HOST:PORT; 0 picks a free port. Raises OSError where the port is taken.

    reuse_port: let other processes of this user listen there too; the kernel gives each connection to one of them.
    """
    connections: set[WebSocket] = set()
    batch = WriteBatch()

    def accept(leave: Leave) -> WebSocket:
        return WebSocket(ServerProtocol(max_size=MAX_FRAME_BYTES, logger=_quiet), opened, batch, connections, leave)

    server = await open_doorway(
        accept,
        host,
        port,
        at_door,
        context=context,
        handshake_s=OPEN_S,
        reuse_port=reuse_port,
        is_full=lambda: len(connections) >= max_connections,
    )
    return Listener(server, connections)


async def dial(
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    opened: Opened,
    *,
    server_hostname: str | None = None,
    batch: WriteBatch | None = None,
    proxy: Proxy | None = None,
) -> WebSocket:
    """
    Connect; returns when the upgrade is done and `opened` was called.

    batch: of other connections of this process, to write with. proxy: to go through, where there is one.

    Raises LinkClosed with a sentence about what failed: name, address, certificate, upgrade.
    """
    uri = parse_uri(f"{'wss' if context else 'ws'}://{_bracketed(host)}:{port}{PATH}")
    is_open = asyncio.get_running_loop().create_future()

    def opening(connection: WebSocket) -> Receiving:
        receiving = opened(connection)
        is_open.set_result(None)
        return receiving

    try:
        async with asyncio.timeout(OPEN_S):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: WebSocket(
                    ClientProtocol(uri, max_size=MAX_FRAME_BYTES, logger=_quiet), opening, batch or WriteBatch()
                ),
                ssl=context,
                server_hostname=(server_hostname or host) if context else None,
                sock=await (tcp.connect(host, port) if proxy is None else proxies.connect(proxy, host, port)),
            )
            await asyncio.wait([is_open, connection.lost], return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError as exc:
        raise LinkClosed(f"{host}:{port} did not answer within {OPEN_S:g} s") from exc
    except ssl.SSLCertVerificationError as exc:
        raise LinkClosed(f"the certificate of {host}:{port} is not to be trusted: {exc.verify_message}") from exc
    except OSError as exc:
        raise LinkClosed(f"cannot connect to {host}:{port}: {tcp.why(exc)}") from exc
    if not is_open.done():
        raise LinkClosed(connection.lost.result())
    return connection


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
