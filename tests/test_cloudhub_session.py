"""One connection: what a node may say, how often, and what comes of it."""

import itertools
import uuid
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.inventory import digest
from apimachinery.keys import Node, ObjectKey, ObjectVersion, Resource
from apimachinery.resources import CONFIG_MAPS, DEVICES, PODS
from cloudhub import session as bounds
from cloudhub import sessions
from cloudhub.session import MAX_REFUSALS_TOLD, PART_S, REPORT_BYTES_PER_S, REPORTS_BURST, REPORTS_PER_S
from link.codec import encode
from link.exchange import Whole
from link.frames import (
    CHUNK_BYTES,
    MAX_CALLS,
    MAX_REPORT_ENTRIES,
    PROTOCOL,
    Ack,
    Answer,
    AnswerHead,
    Call,
    CallHead,
    Cancel,
    Check,
    Frame,
    Goodbye,
    GoodbyeCode,
    Held,
    Hello,
    Interest,
    Inventory,
    Nack,
    Part,
    Push,
    Refusal,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)
from tests.harness.hubsite import ALL, LARGE, MAY, MAY_NOT, NAMED, POLICIES, Node1, Site, kinds


def test_an_inventory_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_INVENTORY", 10)
    site = Site()
    wire = site.connect("n1")
    wire.say(Hello(PROTOCOL, "n1", None, b"something", "agent", 1))
    held = [Held(ObjectKey(PODS, "default", f"p{number}"), ObjectVersion("u", "r")) for number in range(11)]
    wire.say(Inventory(tuple(held[:10]), False))
    wire.say(Inventory(tuple(held[:10]), False))
    assert [type(frame) for frame in wire.take()] == [Welcome], "the same again is nothing more"
    wire.say(Inventory(tuple(held[10:]), False))
    assert wire.closed
    assert isinstance(goodbye := wire.take()[-1], Goodbye)
    assert (goodbye.code, goodbye.reason) == (GoodbyeCode.PROTOCOL, "an inventory of more than 10 objects")


def test_as_many_objects_of_usual_names_as_an_inventory_may_have_fit_into_its_bytes() -> None:
    name, version = "web-frontend-7d9f8c6b5-abcde", ObjectVersion(str(uuid.UUID(int=7)), "0123456789abcdef01234567")
    held = [Held(ObjectKey(PODS, "team-logistics-prod", f"{name}-{number}"), version) for number in range(1000, 1064)]
    assert len(encode(Inventory(tuple(held), True))) / len(held) * bounds.MAX_INVENTORY <= bounds.MAX_INVENTORY_BYTES


def test_an_inventory_of_the_longest_names_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_INVENTORY_BYTES", 3000)
    site = Site()
    wire = site.connect("n1")
    wire.say(Hello(PROTOCOL, "n1", None, b"something", "agent", 1))
    held = [Held(ObjectKey(PODS, "n" * 253, f"{number:0>253}"), ObjectVersion("u" * 253, "r")) for number in range(4)]
    wire.say(Inventory(tuple(held[:3]), False))
    assert [type(frame) for frame in wire.take()] == [Welcome]
    wire.say(Inventory(tuple(held[3:]), True))
    assert wire.closed
    assert isinstance(goodbye := wire.take()[-1], Goodbye)
    assert goodbye.reason == "an inventory of more than 3000 bytes"


def test_a_node_that_reports_more_than_its_share_is_acknowledged_later() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    entries = (ReportEntry(ObjectKey(DEVICES, "default", "d"), "state", b""),) * MAX_REPORT_ENTRIES
    acks = 0
    [session] = site.hub._sessions.values()
    for number in range(80):  # as fast as they are acknowledged, which is at once as far as the sink goes
        wire.say(Report(1 + number * MAX_REPORT_ENTRIES, entries, Traffic.DEVICES))
        report = site.reports.accepted.pop()[2]
        site.hub.reported(session, ReportAck(Traffic.DEVICES, (Span(report.first, report.first + len(entries) - 1),)))
        while not (heard := len(wire.take())):
            site.clock.run_for(0.01)
        acks += heard
    assert acks == 80
    took_s = site.clock.time()
    assert took_s == pytest.approx((80 * MAX_REPORT_ENTRIES - REPORTS_BURST) / REPORTS_PER_S, abs=0.1)
    wire.say(Report(1 + 80 * MAX_REPORT_ENTRIES, entries, Traffic.DEVICES))
    site.hub.reported(
        session, ReportAck(Traffic.DEVICES, (Span(1 + 80 * MAX_REPORT_ENTRIES, 81 * MAX_REPORT_ENTRIES),))
    )
    wire.pump.connection_lost("cut")
    site.clock.run_for(9.0)
    assert wire.take() == [], "nobody is there to be told"


