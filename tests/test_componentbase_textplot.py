"""Drawings in characters."""

from hypothesis import given
from hypothesis import strategies as st

from componentbase.textplot import Point, plot


def drawn(*points: tuple[float, float | None], since: float = 0, until: float = 16, height: int = 3) -> list[str]:
    return plot([Point(*each) for each in points], since, until, lambda at: f"{at:g}", width=16, height=height)


def test_a_value_holds_until_the_next_one_and_a_gap_is_a_gap() -> None:
    assert drawn((0, 10), (4, 20), (8, None), (12, 10)) == [
        "20 |    ****",
        "   |",
        "10 |****        ****",
        "   +----------------",
        "    0             16",
    ]


def test_what_was_before_counts_at_the_beginning() -> None:
    assert drawn((-9, 5), (-5, 7), (8, 8))[0] == " 8 |        ********".strip()


def test_a_short_peak_is_seen() -> None:
    lines = drawn((0, 0), (5.1, 100), (5.2, 0))
    assert lines[0] == "100 |     *"


def test_a_value_that_never_changes_is_a_line_with_its_number() -> None:
    lines = drawn((0, 21.5))
    assert lines[1] == "21.5 |****************"
    assert sum("*" in each for each in lines) == 1


def test_nothing_known_is_nothing_drawn() -> None:
    assert drawn() == []
    assert drawn((0, None)) == []
    assert drawn((99, 1)) == []


@given(
    st.lists(
        st.tuples(st.floats(-10, 30), st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32)),
        max_size=9,
    ).map(lambda each: sorted(each, key=lambda point: point[0])),
    st.integers(0, 9),
)
def test_it_always_fits(points: list[tuple[float, float | None]], height: int) -> None:
    lines = plot([Point(*each) for each in points], 0, 16, str, width=20, height=height)
    assert len(lines) in (0, max(height, 2) + 2)
    assert len({each.index("|") for each in lines[:-2]}) <= 1
    assert all(len(each) <= 20 + 30 for each in lines)
