"""
Connections that delay, lose, half-open and outlive those who made them.

Messages of one direction keep their order, as TCP's do; messages of two connections do not know of each
other, so that an old connection's last words may come after a new one's first. A connection that is cut in
the middle of a message delivers nothing of it, which is what the shipped transports do: whole messages
arrive, up to one that does not.

With `lanes` a connection is as link.quic makes it: messages of one lane keep their order, those of others overtake
them, and it ends with what CONTROL said, whatever of the others was still on its way. The receiving end has the shipped
link.lanes.Inbox.
"""

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from link.codec import decode
from link.frames import Goodbye, GoodbyeCode, Lane
from link.lanes import LANES, Inbox, framed
from link.tags import Tag, lane_of
from tests.sim.clock import SimClock


class Receiving(Protocol):
    @property
    def is_streaming(self) -> bool: ...

    def message_received(self, data: bytes) -> None: ...

    def connection_lost(self, reason: str) -> None: ...


class SimTransport:
    """One end of a connection; a link.pump.Transport."""

    kind = "websocket"

    def __init__(self, network: "SimNetwork", identity: str, remote: str, delay_s: float) -> None:
        self.identity = identity
        self.remote = remote
        self.key = ""
        self.receiving: Receiving | None = None
        self.other: SimTransport
        self.open = True
        self.is_muted = False
        """What this end writes goes nowhere, and nobody is told."""
        self.arrives_at = [0.0 for _ in LANES]
        self.inbox = Inbox()
        self.delay_s = delay_s
        self._network = network

    def write(self, messages: Sequence[bytes]) -> None:
        if self.open:
            for message in messages:
                self._network.carry(self, message)

    def close(self) -> None:
        if self.open:
            self._network.shut(self)


class SimNetwork:
    """Makes connections and breaks them."""

    def __init__(
        self, clock: SimClock, rng: random.Random, *, delays_s: Sequence[float] = (0.05,), lanes: bool = False
    ) -> None:
        """delays_s: each connection gets one of these as its longest delay. lanes: whether they overtake each other."""
        self.has_lanes = lanes
        self._clock = clock
        self._rng = rng
        self._delays_s = delays_s
        self.connections: list[SimTransport] = []
        """The edge's end of every connection that somebody still takes to be open."""
        self.bytes_carried = 0
        self.breaches: list[str] = []
        """What one shipped peer had to tell another that it broke the protocol."""

    def connect(self, node: str) -> tuple[SimTransport, SimTransport]:
        """(the edge's end, the hub's end), not yet handed to anybody."""
        delay_s = self._rng.choice(self._delays_s)
        edge = SimTransport(self, "", "hub", delay_s)
        hub = SimTransport(self, f"system:node:{node}", node, delay_s)
        edge.other, hub.other = hub, edge
        self.connections.append(edge)
        return edge, hub

    def carry(self, sender: SimTransport, message: bytes) -> None:
        self.bytes_carried += len(message)
        if message[1] == Tag.GOODBYE:
            said = decode(message)
            if isinstance(said, Goodbye) and said.code is GoodbyeCode.PROTOCOL:
                self.breaches.append(said.reason)
        if sender.is_muted:
            return
        receiver = sender.other

        lane = lane_of(message) if self.has_lanes else Lane.CONTROL

        def arrive() -> None:
            if not receiver.open or receiver.receiving is None:
                return
            if not self.has_lanes:
                receiver.receiving.message_received(message)
                return
            receiver.inbox.feed(lane, framed(message))
            while (
                receiver.receiving is not None
                and (waiting := receiver.inbox.next(receiver.receiving.is_streaming)) is not None
            ):
                receiver.receiving.message_received(waiting)

        self._in_order(sender, lane, arrive)

    def _in_order(self, sender: SimTransport, lane: Lane, arrive: Callable[[], None]) -> None:
        # Nothing overtakes what was written before it, on the same lane.
        now = self._clock.time()
        sender.arrives_at[lane] = max(sender.arrives_at[lane], now + self._rng.random() * sender.delay_s)
        self._clock.call_at(sender.arrives_at[lane], arrive)

    def shut(self, end: SimTransport) -> None:
        """One side closes: what it wrote still arrives, then the other side notices."""
        self._lose(end)
        if not end.is_muted:
            self._in_order(end, Lane.CONTROL, lambda: self._lose(end.other))

    # Faults

    def cut(self, edge: SimTransport, *, edge_notices_s: float, hub_notices_s: float) -> None:
        """The path is gone: nothing arrives any more, and each side finds out when it does."""
        hub = edge.other
        edge.receiving, lost_edge = None, edge.receiving
        hub.receiving, lost_hub = None, hub.receiving
        self._clock.call_later(edge_notices_s, lambda: self._tell(edge, lost_edge))
        self._clock.call_later(hub_notices_s, lambda: self._tell(hub, lost_hub))

    def mute(self, end: SimTransport) -> None:
        """Half open: one direction is dead and nobody is told; the other goes on."""
        end.is_muted = True

    def abandon(self, edge: SimTransport) -> None:
        """
        The edge takes the connection for lost and dials again; the hub does not know.

        What the edge wrote arrives all the same, maybe after the first words of the next connection.
        """
        self._lose(edge)

    def kill(self, end: SimTransport, *, is_silent: bool = False) -> None:
        """The process behind this end is gone without a word; the other side gets a reset, or (`is_silent`) nothing."""
        end.open = False
        end.receiving = None
        self._forget(end)
        if not is_silent:
            self._clock.call_later(self._rng.random() * end.delay_s, lambda: self._lose(end.other))

    def _lose(self, end: SimTransport) -> None:
        self._tell(end, end.receiving)

    def _tell(self, end: SimTransport, receiving: Receiving | None) -> None:
        if not end.open:
            return
        end.open = False
        self._forget(end)
        if receiving is not None:
            receiving.connection_lost("connection lost")

    def _forget(self, end: SimTransport) -> None:
        for each in (end, end.other):
            if each in self.connections and not (each.open and each.other.open):
                self.connections.remove(each)
