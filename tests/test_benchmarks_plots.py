"""Plots: scales, marks, and that what comes out is SVG."""

import re
from xml.etree import ElementTree

import pytest

from benchmarks.figures import Curve
from benchmarks.plots import PLOTS, Chart, Scale, draw, joined


@pytest.mark.parametrize(
    ("values", "log", "marks"),
    [
        ([10, 10_000], True, [10, 100, 1000, 10_000]),
        ([15, 90], True, [10, 20, 50, 100]),
        ([3, 40_000], False, [0, 10_000, 20_000, 30_000, 40_000]),
        ([0.0], False, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_an_axis_is_marked_where_a_reader_expects_it(values: list[float], log: bool, marks: list[float]) -> None:
    scale = Scale(values, 0, 100, log=log)
    assert list(scale.marks()) == pytest.approx(marks)
    assert scale.place(scale.low) == 0
    assert scale.place(scale.high) == pytest.approx(100)


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    scale = Scale([1, 100], 0, 100, log=True)
    assert [scale.place(value) for value in (1, 10, 100)] == pytest.approx([0, 50, 100])


def test_what_a_logarithmic_axis_cannot_show_is_left_out() -> None:
    drawn = draw(Chart("x", "n", "ms", log_y=True), [Curve("", "a <b>", [(1, 0.0), (10, 5.0), (100, 6.0)])])
    assert len(re.findall("<circle", drawn)) == 2
    assert "a &lt;b&gt;" in drawn
    ElementTree.fromstring(drawn)  # noqa: S314 - our own text


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_draws_what_is_inside_its_frame(name: str) -> None:
    drawn = draw(PLOTS[name], [Curve(name, "one", [(10, 1.5), (1000, 20)]), Curve(name, "two", [(100, 3)])])
    for x, y in re.findall(r'cx="([-.\d]+)" cy="([-.\d]+)"', drawn):
        assert 0 <= float(x) <= 720
        assert 0 <= float(y) <= 420


def test_points_of_one_line_from_two_families_are_one_line() -> None:
    plots = joined([Curve("memory", "hub", [(10, 1), (100, 2)]), Curve("memory", "hub", [(1, 0.5)])])
    assert plots == {"memory": [Curve("memory", "hub", [(1, 0.5), (10, 1), (100, 2)])]}
