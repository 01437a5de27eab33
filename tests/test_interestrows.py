"""Interests as rows: one for a selection and a user."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apimachinery.resources import CONFIG_MAPS, PODS
from metamanager.connection import Database
from metamanager.interestrows import InterestRows, RememberedInterest
from metamanager.opening import open_records
from metamanager.resourcerows import ResourceRows

MINE = RememberedInterest(PODS, "default", "", "", 5, complete=True)
THEIRS = MINE._replace(user="somebody")
OTHERS = RememberedInterest(CONFIG_MAPS, "", "", "", 5, complete=True)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database, _ = open_records(tmp_path / "edge.db")
    yield database
    database.close()


def opened(database: Database) -> tuple[ResourceRows, InterestRows]:
    with database.transaction():
        resources = ResourceRows(database)
    return resources, InterestRows(database, resources)


def test_an_interest_takes_the_place_of_the_one_with_its_selection_and_user(database: Database) -> None:
    _, rows = opened(database)
    rows.remember([MINE, THEIRS])
    rows.remember([MINE._replace(used_at_ms=9), OTHERS], gone=[THEIRS._replace(used_at_ms=0)])
    assert sorted(opened(database)[1].all()) == sorted([MINE._replace(used_at_ms=9), OTHERS])


def test_what_cannot_be_read_is_not_held_whole(database: Database) -> None:
    resources, rows = opened(database)
    rows.remember([MINE, OTHERS])
    with resources.writing():
        rows.note_incomplete(resources.number(PODS))
    assert {each.resource: each.complete for each in rows.all()} == {PODS: False, CONFIG_MAPS: True}
