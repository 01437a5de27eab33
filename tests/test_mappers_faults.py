"""What is wrong with single properties is told once, and of all together counts as silence."""

import pytest

from mappers.faults import REPEAT_S, Faults


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def faults(clock: Clock) -> Faults:
    return Faults("default/one", ["a", "b"], clock)


def test_a_trouble_is_told_once_with_its_property(faults: Faults, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        faults.found("a", "no such file")
    (line,) = caplog.records
    assert line.levelname == "WARNING"
    assert (vars(line)["device"], vars(line)["property"], vars(line)["reason"]) == ("default/one", "a", "no such file")


def test_a_trouble_whose_text_changes_is_not_told_again_before_long(
    faults: Faults, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        faults.found("a", f"trouble {number}")
    assert len(caplog.records) == 1
    clock.now += REPEAT_S
    faults.found("a", "another")
    faults.found("a", "another")
    assert [vars(line)["reason"] for line in caplog.records] == ["trouble 0", "another"]


def test_its_end_is_told_and_the_next_one_is_news(faults: Faults, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    faults.found("a", "no such file")
    faults.over("a")
    faults.over("a")
    faults.found("a", "no such file")
    assert [line.message for line in caplog.records] == [
        "property not readable",
        "property readable again",
        "property not readable",
    ]


def test_only_when_nothing_can_be_read_is_it_silence(faults: Faults) -> None:
    assert faults.silence() is None
    faults.found("a", "no such file")
    assert faults.silence() is None
    faults.found("b", "no such directory")
    silence = faults.silence()
    assert silence is not None
    assert str(silence) == "no property can be read; a: no such file"
    faults.over("b")
    assert faults.silence() is None


def test_a_device_with_nothing_to_read_is_not_silent() -> None:
    assert Faults("default/one", []).silence() is None
