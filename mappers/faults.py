"""
What is wrong with single properties of a device that otherwise answers: told once each, not at every reading.

A property that cannot be read has no value and disturbs no other. A device of which no property can be read
counts as silent, for an "online" beside no value at all would be a lie.

Invariants
    one warning when a property's trouble begins, one line when it is over; another text of the same trouble at most
    every REPEAT_S
    silence() is told only when every readable property failed at its last reading
"""

import logging
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from mappers.words import DeviceSilent

REPEAT_S = 60.0

logger = logging.getLogger(__name__)


class _Trouble(NamedTuple):
    text: str
    told: str
    told_at: float


class Faults:
    """Of one device."""

    def __init__(self, device: str, readable: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        """readable: every property that is ever read."""
        self._device = device
        self._readable = frozenset(readable)
        self._clock = clock
        self._troubles: dict[str, _Trouble] = {}

    def found(self, name: str, text: str) -> None:
        """The property could not be read; text: a sentence for whoever can mend it."""
        known = self._troubles.get(name)
        now = self._clock()
        if known is not None and (known.told == text or now < known.told_at + REPEAT_S):
            self._troubles[name] = known._replace(text=text)
            return
        self._troubles[name] = _Trouble(text, text, now)
        logger.warning("property not readable", extra={"device": self._device, "property": name, "reason": text})

    def over(self, name: str) -> None:
        """The property was read."""
        if self._troubles.pop(name, None) is not None:
            logger.info("property readable again", extra={"device": self._device, "property": name})

    def silence(self) -> DeviceSilent | None:
        """The error to raise when nothing of the device can be read any more."""
        if not self._readable or not self._readable <= self._troubles.keys():
            return None
        name, trouble = next(iter(self._troubles.items()))
        return DeviceSilent(f"no property can be read; {name}: {trouble.text}")
