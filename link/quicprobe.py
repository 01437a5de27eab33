"""
Whether a QUIC server answers at an address, for one small packet and without a QUIC library.

Whoever does not speak the version of a packet's header must say which ones it does (RFC 9000, section 6.1), and says so
without making anything of a connection. So a packet of a version that nobody has is a question that every QUIC server
answers and no other: not a firewall that drops UDP, nor a machine where nobody listens.
"""

import asyncio
import os
import socket
from typing import Any, NamedTuple

from componentbase.aside import aside

PROBE_BYTES = 1200  # as RFC 9000, section 14.1, has a client's first packet; what comes back is smaller
PROBE_VERSION = 0x1A2A3A4A  # of those that are kept free to be refused (RFC 9000, section 15)
TRIES = 2
TRY_S = 0.45  # two tries within a second
_ID_BYTES = 8
_LONG_HEADER = 0xC0


class Found(NamedTuple):
    """Where a QUIC server answered."""

    family: int
    address: tuple[Any, ...]
    """As getaddrinfo has it."""


def question(ours: bytes, theirs: bytes) -> bytes:
    """A packet from a connection that has these numbers."""
    head = b"".join(
        (
            bytes((_LONG_HEADER,)),
            PROBE_VERSION.to_bytes(4),
            bytes((len(theirs),)),
            theirs,
            bytes((len(ours),)),
            ours,
        )
    )
    return head.ljust(PROBE_BYTES, b"\0")


def answers(data: bytes, ours: bytes, theirs: bytes) -> bool:
    """Whether this is a QUIC server's answer to that very packet."""
    head = b"".join((bytes(4), bytes((len(ours),)), ours, bytes((len(theirs),)), theirs))
    return bool(data) and data[0] & 0x80 != 0 and data[1:].startswith(head)


async def addresses(host: str, port: int) -> list[Found]:
    """Of a name, in the system's order. Raises OSError."""
    found = await aside(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM), f"resolve[{host}]")
    return [Found(family, address) for family, _, _, _, address in found]


async def probe(host: str, port: int, tries: int = TRIES, try_s: float = TRY_S) -> Found | None:
    """The first address of the name where a QUIC server answers, within `tries` times `try_s`. Raises OSError."""
    found = await addresses(host, port)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_ask(each, tries, try_s), name=f"probe[{host}]") for each in found]
        for each in asyncio.as_completed(asked):
            if (answered := await each) is not None:
                for task in asked:
                    task.cancel()
                return answered
    return None


async def _ask(where: Found, tries: int, try_s: float) -> Found | None:
    loop = asyncio.get_running_loop()
    ours, theirs = os.urandom(_ID_BYTES), os.urandom(_ID_BYTES)
    try:
        with socket.socket(where.family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            # Connected, so that the kernel tells us where nobody listens, and takes nothing from anybody else.
            sock.connect(where.address)
            for _ in range(tries):
                await loop.sock_sendall(sock, question(ours, theirs))
                try:
                    async with asyncio.timeout(try_s):
                        while True:
                            if answers(await loop.sock_recv(sock, PROBE_BYTES), ours, theirs):
                                return where
                except TimeoutError:
                    continue
    except OSError:
        return None
    return None
