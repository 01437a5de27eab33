"""Files that are new, old, newer, foreign, damaged or half rebuilt: what opening makes of each."""

import os
import random
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from apimachinery.resources import CONFIG_MAPS
from link.frames import Cursor
from metamanager.errors import StoreCorrupt, StoreError, StoreNewer
from metamanager.migrations import SCHEMA
from metamanager.opening import KEPT_ASIDE, mark_corrupt, open_records
from tests.harness.store_history import batch, report_of, upsert

OBJECTS = 200
REPORTS = 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with objects, a document and reports, closed in good order."""
    path = tmp_path / "edge.db"
    database, records = open_records(path)
    deltas = [upsert(CONFIG_MAPS, f"c{i}", "x" * 500) for i in range(OBJECTS)]
    records.save({"twin/a": b"{}"}, [report_of(i) for i in range(REPORTS)])
    records.apply([batch(1, *deltas, synced=True)], 1)
    database.close()
    return path


def content(path: Path) -> "Content":
    """Objects, cursor, reports and documents."""
    database, records = open_records(path)
    try:
        reports = records.pending_reports(0, 1 << 20)
        return len(records.held()), records.cursor, len(reports), sorted(records.documents(""))
    finally:
        database.close()


Content = tuple[int, Cursor | None, int, list[str]]

INTACT: Content = (OBJECTS, Cursor("epoch", 1), REPORTS, ["twin/a"])
REBUILT: Content = (0, None, REPORTS, ["twin/a"])
EMPTY: Content = (0, None, 0, [])


def aside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.glob("edge.db.corrupt-*[0-9]"))


def test_a_database_is_found_as_it_was_left(path: Path) -> None:
    assert content(path) == INTACT
    assert aside(path) == []


@pytest.mark.parametrize("head", [b"", b"SQLite format 3\0"], ids=["nothing", "magic"])
def test_what_is_no_database_is_set_aside(tmp_path: Path, head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "edge.db"
    path.write_bytes(head + random.Random(1).randbytes(10_000))
    assert content(path) == EMPTY
    assert aside(path) == ["edge.db.corrupt-1"]
    assert "set aside and begun anew" in caplog.text


def test_a_lost_first_page_costs_the_objects(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(4096))
    assert content(path) == EMPTY
    assert len(aside(path)) == 1


def test_a_truncated_file_is_begun_anew_and_keeps_the_reports_that_can_be_read(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)
    objects, cursor, reports, _ = content(path)
    assert (objects, cursor) == (0, None)
    assert reports in (0, REPORTS)
    assert len(aside(path)) == 1


def root_page(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()[0])
    finally:
        connection.close()


def damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(random.Random(page).randbytes(4096))


def test_damaged_objects_do_not_cost_the_reports(path: Path) -> None:
    damage(path, root_page(path, "objects"))
    assert content(path) == REBUILT
    assert content(path) == REBUILT, "and the new database stays"
    assert aside(path) == ["edge.db.corrupt-1"]


def test_damaged_reports_do_not_cost_the_documents(path: Path) -> None:
    damage(path, root_page(path, "reports"))
    assert content(path) == (0, None, 0, ["twin/a"])


def test_random_damage_is_noticed_or_harmless(path: Path) -> None:
    """Whatever page is overwritten: either all is there, or reading says so, or the file was set aside."""
    whole = path.read_bytes()
    for page in range(1, len(whole) // 4096 + 1, 3):
        path.write_bytes(whole)
        damage(path, page)
        try:
            database, records = open_records(path)
        except StoreError as error:
            pytest.fail(f"page {page}: {error}")
        try:
            for held in records.held():
                stored = records.get(held.key)
                assert stored is not None
                assert stored.object.version == held.version
        except StoreCorrupt:
            pass
        finally:
            database.close()
        for found in path.parent.glob("edge.db.*"):
            found.unlink()


def test_a_mark_left_by_a_damaged_row_sets_the_file_aside(path: Path) -> None:
    mark_corrupt(path)
    assert content(path) == REBUILT
    assert content(path) == REBUILT
    assert aside(path) == ["edge.db.corrupt-1"]


def test_only_the_newest_files_are_kept_aside(path: Path) -> None:
    for _ in range(KEPT_ASIDE + 2):
        mark_corrupt(path)
        assert content(path) == REBUILT
    assert aside(path) == [f"edge.db.corrupt-{number}" for number in (3, 4)]
    assert {found.stat().st_mode & 0o777 for found in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize("replaced", [False, True], ids=["before the new one is in place", "after the old one is away"])
def test_a_rebuild_that_a_crash_interrupted_is_brought_to_its_end(path: Path, replaced: bool) -> None:
    rebuilt = path.with_name("edge.db.rebuilt")
    shutil.copy(path, rebuilt)
    if replaced:
        path.rename(path.with_name("edge.db.corrupt-1"))
    assert content(path) == INTACT
    assert not rebuilt.exists()


def test_an_empty_file_is_a_new_database(tmp_path: Path) -> None:
    (tmp_path / "edge.db").touch()
    assert content(tmp_path / "edge.db") == EMPTY
    assert aside(tmp_path / "edge.db") == []


def test_two_new_databases_begin_at_different_revisions(tmp_path: Path) -> None:
    revisions = set()
    for name in "abc":
        database, records = open_records(tmp_path / name / "edge.db")
        revisions.add(records.revision)
        assert 0 <= records.revision < 2**50
        database.close()
    assert len(revisions) == 3


def execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    finally:
        connection.close()


def test_a_newer_database_is_refused_and_left_alone(path: Path) -> None:
    execute(path, f"PRAGMA user_version = {SCHEMA + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreNewer, match=rf"schema {SCHEMA + 1}, this release knows {SCHEMA}.*run that release"):
        open_records(path)
    assert path.read_bytes() == before
    assert aside(path) == []


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    execute(path, "CREATE TABLE cookies (name TEXT)")
    with pytest.raises(StoreError, match="another program's database"):
        open_records(path)
    assert aside(path) == []


def test_a_missing_table_is_damage(path: Path) -> None:
    execute(path, "DROP TABLE objects")
    assert content(path) == REBUILT


def test_a_directory_in_the_way_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "edge.db").mkdir()
    with pytest.raises(StoreError, match="is not a file"):
        open_records(tmp_path / "edge.db")


def test_a_data_directory_that_is_a_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StoreError, match="not a directory"):
        open_records(tmp_path / "data" / "edge.db")


def test_a_read_only_file_system_is_said_so(path: Path) -> None:
    directory = path.parent
    if subprocess.run(["mount", "--bind", directory, directory], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", directory], check=True)
        with pytest.raises(StoreError, match="read-only"):
            open_records(path)
    finally:
        subprocess.run(["umount", "-l", directory], check=True)
