"""
The words between the runtime and a driver: values, readings, what a device is, and what may go wrong.

A driver imports them from mappers.driver, which says what each is for. Pure.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.devices import PropertyModel
from apimachinery.objects import JSON
from mappers.pushmethod import Target

Value = bool | int | float | str | bytes
"""A property's value as a driver sees it: BOOLEAN bool, INT int, FLOAT and DOUBLE float, BYTES bytes, others str."""


class DriverError(Exception):
    """What a driver may raise."""


class DeviceSilent(DriverError):
    """The device does not answer."""


class WriteRefused(DriverError):
    """The device will not take the value; the argument says why, as a sentence for the user."""


class BadConfig(DriverError):
    """The Device's configuration cannot work; the argument says what is wrong with it."""


class Reading(NamedTuple):
    """One value as it was read."""

    value: Value
    at_ms: int | None = None
    """The device's own time of the value, in milliseconds since 1970; None where it gives none."""


class Property(NamedTuple):
    """One property of a device, as the Device and its model describe it."""

    model: PropertyModel
    settings: Mapping[str, JSON]
    """`visitors.configData`, the model's with the Device's on top: a register, a topic, a pin."""
    collect_s: float
    """How often to read it."""
    report_s: float
    """How often to report it while it does not change."""
    wanted: bool
    """Whether to report readings at all (`reportToCloud`); what becomes of a desired value always is."""
    dead_band: float
    """How far a number must have moved to be reported as changed."""
    targets: tuple[Target, ...] = ()
    """Where each sample goes besides the twin (`pushMethod`)."""
    push_method: Mapping[str, object] = {}
    """`pushMethod` as it stands in the Device, for a driver that makes something of its `anomalyDetection`."""


class Device(NamedTuple):
    """One device, as its driver gets to know it."""

    id: str
    """NAMESPACE/NAME, as in MQTT topics."""
    settings: Mapping[str, JSON]
    """`protocol.configData`, the model's with the Device's on top: an address, a time constant."""
    properties: Mapping[str, Property]

    def number(self, name: str, default: float, *, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """A number in the settings. Raises BadConfig when it is none or out of range."""
        value = self.settings.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadConfig(f"protocol.configData.{name} must be a number")
        if not minimum <= value <= maximum:
            raise BadConfig(f"protocol.configData.{name} must be {_span(minimum, maximum)}, not {value:g}")
        return float(value)


def _span(minimum: float, maximum: float) -> str:
    if minimum == -math.inf:
        return f"at most {maximum:g}"
    return f"at least {minimum:g}" if maximum == math.inf else f"from {minimum:g} to {maximum:g}"
