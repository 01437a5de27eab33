"""
Connections that delay, lose and half-open.

Messages of one direction keep their order, as TCP's do; messages of two connections do not know of each
other, so that an old connection's last words may come after a new one's first.
"""

import random
from collections.abc import Sequence
from typing import Protocol

from tests.sim.clock import SimClock


class Receiving(Protocol):
    def message_received(self, data: bytes) -> None: ...

    def connection_lost(self, reason: str) -> None: ...


class SimTransport:
    """One end of a connection; a link.pump.Transport."""

    def __init__(self, network: "SimNetwork", identity: str, remote: str) -> None:
        self.identity = identity
        self.remote = remote
        self.receiving: Receiving | None = None
        self.other: SimTransport
        self.open = True
        self.arrives_at = 0.0
        self._network = network

    def write(self, messages: Sequence[bytes]) -> None:
        if self.open:
            for message in messages:
                self._network.carry(self, message)

    def close(self) -> None:
        if self.open:
            self._network.shut(self)


class SimNetwork:
    """Makes connections and breaks them. `partitioned` nodes cannot connect."""

    def __init__(self, clock: SimClock, rng: random.Random, *, delay_s: float = 0.05) -> None:
        self._clock = clock
        self._rng = rng
        self._delay_s = delay_s
        self.connections: list[SimTransport] = []
        """The edge's end of every connection that somebody still takes to be open."""
        self.bytes_carried = 0

    def connect(self, node: str) -> tuple[SimTransport, SimTransport]:
        """(the edge's end, the hub's end), not yet handed to anybody."""
        edge = SimTransport(self, "", "hub")
        hub = SimTransport(self, f"system:node:{node}", node)
        edge.other, hub.other = hub, edge
        self.connections.append(edge)
        return edge, hub

    def carry(self, sender: SimTransport, message: bytes) -> None:
        self.bytes_carried += len(message)
        receiver = sender.other
        # In order within a direction: nothing overtakes what was written before it.
        sender.arrives_at = max(sender.arrives_at, self._clock.time() + self._rng.random() * self._delay_s)

        def arrive() -> None:
            if receiver.open and receiver.receiving is not None:
                receiver.receiving.message_received(message)

        self._clock.call_at(sender.arrives_at, arrive)

    def shut(self, end: SimTransport) -> None:
        """One side closes: what it wrote still arrives, then the other side notices."""
        self._lose(end, 0.0)
        other = end.other
        end.arrives_at = max(end.arrives_at, self._clock.time() + self._rng.random() * self._delay_s)
        self._clock.call_at(end.arrives_at, lambda: self._lose(other, 0.0))

    def cut(self, edge: SimTransport, *, edge_notices_s: float, hub_notices_s: float) -> None:
        """The path is gone: nothing arrives any more, and each side finds out when it does."""
        hub = edge.other
        edge.receiving, lost_edge = None, edge.receiving
        hub.receiving, lost_hub = None, hub.receiving
        self._clock.call_later(edge_notices_s, lambda: self._tell(edge, lost_edge))
        self._clock.call_later(hub_notices_s, lambda: self._tell(hub, lost_hub))

    def kill(self, end: SimTransport) -> None:
        """The process behind this end is gone without a word; the other side gets a reset."""
        end.open = False
        end.receiving = None
        self._lose(end.other, self._rng.random() * self._delay_s)

    def _lose(self, end: SimTransport, delay: float) -> None:
        if delay:
            self._clock.call_later(delay, lambda: self._lose(end, 0.0))
            return
        self._tell(end, end.receiving)

    def _tell(self, end: SimTransport, receiving: Receiving | None) -> None:
        if not end.open:
            return
        end.open = False
        if end in self.connections:
            self.connections.remove(end)
        if end.other in self.connections and not end.other.open:
            self.connections.remove(end.other)
        if receiving is not None:
            receiving.connection_lost("connection lost")
