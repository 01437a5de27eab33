"""
A port that several processes of ours are going to listen on, kept from everybody else meanwhile.

With SO_REUSEPORT the kernel lets every process of one user listen on a port that asks for it, and gives each of them a
part of the connections: so two programs that were given one port by mistake would not notice (socket(7)). Therefore a
port is looked at first without the option, as a server that wants it for itself would, and then stays bound, without
being listened on, for as long as its processes come and go. Between the look and the binding another one may come in
that asks for the option, too; that is microseconds.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

from componentbase.endpoints import Endpoint


@contextlib.contextmanager
def reserved(endpoint: Endpoint) -> Iterator[Endpoint]:
    """The endpoint, a free port where it has 0, ours while the block lasts. Raises OSError where the port is taken."""
    port = endpoint.port
    with contextlib.ExitStack() as stack:
        for family, address in _addresses(endpoint):
            with _socket(family) as probe:
                probe.bind((address[0], port, *address[2:]))
                probe.listen(1)  # binding alone succeeds beside sockets that do not listen yet
                port = probe.getsockname()[1]
            placeholder = stack.enter_context(_socket(family))
            placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            placeholder.bind((address[0], port, *address[2:]))
            # Left on, it would let anybody who has it on listen beside a socket that does not.
            placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield Endpoint(endpoint.host, port)


def _addresses(endpoint: Endpoint) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Those that a server would listen on, of the families that this machine has."""
    found = socket.getaddrinfo(endpoint.host or None, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            _socket(family).close()
        except OSError:
            continue
        yield family, address


def _socket(family: int) -> socket.socket:
    """As servers of asyncio make theirs: connections that were just closed are not in the way."""
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made
