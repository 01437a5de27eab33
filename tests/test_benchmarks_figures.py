"""Figures: medians, targets both ways, exponents, and the table."""

import pytest

from benchmarks.figures import LINEAR, Curve, Figure, Times, drift, growth, percentile, shown, table


def test_a_figure_is_the_median_of_its_runs() -> None:
    assert Figure("x", "s", [9.0, 1.0, 2.0]).value == 2.0


def test_of_what_must_not_happen_the_worst_run_counts() -> None:
    assert Figure("x", "", [0.0, 0.0, 1.0], 0.0, is_worst=True).is_met is False


@pytest.mark.parametrize(
    ("value", "at_least", "is_met"), [(9.0, False, True), (11.0, False, False), (9.0, True, False), (11.0, True, True)]
)
def test_a_target_is_the_most_or_the_least(value: float, at_least: bool, is_met: bool) -> None:
    assert Figure("x", "s", [value], 10.0, at_least=at_least).is_met is is_met


def test_without_a_target_nothing_is_met_or_missed() -> None:
    assert Figure("x", "s", [1.0]).is_met is None


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_is_the_slope_on_logarithmic_axes(power: float) -> None:
    found = growth("x", [(n, 3 * n**power) for n in (10, 100, 1000)])
    assert found.value == pytest.approx(power)
    assert found.is_met is (power <= LINEAR)


def test_figures_and_curves_read_back_as_they_were_written() -> None:
    figure = Figure("x", "s", [1.0, 3.0], 2.0, "a note", at_least=True, is_promise=True)
    figure.value = 2.5  # as pooled percentiles are
    assert Figure.from_json(figure.as_json()) == figure
    curve = Curve("memory", "hub", [(1.0, 2.0)])
    assert Curve.from_json(curve.as_json()) == curve


def test_percentiles_are_of_all_runs_together() -> None:
    times = Times("x")
    for run in ([1.0, 2.0, 3.0], [100.0]):
        times.begin_run()
        for sample in run:
            times.add(sample)
    middle, tail = times.figures()
    assert (middle.value, tail.value) == (2.0, 100.0)
    assert times.distribution("latency", "x").points[-1] == (100.0, 100)
    assert percentile([1.0], 1) == 1.0


def test_the_table_says_what_was_missed() -> None:
    text = table([Figure("fast", "1/s", [5.0], 10.0, at_least=True), Figure("small", "KB", [5.0, 7.0], 10.0)])
    assert "≥ 10.0 NOT MET" in text
    assert "| small | 6.00 KB | 5.00 .. 7.00 | ≤ 10.0 met | |" in " ".join(text.split())


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.01234, "0.0123"), (12.34, "12.3"), (123456, "123,456")])
def test_three_digits_are_shown(value: float, text: str) -> None:
    assert shown(value) == text


def test_what_drifts_does_so_whatever_a_fifth_of_the_looks_say() -> None:
    points = [(float(x), 2.0 * x + (1000.0 if x % 5 == 0 else 0.0)) for x in range(1, 101)]
    assert drift(points) == pytest.approx(2.0)
    assert drift([(x, 7.0) for x, _ in points]) == 0


def test_figures_of_rows_and_columns_make_a_table_of_these() -> None:
    figures = [
        Figure("5 % lost, quic | in sync", "s", [3.126]),
        Figure("5 % lost, quic | up", "KB", [17.9]),
        Figure("a blackhole, quic | after it", "s", [0.412]),
    ]
    assert table(figures).splitlines() == [
        "|                   | in sync |      up | after it |",
        "| ----------------- | ------: | ------: | -------: |",
        "| 5 % lost, quic    |  3.13 s | 17.9 KB |          |",
        "| a blackhole, quic |         |         |  0.412 s |",
    ]
