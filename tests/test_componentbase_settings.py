"""Declaring settings: names, types, limits, and the texts a scalar accepts."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from componentbase.endpoints import Endpoint
from componentbase.settings import (
    REQUIRED,
    choices_of,
    fields_of,
    has_no_default,
    is_section,
    key_of,
    meaning_of,
    name_of,
    range_of,
    scalar_reader,
    setting,
)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Sample:
    needed: str = setting(REQUIRED, "What it is for.")
    names: list[str] = setting(["a"])
    plain: int = 3


@pytest.mark.parametrize(
    ("field_name", "key"),
    [
        ("url", "url"),
        ("data_dir", "dataDir"),
        ("retry_after_s", "retryAfterSeconds"),
        ("window_bytes", "windowBytes"),
        ("s", "s"),
        ("http2_port", "http2Port"),
        ("max_2_tries", "max2Tries"),
    ],
)
def test_keys_are_spelled_as_kubernetes_spells_them(field_name: str, key: str) -> None:
    assert key_of(field_name) == key


def test_mutable_default_is_not_shared() -> None:
    first, second = Sample(needed="x"), Sample(needed="y")
    first.names.append("b")
    assert second.names == ["a"]


def test_required_setting_cannot_be_left_out() -> None:
    with pytest.raises(TypeError, match="needed"):
        Sample()
    fields = fields_of(Sample)
    assert [name for name, (_kind, field) in fields.items() if has_no_default(field)] == ["needed"]
    assert meaning_of(fields["needed"][1]) == ": What it is for."
    assert meaning_of(fields["plain"][1]) == ""


def test_only_dataclasses_of_settings_are_sections() -> None:
    assert is_section(Sample)
    assert not any(is_section(kind) for kind in (str, Path, Endpoint, Colour, list[str], Literal["a"], str | None))


def test_limits_and_choices_are_told_in_words() -> None:
    assert range_of({"at_least": 1, "at_most": 9}) == "1 to 9"
    assert range_of({"at_least": 1}) == "at least 1"
    assert range_of({"at_most": 9}) == "at most 9"
    assert range_of({}) == ""
    assert choices_of(Literal["text", "json"]) == "One of: text, json."
    assert choices_of(Literal["text", "json"] | None) == "One of: text, json."
    assert choices_of(Colour) == "One of: red, blue."
    assert choices_of(int) == ""
    assert name_of(float) == "a number"
    assert name_of(Colour) == "one word"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "0", 0),
        (int, "-12", -12),
        (int, "1_000_000", 1_000_000),
        (float, "3", 3.0),
        (float, "0.5", 0.5),
        (float, "1.", 1.0),
        (float, "2.5e-3", 0.0025),
        (bool, "true", True),
        (bool, "false", False),
        (str, "", ""),
        (Path, "/var/lib", Path("/var/lib")),
        (Endpoint, "hub:1", Endpoint("hub", 1)),
    ],
)
def test_text_of_a_type_is_read(kind: Any, text: str, value: object) -> None:
    got = scalar_reader(kind)(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((int, text) for text in ("", "010", "0x10", "1.0", "1:30", "ten", "1__0", "_1", "1_", "٣", "9" * 21)),
        *((float, text) for text in ("", ".5", "nan", ".inf", "1e999", "1_", "1 s", "30s", "e5")),
        *((bool, text) for text in ("", "yes", "no", "on", "True", "1")),
        *((Path, text) for text in ("", "a\0b")),
        *((Endpoint, text) for text in ("", "hub")),
    ],
)
def test_text_that_is_not_of_the_type_is_refused(kind: Any, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is the reader's who asked, and tested with it
        scalar_reader(kind)(text)
