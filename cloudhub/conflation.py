"""
Of objects that change faster than anybody needs to know, the newest state now and then.

A watch tells each state that an object had. Taking one in costs a hub 0.3 ms; the push, the edge's commit and what is
told to the mapper cost as much again. Where one node's devices are changed a thousand times a second, most states are
history when they arrive. So a state may be skipped, as a list would skip it: an object that was given less than
SPACING_S ago waits for its turn, and what comes meanwhile takes its place. Each object has a turn once in SPACING_S,
told by its name: those that begin to wait together would be given together for ever after, and fifty at once hold a
pod's change up for 40 ms at the hub and at the edge.

Only where there is much to do: as long as all hasty changes together are no more than FREE, nothing waits, however
often one object changes. And only an object's own haste holds it up: who changes seldom never waits for those who do
not.

Invariants
    of an object, what is given keeps its order, and the last state told is given within SPACING_S
    nothing is held but a MODIFIED; what deletes or makes an object anew takes the place of what was held of it
    everything told up to `reached` was given, or is out of date by what was given

Pure: no clock, no I/O. The shell is cloudhub/reflector.py.
"""

import zlib
from collections import OrderedDict
from typing import NamedTuple

from apimachinery.events import EventType
from apimachinery.keys import ObjectKey
from cloudhub.agenda import Agenda
from cloudhub.apiwire import Event
from cloudhub.buckets import Bucket, Rate

SPACING_S = 0.5  # as far apart as a Device's status is written at least
TURNS = 8  # in SPACING_S; a few objects together cost an edge one commit, and a card one sync
FREE = Rate(per_s=50.0, burst=100.0)  # changes of hasty objects, up to which none waits: 15 ms of a second


class _Held(NamedTuple):
    event: Event
    before: str
    """What had been told when this object began to wait: all of it is given once nobody waits who waited then."""


class Conflation:
    """Of one resource, over all its watches: take in what holds() does not hold, and what due() gives."""

    def __init__(self, now: float, free: Rate = FREE) -> None:
        self._given: OrderedDict[ObjectKey, float] = OrderedDict()
        """When each object was given last, of those that were in the last SPACING_S; the longest ago first."""
        self._held: dict[ObjectKey, _Held] = {}
        """In the order in which they began to wait."""
        self._agenda: Agenda[ObjectKey] = Agenda()
        """When each that is held is to be given."""
        self._free = Bucket(free, now)
        self._told = ""
        self.newest = ""
        """The version of the last state that was told, be it that it waits; a bookmark tells none."""

    def __len__(self) -> int:
        """Objects that wait."""
        return len(self._held)

    @property
    def reached(self) -> str:
        """A version up to which nothing waits; less than SPACING_S behind what was told."""
        return next(iter(self._held.values())).before if self._held else self._told

    def holds(self, event: Event, now: float) -> bool:
        """Whether this event is to wait; else it is to be taken in at once."""
        before, self._told = self._told, event.resume_version
        if event.object is None:
            return False
        self.newest = event.resume_version
        key = event.object.key
        if event.type is not EventType.MODIFIED:
            if self._held.pop(key, None) is not None:
                self._agenda.discard(key)
            return False
        held = self._held.get(key)
        if held is None and self._given.get(key, float("-inf")) + SPACING_S <= now:
            self._give(key, now)
            return False
        is_free = self._free.wait_s(1, now) <= 0
        # Also what waits uses it up: else some of a flood would pass, each a push and at the edge a commit of its own.
        self._free.charge(1, now)
        if held is not None:
            self._held[key] = held._replace(event=event)
            return True
        if is_free:
            self._give(key, now)
            return False
        self._held[key] = _Held(event, before)
        self._agenda.set(key, now + (_turn_s(key) - now) % SPACING_S)
        return True

    def due(self, now: float) -> Event | None:
        """An event whose time has come."""
        if (key := self._agenda.take(now)) is None:
            return None
        self._give(key, now)
        return self._held.pop(key).event

    def next_deadline(self) -> float | None:
        """When due() will give something; None where nothing waits."""
        return self._agenda.next_deadline()

    def pop(self) -> Event | None:
        """The event that has waited longest, due or not, as when the watch has ended: the next one starts behind it."""
        if not self._held:
            return None
        key = next(iter(self._held))
        self._agenda.discard(key)
        return self._held.pop(key).event

    def begin(self, version: str) -> None:
        """Everything was listed as it is at this version: what waits is out of date."""
        while self.pop() is not None:
            pass
        self._told = self.newest = version

    def _give(self, key: ObjectKey, now: float) -> None:
        self._given[key] = now
        self._given.move_to_end(key)
        while now - next(iter(self._given.values())) >= SPACING_S:
            self._given.popitem(last=False)


def _turn_s(key: ObjectKey) -> float:
    """When in each SPACING_S the object's turn is."""
    return zlib.crc32(f"{key.namespace}/{key.name}".encode()) % TURNS * SPACING_S / TURNS
