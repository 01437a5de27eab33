"""Times and counts as people read them."""

from datetime import UTC, datetime, timedelta, timezone

from componentbase.words import counted, rfc3339


def test_a_time_is_in_utc_and_to_the_second_whatever_zone_it_comes_with() -> None:
    moment = datetime(2026, 11, 24, 9, 12, 40, 999_999, tzinfo=UTC)
    assert rfc3339(moment) == rfc3339(moment.astimezone(timezone(timedelta(hours=5)))) == "2026-11-24T09:12:40Z"


def test_one_of_something_has_no_plural() -> None:
    assert [counted(number, "node") for number in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
