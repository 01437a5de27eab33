"""Numbers of kinds: what the last commit left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apimachinery.resources import CONFIG_MAPS, PODS
from metamanager.connection import Database
from metamanager.errors import StoreCorrupt
from metamanager.opening import open_records
from metamanager.resourcerows import ResourceRows
from tests.harness.store_history import GADGETS


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database, _ = open_records(tmp_path / "edge.db")
    yield database
    database.close()


def opened(database: Database) -> ResourceRows:
    with database.transaction():
        return ResourceRows(database)


def test_a_number_is_kept_over_a_restart(database: Database) -> None:
    resources = opened(database)
    with resources.writing():
        numbers = [resources.number(each) for each in (PODS, GADGETS, PODS)]
    assert numbers[0] == numbers[2] != numbers[1]
    again = opened(database)
    assert again.known() == sorted([PODS, GADGETS])
    assert (again.find(GADGETS), again.resource(numbers[0]), again.find(CONFIG_MAPS)) == (numbers[1], PODS, None)


def test_a_number_given_in_a_transaction_that_failed_is_given_again(database: Database) -> None:
    resources = opened(database)
    with resources.writing():
        resources.number(PODS)
    with pytest.raises(ZeroDivisionError), resources.writing():
        lost = resources.number(GADGETS)
        raise ZeroDivisionError
    assert resources.known() == [PODS]
    with resources.writing():
        assert resources.number(CONFIG_MAPS) == lost
    assert opened(database).by_number == resources.by_number


def test_a_number_that_no_kind_has_is_damage(database: Database) -> None:
    with pytest.raises(StoreCorrupt, match="the table of resources is not what was written"):
        opened(database).resource(7)
