"""What a path carries, by what arrives."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.delivery import ROUNDS, SHORTEST_S, Delivery

SIZE = 1000


def sent_and_arrived(delivery: Delivery, window: int, rounds: int, *, rtt: float, queued: float = 0.0) -> float:
    """Windows, one after the other, that arrive evenly within a round trip; the time when all is over."""
    now, number = 100.0, 0
    under_way: list[tuple[int, float]] = []
    while number < window * rounds:
        now += (rtt + queued) / window
        if len(under_way) == window:
            first, at = under_way.pop(0)
            delivery.measured(now - at, now)
            delivery.arrived(first, SIZE, at, now)
        delivery.sent(number)
        under_way.append((number, now))
        number += 1
    return now


def test_of_a_path_without_a_queue_it_is_what_is_under_way() -> None:
    delivery = Delivery()
    assert delivery.carries == 0
    sent_and_arrived(delivery, 20, 10, rtt=0.04)
    assert delivery.carries == pytest.approx(20 * SIZE, rel=0.06)


def test_what_waits_in_a_queue_is_not_carried() -> None:
    """40 under way, of which 30 wait: the round trip is four times as long, and no more arrives."""
    delivery = Delivery()
    delivery.measured(0.04, 100.0)
    sent_and_arrived(delivery, 40, 10, rtt=0.04, queued=0.12)
    assert delivery.carries == pytest.approx(10 * SIZE, rel=0.06)


def test_a_rate_is_forgotten() -> None:
    delivery = Delivery()
    now = sent_and_arrived(delivery, 20, 10, rtt=0.04)
    for late in range(1000, 1003):
        now += ROUNDS * 0.04 + 0.001
        delivery.sent(late)
        delivery.arrived(late, SIZE, now - 0.04, now)
    assert delivery.carries == pytest.approx(SIZE, abs=1)


def test_after_a_pause_what_was_delivered_before_it_counts_for_nothing() -> None:
    delivery = Delivery()
    now = sent_and_arrived(delivery, 20, 10, rtt=0.04) + 3600.0
    delivery.sent(1000)
    delivery.arrived(1000, SIZE, now - 0.04, now)
    assert delivery.carries == pytest.approx(SIZE, abs=1)


def test_a_way_that_becomes_longer_is_believed() -> None:
    delivery = Delivery()
    delivery.measured(0.001, 1.0)
    now = 1.0
    while now < 1.0 + 2 * SHORTEST_S + 0.1:
        now += 0.05
        delivery.measured(0.06, now)
    assert delivery._round_trip_s == 0.06


def test_what_never_arrives_counts_for_nothing_and_is_not_kept() -> None:
    delivery = Delivery()
    for number in range(1000):
        delivery.sent(number)
        delivery.gone(number)
        delivery.gone(number)
    delivery.measured(0.04, 100.0)
    assert delivery.carries == 0
    delivery.arrived(3, SIZE, 0.0, 0.04)
    assert delivery.carries == 0, "since it was sent nothing is known to have arrived"
    assert not delivery._before


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.floats(0, 2)), max_size=60))
def test_any_order_of_events_gives_a_number(told: list[tuple[int, int, float]]) -> None:
    delivery, now, total = Delivery(), 0.0, 0
    for number, kind, pause in told:
        now += pause
        if kind == 0:
            delivery.sent(number)
        elif kind == 1:
            delivery.gone(number)
        elif kind == 2:
            total += SIZE
            delivery.arrived(number, SIZE, now - pause, now)
        else:
            delivery.measured(pause, now)
        assert delivery.carries >= 0
    assert delivery._bytes == total
