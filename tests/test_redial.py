"""When an edge dials again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehub.redial import MOST_S, REFUSED_S, delay_s
from link.errors import LinkClosed, LinkError, RemoteProtocolError
from link.frames import GoodbyeCode


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_lost_link_is_dialled_again_within_a_bound(attempt: int, draw: float) -> None:
    assert 0 <= delay_s(LinkClosed("cut"), attempt, draw) < MOST_S


def test_the_bound_doubles_and_the_draw_spreads() -> None:
    assert [delay_s(LinkClosed("cut"), attempt, 0.5) for attempt in (1, 2, 3, 20)] == [0.5, 1.0, 2.0, 15.0]
    assert delay_s(LinkClosed("cut"), 5, 0.0) == 0.0


def test_what_the_hub_asks_for_is_respected() -> None:
    assert delay_s(LinkClosed("later", GoodbyeCode.OVERLOADED, 7.0), 1, 0.0) == 7.0


def test_a_hub_that_wants_to_compare_is_dialled_soon_however_often_it_failed_before() -> None:
    assert delay_s(LinkClosed("resync", GoodbyeCode.RESYNC), 9, 0.9) < 0.5


@pytest.mark.parametrize(
    ("error", "least"),
    [
        (LinkClosed("no", GoodbyeCode.FORBIDDEN), REFUSED_S / 2),
        (LinkClosed("twin", GoodbyeCode.SUPERSEDED), REFUSED_S / 2),
        (LinkClosed("odd", GoodbyeCode.PROTOCOL), MOST_S / 2),
        (RemoteProtocolError("odd"), MOST_S / 2),
    ],
)
def test_where_somebody_must_act_haste_is_no_use(error: LinkError, least: float) -> None:
    assert delay_s(error, 1, 0.0) == least
