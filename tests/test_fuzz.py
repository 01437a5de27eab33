"""
Whatever a stranger sends, the parsers say what is wrong with it, or take it, and nothing else; see tests/fuzz.

A few thousand inputs of each target here, a million of each by `make soak`; docs/limits.md has what was run so far.
"""

import time

import pytest

from tests.fuzz.loop import kept, run
from tests.fuzz.targets import TARGETS, Target

SLOW = {"join_body": 300, "yaml_body": 500, "cutter": 500, "conversation": 1000, "http_session": 500}
"""A signature is checked, or a parser in Python runs, or the input is fed by the byte."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_mutations_of_what_is_well_formed_break_nothing(target: Target) -> None:
    run(target, SLOW.get(target.name, 2000), seed=7)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_million_mutations_break_nothing(target: Target) -> None:
    run(target, 1_000_000 if target.name not in SLOW else 200_000, seed=time.time_ns())


def test_an_input_that_breaks_a_target_is_in_the_failure() -> None:
    def breaks(data: bytes) -> None:
        if b"\xff" in data:
            raise IndexError("an example of a bug")

    target = Target("example", breaks, (b"abc",), (b"\xff",))
    with pytest.raises(AssertionError, match=r"example: seed 7, input \d+: bytes\.fromhex\('[0-9a-f]*ff"):
        run(target, 1000, seed=7)


def test_what_is_kept_is_short_and_said_once() -> None:
    for target in TARGETS:
        inputs = kept(target)
        assert len(set(inputs)) == len(inputs), target.name
        assert len(inputs) <= 400, target.name
