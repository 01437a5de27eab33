"""The edge's side of one link, by conversation."""

from collections.abc import Sequence

import pytest

from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.resources import PODS
from edgehub.session import COMMIT_BYTES, INVENTORY_CHUNK, EdgeSession
from link.codec import decode, encode
from link.errors import LinkClosed
from link.frames import (
    PROTOCOL,
    Ack,
    Batch,
    Check,
    Cursor,
    Delta,
    Frame,
    Goodbye,
    GoodbyeCode,
    Held,
    Hello,
    Inventory,
    Nack,
    Ping,
    Pong,
    Push,
    Refusal,
    RefusedReport,
    Report,
    ReportAck,
    ReportEntry,
    Welcome,
)
from tests.sim.clock import SimClock

KEY = ObjectKey(PODS, "default", "p")
VERSION = ObjectVersion("u", "r")
ENTRY = ReportEntry(KEY, "state", b"{}")


class Wire:
    """The edge's end of a connection."""

    identity = ""
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

    def __init__(self, cursor: Cursor | None = None) -> None:
        self.woken = 0
        self.wire = Wire()
        self.session = EdgeSession(Node("n"), agent="test", clock=SimClock(), wake=self.wake)
        self.pump = self.session.opened(self.wire)
        self.session.greet(cursor, b"d", 3)

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
    assert edge.wire.take() == [Hello(PROTOCOL, "n", Cursor("e", 7), b"d", "test", 3)]


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
    large = Push(1, (Delta(KEY, VERSION, b"zz", size=COMMIT_BYTES // 2 + 1),), False)
    edge.hear(*(large._replace(seq=seq) for seq in range(1, 6)))
    taken = []
    while batches := edge.session.take_batches():
        taken.append([batch.cursor.seq for batch in batches])
    assert taken == [[1, 2], [3, 4], [5]]
    edge.hear(*(large._replace(seq=seq) for seq in range(6, 9)))
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


def test_a_commit_after_the_link_is_lost_is_not_told_to_anybody() -> None:
    edge = Edge().streaming()
    edge.hear(Push(1, (), True))
    batches = edge.session.take_batches()
    edge.pump.connection_lost("cut")
    assert isinstance(edge.session.error, LinkClosed)
    edge.session.committed(batches, {})
    assert edge.wire.take() == []
    assert edge.session.report_room() == 0


def test_reports_are_settled_by_the_rows_they_came_from() -> None:
    edge = Edge().streaming()
    assert edge.session.report_room() > 0
    edge.session.report([(10, ENTRY), (12, ENTRY)])
    edge.session.report([(15, ENTRY)])
    assert edge.wire.take() == [Report(1, (ENTRY, ENTRY)), Report(2, (ENTRY,))]
    refused = RefusedReport(KEY, "state", "no")
    edge.hear(ReportAck(1, (refused,)))
    assert edge.session.settled_row == 12
    assert edge.session.refused_reports == [refused]
    edge.hear(ReportAck(2, ()))
    assert edge.session.settled_row == 15


def test_there_is_no_room_before_the_welcome() -> None:
    assert Edge().session.report_room() == 0


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
