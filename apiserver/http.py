"""
An HTTP/1.1 server small enough for an edge node: h11 does the protocol, this module moves the bytes.

It serves whoever has a handler from a Request to a Response: the local API, the embedded apiserver,
the join endpoint, the status sockets. It knows nothing of Kubernetes beyond the form of its errors.

Invariants
    nothing a peer sends allocates more than the limits below: head, body, pipelined bytes, connections
    a peer that does not read is cut, never waited for longer than `SLOW_READER_S`
    a peer's mistake is answered (400, 408, 413, 431) and ends that connection only
    a handler that has begun is not cancelled because its peer left; a stream is
    what is large goes out in pieces, and whoever else waits for the loop gets it between two of them
    leaving `serve` ends every stream properly and leaves no connection and no task behind

One task per connection, all in the TaskGroup of `serve`; reads go through one shared buffer, because
asyncio's own receive buffer of 256 KiB per read costs more than everything else here together.
"""

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import cast

import h11

from apimachinery.errors import ApiError, InternalError, from_status
from apiserver.listening import AddressInUse, ListenError, listen
from apiserver.messages import Handler, Request, Response, error_response, json_response
from componentbase.doorway import Doorway, Leave, Limits

__all__ = [
    "AddressInUse",
    "Handler",
    "ListenError",
    "Request",
    "Response",
    "Server",
    "error_response",
    "json_response",
    "serve",
]

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 3 << 20  # kube-apiserver's limit for a request body (MaxRequestBodyBytes)
MAX_HEAD_BYTES = 64 << 10  # a selector may be long; Go's server allows 1 MiB, which nobody needs
MAX_HEADERS = 128  # kubectl sends a dozen; values of one name are put together, which takes the square of their number
MAX_PIPELINED_BYTES = 64 << 10  # read ahead while a handler runs, to see that the peer has left
MAX_CONNECTIONS = 512  # told so with a 503; of those whose TLS handshake is not done as many again, and they are closed
READ_BYTES = 64 << 10
WRITE_BYTES = 64 << 10  # a large body is handed to the socket in pieces of this size
IDLE_S = 120.0  # kept-alive connections; Go clients close theirs after 90 s, and who closes first avoids the race
REQUEST_S = 30.0  # from a request's first byte to its last
SLOW_READER_S = 30.0
LINGER_S = 1.0  # after refusing a body unread: time for the peer to read the refusal before the reset
LINGER_BYTES = 16 << 20
STOP_S = 3.0  # SIGTERM promises five seconds in all


