"""Tests for cloudhub.reports."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from apimachinery.devices import MAX_VALUE_BYTES, PropertyReport
from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import EventType, KubeEvent, new_event
from apimachinery.resources import DEVICES, NODES
from cloudhub.ledgers import MAX_REFUSED, Acknowledgement
from cloudhub.pace import YOUNG_S
from cloudhub.reports import (
    EVENT_INTERVAL_S,
    HAND_BACK_AFTER,
    KEPT_FOR_DEVICES,
    KEPT_FOR_INFRASTRUCTURE,
    MALFORMED,
    MAX_PAUSE_S,
    MOVED,
    NODE_WRITES,
    NOT_ITS_OWN,
    WRITES,
    Outcome,
    Refused,
    Reports,
    Retry,
    Taken,
    Write,
    events_of,
)
from cloudhub.reportvalues import MAX_OTHER_BYTES, MAX_PROPERTY_BYTES
from cloudhub.rests import REST
from link.frames import RefusedReport, Report, ReportEntry, Traffic

DEVICE = Traffic.DEVICES
EDGE, OTHER = Node("edge-1"), Node("edge-2")
LAMP = ObjectKey(DEVICES, "default", "lamp")
GATE = ObjectKey(DEVICES, "default", "gate")
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


class Desk(Reports[str]):
    """Reports as a peer hands them in: numbered by session and class."""

    def __init__(
        self,
        owners: Owners | None = None,
        min_interval_s: float = 0.5,
        yields: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(owners or Owners(), min_interval_s=min_interval_s, yields=yields)
        self._numbers: Counter[tuple[str, Traffic]] = Counter()

    def take(self, node: Node, session: str, *entries: ReportEntry) -> list[str]:
        """Report these, a Report for each class; what is said at once."""
        said = []
        for traffic in Traffic:
            mine = tuple(each for each in entries if (each.key.resource.group == DEVICES.group) is (traffic is DEVICE))
            if mine:
                first = self._numbers[session, traffic] + 1
                self._numbers[session, traffic] += len(mine)
                said += told(self.accept(node, session, Report(first, mine, traffic)))
        return said

    def done(self, write: Write, outcome: Outcome, now: float) -> list[str]:
        return told(self.finished(write, outcome, now))


def told(acknowledgements: Iterable[Acknowledgement[str]]) -> list[str]:
    """Each as a line: the session, and by number what became of its entries; those of devices begin with a d."""
    lines = []
    for session, (traffic, settled, refused, later), reports in acknowledgements:
        assert ([number for number, _ in refused] and len(reports) == len(refused)) or not reports
        letter = "d" if traffic is DEVICE else ""
        words = [f"{letter}{first}-{last}" if last > first else f"{letter}{first}" for first, last in settled]
        words += [f"{letter}{number} {reason}" for number, reason in refused]
        words += [f"{letter}{first}-{last} later" for first, last in later]
        lines.append(f"{session}: {', '.join(words)}")
    return lines


def new(min_interval_s: float = 0.5) -> Desk:
    return Desk(min_interval_s=min_interval_s)


def test_the_first_report_is_written_at_once_and_acknowledged_when_taken() -> None:
    reports = new()
    assert reports.take(EDGE, "s", entry("10")) == []
    (write,) = reports.due(0.0, 8)
    assert (write.key, write.node, values(write), write.failures) == (LAMP, EDGE, {"level": "10"}, 0)
    assert reports.done(write, Taken(), 0.1) == ["s: d1"]
    assert reports.due(99.0, 8) == []
    assert len(reports) == 0


def test_what_is_longer_than_anything_that_is_reported_is_not_read() -> None:
    reports = new()
    long = '"' + "x" * MAX_OTHER_BYTES + '"'
    [said] = reports.take(EDGE, "s", ReportEntry(LAMP, "state", long.encode()))
    assert said == f"s: d1 the value has {MAX_OTHER_BYTES + 2} bytes of JSON, and at most {MAX_OTHER_BYTES} are read"
    control = entry("\x01" * MAX_VALUE_BYTES)
    assert len(control.value) > MAX_OTHER_BYTES
    assert reports.take(EDGE, "s", control) == [], "any value that a property may have is read"
    for_ever = json.dumps({"value": "1", "observedAt": 1, "more": "x" * MAX_PROPERTY_BYTES}).encode()
    [said] = reports.take(EDGE, "s", ReportEntry(LAMP, "property/level", for_ever))
    assert "bytes of JSON" in said


def test_of_a_report_longer_than_its_window_the_rest_is_handed_back_unread() -> None:
    reports = new()
    long = tuple(entry("x" * 15_000, f"property/p{number}") for number in range(6))
    assert reports.take(EDGE, "s", *long) == ["s: d5-6 later"]
    assert reports.handed_back == 2


def test_writes_of_one_object_are_spaced_and_carry_the_last_value() -> None:
    reports = new(0.5)
    reports.take(EDGE, "s", entry("0"))
    (first,) = reports.due(0.0, 8)
    for number in range(2, 100):
        reports.take(EDGE, "s", entry(str(number)))
    assert reports.due(0.3, 8) == []  # one is under way
    assert reports.done(first, Taken(), 0.3) == ["s: d1"]
    assert reports.due(0.4, 8) == []
    assert reports.next_deadline() == 0.5
    (second,) = reports.due(0.5, 8)
    assert values(second) == {"level": "99"}
    assert reports.done(second, Taken(), 0.6) == ["s: d2-99"]


def test_objects_do_not_wait_for_each_other() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"), entry("2", key=FAN))
    assert [write.key for write in reports.due(0.0, 1)] == [LAMP]
    assert [write.key for write in reports.due(0.0, 1)] == [FAN]


def test_each_entry_is_acknowledged_by_itself() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"), entry("2", key=FAN))
    lamp, fan = reports.due(0.0, 8)
    assert reports.done(fan, Taken(), 0.1) == ["s: d2"]
    assert reports.done(lamp, Taken(), 0.2) == ["s: d1"]


def test_a_value_that_was_followed_by_another_is_settled_with_it() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"), entry("a", "property/mode"))
    reports.take(EDGE, "s", entry("2"))
    (write,) = reports.due(0.0, 8)
    assert values(write) == {"level": "2", "mode": "a"}
    assert reports.done(write, Taken(), 0.1) == ["s: d1-3"]


def test_a_later_value_does_not_settle_what_an_earlier_write_carries() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"))
    (write,) = reports.due(0.0, 8)
    reports.take(EDGE, "s", entry("2"))
    assert reports.done(write, Taken(), 0.1) == ["s: d1"]


def test_what_may_not_be_reported_is_refused_at_once() -> None:
    reports = new()
    assert reports.take(OTHER, "s", entry("1"), ReportEntry(LAMP, "state", b"{")) == [
        "s: d1 not yours, d2 not yours",
    ]
    assert reports.take(EDGE, "t", ReportEntry(LAMP, "state", b"{")) == ["t: d1 the value is not JSON"]
    assert len(reports) == 0


def test_what_is_reported_in_the_wrong_class_is_refused() -> None:
    [(_, ack, _)] = new().accept(EDGE, "s", Report(1, (entry("1"),)))
    assert ack.refused[0].reason == "devices.devices.kubeedge.io is not reported among infrastructure"


def test_more_refusals_than_a_frame_holds_are_told_in_several() -> None:
    rejected = [ReportEntry(LAMP, f"property/{n}", b"{") for n in range(MAX_REFUSED + 1)]
    found = new().accept(EDGE, "s", Report(1, tuple(rejected), DEVICE))
    assert [len(ack.refused) for _, ack, _ in found] == [MAX_REFUSED, 1]
    assert {number for _, ack, _ in found for number, _ in ack.refused} == set(range(1, MAX_REFUSED + 2))


def test_refusals_are_counted_by_their_cause() -> None:
    reports = new()
    reports.take(OTHER, "s", entry("1"))
    reports.take(EDGE, "s", ReportEntry(LAMP, "state", b"{"), entry("1"), entry("2", key=FAN))
    for write in reports.due(0.0, 8):
        reports.done(write, Refused("no right", cause="Forbidden"), 0.1)
    reports.take(EDGE, "s", entry("1"), entry("2", "property/mode"))
    (write,) = reports.due(1.0, 8)
    reports.done(write, Taken({"property/mode": "no such"}), 1.0)
    assert reports.refused == {NOT_ITS_OWN: 2, MALFORMED: 1, "Forbidden": 2}


def test_the_apiserver_may_refuse_one_value_of_a_write() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"), entry("2", "property/mode"))
    (write,) = reports.due(0.0, 8)
    [(_, _, refused)] = reports.finished(write, Taken({"property/mode": "no such"}), 0.1)
    assert refused == (RefusedReport(LAMP, "property/mode", "no such"),)


def test_a_refused_write_is_taken_apart_to_find_the_value_to_blame() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("good"), entry("bad", "property/mode"), entry("fine", "property/extra"))
    now, found, sizes = 0.0, [], []
    while writes := reports.due(now, 8):
        (write,) = writes
        sizes.append(len(write.values))
        bad = "property/mode" in write.values
        found += reports.done(write, Refused("422", divisible=True) if bad else Taken(), now)
        now += 1.0
    assert sorted(found) == ["s: d1", "s: d2 422", "s: d3"]
    assert sizes == [3, 1, 1, 1]


def test_without_the_value_to_blame_the_conditions_are_brought_up_to_date() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("bad"))
    (write,) = reports.due(0.0, 8)
    assert len(reports.done(write, Refused("422", divisible=True), 0.0)) == 1
    (after,) = reports.due(0.5, 8)
    assert after.values == {}
    reports.done(after, Refused("422", divisible=True), 0.5)
    assert reports.due(99.0, 8) == []


def test_a_refusal_that_has_nothing_to_do_with_values_is_for_all_of_them() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"), entry("2", "property/mode"))
    (write,) = reports.due(0.0, 8)
    assert reports.done(write, Refused("forbidden"), 0.1) == ["s: d1 forbidden, d2 forbidden"]
    assert reports.due(99.0, 8) == []


def test_a_failed_write_is_repeated_with_what_came_in_between() -> None:
    reports = new(0.5)
    reports.take(EDGE, "s", entry("1"), entry("a", "property/mode"))
    (write,) = reports.due(0.0, 8)
    reports.take(EDGE, "s", entry("2"))
    assert reports.done(write, Retry(3.0), 1.0) == []
    assert reports.due(3.9, 8) == []
    (again,) = reports.due(4.0, 8)
    assert (values(again), again.failures) == ({"level": "2", "mode": "a"}, 1)
    assert reports.done(again, Taken(), 4.1) == ["s: d1-3"]
    reports.take(EDGE, "s", entry("3"))
    (third,) = reports.due(9.0, 8)
    assert third.failures == 0


def test_a_conflict_is_repeated_at_once() -> None:
    reports = new(0.5)
    reports.take(EDGE, "s", entry("1"))
    (write,) = reports.due(0.0, 8)
    reports.done(write, Retry(0.0), 0.01)
    assert len(reports.due(0.01, 8)) == 1


def failing(reports: Desk, now: float, *, with_others: bool) -> tuple[list[str], float]:
    """Let the lamp's writes fail as often as it takes, while the fan's are taken or not; what was said, and when."""
    said = []
    for _ in range(HAND_BACK_AFTER):
        if with_others:
            reports.take(EDGE, "s", entry(str(now), key=FAN))
        for write in reports.due(now, 8):
            said += reports.done(write, Retry(0.1) if write.key == LAMP else Taken(), now)
        now += 1.0
    return said, now


def test_an_object_that_fails_while_others_are_taken_is_handed_back() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"))
    said, now = failing(reports, 0.0, with_others=True)
    assert "s: d1-1 later" in said
    assert reports.handed_back == 1
    assert reports.take(EDGE, "s", entry("2")) == ["s: d5-5 later"], "at once, until it works again"
    (probe,) = reports.due(now, 8)
    assert (probe.key, probe.values) == (LAMP, {}), "brought up to date without the values"
    reports.done(probe, Taken(), now)
    assert reports.take(EDGE, "s", entry("3")) == []
    (write,) = reports.due(now + 1, 8)
    assert reports.done(write, Taken(), now) == ["s: d6"]


def test_a_conflict_is_no_reason_to_hand_back() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"))
    for now in range(4 * HAND_BACK_AFTER):
        reports.take(EDGE, "s", entry(str(now), key=FAN))
        for write in reports.due(float(now), 8):
            reports.done(write, Retry(0.1, is_conflict=True) if write.key == LAMP else Taken(), float(now))
    assert reports.handed_back == 0
    (write,) = (each for each in reports.due(99.0, 8) if each.key == LAMP)
    assert "s: d1" in reports.done(write, Taken(), 99.0)[0]


def test_nothing_is_handed_back_where_everything_fails() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"))
    said, now = failing(reports, 0.0, with_others=False)
    assert said == []
    (write,) = reports.due(now, 8)
    assert write.failures == HAND_BACK_AFTER
    assert reports.done(write, Taken(), now) == ["s: d1"]


def test_what_the_apiserver_has_no_time_for_waits_and_everything_with_it() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"), event(1))
    node_events, lamp = reports.due(0.0, 8)
    reports.done(node_events, Taken(), 0.0)
    assert reports.done(lamp, Retry(3.0, is_everybody=True), 0.0) == []
    reports.take(EDGE, "s", entry("2", key=FAN), event(2))
    assert reports.due(1.0, 8) == []
    assert reports.next_deadline() == 3.0
    assert [write.key.resource.plural for write in reports.due(3.0, 8)] == ["events", "devices", "devices"]


def many(count: int, prefix: str) -> list[ObjectKey]:
    return [ObjectKey(DEVICES, "default", f"{prefix}{number}") for number in range(count)]


def test_a_node_that_reports_of_many_devices_delays_another_by_one_write() -> None:
    owners = Owners()
    noisy = many(1000, "noisy")
    owners.of |= dict.fromkeys(noisy, EDGE) | {LAMP: OTHER}
    reports = Desk(owners)
    reports.take(EDGE, "s", *(entry("1", key=key) for key in noisy))
    first = reports.due(0.0, WRITES)
    assert len(first) == WRITES - KEPT_FOR_INFRASTRUCTURE
    reports.take(OTHER, "t", entry("1"))
    reports.done(first[0], Taken(), 0.1)
    assert LAMP in [write.key for write in reports.due(0.1, 2)]


def test_a_node_takes_half_of_the_writes_where_others_wait() -> None:
    owners = Owners()
    one, other = many(20, "one"), many(20, "other")
    owners.of |= dict.fromkeys(one, EDGE) | dict.fromkeys(other, OTHER)
    reports = Desk(owners)
    reports.take(EDGE, "s", *(entry("1", key=key) for key in one))
    reports.take(OTHER, "t", *(entry("1", key=key) for key in other))
    nodes = [write.node for write in reports.due(0.0, WRITES)]
    assert sorted(nodes.count(node) for node in (EDGE, OTHER)) == [3, NODE_WRITES]


def test_where_the_loop_is_busy_devices_are_written_one_by_one_and_infrastructure_as_ever() -> None:
    reports = new()
    reports.came_round(1.0)
    reports.take(EDGE, "s", entry("1"), entry("2", key=FAN))
    (first,) = reports.due(0.0, WRITES)
    assert reports.due(0.0, WRITES) == []
    reports._admit = lambda *_: None
    reports.take(EDGE, "s", event(1))
    assert [write.key.resource.plural for write in reports.due(0.0, WRITES)] == ["events"]
    reports.done(first, Taken(), 0.01)
    assert [write.key for write in reports.due(0.01, WRITES)] == [FAN]


def test_one_devices_write_that_hangs_does_not_hold_up_others_where_the_loop_is_busy() -> None:
    reports = new()
    reports.came_round(1.0)
    reports.take(EDGE, "s", entry("1"), entry("2", key=FAN))
    assert [write.key for write in reports.due(0.0, WRITES)] == [LAMP]
    assert reports.next_deadline() == YOUNG_S
    assert [write.key for write in reports.due(YOUNG_S, WRITES)] == [FAN]
    assert reports.next_deadline() is None


def test_infrastructure_goes_first_and_leaves_devices_something() -> None:
    reports = new()
    nodes = [Node(f"n{number}") for number in range(20)]
    reports.take(EDGE, "s", entry("1"), entry("2", key=FAN))
    for node in nodes:
        reports._admit = lambda *_: None
        reports.take(node, str(node), event(1))
    kinds = [write.key.resource.plural for write in reports.due(0.0, WRITES)]
    assert kinds == ["events"] * (WRITES - KEPT_FOR_DEVICES) + ["devices"] * KEPT_FOR_DEVICES


def test_a_session_that_closes_takes_its_values_along_unless_they_are_under_way() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"), entry("2", key=FAN))
    (write,) = reports.due(0.0, 1)
    reports.close("s")
    reports.close("s")
    assert reports.done(write, Retry(0.0), 0.1) == []
    (again,) = reports.due(99.0, 8)
    assert values(again) == {}  # conditions only
    assert reports.take(EDGE, "t", entry("3")) == []
    assert reports.done(again, Taken(), 99.0) == []
    (write,) = reports.due(100.0, 8)
    assert values(write) == {"level": "3"}
    assert reports.done(write, Taken(), 100.0) == ["t: d1"]


def test_a_value_that_two_sessions_reported_stays_for_the_one_that_is_left() -> None:
    reports = new()
    reports.take(EDGE, "old", entry("1"))
    reports.take(EDGE, "new", entry("1"))
    reports.close("old")
    (write,) = reports.due(0.0, 8)
    assert reports.done(write, Taken(), 0.1) == ["new: d1"]


def test_a_device_that_moves_leaves_the_old_nodes_values_behind() -> None:
    owners = Owners()
    reports = Desk(owners)
    reports.take(EDGE, "s", entry("1"), entry("a", "property/mode"))
    owners.of[LAMP] = OTHER
    assert reports.take(OTHER, "t", entry("2")) == [f"s: d1 {MOVED}, d2 {MOVED}"]
    (write,) = reports.due(0.0, 8)
    assert (write.node, values(write)) == (OTHER, {"level": "2"})


def test_a_device_that_moves_while_a_write_fails_does_not_mix_nodes() -> None:
    owners = Owners()
    reports = Desk(owners)
    reports.take(EDGE, "s", entry("a", "property/mode"))
    (write,) = reports.due(0.0, 8)
    owners.of[LAMP] = OTHER
    reports.take(OTHER, "t", entry("2"))
    assert reports.done(write, Retry(0.0), 0.1) == [f"s: d1 {MOVED}"]
    (write,) = reports.due(1.0, 8)
    assert (write.node, values(write)) == (OTHER, {"level": "2"})


def test_a_touch_gives_a_write_of_nothing_and_joins_a_report() -> None:
    reports = new()
    reports.touch(LAMP)
    reports.touch(LAMP)
    (write,) = reports.due(0.0, 8)
    assert (write.node, write.values) == ("", {})
    reports.touch(LAMP)
    assert reports.done(write, Taken(), 0.1) == []
    reports.take(EDGE, "s", entry("1"))
    (write,) = reports.due(0.5, 8)
    assert values(write) == {"level": "1"}
    reports.done(write, Taken(), 0.6)
    assert reports.due(99.0, 8) == []


def test_a_touch_may_wait_and_a_report_does_not_wait_with_it() -> None:
    reports = new()
    reports.touch(LAMP, 1.0)
    reports.touch(LAMP, 2.0)
    assert reports.due(0.9, 8) == []
    assert reports.next_deadline() == 1.0
    reports.take(EDGE, "s", entry("1"))
    (write,) = reports.due(0.9, 8)
    assert values(write) == {"level": "1"}
    reports.touch(LAMP, 1.0)
    reports.done(write, Taken(), 0.9)
    (write,) = reports.due(9.0, 8)
    reports.done(write, Taken(), 9.0)
    assert reports.due(99.0, 8) == []
    reports.touch(LAMP, 100.0)
    (write,) = reports.due(100.0, 8)
    assert write.values == {}


def test_a_touch_is_repeated_when_it_fails() -> None:
    reports = new()
    reports.touch(LAMP)
    (write,) = reports.due(0.0, 8)
    reports.done(write, Retry(1.0), 0.0)
    (again,) = reports.due(1.0, 8)
    assert again.failures == 1
    reports.done(again, Refused("gone"), 1.0)
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
    reports.take(EDGE, "s", event(1), event(2), entry("1"))
    first, lamp = reports.due(0.0, 8)
    assert (first.key, first.node, names(first), lamp.key) == (events_of(EDGE), EDGE, ["lamp.e1"], LAMP)
    assert reports.due(0.01, 8) == []
    assert reports.done(lamp, Taken(), 0.01) == ["s: d1"]
    assert reports.done(first, Taken(), 0.01) == ["s: 1"]
    (second,) = reports.due(EVENT_INTERVAL_S, 8)
    assert names(second) == ["lamp.e2"]
    assert reports.done(second, Taken(), 0.03) == ["s: 2"]
    assert (reports.taken_count, reports.refused.total()) == (3, 0)


def test_a_flood_of_events_has_one_writer_and_one_rate() -> None:
    reports = new()
    for number in range(1, 200):
        reports.take(EDGE, "s", event(number))
    written, now = 0, 0.0
    while now < 1.0:
        for write in reports.due(now, 8):
            written += len(write.values)
            reports.finished(write, Taken(), now)
        now += 0.001
    assert written == pytest.approx(1 / EVENT_INTERVAL_S, abs=2)


def test_an_object_that_is_told_to_come_back_later_while_others_are_taken_stops_nobody_for_long() -> None:
    reports = new()
    reports.take(EDGE, "s", entry("1"))
    (lamp,) = reports.due(0.0, 8)
    reports.done(lamp, Retry(86400.0, is_everybody=True), 0.0)
    reports.take(EDGE, "s", entry("1", key=FAN))
    assert reports.due(MAX_PAUSE_S - 1, 8) == []
    fan, lamp = sorted(reports.due(MAX_PAUSE_S, 8), key=lambda write: write.key.name)
    assert reports.done(fan, Taken(), 61.0) == ["s: d2"]
    assert reports.done(lamp, Retry(86400.0, is_everybody=True), 61.0) == []
    reports.take(EDGE, "s", entry("2", key=FAN))
    (fan,) = reports.due(62.0, 8)
    assert fan.key == FAN, "it is its own trouble"
    reports.done(fan, Taken(), 62.0)
    (lamp,) = reports.due(61.0 + MAX_PAUSE_S, 8)
    assert reports.done(lamp, Retry(86400.0, is_everybody=True), 122.0) == ["s: d1-1 later"]


def test_what_was_there_already_says_nothing_of_an_apiserver_that_is_down() -> None:
    reports, now = new(), 0.0
    reports.take(EDGE, "s", entry("1"))
    while now < 20.0:
        reports.touch(FAN)
        for write in reports.due(now, 8):
            assert reports.done(write, Retry(0.3) if write.values else Taken(is_written=False), now) == []
        now += 0.1


def test_an_event_that_is_refused_is_named_as_it_was_reported() -> None:
    reports = new()
    reports.take(EDGE, "s", event(1), event(2))
    (write,) = reports.due(0.0, 8)
    [(_, _, refused)] = reports.finished(write, Refused("no right"), 0.0)
    assert refused == (RefusedReport(event(1).key, "event", "no right"),)
    (write,) = reports.due(1.0, 8)
    assert reports.done(write, Taken(), 1.0) == ["s: 2"]
    assert (reports.taken_count, +reports.refused) == (1, {NOT_ITS_OWN: 1})


def test_an_event_that_could_not_be_written_is_written_later() -> None:
    reports = new()
    reports.take(EDGE, "s", event(1))
    (write,) = reports.due(0.0, 8)
    assert reports.done(write, Retry(2.0), 0.1) == []
    assert reports.due(2.0, 8) == []
    (again,) = reports.due(2.1, 8)
    assert (names(again), again.failures) == (["lamp.e1"], 1)
    assert reports.done(again, Taken(), 2.2) == ["s: 1"]
    assert reports.due(99.0, 8) == []
    assert len(reports) == 0


def test_events_that_fail_hold_up_no_others_of_their_node() -> None:
    reports, now, good, later = new(), 0.0, list[tuple[str, float]](), list[str]()
    reports.take(EDGE, "s", *map(event, range(1, 31)))

    def run(seconds: float) -> None:
        nonlocal now, later
        until = now + seconds
        while now < until:
            later += reports.take(OTHER, "other", entry("1", key=GATE))
            for write in reports.due(now, 8):
                bad = write.key == events_of(EDGE) and int(names(write)[0].removeprefix("lamp.e")) <= 20
                outcome = Retry(min(15.0, 0.25 * 2**write.failures)) if bad else Taken()
                good.extend((name, now) for name in names(write) if not bad)
                later += reports.done(write, outcome, now)
            now += 0.05

    owners = reports._admit
    assert isinstance(owners, Owners)
    owners.of[GATE] = OTHER
    run(120.0)
    assert [name for name, _ in good] == [f"lamp.e{number}" for number in range(21, 31)]
    assert good[-1][1] < 20.0
    assert sum("later" in each for each in later) == 20, "each was handed back, and no other"
    reports.take(EDGE, "s", *map(event, range(1, 21)), event(31))
    later.clear()
    run(60.0)
    assert good[-1][0] == "lamp.e31"
    assert sum("later" in each for each in later) == 20


def test_events_of_a_session_that_closed_are_forgotten() -> None:
    reports = new()
    reports.take(EDGE, "s", event(1), event(2))
    (write,) = reports.due(0.0, 8)
    reports.close("s")
    assert reports.done(write, Taken(), 0.1) == []
    assert reports.due(99.0, 8) == []


def test_an_event_is_admitted_by_what_it_is_about() -> None:
    reports = new()
    assert reports.take(OTHER, "s", event(1)) == ["s: 1 not yours"]
    wrong = event(1)._replace(key=event(2).key)
    assert reports.take(EDGE, "s", wrong) == ["s: 2 the Event is default/lamp.e1, not what its report says"]
    assert reports.take(EDGE, "s", event(1)._replace(value=b"{}")) == ["s: 3 type must be Normal or Warning"]
    [said] = reports.take(EDGE, "s", event(1)._replace(key=LAMP))
    assert "has no field" in said


# ---- values


NODE = ObjectKey(NODES, "", "edge-1")


# ---- any history


class ReportsMachine(RuleBasedStateMachine):
    """An apiserver that takes, refuses and fails as it likes, sessions that come and go: nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.reports = new(0.5)
        self.now = 0.0
        self.session = 0
        self.told: dict[int, tuple[tuple[ObjectKey, str], str]] = {}
        """What each entry of this session said that is not acknowledged."""
        self.count_told = 0
        self.last: dict[tuple[ObjectKey, str], str] = {}
        """The last value that the edge reported, of all sessions."""
        self.refused: set[tuple[ObjectKey, str]] = set()
        """Fields whose last value was refused."""
        self.left: dict[tuple[ObjectKey, str], str] = {}
        """What was handed back and was not reported again."""
        self.apiserver: dict[tuple[ObjectKey, str], str | None] = {}
        self.running: list[Write] = []
        self.started: defaultdict[ObjectKey, float] = defaultdict(lambda: -1.0)
        self.count = 0

    @initialize()
    def begin(self) -> None:
        self.session = 1

    @rule(what=st.lists(st.tuples(st.sampled_from([LAMP, FAN]), st.sampled_from(["a", "b"])), max_size=3))
    def report(self, what: list[tuple[ObjectKey, str]]) -> None:
        said: dict[tuple[ObjectKey, str], str] = {}
        for key, name in what:
            self.count += 1
            said[key, f"property/{name}"] = str(self.count)
        self.say(said)

    @rule()
    def report_again(self) -> None:
        """What was handed back."""
        left, self.left = self.left, {}
        self.say(left)

    def say(self, said: dict[tuple[ObjectKey, str], str]) -> None:
        self.last |= said
        self.refused -= said.keys()
        first = self.count_told + 1
        for place, value in said.items():
            self.left.pop(place, None)
            self.count_told += 1
            self.told[self.count_told] = (place, value)
        entries = tuple(entry(value, field, key) for (key, field), value in said.items())
        self.take(self.reports.accept(EDGE, str(self.session), Report(first, entries, DEVICE)))

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
    @rule(
        outcome=st.sampled_from(
            [Taken(), Retry(0.0), Retry(1.0), Retry(2.0, True), Refused("no"), Refused("422", True)]
        )
    )
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
        places = {place for place, _ in self.told.values()} | self.left.keys()
        self.session, self.count_told, self.told, self.left = self.session + 1, 0, {}, {}
        self.say({place: self.last[place] for place in sorted(places - self.refused, key=str)})

    def take(self, acknowledgements: list[Any]) -> None:
        for session, (traffic, settled, refused, later), _ in acknowledgements:
            assert traffic is DEVICE
            if session != str(self.session):
                continue
            for first, last in settled:
                for number in range(first, last + 1):
                    place, value = self.told.pop(number)  # each once
                    assert int(self.apiserver.get(place) or 0) >= int(value), "what is settled is there"
            for number, _ in refused:
                self.refused.add(self.told.pop(number)[0])
            for first, last in later:
                for number in range(first, last + 1):
                    place, value = self.told.pop(number)
                    if value == self.last[place]:
                        self.left[place] = value

    def teardown(self) -> None:
        for write in self.running:
            self.perform(write, Taken())
        for _ in range(8):
            self.report_again()
            self.now += 30.0
            for write in self.reports.due(self.now, 8):
                self.perform(write, Taken())
        assert not self.told, "everything is acknowledged in the end"
        assert not self.left
        for place, value in self.last.items():
            if place not in self.refused:
                assert self.apiserver[place] == value, "the last report wins"
        assert self.reports.next_deadline() is None
        assert len(self.reports) == 0


