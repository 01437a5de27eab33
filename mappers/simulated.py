"""
The driver `simulated`: a thermostat in a room that exists nowhere, for trying out, demos and tests.

    temperature          FLOAT    read-only    of the room
    setpoint             FLOAT    read/write   what the thermostat aims at
    heater               BOOLEAN  read-only    whether it is heating
    outdoorTemperature   FLOAT    read/write   the weather, which here obeys

Settings (`protocol.configData`, all optional): initialTemperature, setpoint, outdoorTemperature, heaterPower
(how much warmer than outdoors it gets), timeConstant (seconds), hysteresis. Nothing is kept: a restarted mapper
starts from the settings and then obeys what is desired, as a thermostat does after a power cut.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from mappers.driver import Device, Reading, Value, WriteRefused
from mappers.thermostat import Room

_COLDEST = -273.15
_DIGITS = 2  # a good sensor; more digits would be reported as change for ever


class Thermostat:
    """One simulated thermostat."""

    def __init__(self, device: Device, clock: Callable[[], float] = time.monotonic) -> None:
        outdoors = device.number("outdoorTemperature", 8.0, minimum=_COLDEST)
        self._clock = clock
        self._looked_at = clock()
        self._room = Room(
            temperature=device.number("initialTemperature", 18.0, minimum=_COLDEST),
            setpoint=device.number("setpoint", 20.0, minimum=_COLDEST),
            outdoors=outdoors,
            heating=False,
            power=device.number("heaterPower", 30.0, minimum=0.1),
            time_constant_s=device.number("timeConstant", 60.0, minimum=0.1),
            hysteresis=device.number("hysteresis", 0.5, minimum=0.01),
        )

    async def connect(self) -> None:
        """Nothing to reach: it answers always."""

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        """The room as it is now."""
        room = self._now()
        readings = {
            "temperature": Reading(round(room.temperature, _DIGITS)),
            "setpoint": Reading(room.setpoint),
            "heater": Reading(room.heating),
            "outdoorTemperature": Reading(room.outdoors),
        }
        return {name: reading for name, reading in readings.items() if name in names}

    async def write(self, name: str, value: Value) -> None:
        """Turn the knob, or the weather."""
        if not isinstance(value, int | float) or name not in ("setpoint", "outdoorTemperature"):
            raise WriteRefused(f"a simulated thermostat has no {name} to set")
        if value < _COLDEST:
            raise WriteRefused(f"{value:g} is below absolute zero")
        room = self._now()
        changed = replace(room, setpoint=float(value)) if name == "setpoint" else replace(room, outdoors=float(value))
        self._room = changed.thermostat()

    async def close(self) -> None:
        """Nothing to let go of."""

    def _now(self) -> Room:
        now = self._clock()
        self._room = self._room.advance(now - self._looked_at)
        self._looked_at = now
        return self._room
