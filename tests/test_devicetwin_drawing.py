"""What `edgecore device history` shows of a property, from what is kept of it."""

from collections.abc import Sequence

import pytest

from componentbase.errors import CommandError
from devicetwin.drawing import history_lines

SINCE, NOW = 1_800_000_000_000, 1_800_003_600_000


def history(*samples: tuple[int, str | None], present: object = None, properties: Sequence[str] = ()) -> list[str]:
    facts = {
        "namespace": "default",
        "name": "thermo-1",
        "property": "temperature",
        "samples": [list(each) for each in samples],
        "present": present,
        "properties": list(properties),
    }
    return history_lines(facts, SINCE, NOW, 80, "utf-8")


def test_numbers_are_drawn_up_to_the_present() -> None:
    present = {"value": "30", "atMs": NOW - 1000, "stale": False}
    lines = history((SINCE - 5, "20"), (SINCE + 1_800_000, "25"), present=present)
    assert lines[0] == "temperature of default/thermo-1: 30"
    assert lines[1].startswith("30 |")
    assert lines[-3].startswith("20 |\u2022")
    assert not any("\u2022" in each for each in history_lines({**FACTS_OF_A_SWITCH}, SINCE, NOW, 80, "ascii"))


FACTS_OF_A_SWITCH: dict[str, object] = {
    "namespace": "default",
    "name": "lamp",
    "property": "on",
    "properties": [],
    "samples": [[SINCE, "true"], [SINCE + 1000, "false"]],
    "present": None,
}


def test_switches_are_drawn_and_words_are_listed() -> None:
    assert history_lines(FACTS_OF_A_SWITCH, SINCE, NOW, 80, "ascii")[1].startswith("1 |*")
    lines = history((SINCE, "heating"), (SINCE + 1000, None), *((SINCE + n * 10_000, f"w{n}") for n in range(1, 50)))
    assert lines[1] == "... 11 earlier"
    assert lines[-1].endswith("  w49")


def test_a_stale_value_is_not_drawn_as_if_it_were_so() -> None:
    lines = history((SINCE, "20"), (SINCE + 1000, None), present={"value": "20", "atMs": SINCE, "stale": True})
    assert lines[0].endswith(": 20, not reported any more")
    assert lines[1:] != ["no value is known in this time"]
    assert history((SINCE - 9, None), (SINCE - 8, None))[1:] == ["no value is known in this time"]


def test_of_nothing_it_says_what_there_is() -> None:
    with pytest.raises(CommandError, match="there is something of: heater, mode"):
        history(properties=["heater", "mode"])
    with pytest.raises(CommandError, match="the device has reported nothing"):
        history()
