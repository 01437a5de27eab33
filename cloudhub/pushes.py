"""
What goes out to a node in a turn: a frame of each class that has something and room, and large objects beside them.

A turn is short whatever a node lacks, so that all others have theirs; what is left over is for the next one. What is
sent is decided here and now: the outbox says which objects may differ, and cloudhub.desires what they should be.

Invariants
    a turn sends one push of each class at most, of a part of its window, besides what has come whole
    a turn ends once PREPARED_BYTES were packed or compared in it
    after a Granted there is a synced Push; so is there when everything was sent
    what a push says of the horizon covers what decided upon its objects

Pure state: no clock, no I/O. The turns are given by cloudhub.sessions.
"""

from collections.abc import Callable, Mapping
from functools import partial

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.watchcache import WatchCache
from cloudhub.desires import Desires
from cloudhub.horizon import Horizon
from cloudhub.hubstatus import Counters
from cloudhub.largeobjects import LargeObjects
from cloudhub.outbox import Outbox
from cloudhub.session import Session
from cloudhub.wires import Wire, Wires, removal
from componentbase.lately import Lately
from link.frames import Traffic

FRAME_BYTES = 64 << 10  # a quarter of the window: the node commits one while others come; 3 s on a 200 kbit/s line
DEVICE_FRAME_BYTES = 16 << 10  # half of its window, for the same reason
PREPARED_BYTES = 64 << 10  # of bodies that are packed for a session's turn, in 5 ms, and one that is begun then

_FRAME_BYTES = {Traffic.INFRASTRUCTURE: FRAME_BYTES, Traffic.DEVICES: DEVICE_FRAME_BYTES}


class Pushes:
    """Of one hub."""

    def __init__(
        self,
        cache: WatchCache,
        wires: Wires,
        desires: Desires,
        horizon: Horizon,
        counters: Counters,
        ready: Callable[[Session], None],
        now_s: Callable[[], float],
    ) -> None:
        """ready: called when a session has something left for another turn."""
        self._urgent = Lately(now_s)
        self._cache = cache
        self._wires = wires
        self._desires = desires
        self._version = desires.version
        self._horizon = horizon
        self._counters = counters
        self._ready = ready
        self._large = LargeObjects(cache, wires, self._wire, self.push, ready)

    def has_urgent(self) -> bool:
        """Whether a push of infrastructure has gone out lately that is none of a large object."""
        return self._urgent.is_so()

    def flush(self, session: Session) -> None:
        """Send a frame of each class that has something and room, and of what is large as much as there is room for."""
        outbox, pump = session.outbox, session.pump
        if outbox is None or not outbox.has_something:
            return
        desired, peer = partial(self._version, session.node), pump.peer
        wires, prepared = self._wires, self._wires.prepared + PREPARED_BYTES

        def is_enough() -> bool:
            return wires.prepared >= prepared

        if session.transfers is not None:
            # First: it has waited for all its bytes, and what is small would take each room that there comes to be.
            self._large.land(session, outbox, session.transfers, desired)
        for traffic in outbox.dirty_classes():
            if room := peer.push_room(traffic):
                budget = min(room, _FRAME_BYTES[traffic])
                changes, pieces = outbox.pull(desired, self._wire, budget, traffic, is_enough=is_enough)
                if changes:
                    self.push(session, outbox, changes, pieces, traffic)
                    if traffic is Traffic.INFRASTRUCTURE:
                        self._urgent.happened()
                if outbox.has_unsent and (changes or is_enough()):
                    self._ready(session)  # a frame of each class in a turn; whether there is room is asked then
        if outbox.large or session.transfers is not None:
            self._large.begin(session, outbox, desired)
        if not outbox.synced_told and not outbox.has_dirty and outbox.known_count is not None and peer.push_room():
            self.push(session, outbox, {}, [])

    def push(
        self,
        session: Session,
        outbox: Outbox,
        changes: Mapping[ObjectKey, ObjectVersion | None],
        wires: list[Wire],
        traffic: Traffic = Traffic.INFRASTRUCTURE,
        transfer: int = 0,
    ) -> None:
        """wires: of the changes, in their order. transfer: the number of what went ahead instead, of one change."""
        counters = self._counters
        for wire in wires:
            counters.patches += wire.is_patch
            counters.packed += wire.is_packed
            counters.push_bytes += wire.body_bytes
        counters.pushes += 1
        counters.deltas += len(wires)
        synced = not outbox.has_dirty
        outbox.synced_told = outbox.synced_told or synced
        horizon = session.told.next(self._horizon, self._desires.deciding(changes))
        seq = session.pump.push(transfer or [wire.data for wire in wires], synced, horizon, traffic)
        outbox.launch(seq, changes)

    def _wire(self, key: ObjectKey, version: ObjectVersion | None, held: ObjectVersion | None) -> Wire:
        if version is None:
            return removal(key)
        item = self._cache.get(key)
        assert item is not None, "what is desired is in the cache"
        return self._wires.of(item, held)
