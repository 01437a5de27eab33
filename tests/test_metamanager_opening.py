"""Files that are new, old, newer, foreign, damaged or half rebuilt: what opening makes of each."""

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from apimachinery.objects import revision_of
from apimachinery.resources import CONFIG_MAPS
from link.frames import Cursor, ReportEntry
from metamanager.errors import StoreCorrupt, StoreError, StoreNewer
from metamanager.migrations import MIGRATIONS, SCHEMA, migrate
from metamanager.opening import KEPT_ASIDE, mark_corrupt, open_records
from metamanager.rebuilt import REBUILT_DOCUMENT, Rebuilt
from metamanager.records import Records
from tests.harness.store_history import batch, event_of, report_of, upsert

OBJECTS = 200
REPORTS = 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with objects, a document and reports, closed in good order."""
    path = tmp_path / "edge.db"
    database, records = open_records(path)
    deltas = [upsert(CONFIG_MAPS, f"c{i}", "x" * 500) for i in range(OBJECTS)]
    records.outbox.save({"twin/a": b"{}"}, [report_of(i) for i in range(REPORTS)])
    records.apply([batch(1, *deltas, synced=True)], 1)
    database.close()
    return path


def content(path: Path) -> "Content":
    """Objects, cursor, reports and documents."""
    database, records = open_records(path)
    try:
        reports = records.outbox.pending(0, 1 << 20)
        documents = records.outbox.documents("")
        documents.pop(REBUILT_DOCUMENT, None)
        return len(records.held()), records.cursor, len(reports), sorted(documents)
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


def test_damaged_reports_cost_the_documents_that_say_they_were_told(path: Path) -> None:
    damage(path, root_page(path, "reports"))
    assert content(path) == EMPTY


def test_the_note_of_a_rebuild_says_what_happened(path: Path) -> None:
    damage(path, root_page(path, "objects"))
    database, records = open_records(path)
    note = Rebuilt.from_bytes(records.outbox.documents(REBUILT_DOCUMENT)[REBUILT_DOCUMENT])
    assert "damaged" in note.problem
    assert (note.aside, note.reports, note.whole) == ("edge.db.corrupt-1", REPORTS, True)
    database.close()


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
        # The damaged one's log was not moved yet; beside the new one it would be taken for its own.
        shutil.copytree(path.parent, path.parent / "other")
        path.with_name("edge.db-wal").write_bytes(another_log(path.parent / "other"))
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


def test_a_database_of_the_first_release_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection.execute, 0, MIGRATIONS[:1])
    connection.execute("INSERT INTO state (id, revision) VALUES (1, 5)")
    connection.close()
    database, records = open_records(path)
    assert records.revision == 5
    records.outbox.save({}, [report_of(1)], [event_of(1)])
    records.outbox.save({}, [report_of(2)])
    assert [row for row, _ in records.outbox.pending(0, 1 << 20)] == [1, 2, 3]
    database.close()
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
        # Nobody's right to mount, but then also nobody's to write what may only be read.
        path.chmod(0o400)
        directory.chmod(0o500)
        with pytest.raises(StoreError, match=r"read-only|cannot be"):
            open_records(path)
        directory.chmod(0o700)
        return
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", directory], check=True)
        with pytest.raises(StoreError, match="read-only"):
            open_records(path)
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


# ---- every kind of damage, to files closed in good order and to files as a crash leaves them


def another_log(directory: Path) -> bytes:
    """The log of another database of ours, with other objects and reports in it."""
    path = directory / "another.db"
    database, records = open_records(path)
    records.outbox.save({"twin/z": b"{}"}, [report_of(900)])
    records.apply([batch(7, *(upsert(CONFIG_MAPS, f"z{i}", "z" * 300) for i in range(100)))], 1)
    log = path.with_name("another.db-wal").read_bytes()
    database.close()
    return log


@pytest.fixture
def crashed(path: Path, tmp_path: Path) -> Path:
    """The same content and some more, as a SIGKILL leaves it: partly in the file, partly in its log."""
    database, records = open_records(path)
    records.apply([batch(2, *(upsert(CONFIG_MAPS, f"c{i}", "y" * 400) for i in range(50)))], 1)
    records.outbox.save({"twin/a": b"{}"}, [report_of(0)])
    elsewhere = tmp_path / "crashed"
    elsewhere.mkdir(0o700)
    for name in ("edge.db", "edge.db-wal", "edge.db-shm"):
        shutil.copy(path.with_name(name), elsewhere / name)
    database.close()
    return elsewhere / "edge.db"


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def wal(path: Path) -> Path:
    return path.with_name("edge.db-wal")


def halve(path: Path, then: bytes = b"") -> None:
    """Nothing where there is no such file; otherwise its first half, and then this."""
    if path.exists():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + then)


GARBAGE = random.Random(5).randbytes(4096)
DAMAGES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "header": lambda path: overwrite(path, 0, GARBAGE[:100]),
    "format in the header": lambda path: overwrite(path, 18, b"\x07\x07"),
    "page size in the header": lambda path: overwrite(path, 16, b"\x02\x00"),
    "application in the header": lambda path: overwrite(path, 68, bytes(4)),
    "longer": lambda path: overwrite(path, path.stat().st_size, GARBAGE),
    "truncated to a page": lambda path: os.truncate(path, 4096),
    "truncated in the first page": lambda path: os.truncate(path, 1000),
    "truncated in a page": lambda path: os.truncate(path, path.stat().st_size // 2 + 77),
    "truncated by one byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "log missing": lambda path: wal(path).unlink(missing_ok=True),
    "log empty": lambda path: wal(path).write_bytes(b""),
    "log is garbage": lambda path: wal(path).write_bytes(GARBAGE * 3),
    "log truncated": lambda path: halve(wal(path)),
    "log damaged": lambda path: halve(wal(path), GARBAGE),
    "log of another database": lambda path: wal(path).write_bytes(another_log(path.parent / "other")),
    "index of the log is garbage": lambda path: path.with_name("edge.db-shm").write_bytes(GARBAGE * 8),
}


class Life:
    """A store as edgecore lives with it: whatever call meets damage ends it, and the next start begins anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts = 0
        self.objects = 0
        self.reports: list[ReportEntry] = []
        self.documents: dict[str, bytes] = {}

    def live(self) -> None:
        while True:
            self.starts += 1
            assert self.starts <= 3, "what was begun anew is damaged again"
            database, records = open_records(self.path)
            try:
                self._use(records)
            except StoreCorrupt:
                mark_corrupt(self.path)
            else:
                return
            finally:
                database.close()

    def _use(self, records: Records) -> None:
        for held in records.held():
            stored = records.get(held.key)
            assert stored is not None
            assert stored.object.version == held.version
            assert revision_of(stored.object.body) == held.version.revision
        self.objects = records.count()
        self.reports = [entry for _, entry in records.outbox.pending(0, 1 << 20)]
        self.documents = records.outbox.documents("")
        self.documents.pop(REBUILT_DOCUMENT, None)
        # Damage may be in what only writing meets.
        for number in range(5):
            records.apply([batch(100 + number, *(upsert(CONFIG_MAPS, f"n{i}", number) for i in range(60)))], 1)
            records.outbox.save({"new": b"1"}, [report_of(number + 50)])


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("state", ["closed", "crashed"])
def test_whatever_is_damaged_the_node_lives_on_with_what_is_true(
    name: str, state: str, path: Path, request: pytest.FixtureRequest
) -> None:
    if state == "crashed":
        path = request.getfixturevalue("crashed")
    DAMAGES[name](path)
    life = Life(path)
    life.live()
    check_reports(life, is_foreign="another" in name)
    if "header" in name:
        assert life.starts == 1
        assert life.objects == 0, "it was begun anew"
    if name in ("nothing", "index of the log is garbage"):
        assert (life.objects, len(life.reports), life.starts) == (OBJECTS, REPORTS, 1)
    if name == "log missing" and state == "crashed":
        assert life.starts == 1, "the file is what an earlier moment left"


