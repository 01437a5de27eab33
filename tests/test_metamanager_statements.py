"""The statements: SQLAlchemy's own, understood, and the ones that look things up do so by an index."""

import sqlite3

import pytest

from metamanager import statements
from metamanager.migrations import migrate
from scripts import edge_statements

STATEMENTS = {name: text for name, text in vars(statements).items() if name.isupper() and isinstance(text, str)}


def test_they_are_what_sqlalchemy_makes() -> None:
    assert edge_statements.texts() == STATEMENTS, "run python -m scripts.edge_statements, see its first lines"
    assert set(edge_statements.TABLE_NAMES) == statements.TABLE_NAMES


@pytest.fixture
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    migrate(connection.execute, 0)
    return connection


def plan(connection: sqlite3.Connection, name: str) -> str:
    text = STATEMENTS[name]
    parameters = [None] * text.count("?")
    return " ".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", parameters))


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_is_understood(connection: sqlite3.Connection, name: str) -> None:
    plan(connection, name)
    connection.close()


@pytest.mark.parametrize(
    "name",
    [
        "SELECT_OBJECT",
        "SELECT_LIST",
        "DELETE_OBJECT",
        "SELECT_REPORTS",
        "SELECT_DEVICE_REPORTS",
        "SELECT_OTHER_REPORTS",
        "DELETE_REPORT",
        "DELETE_EVENT",
    ],
)
def test_lookups_use_an_index_and_need_no_sorting(connection: sqlite3.Connection, name: str) -> None:
    found = plan(connection, name)
    assert "SEARCH" in found
    assert "TEMP B-TREE" not in found
    connection.close()


def test_reports_of_no_device_are_read_past_none_of_a_device(connection: sqlite3.Connection) -> None:
    """Ten thousand of devices may wait; the index has the others alone, in their order."""
    assert plan(connection, "SELECT_OTHER_REPORTS") == "SEARCH reports USING INDEX reports_of_no_device (seq>?)"
    found = plan(connection, "SELECT_DEVICE_REPORTS")
    assert found.startswith("SEARCH reports USING INTEGER PRIMARY KEY (rowid>?)"), "in their order, from the first one"
    connection.close()
