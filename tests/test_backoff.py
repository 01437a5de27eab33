"""Tests for cloudhub.backoff."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Expired,
    Forbidden,
    InternalError,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from cloudhub.backoff import ABSENT_CAP_S, BASE_S, CAP_S, full_jitter_s, read_delay_s, write_delay_s

JITTER = st.floats(0.0, 1.0, exclude_max=True)


@given(st.integers(1, 10_000), JITTER)
def test_the_delay_lies_between_nothing_and_a_ceiling(failures: int, jitter: float) -> None:
    assert 0.0 <= full_jitter_s(failures, jitter) <= CAP_S


@given(st.integers(1, 50))
def test_the_ceiling_doubles_up_to_the_cap(failures: int) -> None:
    assert full_jitter_s(failures, 1.0) == min(CAP_S, BASE_S * 2**failures)


@pytest.mark.parametrize(
    ("error", "failures", "least", "most"),
    [
        (Expired(""), 1, 0.0, 0.0),
        (Expired(""), 2, 1.0, 1.0),
        (NotFound(""), 50, ABSENT_CAP_S, ABSENT_CAP_S),
        (Forbidden(""), 50, CAP_S, CAP_S),
        (Unavailable("", retry_after_s=40), 1, 40.0, 40.0),
        (TooManyRequests("", retry_after_s=1), 50, CAP_S, CAP_S),
    ],
)
def test_reading_is_never_given_up(error: ApiError, failures: int, least: float, most: float) -> None:
    assert least <= read_delay_s(error, failures, 1.0) <= most


@pytest.mark.parametrize(
    ("error", "failures", "delay_s"),
    [
        (Conflict(""), 1, 0.0),
        (Conflict(""), 50, 1.0),
        (Unavailable(""), 1, 0.5),
        (InternalError(""), 50, CAP_S),
        (TooManyRequests("", retry_after_s=7), 1, 7.0),
        (Unauthorized(""), 1, 0.5),
        (Invalid(""), 1, None),
        (NotFound(""), 1, None),
        (Forbidden(""), 1, None),
        (AlreadyExists(""), 1, None),
    ],
)
def test_writing_again_is_worthwhile_or_not(error: ApiError, failures: int, delay_s: float | None) -> None:
    assert write_delay_s(error, failures, 1.0) == delay_s
