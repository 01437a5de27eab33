"""When an edge dials again."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehub.redial import BANNED_S, DOUBTED, MOST_S, REFUSED_S, delay_s
from link.errors import LinkClosed, LinkError, RemoteProtocolError
from link.frames import GoodbyeCode


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_lost_link_is_dialled_again_within_a_bound(attempt: int, draw: float) -> None:
    assert 0 <= delay_s(LinkClosed("cut"), attempt, draw) < MOST_S


def test_the_bound_grows_and_the_draw_spreads() -> None:
    waits = [delay_s(LinkClosed("cut"), attempt, 0.5) for attempt in (1, 2, 3, 30, 10_000)]
    assert waits == pytest.approx([0.325, 0.4225, 0.549, 15.0, 15.0], abs=0.001)
    assert delay_s(LinkClosed("cut"), 5, 0.0) == 0.0


@pytest.mark.parametrize(("back_after_s", "mean_s", "dials"), [(1.0, 0.6, 4), (3.0, 1.0, 7), (10.0, 2.5, 11)])
def test_a_hub_that_is_back_soon_is_found_soon_with_few_dials(back_after_s: float, mean_s: float, dials: int) -> None:
    rng = random.Random(1)
    late, tried = [], []
    for _ in range(500):
        now = attempt = 0.0
        while now < back_after_s:
            attempt += 1
            now += delay_s(LinkClosed("refused"), int(attempt), rng.random())
        late.append(now - back_after_s)
        tried.append(attempt)
    assert sum(late) / len(late) < mean_s
    assert sum(tried) / len(tried) < dials


def test_a_thousand_nodes_do_not_come_back_in_step() -> None:
    """No tenth of the first bound sees more than a sixth of them."""
    rng = random.Random(2)
    waits = [delay_s(LinkClosed("cut"), 1, rng.random()) for _ in range(1000)]
    tenths = Counter(int(10 * wait / max(waits)) for wait in waits)
    assert max(tenths.values()) < 1000 / 6


def test_what_the_hub_asks_for_is_respected() -> None:
    assert delay_s(LinkClosed("later", GoodbyeCode.OVERLOADED, 7.0), 1, 0.0) == 7.0


def test_who_was_replaced_doubts_it_a_few_times() -> None:
    replaced = LinkClosed("another machine", GoodbyeCode.REPLACED)
    assert delay_s(replaced, DOUBTED, 0.9) < 1.0
    assert delay_s(replaced, DOUBTED + 1, 0.0) == REFUSED_S / 2


def test_a_hub_that_wants_to_compare_is_dialled_soon_however_often_it_failed_before() -> None:
    assert delay_s(LinkClosed("resync", GoodbyeCode.RESYNC), 9, 0.9) < 0.5


@pytest.mark.parametrize(
    ("error", "least"),
    [
        (LinkClosed("no", GoodbyeCode.FORBIDDEN), REFUSED_S / 2),
        (LinkClosed("twin", GoodbyeCode.SUPERSEDED), REFUSED_S / 2),
        (LinkClosed("banned", GoodbyeCode.BANNED), BANNED_S / 2),
        (LinkClosed("odd", GoodbyeCode.PROTOCOL), MOST_S / 2),
        (RemoteProtocolError("odd"), MOST_S / 2),
    ],
)
def test_where_somebody_must_act_haste_is_no_use(error: LinkError, least: float) -> None:
    assert delay_s(error, 1, 0.0) == least
