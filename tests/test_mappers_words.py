"""What a driver is told about its device."""

import math

import pytest

from mappers.words import BadConfig, Device


def device(**settings: object) -> Device:
    return Device("default/one", settings, {})


def test_a_number_comes_from_the_settings_or_the_default() -> None:
    assert device(port=502).number("port", 1.0) == 502.0
    assert device().number("port", 1.0) == 1.0


@pytest.mark.parametrize("value", ["502", None, True, [], math.nan, math.inf])
def test_what_is_no_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(BadConfig, match=r"protocol\.configData\.port must be a number"):
        device(port=value).number("port", 1.0)


@pytest.mark.parametrize(
    ("minimum", "maximum", "words"),
    [(1.0, math.inf, "at least 1"), (-math.inf, -5.0, "at most -5"), (1.0, 5.0, "from 1 to 5")],
)
def test_a_number_out_of_range_is_refused_with_the_range(minimum: float, maximum: float, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        device(port=0).number("port", 1.0, minimum=minimum, maximum=maximum)
