"""Each rule of the design, switched off, must be noticed. `python -m tests.sim mutations` counts how often."""

import logging
from collections.abc import Iterator

import pytest

from tests.sim.checks import problems, run
from tests.sim.mutations import MUTATIONS, Mutation, Row, table, tried

SCHEDULES = 1000
"""About twice what the rarest needs, see docs/simulation.md."""
NOTICING = {
    "a session that is overtaken ends": 26,
    "the old connection ends before the new Hello is acted on": 80,
    "reports wait until the Lease is taken": 24,
    "what was learned is written over once the Lease is confirmed": 258,
    "the Lease is taken at the version that was read": 251,
}
"""
Seeds to try first, where it takes many to find one. Each is another schedule once anything draws one more random
number; then the test looks for one from the beginning, and takes a minute.
"""


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.rule.replace(" ", "-"))
def test_each_rule_is_needed(mutation: Mutation) -> None:
    seeds = (NOTICING.get(mutation.rule, 0), *range(SCHEDULES))
    assert tried(mutation, seeds, until_noticed=True).wrong, "no schedule noticed that the rule is off"


def rule(name: str) -> Mutation:
    return next(mutation for mutation in MUTATIONS if mutation.rule == name)


# What the simulation found. A seed is another schedule once anything draws one more random number, so each finding is
# held by its rule above: some schedule must notice it where the rule is off. The seeds that found it stay right.


def test_a_refusal_that_was_lost_with_its_connection_is_not_taken_for_a_landing() -> None:
    """
    The edge committed a push but for one object, and died before it could say so. Its cursor said that the push had
    landed, and the hub believed it: the node lacked the object until it changed or a Check noticed.
    """
    assert rule("what landed without an Ack is borne out by the digest")
    for seed in (7, 77, 151, 398):
        assert not problems(run(seed))


def test_a_difference_to_a_refused_version_is_no_divergence() -> None:
    """
    A second change was under way, told against the version that the edge refused. The edge asked for it whole, rightly,
    and the hub counted a fault of its own.
    """
    assert rule("what follows a refused version is in doubt")
    for seed in (7, 25, 1346, 3803):
        assert not problems(run(seed))


def test_a_report_refused_by_a_hub_that_has_not_noticed_a_restore_is_no_fault() -> None:
    """The Device was deleted, then came back with a backup; the hub still knew it as gone and refused its report."""
    assert not problems(run(853))


def test_a_device_that_moved_to_another_node_is_not_written_for_the_former_one() -> None:
    """
    A replica whose watch lagged took the Device for the former node's. After a Conflict it read the new node's report
    and wrote the former node's over it, as that one's Lease was its own. The Device's version says whose it is.
    """
    for seed in (300521, 2003863):
        assert not problems(run(seed))


def test_what_a_lagging_replica_would_have_refused_is_taken() -> None:
    """It did not know yet of a Device that another replica had told the node of. Now it waits until it does."""
    assert rule("a hub that has seen less than its node was told of waits")
    assert not problems(run(300319))


def test_the_table_shows_what_was_never_noticed() -> None:
    lines = list(table([Row("some rule", 10, 3, 4), Row("another", 10, 0, None)]))
    assert lines[2:] == ["| some rule | 10 | 3 | 4 |", "| another | 10 | 0 | none |"]
