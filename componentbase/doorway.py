"""
Accepting connections from the internet: how many may be at the door, of all together and of one address, TLS included.

asyncio's own servers begin a TLS handshake for whoever connects, and tell nobody before it is done: 50 KB and 3 ms of
processor each, for as long as ssl_handshake_timeout. So connections are counted here when they are accepted, and what
is one too many is closed before anything is made for it. Who is counted leaves the door by saying so: a link once it is
open, for from then on its node is known; a connection to the join endpoint when it ends.

Invariants
    at most `overall` are at the door, and `each` of one origin
    whoever was counted is not counted any more once it said so, its handshake failed, or the server is closed
    a process that has no file descriptors left stops accepting for a moment, and goes on

No asyncio.Server, but it has what our servers use of one.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from componentbase.aside import aside
from componentbase.endpoints import origin_of

logger = logging.getLogger(__name__)

ACCEPT_AT_ONCE = 64  # then the connections that are there have a turn
PAUSE_S = 1.0  # without a file descriptor for the next one
TELL_EVERY_S = 10.0  # of those that were turned away: a flood is no reason to fill the log
UNTRUSTED_EVERY_S = 60.0  # of one origin, which dials again and again
UNTRUSTED_ORIGINS = 1024  # of which is known when they were told of; the longest known is forgotten
NO_ROOM, UNTRUSTED, NO_CERTIFICATE, TIMEOUT, BROKEN = REASONS = (
    "no-room",
    "untrusted",
    "no-certificate",
    "timeout",
    "broken",
)
"""Why a handshake came to nothing; broken: the other side ended it, or spoke something else."""
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

Leave = Callable[[], None]
"""To be called by who is counted, once or more often."""


class Limits(NamedTuple):
    """How many may be at the door."""

    each: int
    """Of one origin: an IPv4 address, or a /64 of IPv6."""
    overall: int
    backlog: int = 1024
    """... that the kernel has accepted and we have not."""


class Threshold:
    """Counts who is at the door."""

    def __init__(self, limits: Limits) -> None:
        self.refusals: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        """How many handshakes came to nothing, by REASONS. They only rise."""
        self._limits = limits
        self._origins: Counter[str] = Counter()
        self._at_door = 0
        self._told = (-TELL_EVERY_S, 0)
        """When something was said of those turned away, and how many they were."""
        self._untrusted: dict[str, float] = {}
        """When something was said of an origin whose certificate was not taken, oldest first."""

    def __len__(self) -> int:
        return self._at_door

    def enter(self, origin: str, now: float, *, is_full: bool = False) -> Leave | None:
        """
        Count one more; None turns it away. is_full: no more are taken in for another reason. now: seconds that only
        grow.
        """
        if self._at_door >= self._limits.overall or self._origins[origin] >= self._limits.each or is_full:
            self._turned_away(origin, now)
            return None
        self._at_door += 1
        self._origins[origin] += 1
        is_counted = True

        def leave() -> None:
            nonlocal is_counted
            if not is_counted:
                return
            is_counted = False
            self._at_door -= 1
            self._origins[origin] -= 1
            if not self._origins[origin]:
                del self._origins[origin]

        return leave

    def untrusted(self, address: str, port: int, reason: str, now: float) -> None:
        """
        A certificate was shown and not taken. With TLS 1.3 the client is done by then and only sees the connection end,
        so what is wrong is to be read here.
        """
        origin = origin_of(address)
        if now - self._untrusted.get(origin, -UNTRUSTED_EVERY_S) < UNTRUSTED_EVERY_S:
            return
        self._untrusted.pop(origin, None)
        if len(self._untrusted) >= UNTRUSTED_ORIGINS:
            del self._untrusted[next(iter(self._untrusted))]
        self._untrusted[origin] = now
        logger.warning("client certificate not trusted", extra={"remote": f"{address}:{port}", "reason": reason})

    def _turned_away(self, origin: str, now: float) -> None:
        self.refusals[NO_ROOM] += 1
        refused = self.refusals[NO_ROOM]
        told_at, told = self._told
        if now - told_at >= TELL_EVERY_S:
            self._told = (now, refused)
            facts = {"origin": origin, "refused": refused - told, "at_door": self._at_door}
            logger.warning("too many connections", extra=facts)


class Doorway:
    """Accepts until it is closed. Made by `open_doorway`."""

    def __init__(
        self,
        sockets: list[socket.socket],
        protocol: Callable[[Leave], asyncio.BaseProtocol],
        limits: Limits,
        context: ssl.SSLContext | None,
        handshake_s: float,
        is_full: Callable[[], bool],
    ) -> None:
        self.sockets = sockets
        self._protocol = protocol
        self._threshold = Threshold(limits)
        self._context = context
        self._handshake_s = handshake_s if context else None
        self._is_full = is_full
        self._loop = asyncio.get_running_loop()
        self._shaking: set[asyncio.Task[None]] = set()
        for each in sockets:
            self._loop.add_reader(each, self._accept, each)

    @property
    def refusals(self) -> Mapping[str, int]:
        """See Threshold."""
        return self._threshold.refusals

    def __len__(self) -> int:
        """How many are at the door."""
        return len(self._threshold)

    def close(self) -> None:
        """Accept no more, and give up who is in the handshake."""
        for each in self.sockets:
            self._loop.remove_reader(each)
            each.close()
        self.sockets = []
        for task in self._shaking:
            task.cancel()

    async def wait_closed(self) -> None:
        """Until no handshake is under way."""
        while self._shaking:
            await asyncio.wait(self._shaking)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPT_AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    # Linux passes on what befell the one that came; it is gone, and the next may be there already.
                    logger.debug("a connection was gone before it was accepted", extra={"reason": exc.strerror})
                    return
                logger.error("connections have to wait", extra={"reason": exc.strerror})  # no bug
                self._loop.remove_reader(listening)
                self._loop.call_later(PAUSE_S, self._go_on, listening)
                return
            origin = origin_of(str(address[0]))
            leave = self._threshold.enter(origin, self._loop.time(), is_full=self._is_full())
            if leave is None:
                sock.close()
                continue
            sock.setblocking(False)
            task = self._loop.create_task(self._open(sock, address, leave), name=f"door[{origin}]")
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    def _go_on(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening, self._accept, listening)

    async def _open(self, sock: socket.socket, address: tuple[Any, ...], leave: Leave) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._protocol(leave), sock, ssl=self._context, ssl_handshake_timeout=self._handshake_s
            )
        except ssl.SSLCertVerificationError as exc:
            self._threshold.untrusted(str(address[0]), address[1], exc.verify_message, self._loop.time())
            self._threshold.refusals[UNTRUSTED] += 1
            leave()
        except OSError as exc:  # TLS errors and timeouts are such
            self._threshold.refusals[_reason(exc)] += 1
            logger.debug("no handshake", extra={"reason": str(exc)})
            leave()
        except asyncio.CancelledError:
            leave()
            raise


def _reason(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError) and exc.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return NO_CERTIFICATE
    return TIMEOUT if isinstance(exc, ConnectionAbortedError) else BROKEN  # so asyncio says that it took too long


async def open_doorway(
    protocol: Callable[[Leave], asyncio.BaseProtocol],
    host: str,
    port: int,
    limits: Limits,
    *,
    context: ssl.SSLContext | None,
    handshake_s: float,
    reuse_port: bool = False,
    is_full: Callable[[], bool] = lambda: False,
) -> Doorway:
    """
    Accept connections at HOST:PORT, each with a protocol of its own. Raises OSError where the address cannot be had.

    host: "" for every address of the machine. port: 0 picks a free one. protocol: given how to say that it is not to be
    counted any more. handshake_s: how long TLS may take. reuse_port: let other processes of this user listen there too.
    is_full: whether no more are taken in for another reason.
    """
    sockets: list[socket.socket] = []
    found = await aside(lambda: list(addresses(host, port)), f"resolve[{host}]")
    try:
        for family, address in found:
            # With port 0 the first address decides which port it is.
            chosen = port or (sockets[0].getsockname()[1] if sockets else 0)
            sockets.append(bound(family, (address[0], chosen, *address[2:]), reuse_port=reuse_port))
            sockets[-1].listen(limits.backlog)
            sockets[-1].setblocking(False)
    except OSError:
        for each in sockets:
            each.close()
        raise
    return Doorway(sockets, protocol, limits, context, handshake_s, is_full)


def addresses(host: str, port: int) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """What a server at HOST:PORT listens on, of the families that this machine has. Raises OSError."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            _made(family).close()
        except OSError:
            continue
        yield family, address


def bound(family: int, address: tuple[Any, ...], *, reuse_port: bool) -> socket.socket:
    """A socket that has the address. Raises OSError."""
    made = _made(family)
    try:
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _made(family: int) -> socket.socket:
    """Connections that were just closed are not in the way; IPv6 means IPv6."""
    # asyncio switches Nagle's algorithm off where a socket says that it is TCP, which what it accepts inherits.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made