class Server:
    """What `serve` yields: where it listens."""

    def __init__(
        self,
        handler: Handler,
        group: asyncio.TaskGroup,
        *,
        max_body: int,
        max_connections: int,
        idle_s: float,
        tls: bool,
    ) -> None:
        self.handler = handler
        self.max_body = max_body
        self.idle_s = idle_s
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.host = ""
        self.port = 0
        """The port that was bound, also when 0 was asked for; 0 for a socket file."""
        self.endpoint = ""
        """"http://HOST:PORT", "https://HOST:PORT" or "unix:PATH"."""
        self._tls = tls
        self._group = group
        self._max_connections = max_connections
        self._connections: set[_Connection] = set()
        self._gone = asyncio.Event()
        self._stopping = False

    @property
    def connections(self) -> int:
        return len(self._connections)

    def _listening(self, listener: Doorway | asyncio.Server, host: str | None, unix_path: Path | None) -> None:
        if unix_path is not None:
            self.endpoint = f"unix:{unix_path}"
            return
        self.port = listener.sockets[0].getsockname()[1]
        self.host = host or "0.0.0.0"  # noqa: S104  # the caller asked for every address
        shown = f"[{self.host}]" if ":" in self.host else self.host
        self.endpoint = f"{'https' if self._tls else 'http'}://{shown}:{self.port}"

    def _opened(self, connection: "_Connection") -> asyncio.Task[None] | None:
        """Give the connection its task, or None when there are too many or the server stops."""
        self._connections.add(connection)
        if self._stopping or len(self._connections) > self._max_connections:
            return None
        return self._group.create_task(connection.run(), name=f"http[{connection.peer}]")

    def _closed(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._gone.set()

    async def _stop(self) -> None:
        """End streams, let running handlers finish, close everything; cut what does not follow."""
        self._stopping = True
        for connection in tuple(self._connections):
            connection.stop()
        if not await self._all_gone():
            for connection in tuple(self._connections):
                connection.abort()
            await self._all_gone()

    async def _all_gone(self) -> bool:
        self._gone.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while self._connections:
                    await self._gone.wait()
        return not self._connections


@contextlib.asynccontextmanager
async def serve(
    handler: Handler,
    *,
    host: str | None = None,
    port: int | None = None,
    unix_path: Path | None = None,
    unix_mode: int = 0o600,
    ssl_context: ssl.SSLContext | None = None,
    max_body: int = MAX_BODY_BYTES,
    max_connections: int = MAX_CONNECTIONS,
    max_each: int = 2 * MAX_CONNECTIONS,
    idle_s: float = IDLE_S,
    reuse_port: bool = False,
) -> AsyncIterator[Server]:
    """
    Listen on HOST:PORT (port 0 picks a free one) or on a socket file, until the block is left.

    max_each: connections of one address, TLS handshake included. idle_s: how long one may wait for its next request.
    ssl_context: with verify_mode CERT_OPTIONAL, a client's verified common name and organizations are in each Request.
    Raises AddressInUse or ListenError before the block is entered; what the block raises comes out as it is.
    """
    if (unix_path is None) == (port is None):
        raise ValueError("exactly one of port and unix_path is needed")
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        server = Server(
            handler,
            group,
            max_body=max_body,
            max_connections=max_connections,
            idle_s=idle_s,
            tls=ssl_context is not None,
        )
        try:
            listener = await listen(
                lambda leave: _Connection(server, leave),
                host=host,
                port=port,
                unix_path=unix_path,
                unix_mode=unix_mode,
                ssl_context=ssl_context,
                limits=Limits(each=max_each, overall=2 * max_connections),
                reuse_port=reuse_port,
            )
        except ListenError as exc:
            failure = exc
        else:
            server._listening(listener, host, unix_path)
            try:
                yield server
            except Exception as exc:  # the TaskGroup would wrap it in a group that no caller expects
                failure = exc
            finally:
                listener.close()
                await server._stop()
                if unix_path is not None:
                    unix_path.unlink(missing_ok=True)  # noqa: ASYNC240  # one system call
    if failure is not None:
        raise failure


class _PeerLeft(Exception):
    """The peer closed, was cut or is of no more use; nothing is left to say to it."""


class _Connection(asyncio.BufferedProtocol):
    """One connection: bytes in by callbacks, requests and responses by one task."""

    def __init__(self, server: Server, leave: Leave) -> None:
        self._server = server
        self._leave = leave
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._unread = 0  # bytes given to h11 since the task last asked for an event
        self._discarded: int | None = None  # bytes thrown away after a refusal; None before one
        self._reading_paused = self._writing_paused = False
        self._eof = self._lost = self._stopping = False
        self._busy = False  # a handler runs, or its whole answer is being written
        self._streaming = False
        self._is_head = False  # the request that is read: whatever it is answered has no body
        self._certificate_cn: str | None = None
        self._organizations: tuple[str, ...] = ()
        self._certificate = b""
        self.peer = ""

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast and no isinstance: uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=WRITE_BYTES)
        name = transport.get_extra_info("peername")
        self.peer = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "unix"
        certificate = transport.get_extra_info("peercert")
        self._certificate_cn = next(iter(_subject(certificate, "commonName")), None)
        self._organizations = tuple(_subject(certificate, "organizationName"))
        if self._certificate_cn is not None:
            self._certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""
        self._task = self._server._opened(self)
        if self._task is None:
            logger.warning("connection refused", extra={"peer": self.peer, "open": self._server.connections})
            transport.write(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n")
            transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._discarded is not None:
            self._discarded += nbytes
            if self._discarded > LINGER_BYTES:
                self._transport.abort()
            return
        if self._h11.their_state in (h11.ERROR, h11.CLOSED, h11.MUST_CLOSE):
            return
        self._h11.receive_data(bytes(self._server.buffer[:nbytes]))
        self._unread += nbytes
        if self._unread > MAX_PIPELINED_BYTES and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        self._eof = True
        self._h11.receive_data(b"")
        if self._streaming:
            # A watcher that closes its side has left. Whoever waits for one answer may have closed it properly.
            self._cancel()
            return False
        self._wake()
        return self._busy

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._eof = True
        self._server._closed(self)
        self._leave()
        self._wake()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._streaming:
            self._cancel()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # Called by the server.

    def stop(self) -> None:
        """Finish what the handler is at, then close; a stream or an idle wait ends at once."""
        self._stopping = True
        if not self._busy:
            self._cancel()

    def abort(self) -> None:
        self._cancel()
        self._transport.abort()

    # The task.

    async def run(self) -> None:
        """Requests in, responses out, until either side has had enough."""
        try:
            while not self._stopping and (request := await self._read_request()) is not None:
                await self._answer(request)
                if self._eof or (self._h11.our_state, self._h11.their_state) != (h11.DONE, h11.DONE):
                    break
                self._h11.start_next_cycle()
        except _PeerLeft:
            pass
        except h11.RemoteProtocolError as exc:
            await self._refuse(exc.error_status_hint, f"malformed HTTP request: {exc}")
        except Exception:
            # A bug, and the root of this task: the other connections go on.
            logger.exception("request failed", extra={"peer": self.peer})
            self._transport.abort()
        finally:
            self._transport.close()

    async def _read_request(self) -> Request | None:
        """The next request with its body; None when the connection should be closed instead."""
        started = self._is_head = False
        try:
            async with asyncio.timeout(self._server.idle_s) as deadline:
                while not self._h11.trailing_data[0] and not self._eof:
                    await self._more()
                started = True
                deadline.reschedule(asyncio.get_running_loop().time() + REQUEST_S)
                head = await self._event()
                if not isinstance(head, h11.Request):
                    return None
                self._is_head = head.method == b"HEAD"
                return await self._complete(head)
        except TimeoutError:
            if started:
                await self._refuse(408, "the request did not arrive in time")
            return None

    async def _complete(self, head: h11.Request) -> Request | None:
        headers: dict[str, str] = {}
        # h11 looks at what is incomplete only, and a head may have come as a whole.
        size = len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.headers)
        if size > MAX_HEAD_BYTES or len(head.headers) > MAX_HEADERS:
            await self._refuse(
                431, f"the request's head has more than {MAX_HEAD_BYTES} bytes, or {MAX_HEADERS} headers"
            )
            return None
        for name_bytes, value_bytes in head.headers:
            name, value = name_bytes.decode("latin-1"), value_bytes.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        announced = headers.get("content-length", "0")
        if len(announced) > 18 or int(announced) > self._server.max_body:
            await self._refuse(413, f"the request body is larger than {self._server.max_body} bytes")
            return None
        if self._h11.they_are_waiting_for_100_continue:
            self._write(self._h11.send(h11.InformationalResponse(status_code=100, headers=[])))
        chunks: list[bytes] = []
        size = 0
        while isinstance(event := await self._event(), h11.Data):
            size += len(event.data)
            if size > self._server.max_body:
                await self._refuse(413, f"the request body is larger than {self._server.max_body} bytes")
                return None
            chunks.append(bytes(event.data))
        if not isinstance(event, h11.EndOfMessage):
            return None
        return Request(
            method=head.method.decode("ascii"),
            target=head.target.decode("latin-1"),
            headers=headers,
            body=b"".join(chunks),
            peer=self.peer,
            peer_certificate_cn=self._certificate_cn,
            peer_certificate_organizations=self._organizations,
            peer_certificate=self._certificate,
        )

    async def _event(self) -> object:
        """h11's next event, once enough bytes are in."""
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            await self._more()
        return event

    async def _more(self) -> None:
        """Wait for more bytes, or for the end of them."""
        if self._lost:
            raise _PeerLeft
        self._unread = 0
        if self._reading_paused:
            self._reading_paused = False
            self._transport.resume_reading()
        self._readable = asyncio.get_running_loop().create_future()
        try:
            await self._readable
        finally:
            self._readable = None

    async def _answer(self, request: Request) -> None:
        self._busy = True
        try:
            try:
                response = await self._server.handler(request)
            except ApiError as exc:
                response = error_response(exc)
            except Exception:
                logger.exception("handler failed", extra={"method": request.method, "path": request.path})
                response = error_response(InternalError("an internal error occurred; the server's log says which"))
            logger.debug("answered", extra={"method": request.method, "path": request.path, "status": response.status})
            await self._send(response, head_only=self._is_head)
        finally:
            self._busy = False

    async def _send(self, response: Response, *, head_only: bool = False, close: bool = False) -> None:
        headers = [*response.headers, ("date", _http_date(int(time.time())))]
        if isinstance(response.body, bytes):
            headers.append(("content-length", str(len(response.body))))
        if close or self._stopping:
            headers.append(("connection", "close"))
        head = h11.Response(status_code=response.status, headers=headers, reason=_reason(response.status))
        first = self._h11.send(head) or b""
        if not isinstance(response.body, bytes):
            await self._stream(first, response.body, head_only=head_only)
            return
        if head_only:
            self._write(first)
        else:
            view = memoryview(response.body)
            for start in range(0, max(len(view), 1), WRITE_BYTES):
                # Content-Length framing passes data through; what h11 adds is bookkeeping, not bytes.
                data = h11.Data(data=view[start : start + WRITE_BYTES])  # type: ignore[arg-type]  # any buffer will do
                pieces = self._h11.send_with_data_passthrough(data) or []
                self._write(b"".join((first, *pieces)))
                first = b""
                await self._drained()
                if start + WRITE_BYTES < len(view):
                    await asyncio.sleep(0)  # a socket may take all of it at once, and others wait for the loop
        self._write(self._h11.send(h11.EndOfMessage()))

    async def _stream(self, first: bytes, body: AsyncIterator[bytes], *, head_only: bool) -> None:
        self._streaming, self._busy = True, False
        rest = memoryview(b"")
        try:
            if self._stopping or self._eof:
                raise _PeerLeft
            self._write(first)
            if not head_only:
                async for chunk in body:
                    rest = memoryview(chunk)
                    while rest:
                        piece, rest = rest[:WRITE_BYTES], rest[WRITE_BYTES:]
                        self._write(self._h11.send(h11.Data(data=piece)))  # type: ignore[arg-type]  # as above
                        await self._drained()
                        if rest:
                            await asyncio.sleep(0)
            self._write(self._h11.send(h11.EndOfMessage()))
        except asyncio.CancelledError:
            if not self._lost:
                # The server stops: the last chunk tells the peer that the stream ended and was not cut.
                if rest:
                    self._write(self._h11.send(h11.Data(data=rest)))  # type: ignore[arg-type]  # as above
                self._write(self._h11.send(h11.EndOfMessage()))
            raise
        finally:
            self._streaming = False
            close = getattr(body, "aclose", None)
            if close is not None:
                await close()

    async def _refuse(self, status: int, message: str) -> None:
        """Answer a request that was not read to its end, and give the peer a moment to read the answer."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self._lost:
            return
        body = from_status(status, "", message).status() | {"code": status}
        await self._send(json_response(status, body), head_only=self._is_head, close=True)
        self._discarded = 0
        if self._reading_paused:
            self._transport.resume_reading()
        # Closing with unread bytes in the socket resets the connection, and a reset discards the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._eof:
                    await self._more()

    def _write(self, data: bytes | None) -> None:
        if data and not self._lost:
            self._transport.write(data)

    async def _drained(self) -> None:
        """Wait until the peer has taken most of what was written. Cut one that does not."""
        if self._lost:
            raise _PeerLeft
        if not self._writing_paused:
            return
        self._writable = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(SLOW_READER_S):
                await self._writable
        except TimeoutError:
            logger.info("slow reader cut", extra={"peer": self.peer})
            self._transport.abort()
            raise _PeerLeft from None
        finally:
            self._writable = None
        if self._lost:
            raise _PeerLeft

    def _wake(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _subject(certificate: object, wanted: str) -> list[str]:
    """Parts of the subject in what SSLObject.getpeercert() returns; that is empty unless it was verified."""
    if not isinstance(certificate, Mapping):
        return []
    names = certificate.get("subject", ())
    return [str(value) for relative_name in names for kind, value in relative_name if kind == wanted]


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _http_date(second: int) -> str:
    """RFC 9110 5.6.7, in English whatever the locale."""
    now = time.gmtime(second)
    return (
        f"{_DAYS[now.tm_wday]}, {now.tm_mday:02} {_MONTHS[now.tm_mon - 1]} {now.tm_year} "
        f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02} GMT"
    )
