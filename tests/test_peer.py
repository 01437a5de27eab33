"""The link's state machine, played between two peers in one thread with a hand-turned clock."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import ObjectKey
from apimachinery.resources import PODS
from link.codec import encode
from link.errors import LinkClosed, LocalProtocolError, RemoteProtocolError
from link.frames import (
    CHUNK_BYTES,
    CHUNK_GROWTH,
    CHUNK_WINDOW_BYTES,
    PROTOCOL,
    REPORT_WINDOW_BYTES,
    Ack,
    Answer,
    Call,
    Cancel,
    Check,
    Delta,
    Frame,
    Goodbye,
    GoodbyeCode,
    Granted,
    Held,
    Hello,
    Interest,
    Inventory,
    Nack,
    Part,
    Ping,
    Pong,
    Push,
    Refusal,
    RefusedEntry,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)
from link.peer import (
    CHATTER_S,
    DEAD_AFTER,
    MAX_CHATTER,
    MAX_HEARTBEAT_S,
    MIN_HEARTBEAT_S,
    TRANSITIONS,
    Peer,
    Role,
    Say,
    State,
    meaning,
)
from link.pushcodec import encode_delta

KEY = ObjectKey(PODS, "default", "p")
HELLO = Hello(PROTOCOL, "n", None, b"", "test", 1)
WELCOME = Welcome("e", 0, False, 10.0)
SURVEY = Welcome("e", 0, True, 10.0)
DELTAS = (Delta(KEY, None, b""),)
WIRES = [encode_delta(delta) for delta in DELTAS]
ENTRIES = (ReportEntry(KEY, "state", b"{}"),)


def pair() -> tuple[Peer, Peer]:
    return Peer(Role.EDGE, 0.0, heartbeat_s=10.0), Peer(Role.HUB, 0.0, heartbeat_s=10.0)


def carry(sender: Peer, receiver: Peer, now: float = 0.0) -> list[Frame]:
    """Everything written goes over; what it means to the receiver."""
    frames = [receiver.receive(message, now) for message in sender.frames_to_send()]
    return [frame for frame in frames if frame is not None]


def streaming(now: float = 0.0) -> tuple[Peer, Peer]:
    edge, hub = pair()
    edge.send(HELLO, now)
    carry(edge, hub, now)
    hub.send(WELCOME, now)
    carry(hub, edge, now)
    return edge, hub


def status(*peers: Peer) -> str:
    """One line per peer, as an operator would read it."""
    return " | ".join(f"{peer.role.value} {peer.state.value}" for peer in peers)


def test_a_whole_conversation() -> None:
    edge, hub = pair()
    assert status(edge, hub) == "edge opening | hub opening"
    edge.send(HELLO, 0.0)
    assert carry(edge, hub) == [HELLO]
    assert status(edge, hub) == "edge greeted | hub greeted"
    hub.send(SURVEY, 0.0)
    assert carry(hub, edge) == [SURVEY]
    assert status(edge, hub) == "edge surveying | hub surveying"
    edge.send(Inventory((), False), 0.0)
    edge.send(Inventory((), True), 0.0)
    assert len(carry(edge, hub)) == 2
    assert status(edge, hub) == "edge streaming | hub streaming"
    assert hub.push(WIRES, True, 0.0) == 1
    assert carry(hub, edge) == [Push(1, DELTAS, True)]
    edge.send(Nack(1, (Refusal(KEY, "x"),)), 0.0)
    edge.send(Ack(1), 0.0)
    assert edge.report(ENTRIES, 0.0) == 1
    assert [type(frame) for frame in carry(edge, hub)] == [Nack, Ack, Report]
    ack = ReportAck(Traffic.INFRASTRUCTURE, (Span(1, 1),))
    hub.send(ack, 0.0)
    assert carry(hub, edge) == [ack]
    hub.close(GoodbyeCode.SHUTDOWN, "stopping", 0.0)
    assert carry(hub, edge) == [Goodbye(GoodbyeCode.SHUTDOWN, "stopping", 0.0)]
    assert status(edge, hub) == "edge closed | hub closed"
    assert edge.next_deadline() is None


def test_numbers_go_on_from_the_welcome() -> None:
    edge, hub = pair()
    edge.send(HELLO, 0.0)
    carry(edge, hub)
    hub.send(Welcome("e", 41, False, 10.0), 0.0)
    carry(hub, edge)
    assert hub.push(WIRES, False, 0.0) == 42
    assert carry(hub, edge) == [Push(42, DELTAS, False)]


SAMPLES: dict[Say, Frame] = {
    meaning(frame): frame
    for frame in (
        HELLO,
        WELCOME,
        SURVEY,
        Inventory((Held(KEY, ("u", "r")),), False),  # type: ignore[arg-type]
        Inventory((), True),
        Push(1, DELTAS, False),
        Ack(0),
        Nack(1, ()),
        Check(0, b""),
        Report(1, ENTRIES),
        ReportAck(Traffic.DEVICES, ()),
        Wanted(1, (Interest(PODS),)),
        Granted(0, ()),
        Call(1, None, b"", True),
        Answer(1, None, b"", True),
        Taken(0),
        Cancel(1),
        Part(1, 1, b"x"),
        Ping(1),
        Pong(1),
        Goodbye(GoodbyeCode.SHUTDOWN, "", 0.0),
    )
}


def peer_in(role: Role, state: State) -> Peer:
    peer = Peer(role, 0.0)
    peer.state = state
    return peer


@pytest.mark.parametrize(
    ("state", "role", "say"), [row for row in itertools.product(State, Role, Say) if row not in TRANSITIONS]
)
def test_the_table_is_total_an_illegal_frame_leaves_the_state_untouched(state: State, role: Role, say: Say) -> None:
    assert set(SAMPLES) == set(Say), "one sample of each"
    receiver = peer_in(role.other, state)
    with pytest.raises((RemoteProtocolError, LinkClosed)):
        receiver.receive(encode(SAMPLES[say]), 0.0)
    assert receiver.state is state
    sender = peer_in(role, state)
    with pytest.raises(LocalProtocolError):
        match SAMPLES[say]:
            case Push(_, deltas, synced):
                sender.push([encode_delta(delta) for delta in deltas], synced, 0.0)
            case Report(_, entries):
                sender.report(entries, 0.0)
            case frame:
                sender.send(frame, 0.0)
    assert sender.state is state
    assert sender.frames_to_send() == []


def test_push_and_report_number_themselves() -> None:
    edge, hub = streaming()
    for peer, frame in ((hub, Push(1, (), False)), (edge, Report(1, ()))):
        with pytest.raises(LocalProtocolError, match="use push"):
            peer.send(frame, 0.0)


def test_a_hub_that_speaks_another_protocol_says_which() -> None:
    _, hub = pair()
    with pytest.raises(RemoteProtocolError, match=f"protocol {PROTOCOL}, not 99"):
        hub.receive(encode(HELLO._replace(protocol=99)), 0.0)


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (Ack(1), "ack of 1"),
        (Nack(1, ()), "nack of 1"),
        (Report(2, ENTRIES), "expected entry 1"),
        (Wanted(2, ()), "wanted to have number 1"),
        (Taken(1), "ack of 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_the_hub(frame: Frame, complaint: str) -> None:
    _, hub = streaming()
    with pytest.raises(RemoteProtocolError, match=complaint):
        hub.receive(encode(frame), 0.0)
    assert hub.state is State.STREAMING


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (Push(2, (), False), "expected number 1"),
        (ReportAck(Traffic.DEVICES, (Span(1, 1),)), "entry 1 is settled, but it is not outstanding"),
        (ReportAck(Traffic.DEVICES, (), (RefusedEntry(7, "no"),)), "entry 7 is settled"),
        (Granted(1, ()), "0 was the last wanted"),
        (Taken(1), "ack of 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_the_edge(frame: Frame, complaint: str) -> None:
    edge, _ = streaming()
    with pytest.raises(RemoteProtocolError, match=complaint):
        edge.receive(encode(frame), 0.0)


def test_nothing_is_acknowledged_that_did_not_come() -> None:
    edge, _ = streaming()
    with pytest.raises(LocalProtocolError):
        edge.send(Ack(1), 0.0)


def test_the_window_closes_and_opens_again() -> None:
    edge, hub = streaming()
    assert edge.push_room() > 0, "streaming"
    pushed = 0
    while hub.push_room():
        hub.push(WIRES, False, 0.0)
        pushed += 1
    assert pushed == 64
    carry(hub, edge)
    edge.send(Ack(10), 0.0)
    carry(edge, hub)
    assert hub.push_room() > 0


def test_what_is_wanted_is_numbered_alike_at_both_ends() -> None:
    edge, hub = streaming()
    edge.send(Wanted(1, ()), 0.0)
    edge.send(Wanted(2, ()), 0.0)
    assert carry(edge, hub) == [Wanted(1, ()), Wanted(2, ())]
    hub.send(Granted(2, ()), 0.0)
    assert carry(hub, edge) == [Granted(2, ())]
    with pytest.raises(LocalProtocolError, match="must have number 3"):
        edge.send(Wanted(2, ()), 0.0)


def test_chunks_go_as_far_as_their_window_and_no_further() -> None:
    edge, hub = streaming()
    sent = 0
    while hub.chunk_room():
        hub.send(Answer(1, None, b"x" * CHUNK_BYTES, False), 0.0)
        sent += 1
    assert sent * CHUNK_BYTES == CHUNK_WINDOW_BYTES
    assert hub.push_room() > 0, "a push has a window of its own"
    carry(hub, edge)
    edge.send(Taken(edge.chunks_received), 0.0)
    carry(edge, hub)
    assert hub.chunk_room() > 0


def test_an_edge_that_sends_chunks_that_were_not_taken_is_left() -> None:
    _, hub = streaming()
    chunk = encode(Call(1, None, b"x" * CHUNK_BYTES, False))
    with pytest.raises(RemoteProtocolError, match="overruns the window"):
        for _ in range(CHUNK_GROWTH * CHUNK_WINDOW_BYTES // CHUNK_BYTES + 1):
            hub.receive(chunk, 0.0)


def test_each_entry_is_settled_once_in_any_order_and_makes_room() -> None:
    edge, hub = streaming()
    large = ReportEntry(KEY, "state", b"x" * REPORT_WINDOW_BYTES)
    assert edge.report((large, large), 0.0, Traffic.DEVICES) == 1
    assert (edge.report_room(Traffic.DEVICES), edge.report_room()) == (0, REPORT_WINDOW_BYTES)
    carry(edge, hub)
    with pytest.raises(RemoteProtocolError, match="entry 3 overruns the window"):
        hub.receive(encode(Report(3, ENTRIES, Traffic.DEVICES)), 0.0)
    for numbers in ((), (Span(2, 2),)), ((Span(1, 1),), ()):
        hub.send(ReportAck(Traffic.DEVICES, numbers[0], (), numbers[1]), 0.0)
        carry(hub, edge)
    assert edge.report_room(Traffic.DEVICES) == REPORT_WINDOW_BYTES
    with pytest.raises(LocalProtocolError, match="entry 1 is settled"):
        hub.send(ReportAck(Traffic.DEVICES, (Span(1, 1),)), 0.0)
    assert edge.report(ENTRIES, 0.0, Traffic.DEVICES) == 3


def test_there_is_no_room_before_the_welcome() -> None:
    edge, hub = pair()
    assert edge.report_room() == hub.push_room() == edge.chunk_room() == hub.chunk_room() == 0


def test_a_silent_handshake_is_given_up() -> None:
    _, hub = pair()
    deadline = hub.next_deadline()
    assert deadline is not None
    hub.handle_deadline(deadline - 0.1)
    assert status(hub) == "hub opening"
    with pytest.raises(LinkClosed, match="no handshake"):
        hub.handle_deadline(deadline)
    assert status(hub) == "hub closed"


def test_an_idle_link_lives_on_one_ping_a_heartbeat() -> None:
    edge, hub = streaming()
    hub_deadline = hub.next_deadline()
    for beat in range(1, 6):
        now = edge.next_deadline()
        assert now == beat * 10.0
        edge.handle_deadline(now)
        assert carry(edge, hub, now) == []
        assert carry(hub, edge, now) == []
    assert hub.next_deadline() != hub_deadline
    assert status(edge, hub) == "edge streaming | hub streaming"


def test_an_edge_that_speaks_but_hears_nothing_asks() -> None:
    edge, _ = streaming()
    edge.report(ENTRIES, 9.0)
    assert edge.next_deadline() == 10.0


def test_each_side_gives_up_a_dead_other() -> None:
    edge, hub = streaming()
    edge.handle_deadline(10.0)
    assert edge.next_deadline() == DEAD_AFTER * 10.0, "one unanswered ping is enough"
    for peer in (edge, hub):
        peer.handle_deadline(DEAD_AFTER * 10.0 - 0.1)
        with pytest.raises(LinkClosed, match="nothing heard"):
            peer.handle_deadline(DEAD_AFTER * 10.0)
        peer.handle_deadline(99.0)  # does nothing any more
        with pytest.raises(LinkClosed):
            peer.receive(encode(Ping(1)), 99.0)


def test_an_inventory_in_many_chunks_is_progress() -> None:
    edge, hub = pair()
    edge.send(HELLO, 0.0)
    carry(edge, hub)
    hub.send(SURVEY, 0.0)
    carry(hub, edge)
    for step in range(1, 9):
        edge.send(Inventory((), step == 8), step * 9.0)
        carry(edge, hub, step * 9.0)
        hub.handle_deadline(step * 9.0)
    assert hub.state is State.STREAMING


@given(st.lists(st.binary(max_size=40) | st.sampled_from([encode(frame) for frame in SAMPLES.values()]), max_size=12))
def test_no_input_breaks_a_peer(messages: list[bytes]) -> None:
    for role in Role:
        peer = Peer(role, 0.0)
        if role is Role.EDGE:
            peer.send(HELLO, 0.0)
        for message in messages:
            before = peer.state
            try:
                peer.receive(message, 1.0)
            except (RemoteProtocolError, LinkClosed):
                assert peer.state is before


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (Ping(1), "a flood of pings"),
        (Pong(1), "of pongs"),
        (Ack(0), "of acknowledgements of nothing new"),
        (Taken(0), "of chunks that were taken before"),
        (Check(0, b""), "of comparisons"),
        (Cancel(7), "of calls given up that never were"),
    ],
    ids=str,
)
def test_frames_that_carry_nothing_are_counted(frame: Frame, what: str) -> None:
    hub = streaming()[1]
    for _ in range(MAX_CHATTER):
        hub.receive(encode(frame), 1.0)
    with pytest.raises(RemoteProtocolError, match=f"more than {MAX_CHATTER} frames within 10 s"):
        hub.receive(encode(frame), 1.0)
    assert hub.state is State.STREAMING, f"{what}: the connection is whoever drives it to end"


def test_frames_that_carry_nothing_may_come_at_a_measured_pace_for_ever() -> None:
    hub = streaming()[1]
    for number in range(3 * MAX_CHATTER):
        hub.receive(encode(Ping(number)), number * CHATTER_S / MAX_CHATTER)


@pytest.mark.parametrize(
    ("said", "taken"), [(1e-9, MIN_HEARTBEAT_S), (86_400.0, MAX_HEARTBEAT_S), (0.0, 10.0), (7.0, 7.0)]
)
def test_an_absurd_heartbeat_is_brought_into_bounds(said: float, taken: float) -> None:
    edge = Peer(Role.EDGE, 0.0, heartbeat_s=10.0)
    edge.send(Hello(PROTOCOL, "n", None, b"", "test", 1), 0.0)
    edge.receive(encode(Welcome("e", 0, False, said)), 0.0)
    assert edge.heartbeat_s == taken
