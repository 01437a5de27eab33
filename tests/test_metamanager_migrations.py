"""Migrations commit whole or not at all, and lead to the tables that the statements are made for."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from apimachinery.resources import DEVICES
from metamanager.migrations import APPLICATION_ID, MIGRATIONS, SCHEMA, migrate
from metamanager.statements import SELECT_DEVICE_REPORTS, SELECT_OTHER_REPORTS
from scripts.edge_statements import TABLES


def connect(path: str | Path = ":memory:") -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def shape(connection: sqlite3.Connection) -> dict[str, object]:
    """Columns and unique keys by table."""
    tables = [
        str(row[0])
        for row in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        )
    ]
    found: dict[str, object] = {}
    for table in tables:
        columns = [row[1:4] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        unique = [
            [column[2] for column in connection.execute(f'PRAGMA index_info("{index[1]}")')]
            for index in connection.execute(f'PRAGMA index_list("{table}")')
        ]
        found[table] = (columns, unique)
    return found


def test_migrations_lead_to_the_tables_of_the_schema() -> None:
    migrated = connect()
    migrate(migrated.execute, 0)
    engine = create_engine("sqlite+pysqlite://")
    with engine.connect() as connection:
        TABLES.create_all(connection)
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        assert shape(migrated) == shape(driver)
    engine.dispose()
    migrated.close()


def test_the_number_of_the_schema_and_the_mark_of_the_program_are_recorded() -> None:
    connection = connect()
    migrate(connection.execute, 0)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.close()


@pytest.mark.parametrize("stop_after", range(4))
def test_a_migration_and_its_number_commit_together(tmp_path: Path, stop_after: int) -> None:
    """Whichever statement a crash comes after: a fresh look finds schema n with its number, or n + 1 with its own."""
    migrations = (*MIGRATIONS, ("CREATE TABLE later (a TEXT)", "INSERT INTO later VALUES ('x')"))
    connection = connect(tmp_path / "db")
    migrate(connection.execute, 0)
    done = 0

    def execute(statement: str) -> None:
        nonlocal done
        if done == stop_after:
            raise KeyboardInterrupt
        done += 1
        connection.execute(statement)

    connection.execute("BEGIN")
    with pytest.raises(KeyboardInterrupt):
        migrate(execute, SCHEMA, migrations)
    connection.close()  # without a commit
    connection = connect(tmp_path / "db")
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    assert "later" not in shape(connection)
    connection.execute("BEGIN")
    migrate(connection.execute, SCHEMA, migrations)
    connection.execute("COMMIT")
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA + 1,)
    assert "later" in shape(connection)
    connection.close()


def test_reports_that_waited_are_known_by_their_class_afterwards() -> None:
    connection = connect()
    migrate(connection.execute, 0, MIGRATIONS[:6])
    connection.executemany(
        'INSERT INTO resources (id, "group", version, plural, kind, namespaced) VALUES (?, ?, ?, ?, ?, 1)',
        [(1, "", "v1", "pods", "Pod"), (2, DEVICES.group, "v1beta1", "devices", "Device")],
    )
    connection.executemany(
        "INSERT INTO reports (seq, resource, namespace, name, field, checksum, value) VALUES (?, ?, 'd', ?, 'f', 0, 0)",
        [(number, 1 + number % 2, f"n{number}") for number in range(1, 9)],
    )
    migrate(connection.execute, 6)
    for statement, parameters, numbers in (
        (SELECT_OTHER_REPORTS, (3,), [4, 6, 8]),
        (SELECT_DEVICE_REPORTS, (3, DEVICES.group), [5, 7]),
    ):
        assert [row[0] for row in connection.execute(statement, parameters)] == numbers
    connection.close()
