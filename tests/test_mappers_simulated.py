"""The simulated thermostat as a driver."""

import pytest

from mappers.driver import BadConfig, Device, WriteRefused
from mappers.simulated import Thermostat

ALL = ("temperature", "setpoint", "heater", "outdoorTemperature")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def thermostat(clock: Clock, **settings: object) -> Thermostat:
    return Thermostat(Device("default/thermostat", settings, {}), clock)


async def values(one: Thermostat) -> dict[str, object]:
    return {name: reading.value for name, reading in (await one.read(ALL)).items()}


async def test_it_starts_as_configured() -> None:
    one = thermostat(Clock(), initialTemperature=19, setpoint=20.5, outdoorTemperature=-3)
    await one.connect()
    assert await values(one) == {
        "temperature": 19.0,
        "setpoint": 20.5,
        "heater": True,
        "outdoorTemperature": -3.0,
    }
    await one.close()


async def test_a_higher_setpoint_warms_the_room_within_seconds() -> None:
    clock = Clock()
    one = thermostat(clock, initialTemperature=20, setpoint=20, timeConstant=20)
    await one.write("setpoint", 23.0)
    clock.now += 5
    warmer = await values(one)
    assert warmer["setpoint"] == 23.0
    assert isinstance(warmer["temperature"], float)
    assert warmer["temperature"] > 21


async def test_the_weather_counts() -> None:
    clock = Clock()
    one = thermostat(clock, initialTemperature=20, setpoint=5, timeConstant=20)
    await one.write("outdoorTemperature", -40)
    clock.now += 10
    cold = (await values(one))["temperature"]
    assert isinstance(cold, float)
    assert cold < 10


async def test_reading_more_often_changes_nothing() -> None:
    often, once = Clock(), Clock()
    one, other = thermostat(often), thermostat(once)
    for _ in range(100):
        often.now += 0.1
        await one.read(ALL)
    once.now = often.now
    assert await values(one) == await values(other)


async def test_only_what_is_asked_for_and_known_is_read() -> None:
    assert set(await thermostat(Clock()).read(["setpoint", "humidity"])) == {"setpoint"}


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 20.0), ("heater", True), ("setpoint", "20"), ("setpoint", -300.0)]
)
async def test_what_cannot_be_set_is_refused(name: str, value: float | str) -> None:
    with pytest.raises(WriteRefused):
        await thermostat(Clock()).write(name, value)


@pytest.mark.parametrize(
    "settings", [{"timeConstant": 0}, {"heaterPower": -1}, {"setpoint": "warm"}, {"hysteresis": 0}]
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(BadConfig, match=next(iter(settings))):
        thermostat(Clock(), **settings)
