"""Settings: read, and refused with a sentence that names the member."""

import math
from collections.abc import Callable

import pytest

from mappers.driver import BadConfig
from mappers.settings import SHOWN_CHARS, Settings, is_scalar, shown
from tests.harness.devices import a_device, a_property


def settings(**values: object) -> Settings:
    return Settings("protocol.configData", values)


def test_what_is_there_is_read() -> None:
    one = settings(text="a", number=1.5, whole=17.0, flag=True, choice="in", map={"x": 1, "y": "z"}, texts=["a", "b"])
    assert one.text("text") == "a"
    assert one.number("number") == 1.5
    assert one.whole("whole", minimum=0, maximum=20) == 17
    assert one.flag("flag", False) is True
    assert one.choice("choice", ("in", "out"), "out") == "in"
    assert one.scalars("map") == {"x": 1, "y": "z"}
    assert one.texts("texts", 2) == ["a", "b"]
    one.done()


def test_what_is_missing_is_its_default() -> None:
    one = settings()
    assert one.text("text", "") == ""
    assert one.number("number", 2) == 2.0
    assert one.whole("whole", 3, minimum=0, maximum=9) == 3
    assert one.flag("flag", True) is True
    assert one.choice("choice", ("in", "out"), "out") == "out"
    assert one.scalars("map") == {}
    assert one.texts("texts", 2) == []
    assert "text" not in one


def test_one_text_stands_for_a_list_of_one() -> None:
    assert settings(topic="a").texts("topic", 3) == ["a"]


@pytest.mark.parametrize(
    ("read", "value", "words"),
    [
        (lambda s: s.text("x"), None, "x is missing"),
        (lambda s: s.text("x"), 3, "x must be a text"),
        (lambda s: s.text("x"), "", "x must be a text"),
        (lambda s: s.number("x"), "3", "x must be a number"),
        (lambda s: s.number("x"), True, "x must be a number"),
        (lambda s: s.number("x", minimum=0, maximum=5), 6, "x must be a number from 0 to 5"),
        (lambda s: s.number("x"), math.nan, "x must be a number"),
        (lambda s: s.whole("x", minimum=0, maximum=5), 1.5, "x must be a whole number"),
        (lambda s: s.whole("x", minimum=0, maximum=5), math.inf, "x must be a whole number"),
        (lambda s: s.whole("x", minimum=0, maximum=5), 6, "x must be from 0 to 5, not 6"),
        (lambda s: s.whole("x", minimum=0, maximum=5), True, "x must be a whole number"),
        (lambda s: s.flag("x", False), "true", "x must be true or false"),
        (lambda s: s.choice("x", ("in", "out"), "in"), "up", "x must be in or out"),
        (lambda s: s.choice("x", ("in", "out"), "in"), ["in"], "x must be in or out"),
        (lambda s: s.scalars("x"), [1], "x must be a map"),
        (lambda s: s.scalars("x"), {"a": []}, "x must be a map"),
        (lambda s: s.texts("x", 2), ["a", ""], "x must be a text or a list of texts"),
        (lambda s: s.texts("x", 2), 3, "x must be a text or a list of texts"),
        (lambda s: s.texts("x", 2), ["a", "b", "c"], "x must be at most 2 texts"),
    ],
)
def test_what_cannot_be_is_refused_by_name(read: Callable[[Settings], object], value: object, words: str) -> None:
    with pytest.raises(BadConfig, match=f"^protocol.configData.{words}"):
        read(settings(x=value))


def test_a_setting_that_nobody_reads_is_most_likely_misspelt() -> None:
    one = settings(urll="http://x")
    with pytest.raises(BadConfig, match="url is missing"):
        one.text("url")
    with pytest.raises(BadConfig, match="urll is not known to this driver; it knows url"):
        one.done()


def test_a_propertys_settings_are_told_with_its_name_and_the_runtimes_own_passed_over() -> None:
    device = a_device({"host": "x"}, level=a_property("INT", deadBand=2, gpo=3))
    with pytest.raises(BadConfig, match=r"property level: visitors\.configData\.gpo is not known"):
        Settings.of_property(device, "level").done()
    with pytest.raises(BadConfig, match=r"protocol\.configData\.host is not known"):
        Settings.of_device(device).done()


def test_a_foreign_text_is_shown_short_and_without_what_a_terminal_obeys() -> None:
    assert shown("a\x1b[2J\nb") == "a?[2J?b"
    assert shown("x" * SHOWN_CHARS) == "x" * SHOWN_CHARS
    assert shown("x" * 1000) == "x" * (SHOWN_CHARS - 3) + "..."


def test_scalars_are_what_can_stand_in_a_text() -> None:
    assert all(is_scalar(each) for each in ("a", 1, 1.5, True))
    others: list[object] = [None, [], {}, math.inf]
    assert not any(is_scalar(each) for each in others)