TestReportsMachine = ReportsMachine.TestCase
TestReportsMachine.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


def test_while_the_cluster_changes_something_a_nodes_devices_rest_between_two_writes() -> None:
    owners, is_changing = Owners(), True
    reports = Desk(owners, yields=lambda: is_changing)
    here = [ObjectKey(DEVICES, "default", f"here-{number}") for number in range(4)]
    owners.of |= {**dict.fromkeys(here, EDGE), GATE: OTHER}
    reports.take(EDGE, "s", *(entry("1", key=key) for key in here))
    reports.take(OTHER, "t", entry("1", key=GATE))
    first, other = reports.due(0.0, 8)
    assert (first.key, other.key) == (here[0], GATE), "nodes do not wait for each other"
    reports.done(first, Taken(), 0.02)
    assert reports.due(0.02, 8) == []
    assert reports.next_deadline() == 0.02 + REST * 0.02
    [second] = reports.due(0.02 + REST * 0.02, 8)
    assert second.key == here[1]
    is_changing = False
    assert [write.key for write in reports.due(0.09, 8)] == here[2:], "and do not rest where nothing changes"


def test_while_the_cluster_changes_something_a_node_whose_writes_hang_leaves_others_theirs() -> None:
    owners = Owners()
    reports = Desk(owners, yields=lambda: True)
    here, there = ([ObjectKey(DEVICES, "default", f"{name}-{at}") for at in range(20)] for name in ("here", "there"))
    owners.of |= {**dict.fromkeys(here, EDGE), **dict.fromkeys(there, OTHER)}
    reports.take(EDGE, "s", *(entry("1", key=key) for key in here))
    reports.take(OTHER, "t", *(entry("1", key=key) for key in there))
    hanging: list[Write] = []
    written: list[ObjectKey] = []
    for step in range(10):
        now = step * (REST + 2) * YOUNG_S
        for write in reports.due(now, WRITES - len(hanging)):
            if write.node == EDGE:
                hanging.append(write)
            else:
                written.append(write.key)
                reports.done(write, Taken(), now + YOUNG_S)
    assert (len(hanging), written) == (NODE_WRITES, there[:10])


def test_of_a_node_at_rest_what_is_no_device_is_written_at_once() -> None:
    reports = Desk(yields=lambda: True)
    reports.take(EDGE, "s", entry("1"), entry("1", key=FAN))
    assert len(reports.due(0.0, 8)) == 1
    reports.take(EDGE, "s", event(1))
    [write] = reports.due(0.0, 8)
    assert write.key == events_of(EDGE)


def test_what_is_brought_up_to_date_is_so_in_the_turns_of_its_node() -> None:
    reports = Desk(yields=lambda: True)
    reports.touch(LAMP, node=EDGE)
    reports.touch(FAN, node=EDGE)
    reports.touch(GATE, node=OTHER)
    writes = reports.due(0.0, 8)
    assert [(write.key, write.node, write.turn) for write in writes] == [
        (LAMP, Node(""), EDGE),
        (GATE, Node(""), OTHER),
    ]
    reports.done(writes[0], Taken(), 0.02)
    assert [write.key for write in reports.due(0.02 + REST * 0.02, 8)] == [FAN]
