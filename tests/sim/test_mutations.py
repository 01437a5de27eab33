"""Each rule of the design, switched off, must be noticed by some schedule."""

import logging
from collections.abc import Iterator

import pytest

from tests.sim.mutations import MUTATIONS, Mutation, Row, table, tried

SCHEDULES = 150
RARE = 1500
"""For the rarest, in `make soak`; docs/simulation.md has how often each is noticed."""
RARELY_NOTICED = frozenset(
    {
        "what landed without an Ack is borne out by the digest",
        "what follows a refused version is in doubt",
        "the base of a patch is checked",
    }
)


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def test_the_table_shows_what_was_never_noticed() -> None:
    lines = list(table([Row("some rule", 10, 3, 4), Row("another", 10, 0, None)]))
    assert lines[2:] == ["| some rule | 10 | 3 | 4 |", "| another | 10 | 0 | none |"]


@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param(each, id=each.rule, marks=[pytest.mark.soak] if each.rule in RARELY_NOTICED else [])
        for each in MUTATIONS
    ],
)
def test_each_rule_is_needed(mutation: Mutation) -> None:
    row = tried(mutation, range(RARE if mutation.rule in RARELY_NOTICED else SCHEDULES), until_noticed=True)
    assert row.wrong, "no schedule noticed that the rule is off"
