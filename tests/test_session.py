"""The edge's side of one link, by conversation."""

from collections.abc import Sequence

import pytest

from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.resources import CONFIG_MAPS, PODS
from edgehub.session import COMMIT_BYTES, INVENTORY_CHUNK, Answered, Decided, EdgeSession, Unanswered
from link.codec import decode, encode
from link.errors import LinkClosed
from link.frames import (
    MAX_CALL_BYTES,
    MAX_HORIZON,
    PROTOCOL,
    Ack,
    Answer,
    AnswerHead,
    Batch,
    Call,
    CallHead,
    Cancel,
    Check,
    Cursor,
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
    Position,
    Push,
    Refusal,
    RefusedEntry,
    RefusedInterest,
    RefusedReport,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)
from link.pushcodec import encode_delta
from tests.sim.clock import SimClock

KEY = ObjectKey(PODS, "default", "p")
VERSION = ObjectVersion("u", "r")
ENTRY = ReportEntry(KEY, "state", b"{}")
ONE, OTHER = Interest(PODS, "a"), Interest(CONFIG_MAPS)
HEAD = CallHead("GET", "/version")


class Wire:
    """The edge's end of a connection."""

    kind = "websocket"
    identity = ""
    key = ""
    remote = "hub"

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def write(self, messages: Sequence[bytes]) -> None:
        self.frames += map(decode, messages)

    def close(self) -> None: ...

    def take(self) -> list[Frame]:
        frames, self.frames = self.frames, []
        return frames


class Edge:
    """A session that has said Hello."""

    def __init__(self, cursor: Cursor | None = None, *, unfolds: bool = False) -> None:
        self.woken = 0
        self.wire = Wire()
        self.session = EdgeSession(Node("n"), agent="test", clock=SimClock(), wake=self.wake, unfolds=unfolds)
        self.pump = self.session.opened(self.wire)
        self.session.greet(cursor, b"d", 3, (), (ONE,))

    def wake(self) -> None:
        self.woken += 1

    def hear(self, *frames: Frame) -> None:
        for frame in frames:
            self.pump.message_received(encode(frame))

    def streaming(self, seq: int = 0) -> "Edge":
        self.hear(Welcome("e", seq, False, 20.0))
        self.wire.take()
        return self


def test_it_opens_with_what_is_committed() -> None:
    edge = Edge(Cursor("e", 7))
    assert edge.wire.take() == [Hello(PROTOCOL, "n", Cursor("e", 7), b"d", "test", 3, (), (ONE,))]


def test_an_inventory_goes_out_in_chunks_and_ends() -> None:
    edge = Edge()
    edge.hear(Welcome("e", 0, True, 20.0))
    assert edge.session.wants_inventory
    edge.wire.take()
    held = [Held(ObjectKey(PODS, "default", str(number)), VERSION) for number in range(INVENTORY_CHUNK + 1)]
    edge.session.send_inventory(held)
    chunks = edge.wire.take()
    assert [(len(chunk.entries), chunk.last) for chunk in chunks if isinstance(chunk, Inventory)] == [
        (INVENTORY_CHUNK, False),
        (1, True),
    ]
    assert not edge.session.wants_inventory


def test_an_empty_inventory_is_one_empty_chunk() -> None:
    edge = Edge()
    edge.hear(Welcome("e", 0, True, 20.0))
    edge.wire.take()
    edge.session.send_inventory([])
    assert edge.wire.take() == [Inventory((), True)]


def test_an_ack_follows_the_commit_and_not_the_push() -> None:
    edge = Edge().streaming(seq=4)
    delta = Delta(KEY, VERSION, b"{}")
    edge.hear(Push(5, (delta,), False), Push(6, (), True))
    batches = edge.session.take_batches()
    assert batches == [Batch(Cursor("e", 5), (delta,), False), Batch(Cursor("e", 6), (), True)]
    assert edge.session.take_batches() == []
    assert edge.wire.take() == []
    assert not edge.session.is_synced
    edge.session.committed(batches, {5: [Refusal(KEY, "odd")], 6: []})
    assert edge.wire.take() == [Nack(5, (Refusal(KEY, "odd"),)), Ack(6)]
    assert edge.session.is_synced


