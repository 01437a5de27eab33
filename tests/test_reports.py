"""Tests for cloudhub.reports."""

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from apimachinery.devices import PropertyReport
from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import EventType, KubeEvent, new_event
from apimachinery.resources import DEVICES, NODES, PODS
from cloudhub.devices import StateReport
from cloudhub.reports import (
    EVENT_INTERVAL_S,
    MALFORMED,
    MAX_REFUSED,
    MOVED,
    NOT_ITS_OWN,
    NodeReport,
    Outcome,
    Refused,
    Reports,
    Retry,
    Taken,
    Write,
    events_of,
    parse,
)
from link.frames import RefusedReport, ReportEntry

EDGE, OTHER = Node("edge-1"), Node("edge-2")
LAMP = ObjectKey(DEVICES, "default", "lamp")
FAN = ObjectKey(DEVICES, "default", "fan")


def entry(value: str, field: str = "property/level", key: ObjectKey = LAMP) -> ReportEntry:
    return ReportEntry(key, field, json.dumps({"value": value, "observedAt": 1}).encode())


def values(write: Write) -> dict[str, str | None]:
    return {
        field.removeprefix("property/"): value.value
        for field, value in write.values.items()
        if isinstance(value, PropertyReport)
    }


class Owners:
    """Who may report what: devices belong to EDGE until said otherwise."""

    def __init__(self) -> None:
        self.of: dict[ObjectKey, Node] = {LAMP: EDGE, FAN: EDGE}

    def __call__(self, node: Node, key: ObjectKey, field: str) -> str | None:
        return None if self.of.get(key) == node else "not yours"


def new(min_interval_s: float = 0.5) -> Reports[str]:
    return Reports(Owners(), min_interval_s=min_interval_s)


def test_the_first_report_is_written_at_once_and_acknowledged_when_taken() -> None:
    reports = new()
    assert reports.accept(EDGE, "s", 1, [entry("10")]) == []
    (write,) = reports.due(0.0, 8)
    assert (write.key, write.node, values(write), write.failures) == (LAMP, EDGE, {"level": "10"}, 0)
    assert reports.finished(write, Taken(), 0.1) == [("s", 1, ())]
    assert reports.due(99.0, 8) == []
    assert len(reports) == 0


def test_writes_of_one_object_are_spaced_and_carry_the_last_value() -> None:
    reports = new(0.5)
    reports.accept(EDGE, "s", 1, [entry("0")])
    (first,) = reports.due(0.0, 8)
    for seq in range(2, 100):
        reports.accept(EDGE, "s", seq, [entry(str(seq))])
    assert reports.due(0.3, 8) == []  # one is under way
    assert reports.finished(first, Taken(), 0.3) == [("s", 1, ())]
    assert reports.due(0.4, 8) == []
    assert reports.next_deadline() == 0.5
    (second,) = reports.due(0.5, 8)
    assert values(second) == {"level": "99"}
    assert reports.finished(second, Taken(), 0.6) == [("s", 99, ())]


def test_objects_do_not_wait_for_each_other() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("1"), entry("2", key=FAN)])
    assert [write.key for write in reports.due(0.0, 1)] == [LAMP]
    assert [write.key for write in reports.due(0.0, 1)] == [FAN]


def test_reports_are_acknowledged_in_their_order() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("1")])
    reports.accept(EDGE, "s", 2, [entry("2", key=FAN)])
    lamp, fan = reports.due(0.0, 8)
    assert reports.finished(fan, Taken(), 0.1) == []
    assert reports.finished(lamp, Taken(), 0.2) == [("s", 2, ())]


def test_a_report_of_several_objects_waits_for_all_of_them() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("1"), entry("2", key=FAN)])
    lamp, fan = reports.due(0.0, 8)
    assert reports.finished(lamp, Taken(), 0.1) == []
    assert reports.finished(fan, Taken(), 0.1) == [("s", 1, ())]


def test_a_value_that_was_followed_by_another_is_settled_with_it() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("1"), entry("a", "property/mode")])
    reports.accept(EDGE, "s", 2, [entry("2")])
    (write,) = reports.due(0.0, 8)
    assert values(write) == {"level": "2", "mode": "a"}
    assert reports.finished(write, Taken(), 0.1) == [("s", 2, ())]


