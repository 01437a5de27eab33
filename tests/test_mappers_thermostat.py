"""The physics of the simulated room."""

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mappers.thermostat import MAX_SWITCHES, Room

ROOM = Room(
    temperature=18.0, setpoint=20.0, outdoors=8.0, heating=False, power=30.0, time_constant_s=60.0, hysteresis=0.5
)
degrees = st.floats(-40, 60)
rooms = st.builds(
    Room,
    temperature=degrees,
    setpoint=degrees,
    outdoors=st.floats(-40, 30),
    heating=st.booleans(),
    power=st.floats(0.1, 60),
    time_constant_s=st.floats(0.1, 10_000),
    hysteresis=st.floats(0.1, 3),
)


def switches(room: Room, seconds: float) -> float:
    """About how many, at most: a whole swing takes at least this long."""
    return seconds / (room.time_constant_s * room.hysteresis / 200)


@given(rooms, st.floats(0, 100), st.floats(0, 100))
def test_one_long_step_is_two_short_ones(room: Room, first: float, second: float) -> None:
    assume(switches(room, first + second) < MAX_SWITCHES)
    at_once = room.advance(first + second)
    in_two = room.advance(first).advance(second)
    # At the very moment of a switch rounding decides on which side it falls; the temperature is the same.
    assert in_two.temperature == pytest.approx(at_once.temperature, abs=1e-6)


@given(rooms, st.floats(0, 1e6))
def test_the_temperature_stays_between_where_it_was_and_the_resting_points(room: Room, seconds: float) -> None:
    later = room.advance(seconds).temperature
    low = min(room.temperature, room.outdoors)
    high = max(room.temperature, room.outdoors + room.power)
    assert low - 1e-6 <= later <= high + 1e-6


@given(rooms, st.floats(0.1, 0.9))
def test_a_room_that_can_be_heated_ends_within_the_band(room: Room, share: float) -> None:
    power = room.power + 40 * room.hysteresis
    room = replace(room, power=power, setpoint=room.outdoors + share * power)
    later = room.advance(20 * room.time_constant_s)
    assert abs(later.temperature - room.setpoint) <= room.hysteresis + 1e-6


@given(rooms)
def test_without_heat_a_room_becomes_as_cold_as_outdoors(room: Room) -> None:
    cold = replace(room, setpoint=room.outdoors - 10, temperature=room.outdoors + 20, heating=False)
    later = cold.advance(40 * room.time_constant_s)
    assert not later.heating
    assert later.temperature == pytest.approx(room.outdoors, abs=1e-3)


@given(rooms, st.lists(st.floats(0, 5), max_size=20))
def test_the_heater_is_never_on_above_the_band_nor_off_below_it(room: Room, steps: list[float]) -> None:
    for seconds in steps:
        assume(switches(room, seconds) < MAX_SWITCHES)
        room = room.advance(seconds)
        if room.heating:
            assert room.temperature <= room.setpoint + room.hysteresis + 1e-6
        else:
            assert room.temperature >= room.setpoint - room.hysteresis - 1e-6


def test_hysteresis_keeps_the_heater_as_it_was_within_the_band() -> None:
    assert replace(ROOM, temperature=20.2, heating=True).thermostat().heating
    assert not replace(ROOM, temperature=20.2, heating=False).thermostat().heating


def test_the_moment_of_the_switch_is_exact() -> None:
    # From 18 towards 38: at the upper edge, 20.5, after tau * ln(20 / 17.5).
    until = 60 * math.log(20 / 17.5)
    assert ROOM.advance(until - 1e-6).heating
    assert not ROOM.advance(until + 1e-6).heating
    assert ROOM.advance(until).temperature == pytest.approx(20.5)


def test_a_setpoint_out_of_reach_keeps_heating() -> None:
    hot = replace(ROOM, setpoint=60.0).advance(10_000)
    assert hot.heating
    assert hot.temperature == pytest.approx(38.0)


def test_a_step_of_days_ends() -> None:
    later = replace(ROOM, time_constant_s=0.1, hysteresis=0.01).advance(1e6)
    assert abs(later.temperature - 20.0) <= 0.011
