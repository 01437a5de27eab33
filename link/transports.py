"""
What every transport of the link has in common: whom it hands messages to, and its limits.
"""

from typing import Protocol

from componentbase.doorway import Limits
from link.fields import MAX_FRAME_BYTES

KINDS = ("websocket", "quic")
"""What the transports call themselves."""
NODE_PREFIX = "system:node:"
"""Begins the common name of a node's certificates."""
NODES_ORGANIZATION = "system:nodes"
"""... whose subject's organisation this is, and no other: a CA may sign for others, too."""
UNREAD_BYTES = 4 * MAX_FRAME_BYTES  # a window and a large frame, or the largest inventory, are not more
TURN_MESSAGES = 64  # of one connection, then others have a turn: one read may be 7,000 frames, 100 ms of work
TURN_S = 0.005  # nor for longer than this: what a frame costs is its sender's choice
OPEN_S = 10.0  # for all handshakes together; a peer that takes longer is not served
CLOSE_S = 2.0  # after we have said the end the other side has this long to close the connection
MAX_CONNECTIONS = 16_384  # of one hub process: 10,000 nodes, and each may come anew before it has left
AT_DOOR = Limits(each=256, overall=1024)
"""
Connections that are not open yet: a TLS handshake takes 3 ms and 50 KB. A fleet behind one address that lost its hub
comes in turns of as many as are let in within a second, and whoever is turned away dials again (edgehub.redial).
"""
UNTRUSTED = "trust this node's certificate (its CA or signer): join again, or see the hub's log"
"""What an edge hears, after "does not" or "may not": a hub refuses a certificate when a client is done with TLS 1.3."""


class Receiving(Protocol):
    """What a connection hands messages to; link.pump.Pump is one."""

    def message_received(self, data: bytes) -> None: ...

    def bytes_arrived(self) -> None: ...

    def connection_lost(self, reason: str) -> None: ...
