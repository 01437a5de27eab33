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

from componentbase.doorway import addresses, bound
from componentbase.endpoints import Endpoint


@contextlib.contextmanager
def reserved(endpoint: Endpoint) -> Iterator[Endpoint]:
    """The endpoint, a free port where it has 0, ours while the block lasts. Raises OSError where the port is taken."""
    port = endpoint.port
    with contextlib.ExitStack() as stack:
        for family, address in addresses(endpoint.host, endpoint.port):
            with bound(family, (address[0], port, *address[2:]), reuse_port=False) as probe:
                probe.listen(1)  # binding alone succeeds beside sockets that do not listen yet
                port = probe.getsockname()[1]
            placeholder = stack.enter_context(bound(family, (address[0], port, *address[2:]), reuse_port=True))
            # Left on, it would let anybody who has it on listen beside a socket that does not.
            placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield Endpoint(endpoint.host, port)