def test_a_node_that_reports_more_bytes_than_its_share_is_acknowledged_later() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    [session] = site.hub._sessions.values()
    size = 120_000
    for number in range(1, 21):
        wire.say(
            Report(number, (ReportEntry(ObjectKey(DEVICES, "default", "d"), "state", b"x" * size),), Traffic.DEVICES)
        )
        site.hub.reported(session, ReportAck(Traffic.DEVICES, (Span(number, number),)))
        while not wire.take():
            site.clock.run_for(0.01)
    burst_s = REPORTS_BURST / REPORTS_PER_S
    assert site.clock.time() == pytest.approx(20 * size / REPORT_BYTES_PER_S - burst_s, abs=0.1)


def test_answers_and_transfers_go_in_turn() -> None:
    site = Site()
    node = Node1(site)
    site.put(PODS, "large", spec={"nodeName": "n1", "text": LARGE})
    site.work()
    [session] = site.hub._sessions.values()
    node.wire.take()
    node.wire.say(Call(1, GET, b"", True))
    session.answer(1, AnswerHead(200), b"x" * 3 * CHUNK_BYTES)
    order = []
    for taken in range(1, 8):
        node.wire.say(Taken(taken))
        order += [type(frame).__name__ for frame in node.wire.take() if isinstance(frame, Part | Answer)]
    assert order[:4] == ["Answer", "Part", "Answer", "Part"]


@pytest.mark.parametrize(
    ("kind", "node", "are_spaced"), [(PODS, "n1", True), (PODS, "n2", True), (DEVICES, "n1", False), (None, "", False)]
)
def test_while_anybody_is_told_of_pods_parts_come_one_by_one(
    kind: Resource | None, node: str, are_spaced: bool
) -> None:
    site = Site()
    other, wire = site.streaming("n2"), site.streaming("n1")
    site.put(PODS, "large", spec={"nodeName": "n1", "text": LARGE})
    came, transfer = list[float](), 0
    while not transfer:
        if kind is not None:
            site.put(kind, "small", spec={"nodeName": node, "number": len(came), "at": site.clock.time()})
        site.work()
        other.say(Ack(max((frame.seq for frame in other.take() if isinstance(frame, Push)), default=0)))
        for frame in wire.take():
            if isinstance(frame, Part):
                came.append(site.clock.time())
                wire.say(Taken(len(came)))
            elif isinstance(frame, Push):
                transfer = transfer or frame.transfer
                wire.say(Ack(frame.seq))
        site.clock.run_for(PART_S / 4)
    assert len(came) > 4
    spaces = [later - earlier for earlier, later in itertools.pairwise(came)]
    if are_spaced:  # but for what its window took before the first push of a pod
        assert all(PART_S - 1e-6 < space < 1.5 * PART_S for space in spaces[1:])
    else:
        assert max(spaces) < PART_S / 2


def test_a_link_that_is_lost_while_a_part_waits_is_not_missed() -> None:
    site = Site()
    node = Node1(site)
    site.put(PODS, "large", spec={"nodeName": "n1", "text": LARGE})
    site.put(PODS, "small", spec={"nodeName": "n1"})
    site.work()
    node.wire.say(Taken(1))
    pump = node.wire.pump
    pump.connection_lost("cut")
    sent = pump.bytes_sent
    site.clock.run_for(1.0)
    assert pump.bytes_sent == sent
    assert site.streaming("n1").take() != []


def test_a_node_that_refuses_everything_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    wire = site.connect("n1")
    wire.say(Hello(PROTOCOL, "n1", None, digest(()), "agent", 1))
    site.put(CONFIG_MAPS, "a", data={})
    site.put(PODS, "web", spec={"nodeName": "n1", "volumes": [{"configMap": {"name": "a"}}]})
    site.work()
    key = ObjectKey(CONFIG_MAPS, "default", "a")
    for _ in range(3):
        wire.say(Nack(1, tuple(Refusal(key, "no") for _ in range(MAX_REFUSALS_TOLD))))
    assert len([each for each in caplog.records if each.message == "node refused object"]) == MAX_REFUSALS_TOLD
    assert site.hub.counters.nacks == 3 * MAX_REFUSALS_TOLD


def test_a_node_that_compares_all_the_time_is_not_always_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def counted(items: Iterable[tuple[ObjectKey, ObjectVersion]]) -> bytes:
        nonlocal looked
        looked += 1
        return digest(items)

    site = Site()
    wire = site.streaming("n1")
    wire.say(Ack(1))
    monkeypatch.setattr(sessions, "digest", counted)
    for _ in range(bounds.CHECKS_BURST + 30):
        wire.say(Check(1, digest([])))
    assert looked == bounds.CHECKS_BURST
    site.clock.run_until(site.clock.time() + 2 / bounds.CHECKS_PER_S)
    wire.say(Check(1, digest([])))
    assert looked == bounds.CHECKS_BURST + 1
    assert not wire.closed


