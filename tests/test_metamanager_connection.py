"""The connection's promises: durable settings, whole transactions, errors without parameters."""

import traceback
from pathlib import Path

import pytest

from metamanager.connection import Database
from metamanager.errors import StoreBusy, StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edge.db"


def test_settings_are_those_that_lose_nothing(path: Path) -> None:
    database = Database(path)
    assert database.row("PRAGMA journal_mode") == ("wal",)
    assert database.number("PRAGMA synchronous") == 2
    assert database.number("PRAGMA auto_vacuum") == 2
    assert database.number("PRAGMA secure_delete") == 1
    database.close()


def test_a_transaction_that_raises_did_not_happen(path: Path) -> None:
    database = Database(path)
    with database.transaction():
        database.run("CREATE TABLE t (a)")
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.run("INSERT INTO t VALUES (?)", (1,))
        _ = 1 / 0
    with pytest.raises(StoreError), database.transaction():
        database.run("INSERT INTO t VALUES (?)", (1,))
        database.run("no SQL")
    with database.transaction():
        assert database.number("SELECT count(*) FROM t") == 0
        database.run_many("INSERT INTO t VALUES (?)", [(1,), (2,)])
        database.run_many("INSERT INTO t VALUES (?)", [])
    with database.transaction():
        assert list(database.rows("SELECT a FROM t ORDER BY a")) == [(1,), (2,)]
        assert database.inserted("INSERT INTO t VALUES (?)", (3,)) == 3
    database.close()
    assert [found.name for found in path.parent.iterdir()] == ["edge.db"], "the log is merged on closing"


def test_no_error_shows_parameters(path: Path) -> None:
    database, secret = Database(path), str(12345 * 67891)
    with pytest.raises(StoreError) as caught, database.transaction():
        database.run("INSERT INTO missing VALUES (?)", (secret,))
    assert secret not in "".join(traceback.format_exception(caught.value))
    database.close()


def test_a_database_that_somebody_else_writes_to_is_busy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metamanager.connection.BUSY_TIMEOUT_S", 0.01)
    one, other = Database(path), Database(path)
    with one.transaction():
        one.run("CREATE TABLE t (a)")
        with pytest.raises(StoreBusy, match="another process"), other.transaction():
            other.run("CREATE TABLE t (a)")
    one.close()
    other.close()