def test_a_later_value_does_not_settle_what_an_earlier_write_carries() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("1")])
    (write,) = reports.due(0.0, 8)
    reports.accept(EDGE, "s", 2, [entry("2")])
    assert reports.finished(write, Taken(), 0.1) == [("s", 1, ())]


def test_what_may_not_be_reported_is_refused_at_once() -> None:
    reports = new()
    assert reports.accept(OTHER, "s", 1, [entry("1")]) == [
        ("s", 1, (RefusedReport(LAMP, "property/level", "not yours"),))
    ]
    assert len(reports) == 0


def test_a_refusal_waits_for_the_rest_of_its_report() -> None:
    reports = new()
    assert reports.accept(EDGE, "s", 1, [ReportEntry(LAMP, "state", b"{"), entry("1")]) == []
    (write,) = reports.due(0.0, 8)
    ((_, seq, refused),) = reports.finished(write, Taken(), 0.1)
    assert (seq, refused) == (1, (RefusedReport(LAMP, "state", "the value is not JSON"),))


def test_more_refusals_than_a_frame_holds_are_told_in_several() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("1")])
    for seq in range(2, 6):
        rejected = [ReportEntry(LAMP, f"property/{seq}.{n}", b"{") for n in range(MAX_REFUSED // 2)]
        assert reports.accept(EDGE, "s", seq, rejected) == []
    (write,) = reports.due(0.0, 8)
    told = reports.finished(write, Taken(), 0.1)
    assert [(seq, len(refused)) for _, seq, refused in told] == [(3, MAX_REFUSED), (5, MAX_REFUSED)]
    assert len({each.field for _, _, refused in told for each in refused}) == 2 * MAX_REFUSED


def test_refusals_are_counted_by_their_cause() -> None:
    reports = new()
    reports.accept(OTHER, "s", 1, [entry("1")])
    reports.accept(EDGE, "s", 2, [ReportEntry(LAMP, "state", b"{"), entry("1"), entry("2", key=FAN)])
    for write in reports.due(0.0, 8):
        reports.finished(write, Refused("no right", cause="Forbidden"), 0.1)
    reports.accept(EDGE, "s", 3, [entry("1"), entry("2", "property/mode")])
    (write,) = reports.due(1.0, 8)
    reports.finished(write, Taken({"property/mode": "no such"}), 1.0)
    assert reports.refused == {NOT_ITS_OWN: 2, MALFORMED: 1, "Forbidden": 2}


def test_an_empty_report_is_acknowledged_at_once() -> None:
    assert new().accept(EDGE, "s", 1, []) == [("s", 1, ())]


def test_the_apiserver_may_refuse_one_value_of_a_write() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("1"), entry("2", "property/mode")])
    (write,) = reports.due(0.0, 8)
    assert reports.finished(write, Taken({"property/mode": "no such"}), 0.1) == [
        ("s", 1, (RefusedReport(LAMP, "property/mode", "no such"),))
    ]


def test_a_refused_write_is_taken_apart_to_find_the_value_to_blame() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("good"), entry("bad", "property/mode"), entry("fine", "property/extra")])
    now, found, sizes = 0.0, [], []
    while writes := reports.due(now, 8):
        (write,) = writes
        sizes.append(len(write.values))
        bad = "property/mode" in write.values
        found += reports.finished(write, Refused("422", divisible=True) if bad else Taken(), now)
        now += 1.0
    assert found == [("s", 1, (RefusedReport(LAMP, "property/mode", "422"),))]
    assert sizes == [3, 1, 1, 1]


def test_without_the_value_to_blame_the_conditions_are_brought_up_to_date() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("bad")])
    (write,) = reports.due(0.0, 8)
    assert len(reports.finished(write, Refused("422", divisible=True), 0.0)) == 1
    (after,) = reports.due(0.5, 8)
    assert after.values == {}
    reports.finished(after, Refused("422", divisible=True), 0.5)
    assert reports.due(99.0, 8) == []


def test_a_refusal_that_has_nothing_to_do_with_values_is_for_all_of_them() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("1"), entry("2", "property/mode")])
    (write,) = reports.due(0.0, 8)
    ((_, _, refused),) = reports.finished(write, Refused("forbidden"), 0.1)
    assert [each.reason for each in refused] == ["forbidden", "forbidden"]
    assert reports.due(99.0, 8) == []


