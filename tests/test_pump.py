"""The pump between a peer and a connection, under a clock turned by hand."""

from collections.abc import Sequence

import pytest

from link.codec import decode, encode
from link.errors import LinkClosed, LinkError, RemoteProtocolError
from link.frames import PROTOCOL, Frame, Goodbye, GoodbyeCode, Hello, Ping, Pong, Push, Report, Welcome
from link.peer import DEAD_AFTER, HANDSHAKE_S, Peer, Role
from link.pump import Pump
from tests.sim.clock import SimClock

HELLO = Hello(PROTOCOL, "n", None, b"", "test", 1)
WELCOME = Welcome("e", 0, False, 10.0)


class Wire:
    """A transport that keeps what is written."""

    kind = "websocket"
    identity = "system:node:n"
    key = ""
    remote = "wire"

    def __init__(self) -> None:
        self.written: list[Frame] = []
        self.closed = 0

    def write(self, messages: Sequence[bytes]) -> None:
        assert not self.closed
        self.written += map(decode, messages)

    def close(self) -> None:
        self.closed += 1


class User:
    """A handler that keeps what it is given, and refuses what it is told to."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.lost: list[LinkError] = []
        self.refuse = ""

    def frame_received(self, frame: Frame) -> None:
        if self.refuse:
            raise RemoteProtocolError(self.refuse)
        self.frames.append(frame)

    def link_lost(self, error: LinkError) -> None:
        self.lost.append(error)


class Bench:
    """One pump in the role asked for, brought to STREAMING."""

    def __init__(self, role: Role) -> None:
        self.clock, self.wire, self.user = SimClock(), Wire(), User()
        self.pump = Pump(Peer(role, 0.0, heartbeat_s=10.0), self.wire, self.user, self.clock)

    def stream(self) -> "Bench":
        if self.pump.peer.role is Role.EDGE:
            self.pump.send(HELLO)
            self.pump.message_received(encode(WELCOME))
        else:
            self.pump.message_received(encode(HELLO))
            self.pump.send(WELCOME)
        self.wire.written.clear()
        self.user.frames.clear()
        return self


def test_what_is_said_is_written_at_once() -> None:
    hub = Bench(Role.HUB).stream()
    assert hub.pump.push((), synced=True) == 1
    assert hub.wire.written == [Push(1, (), True)]
    edge = Bench(Role.EDGE).stream()
    assert edge.pump.report(()) == 1
    assert edge.wire.written == [Report(1, ())]
    assert edge.pump.bytes_sent > 0
    assert edge.pump.bytes_received > 0


def test_a_ping_is_answered_without_bothering_the_handler() -> None:
    hub = Bench(Role.HUB).stream()
    hub.pump.message_received(encode(Ping(7)))
    assert hub.wire.written == [Pong(7)]
    assert hub.user.frames == []


def test_an_idle_edge_pings_and_gives_a_dead_hub_up() -> None:
    edge = Bench(Role.EDGE).stream()
    edge.clock.run_until(10.0)
    assert edge.wire.written == [Ping(1)]
    edge.clock.run_until(DEAD_AFTER * 10.0)
    assert [str(error) for error in edge.user.lost] == ["nothing heard for 25.0 s"]
    assert edge.wire.closed == 1


def test_a_handshake_that_does_not_come_is_given_up() -> None:
    hub = Bench(Role.HUB)
    hub.clock.run_until(HANDSHAKE_S)
    assert "no handshake" in str(hub.user.lost[0])


def test_a_broken_protocol_is_told_and_ends_the_link() -> None:
    hub = Bench(Role.HUB).stream()
    hub.pump.message_received(b"rubbish")
    assert isinstance(hub.wire.written[0], Goodbye)
    assert hub.wire.written[0].code is GoodbyeCode.PROTOCOL
    assert isinstance(hub.user.lost[0], RemoteProtocolError)


def test_what_the_handler_refuses_ends_the_link_too() -> None:
    edge = Bench(Role.EDGE).stream()
    edge.user.refuse = "not from a hub"
    edge.pump.message_received(encode(Push(1, (), False)))
    assert edge.wire.written == [Goodbye(GoodbyeCode.PROTOCOL, "not from a hub", 0.0)]


def test_a_goodbye_arrives_as_the_reason_of_the_loss() -> None:
    edge = Bench(Role.EDGE).stream()
    edge.pump.message_received(encode(Goodbye(GoodbyeCode.OVERLOADED, "later", 9.0)))
    error = edge.user.lost[0]
    assert isinstance(error, LinkClosed)
    assert (error.code, error.retry_after_s) == (GoodbyeCode.OVERLOADED, 9.0)


def test_a_link_is_lost_once_and_nothing_comes_after() -> None:
    hub = Bench(Role.HUB).stream()
    hub.pump.close(GoodbyeCode.SHUTDOWN, "done")
    assert hub.wire.written == [Goodbye(GoodbyeCode.SHUTDOWN, "done", 0.0)]
    hub.pump.connection_lost("gone")
    hub.pump.message_received(b"late")
    hub.clock.run_until(1000.0)
    assert len(hub.user.lost) == hub.wire.closed == 1
    assert hub.user.frames == []


@pytest.mark.parametrize("role", Role)
def test_a_transport_that_breaks_is_the_end(role: Role) -> None:
    bench = Bench(role).stream()
    bench.pump.connection_lost("reset by peer")
    assert [str(error) for error in bench.user.lost] == ["reset by peer"]
