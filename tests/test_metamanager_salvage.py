"""Tests for metamanager.salvage: what comes out of a database with a page gone."""

import re
import sqlite3
from pathlib import Path

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.resources import CONFIG_MAPS, EVENTS
from metamanager.interestrows import RememberedInterest
from metamanager.opening import open_records
from metamanager.overlay import LocalWrite
from metamanager.salvage import salvage
from tests.harness.store_history import event_of, report_of

REPORTS = 400
WRITE = LocalWrite(1, ObjectKey(EVENTS, "default", "e"), "", "u", True, "", 0, 5, b'{"metadata":{"name":"e"}}')
INTEREST = RememberedInterest(CONFIG_MAPS, "default", "", "", 5, True)
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Reports on many pages, each of its own field."""
    path = tmp_path / "edge.db"
    database, records = open_records(path)
    reports = [report_of(number)._replace(field=f"property/{number}", value=b"v" * 200) for number in range(REPORTS)]
    records.outbox.save({"twin/a": b"{}"}, reports, [event_of(1), event_of(2)])
    records.write_locally(WRITE, None)
    records.interests.remember([INTEREST])
    database.close()
    return path


def execute(path: Path, statement: str) -> int:
    connection = sqlite3.connect(path)
    try:
        row = connection.execute(statement).fetchone()
        connection.commit()
        return int(row[0]) if row else 0
    finally:
        connection.close()


def test_everything_comes_out_of_what_is_whole(path: Path) -> None:
    found = salvage(path)
    assert [entry.field for entry in found.reports] == [f"property/{number}" for number in range(REPORTS)]
    assert found.whole
    assert found.documents == {"twin/a": b"{}"}
    assert found.events == [event_of(1), event_of(2)]
    assert [write._replace(revision=0) for write in found.writes] == [WRITE]
    assert found.interests == [INTEREST._replace(complete=False)], "what it selects is to be fetched again"


def test_a_page_that_is_lost_costs_what_is_on_it_and_the_documents(path: Path) -> None:
    content = path.read_bytes()
    row = re.search(rb"property/200.{0,8}vvvv", content, re.DOTALL)
    assert row is not None
    at = row.start() // PAGE * PAGE
    path.write_bytes(content[:at] + bytes(PAGE) + content[at + PAGE :])
    found = salvage(path)
    fields = [entry.field for entry in found.reports]
    assert REPORTS - 25 < len(fields) < REPORTS, "the pages before it and after it are read"
    assert fields == sorted(fields, key=lambda field: int(field.removeprefix("property/")))
    assert not found.whole
    assert found.documents == {}, "a twin that thinks its report was told would never tell it again"
    assert len(found.events) == 2


def test_a_row_with_other_bytes_is_left_out(path: Path) -> None:
    execute(path, "UPDATE reports SET value = x'78' WHERE field = 'property/7'")
    execute(path, "UPDATE events SET value = x'78' WHERE name LIKE '%1x'")
    found = salvage(path)
    assert len(found.reports) == REPORTS - 1
    assert not found.whole
    assert found.events == [event_of(2)]


def test_a_database_of_the_release_before_events_gives_what_it_has(path: Path) -> None:
    execute(path, "DROP TABLE events")
    found = salvage(path)
    assert (len(found.reports), found.whole, found.events) == (REPORTS, True, [])


def test_what_is_no_database_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "edge.db").write_bytes(b"something else" * 1000)
    assert salvage(tmp_path / "edge.db") == ({}, [], [], [], [], False)