def check_reports(life: Life, *, is_foreign: bool = False) -> None:
    possible = {report_of(number) for number in range(REPORTS)} | ({report_of(900)} if is_foreign else set())
    assert set(life.reports) <= possible
    if "twin/a" in life.documents and not is_foreign:
        assert set(life.reports) == possible, "a document came along whose report did not"


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.soak)], ids=["some", "every"])
@pytest.mark.parametrize("content", [bytes(4096), GARBAGE], ids=["zeroes", "garbage"])
@pytest.mark.parametrize("state", ["closed", "crashed"])
def test_whatever_page_is_lost_the_node_lives_on_with_what_is_true(
    content: bytes, state: str, step: int, path: Path, request: pytest.FixtureRequest
) -> None:
    if state == "crashed":
        path = request.getfixturevalue("crashed")
    names = ("edge.db", "edge.db-wal")
    files = {name: (path.parent / name).read_bytes() for name in names if (path.parent / name).exists()}
    # What the reports are read by: the schema, the resources, the reports themselves.
    needed = {1} | {root_page(path, table) for table in ("resources", "reports")}
    for page in sorted(needed | set(range(2, len(files["edge.db"]) // 4096 + 1, step))):
        elsewhere = path.parent / f"page-{page}"
        elsewhere.mkdir(0o700)
        for name, whole in files.items():
            (elsewhere / name).write_bytes(whole)
        overwrite(elsewhere / "edge.db", (page - 1) * 4096, content)
        life = Life(elsewhere / "edge.db")
        life.live()
        check_reports(life)
        if page not in needed:
            assert len(life.reports) == REPORTS, f"page {page} cost the reports"
        shutil.rmtree(elsewhere)
