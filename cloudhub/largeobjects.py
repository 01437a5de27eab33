"""
Objects that are too large for a push: what is begun of them, what has come whole, and what of it is still pushed.

Their bytes go ahead in parts beside everything else (cloudhub.transfers), and a push that names them follows. What
takes long to pack is asked for here, for the node that it is for (cloudhub.packorders).

Invariants
    what is pushed of an object is what its transfer was begun with, also if it has changed meanwhile
    transfers begin in the order in which their objects stand, but for what is not packed yet
    at most ASKED_AHEAD objects of a node are packed before there is room for them, besides those that have begun

Pure state: no clock, no I/O. The turns are given by cloudhub.sessions.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Protocol

from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.watchcache import WatchCache
from cloudhub.outbox import Desired, Outbox
from cloudhub.session import Session
from cloudhub.transfers import Transfers
from cloudhub.wires import Wire, Wires
from link.frames import Traffic, traffic_of

ASKED_AHEAD = 4  # large objects of a node that are packed before there is room for them; each may turn out to be small


class Push(Protocol):
    """cloudhub.pushes.Pushes.push."""

    def __call__(
        self,
        session: Session,
        outbox: Outbox,
        changes: Mapping[ObjectKey, ObjectVersion | None],
        wires: list[Wire],
        traffic: Traffic,
        transfer: int,
    ) -> None: ...


class LargeObjects:
    """Of one hub."""

    def __init__(
        self,
        cache: WatchCache,
        wires: Wires,
        wire: Callable[[ObjectKey, ObjectVersion | None, ObjectVersion | None], Wire],
        push: Push,
        ready: Callable[[Session], None],
    ) -> None:
        """
        wire: what goes to a node that is to hold this version and holds that one. ready: called when a session has
        something left for another turn.
        """
        self._cache = cache
        self._wires = wires
        self._wire = wire
        self._push = push
        self._ready = ready

    def land(self, session: Session, outbox: Outbox, transfers: Transfers, desired: Desired) -> None:
        """Push what has come whole, of each class that has room."""
        peer = session.pump.peer

        def has_room(key: ObjectKey) -> bool:
            return peer.push_room(traffic_of(key)) > 0

        while (done := transfers.whole(peer.chunks_taken, has_room)) is not None:
            if not outbox.may_land(done.key, done.version, done.held, desired):
                transfers.drop(done)
                outbox.look_again(done.key)
                continue
            del outbox.large[done.key]
            if desired(done.key) != done.version:
                outbox.mark(done.key)
                self._ready(session)
            changes = {done.key: done.version}
            self._push(session, outbox, changes, [done.wire], traffic_of(done.key), done.number)
            done.seq = outbox.sent_seq

    def begin(self, session: Session, outbox: Outbox, desired: Desired) -> None:
        """See to what is too large for a push: what is of no use is dropped, and more begun, in its order."""
        if session.transfers is None:
            session.transfers = Transfers()
        transfers = session.transfers
        for transfer in transfers.pending:
            if not outbox.awaits(transfer.key, transfer.held):
                transfers.drop(transfer)
        for key in list(islice(outbox.large, len(transfers) + ASKED_AHEAD)):
            if transfers.is_pending(key):
                continue
            version, held = desired(key), outbox.sent(key)
            wire = None if version is None or version == held else self._wire(key, version, held)
            if version is None or wire is None or not wire.is_large:
                outbox.look_again(key)
                self._ready(session)
                continue
            if wire.is_awaited:
                # What it waited for is sent also if it has changed: packed anew each time, it would never be.
                asked = outbox.large[key]
                made = None if asked is None else self._wires.made(key, asked, held)
                if asked is None or made is None:
                    self._ask(session.node, key, held)
                    if self._wires.awaited(key, held) == version:
                        outbox.large[key] = version
                    continue
                version, wire = asked, made  # in a transfer though it may be small: a push is of what is desired
            if transfers.has_room(len(wire.data)):
                transfers.begin(key, version, held, wire)
            break  # else it waits, and those after it, too: smaller ones that change often would take its room for ever
        session.speak()

    def _ask(self, node: Node, key: ObjectKey, held: ObjectVersion | None) -> None:
        item = self._cache.get(key)
        assert item is not None, "what is desired is in the cache"
        self._wires.ask(node, item, held)
