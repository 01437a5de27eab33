"""What waits to go up: in order, once, bounded, and still there after a restart."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apimachinery.keys import ObjectKey
from apimachinery.resources import DEVICES
from link.frames import MAX_REPORT_ENTRIES, RefusedReport, ReportEntry, Traffic
from metamanager.opening import open_records
from metamanager.outbox import MAX_EVENT_BYTES, MAX_EVENTS, Outbox
from tests.harness.store_history import GADGETS, event_of, report_of


@contextmanager
def opened(directory: Path) -> Iterator[Outbox]:
    database, records = open_records(directory / "edge.db")
    try:
        yield records.outbox
    finally:
        database.close()


def test_reports_come_in_order_and_at_least_one_at_a_time(tmp_path: Path) -> None:
    def report(name: str, value: bytes) -> ReportEntry:
        return ReportEntry(ObjectKey(GADGETS, "default", name), "state", value)

    with opened(tmp_path) as outbox:
        outbox.save({}, [report("a", b"1"), report("b", b"2" * 500), report("a", b"3")])
        rows = outbox.pending(0, 1)
        assert [(seq, entry.key.name) for seq, entry in rows] == [(2, "b")]
        rows = outbox.pending(2, 1000)
        assert rows == [(3, report("a", b"3"))]
        outbox.settle(range(3), [], 0)
        outbox.save({}, [report("a", b"4")])
        outbox.settle(range(4), [], 0)
        assert outbox.pending(0, 1000) == [(4, report("a", b"4"))]
        outbox.settle(range(5), [], 0)
    with opened(tmp_path) as outbox:
        outbox.save({}, [report("a", b"5")])
        assert outbox.pending(0, 1000) == [(5, report("a", b"5"))], "a number was given twice"


def test_no_more_reports_are_given_at_once_than_a_frame_may_have(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        many = [ReportEntry(ObjectKey(GADGETS, "d", str(n)), "s", b"1") for n in range(MAX_REPORT_ENTRIES + 1)]
        outbox.save({}, many)
        rows = outbox.pending(0, 1 << 20)
        assert len(rows) == MAX_REPORT_ENTRIES
        assert len(outbox.pending(rows[-1][0], 1 << 20)) == 1


def test_events_go_up_among_the_reports_in_their_order(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.save({}, [report_of(1)])
        outbox.save({}, [], [event_of(1)])
        outbox.save({}, [report_of(2)], [event_of(2)])
        rows = outbox.pending(0, 1 << 20)
        assert [(row, entry.field) for row, entry in rows] == [
            (1, "property/1"),
            (2, "event"),
            (3, "property/2"),
            (4, "event"),
        ]
        assert rows[1][1].key == event_of(1).key
        assert [row for row, _ in outbox.pending(2, 1)] == [3]
        outbox.settle(range(4), [], 0)
        assert (outbox.report_count, outbox.event_count) == (0, 1)
    with opened(tmp_path) as outbox:
        outbox.settle(range(5), [], 0)
        outbox.save({}, [], [event_of(3)])
        outbox.save({}, [report_of(3)])
        rows = outbox.pending(0, 1 << 20)
        assert [row for row, _ in rows] == [5, 6], "a number was given twice"


def test_reports_of_devices_are_read_apart_from_the_others(tmp_path: Path) -> None:
    lamp = ReportEntry(ObjectKey(DEVICES, "default", "lamp"), "state", b"1")
    with opened(tmp_path) as outbox:
        outbox.save({}, [report_of(1), lamp], [event_of(1)])
        outbox.save({}, [lamp._replace(field="property/level")])
        rows = {traffic: [row for row, _ in outbox.pending(0, 1 << 20, traffic)] for traffic in (*Traffic, None)}
        assert rows == {Traffic.DEVICES: [2, 4], Traffic.INFRASTRUCTURE: [1, 3], None: [1, 2, 3, 4]}
        outbox.settle([4, 3], [], 0)
        assert [row for row, _ in outbox.pending(0, 1 << 20)] == [1, 2], "those and no others"


def test_too_many_events_cost_the_oldest_and_are_counted(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.save({}, [report_of(1)], [event_of(number) for number in range(MAX_EVENTS + 10)])
        outbox.save({}, [], [event_of(999)])
        rows = outbox.pending(0, 1 << 20)
        assert [entry.key for _, entry in rows[1:3]] == [event_of(11).key, event_of(12).key]
        assert rows[0][1] == report_of(1), "an Event never costs a report"
    with opened(tmp_path) as outbox:
        assert (outbox.event_count, outbox.events_dropped) == (MAX_EVENTS, 11)


def test_large_events_are_bounded_by_their_bytes(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        for start in range(0, 2 * MAX_EVENTS, 100):
            large = [event_of(start + number)._replace(message="m" * 1024) for number in range(100)]
            outbox.save({}, [], large)
        rows = outbox.pending(0, 1 << 24)
        assert len(rows) < MAX_EVENTS
        assert MAX_EVENT_BYTES - 2000 < sum(len(entry.value) for _, entry in rows) <= MAX_EVENT_BYTES
        assert outbox.events_dropped == 600 - len(rows)


def test_a_refused_report_is_parked_with_its_row(tmp_path: Path) -> None:
    key, field, _ = report_of(1)
    with opened(tmp_path) as outbox:
        outbox.save({}, [report_of(1), report_of(2)])
        outbox.settle([1], [RefusedReport(key, field, "no right")], 5)
        assert outbox.report_count == 1
    with opened(tmp_path) as outbox:
        parked = outbox.parked()
        assert parked.total == 1
        assert [tuple(each) for each in parked.last] == [(str(key), field, "no right", 5)]


def test_documents_are_found_by_the_beginning_of_their_names(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.save({"twin/a": b"1", "twin/b": b"2", "other": b"3"}, [])
        outbox.save({"twin/a": None, "twin/b": b"4"}, [])
    with opened(tmp_path) as outbox:
        assert outbox.documents("twin/") == {"twin/b": b"4"}
        assert outbox.counts == (0, 0, 0)
