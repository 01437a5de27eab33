"""
What a driver is: the four methods that turn one device into readings. All that a new driver imports is here.

The runtime makes one driver for each device and calls it from one task, so a driver holds no lock and
never sees two calls at once. It deals in Python values; texts, ranges, cycles, MQTT and reconnecting
are the runtime's business. A call that takes longer than CALL_TIMEOUT_S is given up.

Errors a driver raises
    DeviceSilent    the device does not answer: the runtime closes the driver, reports the device
                    offline and connects again later, ever less often. OSError (and so TimeoutError and
                    ConnectionError) counts as the same, so that most drivers need not translate anything.
    WriteRefused    the device answers, but will not take this value: told to the user, not repeated at once
    BadConfig       what the Device says about the device cannot work: nothing is tried until it changes
Anything else is a bug in the driver: it is logged with its traceback, and this device starts again.

A device that tells of its values by itself has a driver with a fifth method, see SubscribingDriver.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, runtime_checkable

from mappers.sink import Sink
from mappers.words import BadConfig, Device, DeviceSilent, DriverError, Property, Reading, Value, WriteRefused

__all__ = [
    "CALL_TIMEOUT_S",
    "BadConfig",
    "Device",
    "DeviceSilent",
    "Driver",
    "DriverError",
    "DriverFactory",
    "Property",
    "Reading",
    "Sink",
    "SubscribingDriver",
    "Value",
    "WriteRefused",
]

CALL_TIMEOUT_S = 10.0
"""How long connect, read or write may take. A field bus with long silences has its own, shorter, timeout."""


class Driver(Protocol):
    """One device. After close() or an error that means silence, connect() is called again on the same driver."""

    async def connect(self) -> None:
        """Reach the device; raises DeviceSilent when it cannot be reached."""
        ...

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        """
        Read these properties, all that are due, so that one request to the device may serve several.

        A property that has no value now is left out of the answer. Raises DeviceSilent.
        """
        ...

    async def write(self, name: str, value: Value) -> None:
        """
        Set one property; it is read back right after. The value is of the model's type and in its range.

        Raises WriteRefused or DeviceSilent.
        """
        ...

    async def close(self) -> None:
        """Let go of the device; called once for each connect(), also for one that failed."""
        ...


@runtime_checkable
class SubscribingDriver(Driver, Protocol):
    """
    A driver whose device speaks for itself.

    read() is still asked for such a property, but seldom: after connect(), when the device is back, when it seems to
    have a desired value already, and when it has not confirmed a written one in time. A driver that cannot ask gives
    the last word it heard, and leaves out what it never heard of. Another driver is made also when only the cycles
    change, since sampling intervals depend on them.
    """

    async def subscribe(self, sink: Sink) -> Collection[str]:
        """
        Tell the sink from now on until close(); called once after each connect(), before the first read().

        Returns the properties that the device tells of by itself: they are not polled. Raises what connect() may.
        """
        ...


DriverFactory = Callable[[Device], Driver]
"""Usually the driver's class. May raise BadConfig; must not do I/O."""
