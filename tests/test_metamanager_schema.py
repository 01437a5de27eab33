"""The compiled statements: they are understood, and the ones that look things up do so by an index."""

import sqlite3

import pytest

from metamanager import schema
from metamanager.migrations import migrate

STATEMENTS = {name: text for name, text in vars(schema).items() if name.isupper() and isinstance(text, str)}


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


@pytest.mark.parametrize("name", ["SELECT_OBJECT", "SELECT_LIST", "DELETE_OBJECT", "SELECT_REPORTS", "DELETE_REPORTS"])
def test_lookups_use_an_index_and_need_no_sorting(connection: sqlite3.Connection, name: str) -> None:
    found = plan(connection, name)
    assert "SEARCH" in found
    assert "TEMP B-TREE" not in found
    connection.close()
