"""
Keeps one Peer and one connection going, whatever the transport.

A transport hands over messages and the news that it is lost; the session above hands over what to say.
After either, everything the peer wants written is written and one timer is set to the peer's next
deadline. Nothing here waits, so there is no task per connection: a hub with thousands of nodes has
thousands of pumps and no more tasks than with one. The loop is used for its clock and timers only, which
is why the simulation runs this very code under a clock of its own.

Invariants
    handler.link_lost is called exactly once, and nothing is handed to the handler after it
    exactly one timer is armed while the link is up, none after
    a link that is lost keeps nobody: what was of it is free at once, and waits for no collection of garbage
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from link.errors import LinkClosed, LinkError, RemoteProtocolError
from link.frames import Frame, Goodbye, GoodbyeCode, Position, ReportEntry, Traffic
from link.peer import Peer, State

logger = logging.getLogger(__name__)
_is_debug = logger.isEnabledFor


class Timer(Protocol):
    """What call_at gives; asyncio.TimerHandle is one."""

    def cancel(self) -> None: ...

    def when(self) -> float: ...


class Clock(Protocol):
    """Time that only moves forward, and timers on it; an asyncio event loop is one."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer: ...


class Transport(Protocol):
    """What a pump needs of a connection; link.websocket and link.quic implement it."""

    identity: str
    """The common name in the other side's verified certificate, "" without one."""
    key: str
    """That certificate's key, see componentbase.pki.key_id; "" but for a node's at a hub."""

    @property
    def kind(self) -> str:
        """One of link.transports.KINDS, for people."""

    @property
    def remote(self) -> str:
        """The other side's address, for logs; it may change."""

    def write(self, messages: Sequence[bytes]) -> None:
        """Send messages in order. Never waits, never raises; after the connection is lost it does nothing."""

    def close(self) -> None:
        """End the connection after what was written; connection_lost follows."""


class Handler(Protocol):
    """Who uses a link: the hub's session, the edge's."""

    def frame_received(self, frame: Frame) -> None:
        """A frame has come. A RemoteProtocolError raised here ends the link like one of the peer's own."""

    def link_lost(self, error: LinkError) -> None:
        """The link is gone, for this reason. The last call."""


class _Nobody:
    """Who uses a link that is lost."""

    def frame_received(self, frame: Frame) -> None:
        raise AssertionError("a link that is lost hands on nothing")

    def link_lost(self, error: LinkError) -> None:
        raise AssertionError("a link is lost once")


_NOBODY = _Nobody()


class Pump:
    """One connection's life. Made by whoever accepts or dials, in the loop's thread."""

    __slots__ = (
        "__weakref__",
        "_armed_in",
        "_clock",
        "_handler",
        "_lost",
        "_timer",
        "bytes_received",
        "bytes_sent",
        "peer",
        "transport",
    )

    def __init__(self, peer: Peer, transport: Transport, handler: Handler, clock: Clock) -> None:
        self.peer = peer
        self.transport = transport
        self._handler: Handler = handler
        self._clock = clock
        self._timer: Timer | None = None
        self._armed_in: State | None = None
        """The state in which the timer that was set need not be looked at, because the deadlines recede."""
        self._lost = False
        self.bytes_received = 0
        self.bytes_sent = 0
        self._transmit()

    # From the transport

    @property
    def is_streaming(self) -> bool:
        """Whether the handshake is over; until then messages of other lanes than CONTROL are kept back."""
        return self.peer.state is State.STREAMING

    def message_received(self, data: bytes) -> None:
        """One message has come."""
        if self._lost:
            return
        self.bytes_received += len(data)
        try:
            frame = self.peer.receive(data, self._clock.time())
            if frame is not None:
                if _is_debug(logging.DEBUG):
                    logger.debug("<", extra={"remote": self.transport.remote, "frame": type(frame).__name__})
                if isinstance(frame, Goodbye):
                    self._lose(LinkClosed(frame.reason, frame.code, frame.retry_after_s, frame.term))
                    return
                self._handler.frame_received(frame)
                if self._armed_in is self.peer.state:
                    return  # nothing was written, and the timer stays
        except RemoteProtocolError as exc:
            self.peer.close(GoodbyeCode.PROTOCOL, str(exc), self._clock.time())
            self._lose(exc)
            return
        self._transmit()

    def bytes_arrived(self) -> None:
        """Some of a message has come; on a slow line a large one takes longer than silence is borne."""
        # The timer stays: at its old deadline there will be nothing to do but to set it anew.
        self.peer.heard(self._clock.time())

    def connection_lost(self, reason: str) -> None:
        """The transport is gone, whoever ended it."""
        self._lose(LinkClosed(reason))

    # From the session

    def send(self, frame: Frame) -> None:
        """Say a frame; see Peer.send."""
        self.peer.send(frame, self._clock.time())
        self._transmit()

    def push(
        self,
        deltas: Sequence[bytes] | int,
        synced: bool,
        horizon: tuple[Position, ...] = (),
        traffic: Traffic = Traffic.INFRASTRUCTURE,
    ) -> int:
        """Push changes; see Peer.push."""
        seq = self.peer.push(deltas, synced, self._clock.time(), horizon, traffic)
        self._transmit()
        return seq

    def report(self, entries: tuple[ReportEntry, ...], traffic: Traffic = Traffic.INFRASTRUCTURE) -> int:
        """Report values; see Peer.report."""
        first = self.peer.report(entries, self._clock.time(), traffic)
        self._transmit()
        return first

    def close(self, code: GoodbyeCode, reason: str, retry_after_s: float = 0.0, term: int = 0) -> None:
        """Say Goodbye and end the connection; the handler's link_lost is called before this returns."""
        self.peer.close(code, reason, self._clock.time(), retry_after_s, term)
        self._lose(LinkClosed(reason, code))

    def _transmit(self) -> None:
        peer = self.peer
        messages = peer.frames_to_send()
        if messages:
            self.bytes_sent += sum(map(len, messages))
            self.transport.write(messages)
        if self._armed_in is peer.state:
            return  # it fires before the deadline, and is then set anew: a timer for each frame costs more
        deadline = peer.next_deadline()
        if self._timer is not None and self._timer.when() == deadline:
            return
        if self._timer is not None:
            self._disarm(self._timer)
        if deadline is not None and not self._lost:
            self._timer = self._clock.call_at(deadline, self._deadline)
            self._armed_in = peer.state if peer.deadlines_recede else None

    def _disarm(self, timer: Timer) -> None:
        timer.cancel()
        self._timer = self._armed_in = None

    def _deadline(self) -> None:
        self._timer = self._armed_in = None
        try:
            self.peer.handle_deadline(self._clock.time())
        except LinkClosed as exc:
            self._lose(exc)
            return
        self._transmit()

    def _lose(self, error: LinkError) -> None:
        if self._lost:
            return
        self._lost = True
        self._transmit()
        if self._timer is not None:
            self._disarm(self._timer)
        self.transport.close()
        handler, self._handler = self._handler, _NOBODY
        handler.link_lost(error)