def test_a_failed_write_is_repeated_with_what_came_in_between() -> None:
    reports = new(0.5)
    reports.accept(EDGE, "s", 1, [entry("1"), entry("a", "property/mode")])
    (write,) = reports.due(0.0, 8)
    reports.accept(EDGE, "s", 2, [entry("2")])
    assert reports.finished(write, Retry(3.0), 1.0) == []
    assert reports.due(3.9, 8) == []
    (again,) = reports.due(4.0, 8)
    assert (values(again), again.failures) == ({"level": "2", "mode": "a"}, 1)
    assert reports.finished(again, Taken(), 4.1) == [("s", 2, ())]
    reports.accept(EDGE, "s", 3, [entry("3")])
    (third,) = reports.due(9.0, 8)
    assert third.failures == 0


def test_a_conflict_is_repeated_at_once() -> None:
    reports = new(0.5)
    reports.accept(EDGE, "s", 1, [entry("1")])
    (write,) = reports.due(0.0, 8)
    reports.finished(write, Retry(0.0), 0.01)
    assert len(reports.due(0.01, 8)) == 1


def test_a_session_that_closes_takes_its_values_along_unless_they_are_under_way() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [entry("1"), entry("2", key=FAN)])
    (write,) = reports.due(0.0, 1)
    reports.close("s")
    reports.close("s")
    assert reports.finished(write, Retry(0.0), 0.1) == []
    assert [values(write) for write in reports.due(99.0, 8)] == [{}]  # conditions only
    assert reports.accept(EDGE, "t", 1, [entry("3")]) == []
    assert reports.finished(Write(LAMP, Node(""), {}, 1), Taken(), 99.0) == []
    (write,) = reports.due(100.0, 8)
    assert values(write) == {"level": "3"}
    assert reports.finished(write, Taken(), 100.0) == [("t", 1, ())]


def test_a_value_that_two_sessions_reported_stays_for_the_one_that_is_left() -> None:
    reports = new()
    reports.accept(EDGE, "old", 1, [entry("1")])
    reports.accept(EDGE, "new", 1, [entry("1")])
    reports.close("old")
    (write,) = reports.due(0.0, 8)
    assert reports.finished(write, Taken(), 0.1) == [("new", 1, ())]


def test_a_device_that_moves_leaves_the_old_nodes_values_behind() -> None:
    owners = Owners()
    reports: Reports[str] = Reports(owners)
    reports.accept(EDGE, "s", 1, [entry("1"), entry("a", "property/mode")])
    owners.of[LAMP] = OTHER
    ((session, seq, refused),) = reports.accept(OTHER, "t", 1, [entry("2")])
    assert (session, seq, {each.reason for each in refused}) == ("s", 1, {MOVED})
    (write,) = reports.due(0.0, 8)
    assert (write.node, values(write)) == (OTHER, {"level": "2"})


def test_a_device_that_moves_while_a_write_fails_does_not_mix_nodes() -> None:
    owners = Owners()
    reports: Reports[str] = Reports(owners)
    reports.accept(EDGE, "s", 1, [entry("a", "property/mode")])
    (write,) = reports.due(0.0, 8)
    owners.of[LAMP] = OTHER
    reports.accept(OTHER, "t", 1, [entry("2")])
    ((session, _, refused),) = reports.finished(write, Retry(0.0), 0.1)
    assert (session, [each.reason for each in refused]) == ("s", [MOVED])
    (write,) = reports.due(1.0, 8)
    assert (write.node, values(write)) == (OTHER, {"level": "2"})


def test_a_touch_gives_a_write_of_nothing_and_joins_a_report() -> None:
    reports = new()
    reports.touch(LAMP)
    reports.touch(LAMP)
    (write,) = reports.due(0.0, 8)
    assert (write.node, write.values) == ("", {})
    reports.touch(LAMP)
    assert reports.finished(write, Taken(), 0.1) == []
    reports.accept(EDGE, "s", 1, [entry("1")])
    (write,) = reports.due(0.5, 8)
    assert values(write) == {"level": "1"}
    reports.finished(write, Taken(), 0.6)
    assert reports.due(99.0, 8) == []


