"""The words of a step: each event is understood, each effect is performed."""

from typing import get_args

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.objects import canonical
from apimachinery.resources import DEVICES
from devicetwin import steps
from devicetwin.declaration import Declaration
from devicetwin.reconcile import step

KEY = ObjectKey(DEVICES, "default", "thermo")
EVENTS: tuple[steps.Event, ...] = (
    steps.Declared(KEY, Declaration("u", "m", {}, {})),
    steps.Removed(KEY),
    steps.Updated(KEY, "e", {}),
    steps.StateReported(KEY, "e", "online"),
    steps.Claimed(KEY, ("a", "b")),
    steps.Elapsed(KEY, 0),
    steps.Asked(KEY, "g"),
    steps.Connected(KEY),
)


def test_there_is_an_example_of_each_event() -> None:
    assert {type(each) for each in EVENTS} == set(get_args(steps.Event))


@pytest.mark.parametrize("event", EVENTS, ids=lambda each: type(each).__name__)
def test_each_event_is_understood_with_and_without_a_twin(event: steps.Event) -> None:
    _, effects = step(None, event, 1)
    assert all(isinstance(each, get_args(steps.Effect)) for each in effects)
    twin, _ = step(None, EVENTS[0], 1)
    after, effects = step(twin, event, 1)
    assert all(isinstance(each, get_args(steps.Effect)) for each in effects)
    assert (after is None) == isinstance(event, steps.Removed)
    for each in effects:
        if isinstance(each, steps.QueueReport):
            assert canonical(each.value)