def test_a_transaction_is_bounded_by_what_its_bodies_unpack_to() -> None:
    edge = Edge().streaming()
    large = Push(1, (Delta(KEY, VERSION, b"zz", size=COMMIT_BYTES // 2),), False)
    edge.hear(*(large._replace(seq=seq) for seq in range(1, 6)))
    taken = []
    while batches := edge.session.take_batches():
        taken.append([batch.cursor.seq for batch in batches])
    assert taken == [[1, 2], [3, 4], [5]]
    small, huge = large._replace(deltas=()), large._replace(deltas=(Delta(KEY, VERSION, b"zz", size=COMMIT_BYTES + 1),))
    edge.hear(*(each._replace(seq=seq) for seq, each in enumerate((small, huge, small), 6)))
    taken = []
    while batches := edge.session.take_batches():
        taken.append([batch.cursor.seq for batch in batches])
    assert taken == [[6], [7], [8]], "what came before a large object does not wait for it"
    edge.hear(*(large._replace(seq=seq) for seq in range(9, 12)))
    before = edge.woken
    edge.session.take_batches()
    assert edge.woken == before + 1, "nobody else says that there is more"


def test_an_edge_at_rest_says_what_it_holds() -> None:
    edge = Edge().streaming()
    edge.session.check(Cursor("e", 0), b"d")
    assert edge.wire.take() == [], "not before it is in sync"
    edge.hear(Push(1, (), True))
    batches = edge.session.take_batches()
    edge.session.committed(batches, {})
    edge.wire.take()
    edge.session.check(Cursor("another", 1), b"d")
    assert edge.wire.take() == []
    edge.session.check(Cursor("e", 1), b"d")
    assert edge.wire.take() == [Check(1, b"d")]
    edge.hear(Push(2, (), True))
    edge.session.check(Cursor("e", 1), b"d")
    assert edge.wire.take() == [], "not while something waits to be committed"


def test_a_delta_that_came_in_parts_is_committed_with_the_push_that_names_it() -> None:
    edge = Edge().streaming()
    delta = Delta(KEY, VERSION, b"{}")
    wire = encode_delta(delta)
    edge.hear(Part(1, len(wire), wire[:9]), Push(1, (), False))
    assert edge.wire.take() == [Taken(1)]
    edge.hear(Part(1, len(wire), wire[9:]), Push(2, (), True, (), 1))
    assert edge.wire.take() == [Taken(2)]
    assert [batch.deltas for batch in edge.session.take_batches()] == [(), (delta,)]
    edge.hear(Push(3, (), False, (), 1))
    assert str(edge.session.error) == "transfer 1 is not complete", "it is named once"


def test_a_large_delta_is_taken_once_it_is_unfolded_and_pushes_go_on_meanwhile() -> None:
    edge = Edge(unfolds=True).streaming()
    delta = Delta(KEY, VERSION, b"{}")
    wire = encode_delta(delta)
    before = edge.woken
    edge.hear(Part(1, len(wire), wire), Push(1, (), True))
    assert edge.woken == before + 2, "somebody is to unfold it"
    assert edge.session.take_arrived() == bytearray(wire)
    edge.session.committed(edge.session.take_batches(), {})
    edge.hear(Part(2, 9, b"x"))
    assert edge.wire.take() == [Ack(1)]
    edge.session.unfolded(delta._replace(body=b"[]"))
    assert edge.wire.take() == [Taken(2)]
    edge.hear(Push(2, (), True, (), 1))
    assert [batch.deltas for batch in edge.session.take_batches()] == [(delta._replace(body=b"[]"),)]


def test_what_is_unfolded_after_the_link_is_lost_is_not_told_to_anybody() -> None:
    edge = Edge(unfolds=True).streaming()
    wire = encode_delta(Delta(KEY, VERSION, b"{}"))
    edge.hear(Part(1, len(wire), wire))
    edge.pump.connection_lost("cut")
    edge.session.unfolded(Delta(KEY, VERSION, b"{}"))
    assert edge.wire.take() == []


def test_a_commit_after_the_link_is_lost_is_not_told_to_anybody() -> None:
    edge = Edge().streaming()
    edge.hear(Push(1, (), True))
    batches = edge.session.take_batches()
    edge.pump.connection_lost("cut")
    assert isinstance(edge.session.error, LinkClosed)
    edge.session.committed(batches, {})
    assert edge.wire.take() == []
    assert edge.session.report_room(Traffic.DEVICES) == 0


def test_of_each_report_the_hub_says_what_became_of_its_row() -> None:
    edge = Edge().streaming()
    assert edge.session.report_room(Traffic.DEVICES) > 0
    edge.session.report([(10, ENTRY), (12, ENTRY)], Traffic.DEVICES)
    edge.session.report([(15, ENTRY)], Traffic.DEVICES)
    edge.session.report([(11, ENTRY)], Traffic.INFRASTRUCTURE)
    assert edge.wire.take() == [
        Report(1, (ENTRY, ENTRY), Traffic.DEVICES),
        Report(3, (ENTRY,), Traffic.DEVICES),
        Report(1, (ENTRY,)),
    ]
    edge.hear(ReportAck(Traffic.DEVICES, (Span(3, 3),), (RefusedEntry(1, "no"),)))
    refused = RefusedReport(KEY, "state", "no")
    assert edge.session.take_reported(Traffic.DEVICES) == ([15, 10], [refused], [])
    assert edge.session.take_reported(Traffic.DEVICES) == ([], [], [])
    edge.hear(ReportAck(Traffic.DEVICES, (), (), (Span(2, 2),)), ReportAck(Traffic.INFRASTRUCTURE, (Span(1, 1),)))
    assert edge.session.take_reported(Traffic.DEVICES) == ([], [], [12])
    assert edge.session.take_reported(Traffic.INFRASTRUCTURE) == ([11], [], [])


def test_there_is_no_room_before_the_welcome() -> None:
    assert Edge().session.report_room(Traffic.DEVICES) == 0


@pytest.mark.parametrize("frame", [Ack(0), Hello(PROTOCOL, "n", None, b"", "", 1), Push(9, (), False)])
def test_a_hub_that_talks_nonsense_is_left(frame: Frame) -> None:
    edge = Edge().streaming()
    edge.hear(frame)
    [goodbye] = edge.wire.take()
    assert isinstance(goodbye, Goodbye)
    assert goodbye.code is GoodbyeCode.PROTOCOL
    assert edge.session.error is not None


def test_every_frame_that_matters_wakes_the_shell() -> None:
    edge = Edge().streaming()
    before = edge.woken
    edge.hear(Push(1, (), True), Ping(1))
    assert edge.woken == before + 1
    assert edge.wire.take() == [Pong(1)]


def test_what_is_granted_is_complete_with_the_commit_of_the_first_synced_push_after_it() -> None:
    edge = Edge().streaming()
    session = edge.session
    edge.hear(Push(1, (), True), Granted(0, (), (PODS,)), Push(2, (), False))
    assert session.take_decided() == [Decided((ONE,), (), (PODS,))]
    session.committed(session.take_batches(), {})
    assert session.take_completed() == [], "what was pushed before it was granted may lack some of it"
    edge.hear(Push(3, (), True), Push(4, (), True))
    batches = session.take_batches()
    assert session.take_completed() == [], "it is not durable yet"
    session.committed(batches, {})
    assert session.take_completed() == [(ONE,)]
    assert session.take_completed() == []
    assert session.take_decided() == []


def test_the_hub_hears_the_last_that_is_wanted_and_once() -> None:
    edge = Edge()
    edge.wire.take()
    edge.session.want((OTHER,))
    edge.session.want((ONE, OTHER))
    assert edge.wire.take() == [], "not before the link is up"
    edge.hear(Welcome("e", 0, False, 20.0))
    assert edge.wire.take() == [Wanted(1, (ONE, OTHER))]
    edge.session.want((ONE, OTHER))
    assert edge.wire.take() == [], "nothing new"
    edge.session.want(())
    edge.session.want((OTHER,))
    assert edge.wire.take() == [Wanted(2, ()), Wanted(3, (OTHER,))]


def test_a_decision_on_what_is_not_wanted_any_more_is_passed_over() -> None:
    edge = Edge().streaming()
    edge.session.want((OTHER,))
    edge.hear(Granted(0, (), ()))
    assert edge.session.take_decided() == []
    refusal = RefusedInterest(OTHER, 403, "no")
    edge.hear(Granted(1, (refusal,), ()), Push(1, (), True))
    [decided] = edge.session.take_decided()
    assert decided.refused == (refusal,)
    edge.session.committed(edge.session.take_batches(), {})
    assert edge.session.take_completed() == [()], "nothing was granted"


def test_what_is_wanted_goes_out_after_the_inventory() -> None:
    edge = Edge()
    edge.hear(Welcome("e", 0, True, 20.0))
    edge.wire.take()
    edge.session.want((OTHER,))
    edge.session.call(HEAD, b"", lambda _: None)
    assert edge.wire.take() == []
    edge.session.send_inventory([])
    assert edge.wire.take() == [Inventory((), True), Wanted(1, (OTHER,)), Call(1, HEAD, b"", True)]


def test_a_call_is_answered_once_and_its_chunks_are_taken() -> None:
    edge = Edge().streaming()
    told: list[object] = []
    assert edge.session.call(HEAD, b"{}", told.append) == 1
    assert edge.wire.take() == [Call(1, HEAD, b"{}", True)]
    before = edge.woken
    edge.hear(Answer(1, AnswerHead(200), b"ab", False), Answer(1, None, b"c", True), Answer(1, None, b"", True))
    assert told == [Answered(AnswerHead(200), b"abc")]
    assert edge.wire.take() == [Taken(1), Taken(2), Taken(3)]
    assert edge.woken == before, "the store has nothing to do with it"


def test_a_large_call_goes_as_far_as_the_hub_takes_it() -> None:
    edge = Edge().streaming()
    edge.session.call(HEAD, bytes(MAX_CALL_BYTES), lambda _: None)
    sent = edge.wire.take()
    assert len(sent) == 2
    edge.hear(Taken(2))
    assert len(edge.wire.take()) >= 2


def test_who_waits_when_the_link_is_lost_hears_whether_it_may_have_been_done() -> None:
    edge = Edge().streaming()
    told: list[object] = []
    edge.session.call(HEAD, b"", told.append)
    edge.session.call(HEAD, bytes(MAX_CALL_BYTES), told.append)
    edge.pump.connection_lost("cut")
    assert told == [Unanswered(was_sent=True), Unanswered(was_sent=False)]


def test_a_call_that_is_cancelled_is_not_answered() -> None:
    edge = Edge().streaming()
    told: list[object] = []
    small, large = (edge.session.call(HEAD, body, told.append) for body in (b"", bytes(MAX_CALL_BYTES)))
    edge.wire.take()
    assert edge.session.cancel(small), "the hub has it all"
    assert not edge.session.cancel(large)
    assert edge.wire.take() == [Cancel(1), Cancel(2)]
    edge.hear(Answer(1, AnswerHead(200), b"", True))
    assert told == []
    assert edge.session.cancel(small), "it may be said twice"
    assert edge.wire.take() == [Taken(1)]


def test_what_is_refused_or_dropped_meanwhile_is_not_complete() -> None:
    edge = Edge().streaming()
    session = edge.session
    session.want((ONE, OTHER))
    edge.hear(Granted(1, (), ()), Push(1, (), True))
    edge.hear(Granted(1, (RefusedInterest(ONE, 403, "no"),), ()))
    session.committed(session.take_batches(), {})
    assert session.take_completed() == [(OTHER,)]
    edge.hear(Push(2, (), True))
    session.want((ONE,))
    session.committed(session.take_batches(), {})
    assert session.take_completed() == [()]


def test_of_a_long_horizon_the_newest_is_said() -> None:
    """A node that was interested in a hundred kinds, one after the other, must still be let in."""
    edge = Edge()
    edge.wire.take()
    horizon = tuple(Position(f"kind{number}", 1000 - number) for number in range(MAX_HORIZON + 9))
    edge.session = EdgeSession(Node("n"), agent="test", clock=SimClock(), wake=edge.wake)
    edge.session.opened(edge.wire)
    edge.session.greet(None, b"d", 3, horizon)
    [hello] = edge.wire.take()
    assert isinstance(hello, Hello)
    assert set(hello.horizon) == set(horizon[:MAX_HORIZON])
