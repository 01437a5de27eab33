"""
The physics of one heated room, for the simulated thermostat.

A room loses heat in proportion to how much warmer it is than outdoors, and a heater that is on adds
heat at a constant rate. So the temperature is always on its way to a resting point, along an exponential:
outdoors with the heater off, outdoors + power with it on. The thermostat switches at the edges of a band
around the setpoint (hysteresis), and the moment it switches is solved for, not searched for.

Invariants
    advance(a) then advance(b) is advance(a + b), whatever the steps: nobody sees how often it was asked
    the temperature never leaves the span of where it was and the two resting points

Pure state: time is an argument. The driver is mappers/simulated.py.
"""

import math
from dataclasses import dataclass, replace

MAX_SWITCHES = 1000
"""In one step, after which the rest of the step is left out: a suspended machine may wake up days later."""


@dataclass(frozen=True, slots=True)
class Room:
    """A room and its thermostat at one moment. Temperatures in degrees Celsius, or any other degrees."""

    temperature: float
    setpoint: float
    outdoors: float
    heating: bool
    power: float
    """How much warmer than outdoors the heater can make the room; > 0."""
    time_constant_s: float
    """How long until 63 % of the way to the resting point is gone; > 0."""
    hysteresis: float
    """Half the width of the band around the setpoint; > 0."""

    def resting_point(self) -> float:
        """Where the temperature would end if the heater stayed as it is."""
        return self.outdoors + (self.power if self.heating else 0.0)

    def thermostat(self) -> "Room":
        """The room after the thermostat has looked at it: on below the band, off above it, as before within."""
        if self.heating and self.temperature >= self.setpoint + self.hysteresis:
            return replace(self, heating=False)
        if not self.heating and self.temperature <= self.setpoint - self.hysteresis:
            return replace(self, heating=True)
        return self

    def advance(self, seconds: float) -> "Room":
        """The room this much later."""
        room = self.thermostat()
        for _ in range(MAX_SWITCHES):
            until_switch = room._seconds_until_switch()
            if until_switch > seconds:
                break
            seconds -= until_switch
            edge = room.setpoint + (room.hysteresis if room.heating else -room.hysteresis)
            room = replace(room, temperature=edge, heating=not room.heating)
        else:
            return room
        return room._drift(seconds)

    def _seconds_until_switch(self) -> float:
        edge = self.setpoint + (self.hysteresis if self.heating else -self.hysteresis)
        rest = self.resting_point()
        # The edge is reached only if it lies strictly between here and the resting point.
        if (edge - self.temperature) * (rest - edge) <= 0:
            return math.inf
        return self.time_constant_s * math.log((self.temperature - rest) / (edge - rest))

    def _drift(self, seconds: float) -> "Room":
        rest = self.resting_point()
        part_left = math.exp(-seconds / self.time_constant_s)
        return replace(self, temperature=rest + (self.temperature - rest) * part_left)
