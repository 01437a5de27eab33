"""
One node's outbox: what it is known to hold, what is under way to it, and which keys may differ.

The outbox keeps keys, not messages. The value is looked up when a frame is built, so any number of
updates to one object costs one entry, and memory is bounded by the number of objects. What the node
should hold is not kept here either: it is asked for, key by key, of whoever knows (placement and cache).

Invariants
    sent  == known with every flight's changes applied, oldest first
    dirty and large together ⊇ { key : desired(key) != sent(key) }, once known is there
    known is None until adopt(); pull() gives nothing until then
    flights are numbered densely after `acked`, oldest first

Pure state: no clock, no I/O. The shell is cloudhub/sessions.py.
"""

import enum
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.resources import DEVICE_GROUP
from cloudhub.delta import diff
from link.frames import Cursor, Traffic

Desired = Callable[[ObjectKey], ObjectVersion | None]
"""The version of an object that the node should hold; None when it should not hold it."""


DOUBTFUL = ObjectVersion("", "?")
"""Stands for a version that we were wrong about: unlike any that is, so that the object is sent, or removed, again."""

NOTHING = digest(())
"""What a node says that holds nothing, as a new one. Asking it for its inventory would cost a round trip."""


class Verdict(enum.Enum):
    """What a hub makes of a Hello."""

    RESUME = "resume"
    """The cursor is one of ours: go on after it."""
    IDENTICAL = "identical"
    """The node holds exactly what it should: nothing to send."""
    EMPTY = "empty"
    """The node holds nothing: send everything."""
    SURVEY = "survey"
    """Nothing is known for sure: ask for the inventory."""


class Rank(enum.IntEnum):
    """In which order dirty keys go out. What others refer to goes before what refers to it."""

    __hash__ = int.__hash__  # keys are marked and pulled by it, and enum's own is a call into Python

    DEFINITIONS = 0
    REFERRED = 1
    WORKLOADS = 2
    MODELS = 3
    DEVICES = 4


@lru_cache(maxsize=256)
def rank_of(resource: Resource) -> Rank:
    """A pod must not arrive before its ConfigMap, nor a Device before its model."""
    if resource.group == DEVICE_GROUP:
        return Rank.MODELS if resource.plural == "devicemodels" else Rank.DEVICES
    if resource.group == "apiextensions.k8s.io" or resource.plural in ("nodes", "namespaces"):
        return Rank.DEFINITIONS
    if resource.plural == "pods" and not resource.group:
        return Rank.WORKLOADS
    return Rank.REFERRED


RANKS = {
    Traffic.INFRASTRUCTURE: (Rank.DEFINITIONS, Rank.REFERRED, Rank.WORKLOADS),
    Traffic.DEVICES: (Rank.MODELS, Rank.DEVICES),
}
"""In the order in which they go out."""
_ALONE = {rank: (traffic,) for traffic, ranks in RANKS.items() for rank in ranks}


class Sized(Protocol):
    """What an object's change becomes on its way."""

    @property
    def cost(self) -> int:
        """Bytes that count for how much goes into one Push."""

    @property
    def is_large(self) -> bool:
        """Whether it is too large for a Push, and goes ahead of one as a transfer (cloudhub.transfers)."""


Sent = TypeVar("Sent", bound=Sized)


class Flight(NamedTuple):
    """One Push that is not acknowledged."""

    seq: int
    changes: Mapping[ObjectKey, ObjectVersion | None]


