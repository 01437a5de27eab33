"""
Where a device that speaks for itself drops its words, for the device's task to take over.

A driver that subscribes hears of values when the device pleases, perhaps a thousand times a second. What it
hears is kept here, the last reading of each property, until the task comes for it; the bell is rung for the
first word only. So memory is bounded by the number of properties, and a flood costs no more rounds than the
task wants to make.

Invariants
    at most one reading is held for each property the device has; names it does not have are dropped
    what was heard before away() or lost() is not told after it
    after close() nothing is held and nothing rings: a late callback of an old subscription does no harm

Pure state. The shell is mappers/attendant.py.
"""

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from mappers.words import Reading


class Word(NamedTuple):
    """What was heard since the last time."""

    readings: Mapping[str, Reading | None]
    away: str | None
    """Why the device counts as gone; None when it is there."""


class Sink:
    """One subscription's mailbox. All of it is for the event loop's thread; no call blocks or raises but collect()."""

    def __init__(self, names: Collection[str], ring: Callable[[], None]) -> None:
        """names: of the properties that the device has. ring: called when there is a word, once until collect()."""
        self._names = frozenset(names)
        self._ring = ring
        self._has_word = False
        self._is_closed = False
        self._readings: dict[str, Reading | None] = {}
        self._away: str | None = None
        self._lost: Exception | None = None

    # --- for the driver

    def heard(self, readings: Mapping[str, Reading | None]) -> None:
        """The device said this, None being: it has no value now. An empty mapping says only that it is there."""
        if self._is_closed:
            return
        self._readings.update({name: reading for name, reading in readings.items() if name in self._names})
        self._away = None
        self._tell()

    def away(self, reason: str) -> None:
        """The device has gone, as its last will or a gateway says; the driver waits for it to come back: heard()."""
        if self._is_closed:
            return
        self._readings.clear()
        self._away = reason
        self._tell()

    def lost(self, problem: Exception) -> None:
        """The connection is of no use any more: as if read() had raised this. The first problem counts."""
        if self._is_closed or self._lost is not None:
            return
        self._readings.clear()
        self._lost = problem
        self._tell()

    # --- for the task

    def has_word(self) -> bool:
        """Whether collect() has anything to give."""
        return self._has_word

    def collect(self) -> Word:
        """Take what was heard. Raises what lost() was given."""
        if self._lost is not None:
            raise self._lost
        word = Word(self._readings, self._away)
        self._readings, self._has_word = {}, False
        return word

    def close(self) -> None:
        """Nothing that comes from now on counts."""
        self._is_closed, self._has_word = True, False
        self._readings.clear()

    def _tell(self) -> None:
        if not self._has_word:
            self._has_word = True
            self._ring()