def test_a_touch_may_wait_and_a_report_does_not_wait_with_it() -> None:
    reports = new()
    reports.touch(LAMP, 1.0)
    reports.touch(LAMP, 2.0)
    assert reports.due(0.9, 8) == []
    assert reports.next_deadline() == 1.0
    reports.accept(EDGE, "s", 1, [entry("1")])
    (write,) = reports.due(0.9, 8)
    assert values(write) == {"level": "1"}
    reports.touch(LAMP, 1.0)
    reports.finished(write, Taken(), 0.9)
    (write,) = reports.due(9.0, 8)
    reports.finished(write, Taken(), 9.0)
    assert reports.due(99.0, 8) == []
    reports.touch(LAMP, 100.0)
    (write,) = reports.due(100.0, 8)
    assert write.values == {}


def test_a_touch_is_repeated_when_it_fails() -> None:
    reports = new()
    reports.touch(LAMP)
    (write,) = reports.due(0.0, 8)
    reports.finished(write, Retry(1.0), 0.0)
    (again,) = reports.due(1.0, 8)
    assert again.failures == 1
    reports.finished(again, Refused("gone"), 1.0)
    assert reports.due(99.0, 8) == []
    assert len(reports) == 0


# ---- Events


def event(number: int, about: ObjectKey = LAMP) -> ReportEntry:
    made = new_event(about, "u", EventType.NORMAL, "Did", "it", at="2030-01-31T12:00:00Z", unique=f"e{number}")
    return ReportEntry(made.key, "event", json.dumps(made.to_json()).encode())


def names(write: Write) -> list[str]:
    return [value.name for value in write.values.values() if isinstance(value, KubeEvent)]


def test_events_of_a_node_are_written_one_at_a_time_in_their_order() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [event(1), event(2), entry("1")])
    first, lamp = reports.due(0.0, 8)
    assert (first.key, first.node, names(first), lamp.key) == (events_of(EDGE), EDGE, ["lamp.e1"], LAMP)
    assert reports.due(0.01, 8) == []
    assert reports.finished(lamp, Taken(), 0.01) == []
    assert reports.finished(first, Taken(), 0.01) == []
    (second,) = reports.due(EVENT_INTERVAL_S, 8)
    assert names(second) == ["lamp.e2"]
    assert reports.finished(second, Taken(), 0.03) == [("s", 1, ())]
    assert (reports.taken_count, reports.refused.total()) == (3, 0)


def test_a_flood_of_events_has_one_writer_and_one_rate() -> None:
    reports = new()
    for seq in range(1, 200):
        reports.accept(EDGE, "s", seq, [event(seq)])
    written, now = 0, 0.0
    while now < 1.0:
        for write in reports.due(now, 8):
            written += len(write.values)
            reports.finished(write, Taken(), now)
        now += 0.001
    assert written == pytest.approx(1 / EVENT_INTERVAL_S, abs=2)


def test_an_event_that_is_refused_is_named_as_it_was_reported() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [event(1), event(2)])
    (write,) = reports.due(0.0, 8)
    reports.finished(write, Refused("no right"), 0.0)
    (write,) = reports.due(1.0, 8)
    assert reports.finished(write, Taken(), 1.0) == [("s", 1, (RefusedReport(event(1).key, "event", "no right"),))]
    assert (reports.taken_count, +reports.refused) == (1, {NOT_ITS_OWN: 1})


def test_an_event_that_could_not_be_written_is_written_later() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [event(1)])
    (write,) = reports.due(0.0, 8)
    assert reports.finished(write, Retry(2.0), 0.1) == []
    assert reports.due(2.0, 8) == []
    (again,) = reports.due(2.1, 8)
    assert (names(again), again.failures) == (["lamp.e1"], 1)
    assert reports.finished(again, Taken(), 2.2) == [("s", 1, ())]
    assert reports.due(99.0, 8) == []
    assert len(reports) == 0


def test_events_of_a_session_that_closed_are_forgotten() -> None:
    reports = new()
    reports.accept(EDGE, "s", 1, [event(1), event(2)])
    (write,) = reports.due(0.0, 8)
    reports.close("s")
    assert reports.finished(write, Taken(), 0.1) == []
    assert reports.due(99.0, 8) == []