class Outbox:
    """What one hub keeps of one node. `epoch` names its life; a cursor of another epoch means nothing to it."""

    # A hub has as many of these as nodes: what is empty in most of them is made when it is needed.
    __slots__ = ("_dirty", "_flights", "_known", "acked", "epoch", "large", "refused", "sent_seq", "synced_told")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.acked = 0
        self.sent_seq = 0
        self.synced_told = False
        """Whether this connection was told that it has everything."""
        self.refused: dict[ObjectKey, tuple[ObjectVersion | None, str]] = {}
        """What the node could not take in: at which version, and why. Sent again when the version changes."""
        self._known: dict[ObjectKey, ObjectVersion] | None = None
        self._flights: list[Flight] = []
        self._dirty: dict[Rank, dict[ObjectKey, None]] = {}
        """Those of each rank, where there are any."""
        self.large: dict[ObjectKey, ObjectVersion | None] = {}
        """
        Keys whose change is too large for a Push: their transfer is awaited, or under way. The oldest first; and which
        version is being made ready for it, where that takes long.
        """

    def __str__(self) -> str:
        known = "void" if self._known is None else str(len(self._known))
        return (
            f"epoch={self.epoch} known={known} dirty={self.dirty_count} "
            f"acked={self.acked} sent={self.sent_seq} flights={len(self._flights)}"
        )

    @property
    def dirty_count(self) -> int:
        return len(self.large.keys() | {key for keys in self._dirty.values() for key in keys})

    @property
    def has_dirty(self) -> bool:
        return bool(self._dirty or self.large)

    @property
    def has_unsent(self) -> bool:
        """Whether pull() may give something."""
        return bool(self._dirty)

    def dirty_classes(self) -> tuple[Traffic, ...]:
        """Those of which pull() may give something, in the order in which they go out."""
        dirty = self._dirty
        if len(dirty) == 1:  # as nearly always
            return _ALONE[next(iter(dirty))]
        return tuple(traffic for traffic, ranks in RANKS.items() if any(rank in dirty for rank in ranks))

    @property
    def has_something(self) -> bool:
        """Whether there may be something to push: a dirty key, or that the node has everything."""
        return not self.synced_told or bool(self._dirty or self.large)

    @property
    def known_count(self) -> int | None:
        """How many objects the node is known to hold; None when that is not known."""
        return None if self._known is None else len(self._known)

    @property
    def is_settled(self) -> bool:
        """Nothing to send and nothing under way."""
        return self._known is not None and not self._flights and not self.has_dirty

    # What may differ

    def mark(self, key: ObjectKey) -> None:
        """This object may have changed for the node, in what it is or in whether it is placed there."""
        rank = rank_of(key.resource)
        keys = self._dirty.get(rank)
        if keys is None:
            keys = self._dirty[rank] = {}
        keys[key] = None

    def sent(self, key: ObjectKey) -> ObjectVersion | None:
        """The version the node will hold once everything under way has arrived."""
        for flight in reversed(self._flights):
            if key in flight.changes:
                return flight.changes[key]
        return None if self._known is None else self._known.get(key)

    def known_keys(self) -> Iterable[ObjectKey]:
        """Of everything the node holds, or will when what is under way has arrived."""
        keys = dict.fromkeys(self._known or ())
        for flight in self._flights:
            keys |= dict.fromkeys(flight.changes)
        return keys

    # What goes out

    def pull(
        self,
        desired: Desired,
        send: Callable[[ObjectKey, ObjectVersion | None, ObjectVersion | None], Sent],
        budget: int,
        traffic: Traffic = Traffic.INFRASTRUCTURE,
        most: int = 512,
        is_enough: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[ObjectKey, ObjectVersion | None], list[Sent]]:
        """
        Take dirty keys of a class that differ, and what they are sent as, up to a budget, and at least one if any.

        send: given the key, the version that the node is to hold and the one it holds. budget: what the costs may come
        to. is_enough: asked after each, whether to end here, also where nothing was taken but what is large. The caller
        sends them and says so with launch(). Empty when nothing is dirty or nothing is known. What is too large for a
        push is put among `large` instead, where it keeps its place.
        """
        changes: dict[ObjectKey, ObjectVersion | None] = {}
        pieces: list[Sent] = []
        if self._known is None:
            return changes, pieces
        spent = 0
        for rank in RANKS[traffic]:
            keys = self._dirty.get(rank)
            if keys is None:
                continue
            # A slice at a time: to look for the first key of a dict from which many were deleted is no constant work.
            while keys:
                for key in list(islice(keys, most - len(changes))):
                    version, held = desired(key), self.sent(key)
                    if held != version and not (self.refused and self._is_refused(key, version)):
                        piece = send(key, version, held)
                        if piece.is_large:
                            self.large.setdefault(key, None)
                            del keys[key]
                            if is_enough():
                                break
                            continue
                        spent += piece.cost
                        if changes and spent > budget:
                            return changes, pieces
                        if self.refused:
                            self.refused.pop(key, None)
                        changes[key] = version
                        pieces.append(piece)
                    if self.large:
                        self.large.pop(key, None)  # a transfer of it is of no use any more
                    del keys[key]
                    if is_enough():
                        break
                if keys and (len(changes) == most or is_enough()):
                    return changes, pieces
            del self._dirty[rank]
            if is_enough():
                break
        return changes, pieces

    def may_land(self, key: ObjectKey, version: ObjectVersion, held: ObjectVersion | None, desired: Desired) -> bool:
        """
        Whether a transfer that made this version of what the node held is still to be pushed, now that it is there.

        Also where the object has changed since: one that changes all the time would never arrive.
        """
        wanted = desired(key)
        return (
            self.awaits(key, held)
            and wanted is not None
            and wanted.uid == version.uid
            and not self._is_refused(key, version)
        )

    def awaits(self, key: ObjectKey, held: ObjectVersion | None) -> bool:
        """Whether a transfer that was made of what the node held may still be of use."""
        return key in self.large and self.sent(key) == held

    def look_again(self, key: ObjectKey) -> None:
        """It is among `large` no more; whatever it is now, pull() finds out."""
        if key in self.large:
            del self.large[key]
            self.mark(key)

    def launch(self, seq: int, changes: Mapping[ObjectKey, ObjectVersion | None]) -> None:
        """What pull() gave went out as number `seq`."""
        assert seq == self.sent_seq + 1, "the peer and the outbox count alike"
        self.sent_seq = seq
        self._flights.append(Flight(seq, changes))

    def settle(self, seq: int) -> None:
        """Everything up to `seq` is committed at the node. The peer has checked that it was sent."""
        flights = self._flights
        while flights and flights[0].seq <= seq:
            assert self._known is not None, "nothing is launched before known is there"
            _land(self._known, flights.pop(0))
        self.acked = max(self.acked, seq)

    def refuse(self, seq: int, key: ObjectKey, reason: str) -> None:
        """
        The node could not take this object in: it still holds what it held, and that is not resent as it is.

        What was sent of the object since then may be a difference to what was refused: that is in doubt.
        """
        for place, flight in enumerate(self._flights):
            if flight.seq == seq and key in flight.changes:
                changes = dict(flight.changes)
                self.refused[key] = (changes.pop(key), reason)
                self._flights[place] = Flight(seq, changes)
                break
        else:
            return  # a node that refuses what it was not sent does not have all that is under way looked at
        for flight in self._flights[place + 1 :]:
            self.doubt(flight.seq, key)

    def doubt(self, seq: int, key: ObjectKey) -> bool:
        """
        The node does not hold what we thought, so a difference was of no use to it: the object goes whole.

        Returns whether that is news.
        """
        is_news = False
        for place, flight in enumerate(self._flights):
            if flight.seq == seq and flight.changes.get(key, DOUBTFUL) != DOUBTFUL:
                self._flights[place] = Flight(seq, {**flight.changes, key: DOUBTFUL})
                is_news = True
        if is_news:
            self.mark(key)
        return is_news

    def retry_refused(self) -> None:
        """Give every refused object another chance, as it is. Called now and then, not at once."""
        for key in list(self.refused):
            del self.refused[key]
            self.mark(key)

    def _is_refused(self, key: ObjectKey, version: ObjectVersion | None) -> bool:
        refusal = self.refused.get(key)
        return refusal is not None and refusal[0] == version

    # What a Hello makes of it

    def hear(self, cursor: Cursor | None, held_digest: bytes, desired: Mapping[ObjectKey, ObjectVersion]) -> Verdict:
        """
        Decide how to go on with a node that says it holds `held_digest`, committed up to `cursor`.

        Only RESUME leaves `epoch` as it is; the others need renew() with a new epoch. `desired` is looked
        at only when the cursor is of no use.

        What landed without an Ack may have been refused without a Nack: a Nack goes before its Ack, and a
        connection may end before both. So the digest must bear such a landing out. A node of which nothing was
        under way costs no digest.
        """
        if (
            self._known is not None
            and cursor is not None
            and cursor.epoch == self.epoch
            and self.acked <= cursor.seq <= self.sent_seq
            and (cursor.seq == self.acked or held_digest == digest(self._landed_by(cursor.seq).items()))
        ):
            return Verdict.RESUME
        if held_digest == digest(desired.items()):
            return Verdict.IDENTICAL
        return Verdict.EMPTY if held_digest == NOTHING else Verdict.SURVEY

    def rewind(self, seq: int) -> None:
        """
        Go on after `seq`: what is under way up to it has landed, the rest is lost and dirty again.

        Numbers are not used again: a number names one content for ever, in an epoch.
        """
        self.settle(seq)
        for flight in self._flights:
            for key in flight.changes:
                self.mark(key)
        self._flights.clear()
        for key in list(self.large):
            self.look_again(key)
        self.synced_told = False

    def renew(self, epoch: str) -> None:
        """Start another epoch: nothing is known until adopt()."""
        self.epoch = epoch
        self.acked = self.sent_seq = 0
        self.synced_told = False
        self.refused.clear()
        self._known = None
        self._flights.clear()
        for key in list(self.large):
            self.look_again(key)

    def adopt(
        self, held: Iterable[tuple[ObjectKey, ObjectVersion]], desired: Mapping[ObjectKey, ObjectVersion]
    ) -> None:
        """This is what the node holds, all of it; what differs from `desired` is dirty, and nothing else."""
        self._known = dict(held)
        self._dirty.clear()
        self.large.clear()
        for key, _ in diff(desired, self._known):
            self.mark(key)

    def _landed_by(self, seq: int) -> dict[ObjectKey, ObjectVersion]:
        """What the node holds if everything up to `seq` was taken in."""
        assert self._known is not None, "a cursor is looked at only where something is known"
        held = dict(self._known)
        for flight in self._flights:
            if flight.seq <= seq:
                _land(held, flight)
        return held


def _land(held: dict[ObjectKey, ObjectVersion], flight: Flight) -> None:
    for key, version in flight.changes.items():
        if version is None:
            held.pop(key, None)
        else:
            held[key] = version
