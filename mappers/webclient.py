"""
HTTP/1.1 requests to one origin over one kept connection, on asyncio: h11's home in this package.

h11 has the protocol; here are the socket, the limits and the redirects. A thread with http.client would have cost
half a MiB less, but a silent device would keep a thread of the few there are, and http.client's timeout starts
anew with every byte that a slow device sends. httpx and aiohttp can do both and cost 8 and 15 MiB.

Invariants
    an answer's body is never held beyond the limit: a longer Content-Length is refused before anything is read
    nothing, and so no credential, is sent to another origin: redirects are followed within it only
    a request that may have been carried out is not sent again, unless it only asks
    ask() may be cancelled at any time: the connection is then gone, and with it the late answer

Errors
    WebError    the answer cannot be used; the argument says why. The connection is closed.
    OSError     as the socket has it
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple, Self
from urllib.parse import quote, urljoin, urlsplit

import h11

from componentbase import tcp

MAX_REDIRECTS = 3
READ_BYTES = 16 * 1024
HEAD_BYTES = 16 * 1024
"""For the status line and the headers."""
_NO_URL = "must be http://HOST or https://HOST, with :PORT and a path if need be"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_CHARS = "%/?:@!$&'()*+,;=-._~"  # RFC 3986, 3.3 and 3.4; "%" because it may be escaped already
_PORTS = {"http": 80, "https": 443}


class WebError(Exception):
    """What came is no answer that can be used."""


class Origin(NamedTuple):
    """Scheme, host and port: what a connection and credentials belong to (RFC 6454)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises ValueError with a sentence."""
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError(_NO_URL) from None  # its own text may repeat a password
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(_NO_URL)
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold a name and a password: there are settings for them")
        try:
            return cls(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])
        except ValueError:
            raise ValueError("must have a port from 1 to 65535") from None

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


class Request(NamedTuple):
    """What to ask. Never logged: its headers may hold a credential."""

    method: str
    target: str
    """The path, and the query if there is one."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    is_repeatable: bool = True
    """Whether it only asks: then it is sent again on a new connection when a kept one fails, and redirects count."""


class Answer(NamedTuple):
    """What came."""

    status: int
    reason: str
    location: str
    """Where a redirect leads; "" for none."""
    body: bytes


class _Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self.is_fresh = True


class WebClient:
    """Requests to one origin, one at a time."""

    def __init__(self, origin: Origin, tls: ssl.SSLContext | None, max_bytes: int) -> None:
        """tls: how to verify an https origin; None for http. max_bytes: how long the body of an answer may be."""
        assert (tls is not None) == (origin.scheme == "https"), "https, and https only, needs a context"
        self._origin = origin
        self._tls = tls
        self._max_bytes = max_bytes
        self._line: _Line | None = None

    async def ask(self, request: Request) -> Answer:
        """The answer; redirects are followed where it only asks. There is no timeout. Raises WebError or OSError."""
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._ask_once(request)
            if answer.status not in _REDIRECTS or not answer.location:
                return answer
            try:
                to = urljoin(f"{self._origin}{request.target}", answer.location)
            except ValueError:
                raise WebError("it redirects to what is no URL") from None
            if not request.is_repeatable:
                raise WebError(f"it redirects a {request.method}, which is not followed: write to {_without_query(to)}")
            if not _is_at(to, self._origin):
                raise WebError(f"it redirects to {_without_query(to)}, and other hosts are not followed")
            request = request._replace(target=target_of(to))
        raise WebError(f"it redirects more than {MAX_REDIRECTS} times")

    async def close(self) -> None:
        """Let go of the connection."""
        line, self._line = self._line, None
        if line is not None:
            line.writer.transport.abort()
            with suppress(OSError):
                await line.writer.wait_closed()

    async def _ask_once(self, request: Request) -> Answer:
        for is_last in (False, True):
            line = await self._connected(anew=not request.is_repeatable)
            may_repeat = not line.is_fresh and not is_last
            done = False
            try:
                answer = await self._exchange(line, request)
                done = True
                return answer
            except (OSError, EOFError) as exc:
                # A kept connection may have been closed by the device just as it was used: once more, on a new one.
                if not may_repeat:
                    raise _as_os_error(exc) from exc
            except h11.RemoteProtocolError as exc:
                raise WebError(f"it does not speak HTTP/1.1 properly ({exc})") from exc
            finally:
                if not done:
                    await self.close()
        raise AssertionError("the second round returns or raises")

    async def _connected(self, *, anew: bool) -> _Line:
        # A write on a kept connection that fails may have been carried out; a new one is known to be open.
        if self._line is not None and (anew or self._line.reader.at_eof()):
            await self.close()
        if self._line is None:
            reader, writer = await self._open(await tcp.connect(self._origin.host, self._origin.port))
            self._line = _Line(reader, writer)
        return self._line

    async def _open(self, sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            name = self._origin.host if self._tls else None
            return await asyncio.open_connection(sock=sock, ssl=self._tls, server_hostname=name, limit=READ_BYTES)
        except BaseException:
            sock.close()
            raise

    async def _exchange(self, line: _Line, request: Request) -> Answer:
        head = h11.Request(
            method=request.method,
            target=request.target,
            headers=[
                ("Host", self._origin.authority),
                ("Accept-Encoding", "identity"),
                *request.headers,
                *([("Content-Length", str(len(request.body)))] if request.body or request.method != "GET" else []),
            ],
        )
        for event in (head, h11.Data(data=request.body), h11.EndOfMessage()):
            line.writer.write(line.protocol.send(event) or b"")
        await line.writer.drain()
        answer = await self._receive(line)
        line.is_fresh = False
        if line.protocol.our_state is h11.DONE and line.protocol.their_state is h11.DONE:
            line.protocol.start_next_cycle()
        else:
            await self.close()
        return answer

    async def _receive(self, line: _Line) -> Answer:
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = line.protocol.next_event()
            match event:
                case h11.NEED_DATA:
                    octets = await line.reader.read(READ_BYTES)
                    if not octets and head is None and not line.protocol.trailing_data[0]:
                        raise EOFError("the device closed the connection without an answer")
                    line.protocol.receive_data(octets)
                case h11.Response():
                    head = event
                    declared = _header(event.headers, b"content-length")
                    if declared and int(declared) > self._max_bytes:
                        raise WebError(f"its answer has {declared} bytes, and maxBytes is {self._max_bytes}")
                case h11.Data():
                    if len(body) + len(event.data) > self._max_bytes:
                        raise WebError(f"its answer is longer than maxBytes, which is {self._max_bytes}")
                    body += event.data
                case h11.EndOfMessage() | h11.PAUSED:
                    assert head is not None, "h11 gives the head before the end"
                    location = _header(head.headers, b"location")
                    return Answer(head.status_code, head.reason.decode("latin-1"), location, bytes(body))
                case h11.ConnectionClosed():
                    raise EOFError("the device closed the connection without an answer")
                case _:
                    pass  # h11.InformationalResponse: 1xx says only that the answer is still to come


def target_of(url: str) -> str:
    """What a request for this URL names: its path and query, what may not stand there as it is escaped."""
    parts = urlsplit(url)
    return quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_URL_CHARS)


def _is_at(url: str, origin: Origin) -> bool:
    try:
        return Origin.of(url) == origin
    except ValueError:
        return False


def _without_query(url: str) -> str:
    return urlsplit(url)._replace(query="", fragment="").geturl()[:200]


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for each, value in headers if each == name), "")


def _as_os_error(exc: OSError | EOFError) -> OSError:
    return exc if isinstance(exc, OSError) else ConnectionError(str(exc))