def test_an_event_is_admitted_by_what_it_is_about() -> None:
    reports = new()
    assert reports.accept(OTHER, "s", 1, [event(1)]) == [("s", 1, (RefusedReport(event(1).key, "event", "not yours"),))]
    wrong = event(1)._replace(key=event(2).key)
    ((_, _, (refused,)),) = reports.accept(EDGE, "s", 2, [wrong])
    assert refused.reason == "the Event is default/lamp.e1, not what its report says"
    ((_, _, (refused,)),) = reports.accept(EDGE, "s", 3, [event(1)._replace(value=b"{}")])
    assert refused.reason == "type must be Normal or Warning"
    ((_, _, (refused,)),) = reports.accept(EDGE, "s", 4, [event(1)._replace(key=LAMP)])
    assert "has no field" in refused.reason


# ---- values


NODE = ObjectKey(NODES, "", "edge-1")


@pytest.mark.parametrize(
    ("key", "field", "value", "expected"),
    [
        (
            LAMP,
            "property/level",
            {"value": "1", "type": "int", "observedAt": 7, "desired": "2", "problem": "p"},
            PropertyReport("1", "int", 7, "2", "p"),
        ),
        (LAMP, "state", {"state": "online", "lastOnlineTime": "t"}, StateReport("online", "t")),
        (LAMP, "state", {"state": "offline", "lastOnlineTime": None}, StateReport("offline", "")),
        (
            NODE,
            "nodeInfo",
            {"nodeInfo": {"architecture": "arm64"}, "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
            NodeReport({"architecture": "arm64"}, (("InternalIP", "192.0.2.1"),), {}),
        ),
        (NODE, "nodeInfo", {"capacity": {"cpu": "4"}}, NodeReport({}, (), {"cpu": "4"})),
        (LAMP, "state", {"state": "\N{COLLISION SYMBOL}"}, StateReport("\N{COLLISION SYMBOL}", "")),
    ],
)
def test_values(key: ObjectKey, field: str, value: Any, expected: object) -> None:
    assert parse(ReportEntry(key, field, json.dumps(value).encode())) == expected


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        (LAMP, "property/level", b"\xff"),
        (LAMP, "property/level", b"[" * 100_000),
        (LAMP, "property/level", b"[]"),
        (LAMP, "property/level", b'{"value":1,"observedAt":1}'),
        (LAMP, "property/level", b'{"observedAt":true}'),
        (LAMP, "state", b'{"state":5}'),
        (LAMP, "state", b'{"state":"\\ud800"}'),
        (LAMP, "state", b'{"state":"\xed\xa0\x80"}'),
        (LAMP, "property/level", b'{"value":"1","type":"\\udc00","observedAt":1}'),
        (NODE, "nodeInfo", b'{"nodeInfo":{"osImage":"\\ud800"}}'),
        (LAMP, "state", b'{"lastOnlineTime":"t"}'),
        (LAMP, "state", b'"online"'),
        (LAMP, "state", json.dumps({"state": "x" * 300}).encode()),
        (LAMP, "nodeInfo", b"{}"),
        (NODE, "state", b'{"state":"online"}'),
        (NODE, "property/level", b'{"observedAt":1}'),
        (NODE, "nodeInfo", b"[]"),
        (NODE, "nodeInfo", b'{"nodeInfo":{"a":1}}'),
        (NODE, "nodeInfo", b'{"addresses":{}}'),
        (NODE, "nodeInfo", b'{"addresses":[{"type":"Hostname"}]}'),
        (NODE, "nodeInfo", b'{"addresses":[5]}'),
        (NODE, "nodeInfo", json.dumps({"capacity": {str(n): "1" for n in range(99)}}).encode()),
        (ObjectKey(PODS, "default", "p"), "state", b'{"state":"online"}'),
    ],
)
def test_malformed_values(key: ObjectKey, field: str, value: bytes) -> None:
    with pytest.raises(ValueError, match=r"must|JSON|no field|has a type|longer"):
        parse(ReportEntry(key, field, value))


# ---- any history


