"""Each rule of the design, switched off, must be noticed by some schedule."""

import logging
from collections.abc import Iterator

import pytest

from tests.sim.mutations import Row, table

SCHEDULES = 150
RARE = 1500
"""More than enough for the rarest; docs/simulation.md has how often each is noticed."""


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_the_table_shows_what_was_never_noticed() -> None:
    lines = list(table([Row("some rule", 10, 3, 4), Row("another", 10, 0, None)]))
    assert lines[2:] == ["| some rule | 10 | 3 | 4 |", "| another | 10 | 0 | none |"]
