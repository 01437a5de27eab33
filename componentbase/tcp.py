"""
TCP connections as every client of ours wants them: made without holding anything up, and prompt.

asyncio resolves a name in its own executor, and the end of the process waits for that: a resolver whose servers do
not answer would delay a stop by half a minute. The mappers' paho-mqtt resolves and connects in the caller's thread,
which is the event loop's. So the socket is made here and handed to whoever speaks on it.
"""

import asyncio
import os
import socket
import ssl
from typing import Final

from componentbase.aside import aside

_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # Linux


async def connect(host: str, port: int) -> socket.socket:
    """A connected, non-blocking socket: the first address of the name that takes one. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await aside(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), f"resolve[{host}]")
    problem = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            # Small packets both ways: with Nagle's algorithm each round trip waits 40 ms for a delayed acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as exc:
            sock.close()
            problem = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise problem


def acknowledge_now(sock: socket.socket) -> None:
    """
    Have the kernel acknowledge what was read at once, not within 40 ms. It forgets that: call it after each read.

    mosquitto leaves Nagle's algorithm on, so its next message to us waits until the last one's packet is
    acknowledged. Without this, reports that follow each other take 41 ms to the cloud, with it 10.
    """
    if _QUICK_ACK is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)


def holds_more(sock: socket.socket) -> bool:
    """Whether bytes were decrypted already and not yet read: the event loop, which watches the wire, sees none."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


def why(error: OSError) -> str:
    """
    Why a connection could not be made, in the system's few words.

    asyncio's own text repeats the address, and names an address where a name was given. TLS errors count on their own:
    their numbers mean something else to the system.
    """
    if isinstance(error, ssl.SSLError) or not error.errno or error.errno < 0:
        return error.strerror or str(error)
    return os.strerror(error.errno)