class ReportsMachine(RuleBasedStateMachine):
    """An apiserver that takes, refuses and fails as it likes, sessions that come and go: nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.reports = new(0.5)
        self.now = 0.0
        self.session = 0
        self.seq = 0
        self.acked = 0
        self.told: dict[int, dict[tuple[ObjectKey, str], str]] = {}
        """What each Report of this session said."""
        self.last: dict[tuple[ObjectKey, str], str] = {}
        """The last value that the edge reported, of all sessions."""
        self.refused: set[tuple[ObjectKey, str]] = set()
        """Fields whose last value was refused."""
        self.excused: set[tuple[int, ObjectKey, str]] = set()
        """Of which Reports of this session which fields were refused."""
        self.apiserver: dict[tuple[ObjectKey, str], str | None] = {}
        self.running: list[Write] = []
        self.started: defaultdict[ObjectKey, float] = defaultdict(lambda: -1.0)
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.session = 1

    @rule(what=st.lists(st.tuples(st.sampled_from([LAMP, FAN]), st.sampled_from(["a", "b"])), max_size=3))
    def report(self, what: list[tuple[ObjectKey, str]]) -> None:
        self.seq += 1
        entries = []
        said: dict[tuple[ObjectKey, str], str] = {}
        for key, name in what:
            self.count += 1
            said[key, f"property/{name}"] = str(self.count)
            entries.append(entry(str(self.count), f"property/{name}", key))
        self.told[self.seq] = said
        self.last |= said
        self.refused -= said.keys()
        self.take(self.reports.accept(EDGE, str(self.session), self.seq, entries))

    @rule(key=st.sampled_from([LAMP, FAN]))
    def touch(self, key: ObjectKey) -> None:
        self.reports.touch(key)

    @rule(seconds=st.sampled_from([0.0, 0.2, 0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(most=st.integers(1, 2))
    def start(self, most: int) -> None:
        for write in self.reports.due(self.now, most):
            assert write.key not in {each.key for each in self.running}, "one at a time"
            self.running.append(write)

    @precondition(lambda self: self.running)
    @rule(outcome=st.sampled_from([Taken(), Retry(0.0), Retry(1.0), Refused("no"), Refused("422", True)]))
    def finish(self, outcome: Outcome) -> None:
        self.perform(self.running.pop(0), outcome)

    def perform(self, write: Write, outcome: Outcome) -> None:
        if isinstance(outcome, Taken):
            for field, value in write.values.items():
                assert isinstance(value, PropertyReport)
                self.apiserver[write.key, field] = value.value
        self.take(self.reports.finished(write, outcome, self.now))

    @rule()
    def reconnect(self) -> None:
        """The edge reports again what was not acknowledged."""
        self.reports.close(str(self.session))
        open_fields = {place for seq, said in self.told.items() if seq > self.acked for place in said}
        self.session, self.seq, self.acked, self.told = self.session + 1, 0, 0, {}
        self.excused.clear()
        for key, field in sorted(open_fields - self.refused, key=str):
            self.seq += 1
            self.told[self.seq] = {(key, field): self.last[key, field]}
            said = entry(self.last[key, field], field, key)
            self.take(self.reports.accept(EDGE, str(self.session), self.seq, [said]))

    def take(self, acknowledgements: list[Any]) -> None:
        for session, seq, refused in acknowledgements:
            if session != str(self.session):
                continue
            assert seq > self.acked, "acknowledgements rise"
            for each in refused:
                self.refused.add((each.key, each.field))
                self.excused |= {(old, each.key, each.field) for old in range(self.acked + 1, seq + 1)}
            self.acked = seq

    @invariant()
    def what_is_acknowledged_is_there_or_refused(self) -> None:
        for seq, said in self.told.items():
            for place, value in said.items():
                if seq <= self.acked and (seq, *place) not in self.excused:
                    assert int(self.apiserver.get(place) or 0) >= int(value)

    def teardown(self) -> None:
        for write in self.running:
            self.perform(write, Taken())
        for _ in range(8):
            self.now += 5.0
            for write in self.reports.due(self.now, 8):
                self.perform(write, Taken())
        assert self.acked == self.seq, "everything is acknowledged in the end"
        for place, value in self.last.items():
            if place not in self.refused:
                assert self.apiserver[place] == value, "the last report wins"
        assert self.reports.next_deadline() is None
        assert len(self.reports) == 0


TestReportsMachine = ReportsMachine.TestCase
TestReportsMachine.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