def test_a_node_that_wants_something_else_all_the_time_is_cut_off() -> None:
    site = Site()
    wire = site.streaming("n1")
    large = tuple(Interest(CONFIG_MAPS, f"ns-{number}") for number in range(160))
    sets = [large] * 50 + [()] * ((bounds.WANTED_BURST - 50 * 20) // 4)
    for number, interests in enumerate(sets, 1):
        wire.say(Wanted(number, interests))
    assert not wire.closed
    site.clock.run_until(site.clock.time() + 4 / bounds.WANTED_PER_S)
    wire.say(Wanted(len(sets) + 1, ()))
    assert not wire.closed, "it comes back with time"
    wire.say(Wanted(len(sets) + 2, ()))
    assert isinstance(goodbye := wire.take()[-1], Goodbye)
    assert (goodbye.code, goodbye.reason) == (GoodbyeCode.PROTOCOL, "interests that change all the time")


GET = CallHead("GET", "/version")


def test_a_call_is_handed_over_whole_and_its_answer_goes_back_as_it_is_taken() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    wire.say(Call(1, GET, b"a", False))
    wire.say(Call(1, None, b"b", True))
    assert site.desk.calls == [Whole(1, GET, b"ab")]
    assert wire.take() == [Taken(1), Taken(2)]
    [session] = site.hub._sessions.values()
    session.answer(1, AnswerHead(200), b"x" * (3 * CHUNK_BYTES))
    sent = wire.take()
    assert sent == [
        Answer(1, AnswerHead(200), b"x" * CHUNK_BYTES, False),
        Answer(1, None, b"x" * CHUNK_BYTES, False),
    ]
    assert session.call_bytes == 3 * CHUNK_BYTES
    site.put(PODS, "urgent", spec={"nodeName": "n1"})
    site.work()
    assert kinds(wire) == ["+urgent!"], "a push does not wait for the rest"
    wire.say(Taken(1))
    assert wire.take() == [Answer(1, None, b"x" * CHUNK_BYTES, True)]
    assert session.call_bytes == 0
    session.answer(1, AnswerHead(200), b"")
    assert wire.take() == [], "nobody asked twice"


def test_a_call_that_is_cancelled_is_given_up() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.say(Call(1, GET, b"", True))
    wire.say(Call(2, GET, b"", False))
    wire.take()
    wire.say(Cancel(1))
    wire.say(Cancel(2))
    wire.say(Call(2, None, b"", True))
    [session] = site.hub._sessions.values()
    session.answer(1, AnswerHead(200), b"")
    assert wire.take() == [Taken(3)]
    assert site.desk.cancelled == [1, 2]
    assert [call.number for call in site.desk.calls] == [1]


def test_a_call_there_is_no_room_for_is_refused_and_the_link_goes_on() -> None:
    site = Site()
    wire = site.streaming("n1")
    site.desk.is_full = True
    wire.take()
    wire.say(Call(1, GET, b"", False))
    wire.say(Call(1, None, b"", True))
    assert wire.take() == [Taken(1), Answer(1, AnswerHead(429), b"", True), Taken(2)]
    assert site.hub.counters.calls_refused == 1
    assert not wire.closed


@pytest.mark.parametrize("numbers", [[1, 1], range(MAX_CALLS + 1)])
def test_a_node_that_calls_out_of_turn_is_left(numbers: Sequence[int]) -> None:
    site = Site()
    wire = site.streaming("n1")
    for number in numbers:
        wire.say(Call(number, GET, b"", True))
    assert wire.closed
    assert len(site.desk.closed) == 1


SPOKEN = st.one_of(
    st.builds(Wanted, st.integers(1, 4), st.just((ALL, NAMED)) | st.just(())),
    st.builds(Call, st.integers(0, 3), st.none() | st.just(GET), st.binary(max_size=3), st.booleans()),
    st.builds(Cancel, st.integers(0, 3)),
    st.builds(Taken, st.integers(0, 3)),
    st.builds(Ack, st.integers(0, 3)),
    st.builds(Check, st.integers(0, 3), st.just(b"x")),
)


@given(st.lists(SPOKEN, max_size=12), st.booleans())
def test_whatever_a_node_says_of_interests_and_calls_its_link_goes_on_or_ends(said: list[Frame], is_full: bool) -> None:
    site = Site()
    site.put(POLICIES, "a")
    site.rights.decisions |= {ALL: MAY, NAMED: MAY_NOT}
    site.desk.is_full = is_full
    wire = site.streaming("n1")
    for frame in said:
        if not wire.closed:
            wire.say(frame)
        site.work()
        for session in site.hub._sessions.values():
            session.answer(1, AnswerHead(200), b"answer")
    told = wire.take()
    assert wire.closed == (not site.hub.is_connected(Node("n1"))) == any(isinstance(each, Goodbye) for each in told)
    wire.pump.connection_lost("over")
    site.clock.run_until(100.0)
    site.hub.expire()
    assert Node("n1") not in site.hub._standings
