"""What the transports have in common."""

import inspect

from link import quicserver, websocket
from link.quic import Quic
from link.transports import AT_DOOR, KINDS, MAX_CONNECTIONS
from link.websocket import WebSocket


def test_both_transports_have_the_same_limits_at_the_door() -> None:
    for listen in (websocket.listen, quicserver.listen):
        defaults = inspect.signature(listen).parameters
        assert defaults["at_door"].default is AT_DOOR
        assert defaults["max_connections"].default == MAX_CONNECTIONS


def test_each_transport_has_its_own_name() -> None:
    assert (WebSocket.kind, Quic.kind) == KINDS
