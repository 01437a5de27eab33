"""
For which of a node's sessions the apiserver may still be written to, where other replicas may have a newer one.

A replica may take a connection for alive long after its node has gone on with another replica. What it then
writes of the node's reports is old, and would stand. So every connection of a node has a *term*, which grows,
and the node's Lease says which term is the last that a replica took up. A Lease has one version at a time: who
takes it with a higher term leaves everybody with a lower one behind, and nobody can take it back.

Why that is enough. A status is written with the version it was read at, so a newer value that another replica
wrote makes the older one's write fail, and its writer reads the status again. That reading is *learning*, and
before it writes on it must confirm, later than it learned, that the Lease still is its own. The newer value was
written by somebody who had taken the Lease before; so whoever can have read it finds its Lease gone.

Invariants
    reports of a session are written only after its term was taken (or nobody can say, see give_up())
    a value is written over a status only if a confirmation that began after the status was learned says that
    no higher term was taken
    a term that was once left behind is never HELD again

Pure state: no clock, no I/O; order is told by ticks, each larger than the one before. The shells are
cloudhub/nodes.py (the Lease) and cloudhub/statuswriter.py (the reports).

After the fencing tokens of M. Kleppmann, "How to do distributed locking" (2016), with the check that he leaves to
the storage done by the storage's own compare-and-swap.
"""

import enum
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.keys import Node
from apimachinery.objects import JSON, lookup
from cloudhub.horizon import number
from link.frames import MAX_TERM

TERM_ANNOTATION = "fairlead.io/term"
REPLICA_ANNOTATION = "fairlead.io/replica"
MAX_AHEAD_MS = 3650 * 86_400_000
"""
A term in a Lease that is further than this before our clock was not taken up by a hub, which lets nobody come near it
(cloudhub.lobby.MAX_AHEAD_MS): somebody wrote it to keep the node out. Replicas whose clocks are less apart agree.
"""


class Claim(NamedTuple):
    """What a node's Lease says."""

    version: str
    """Its resourceVersion."""
    term: int
    """Of the last session that a replica took it for; 0 for none, or for what nobody of ours wrote."""
    replica: str
    """Who took it; "" for nobody."""


class Standing(enum.Enum):
    """How a session stands towards those that other replicas may have of the same node."""

    ABSENT = "absent"
    """There is no session here."""
    WAITING = "waiting"
    """The Lease is to be taken for it."""
    HELD = "held"
    """The Lease was taken for it, and no higher term is known."""
    UNFENCED = "unfenced"
    """The Lease is refused for good: it goes on, and nothing keeps replicas from undoing each other."""
    STALE = "stale"
    """Its term is not newer than one that another session had first. It never was the last."""
    SUPERSEDED = "superseded"
    """Another session has taken over."""


class Permit(enum.Enum):
    """Whether values of a session may be written over a status."""

    WRITE = "write"
    ASK = "ask"
    """Once the Lease is confirmed."""
    NEVER = "never"
    """The session is over."""


class _Record:
    """What is known of one node."""

    __slots__ = ("claim", "confirmed", "newest", "taken", "term", "unfenced")

    def __init__(self) -> None:
        self.claim: Claim | None = None
        """The Lease as it was last known; None where there is none."""
        self.term = 0
        """That of the session here; 0 for none."""
        self.taken = False
        self.unfenced = False
        self.confirmed = 0
        """When the last confirmation began."""
        self.newest = 0
        """The highest term of another session that the one here is not newer than; 0 while it is the newest."""


class Fences:
    """All nodes that have a session here or a Lease."""

    def __init__(self, replica: str) -> None:
        """replica: names this process, and no other that ever was."""
        self.replica = replica
        self._records: dict[Node, _Record] = {}
        self._ticks = 0

    def tick(self) -> int:
        """A moment, later than all before."""
        self._ticks += 1
        return self._ticks

    # The session

    def opened(self, node: Node, term: int) -> None:
        """A session of this term is up; an older one here has ended."""
        record = self._records.setdefault(node, _Record())
        record.term = term
        record.taken = record.unfenced = False
        record.confirmed = record.newest = 0
        self._heed(record, record.claim)

    def closed(self, node: Node) -> None:
        """The session is gone."""
        if (record := self._records.get(node)) is not None:
            record.term = record.newest = 0
            self._tidy(node, record)

    def term(self, node: Node) -> int:
        """The term of the session here; 0 where there is none."""
        record = self._records.get(node)
        return 0 if record is None else record.term

    def newest(self, node: Node) -> int:
        """The term of the session that is newer than the one here; 0 where none is known."""
        record = self._records.get(node)
        return 0 if record is None else record.newest

    # The Lease

    def claim(self, node: Node) -> Claim | None:
        """The Lease as it was last known, to be changed at that version; None where it is to be made."""
        record = self._records.get(node)
        return None if record is None else record.claim

    def mark(self, node: Node) -> dict[str, JSON]:
        """The annotations that take the Lease, or keep it, for the session here."""
        return {TERM_ANNOTATION: str(self.term(node)), REPLICA_ANNOTATION: self.replica}

    def answered(self, node: Node, claim: Claim | None, began: int) -> None:
        """
        The apiserver answered a request about the Lease that was made at tick `began`: this is what it is now.

        claim: None where there is no Lease, and so nobody who has taken it.
        """
        record = self._records.setdefault(node, _Record())
        record.claim = claim
        self._heed(record, claim)
        if claim is not None and self._is_ours(record, claim):
            record.taken, record.unfenced = True, False
        elif claim is not None and claim.term < record.term:
            record.taken = False  # as after a restore of the apiserver: to be taken again
        if record.taken and (claim is None or self._is_ours(record, claim)):
            record.confirmed = max(record.confirmed, began)
        self._tidy(node, record)

    def noticed(self, node: Node, claim: Claim | None) -> None:
        """The watch says this of the Lease. It may lag: only a higher term proves anything."""
        record = self._records.setdefault(node, _Record())
        self._heed(record, claim)
        is_known = claim is not None and record.claim is not None and _is_older(claim, record.claim)
        if not is_known and (claim is None or not record.taken or claim.term >= record.term):
            record.claim = claim
        self._tidy(node, record)

    def give_up(self, node: Node) -> None:
        """The Lease cannot be had: the apiserver refuses it for good. Until it is taken after all."""
        if (record := self._records.get(node)) is not None:
            record.unfenced = True

    def last_term(self, node: Node) -> int:
        """Of the session here and of the one that the Lease was last known to be taken for, the higher; 0 for none."""
        record = self._records.get(node)
        return 0 if record is None else max(record.term, record.claim.term if record.claim is not None else 0)

    # What follows

    def standing(self, node: Node) -> Standing:
        record = self._records.get(node)
        if record is None or not record.term:
            return Standing.ABSENT
        if record.newest:
            return Standing.SUPERSEDED if record.taken else Standing.STALE
        if record.unfenced:
            return Standing.UNFENCED
        return Standing.HELD if record.taken else Standing.WAITING

    def permit(self, node: Node, term: int, learned: int) -> Permit:
        """
        Whether a value that came in a session of this term may be written over a status.

        learned: the tick at which the status was read, or told by a watch; what our own writes made of it counts as
        learned when that was.
        """
        record = self._records.get(node)
        if record is None or record.term != term:
            return Permit.NEVER
        match self.standing(node):
            case Standing.HELD if record.confirmed > learned:
                return Permit.WRITE
            case Standing.UNFENCED:
                return Permit.WRITE
            case Standing.HELD | Standing.WAITING:
                return Permit.ASK
            case _:
                return Permit.NEVER

    def _heed(self, record: _Record, claim: Claim | None) -> None:
        """Remember who has left the session behind: what is told of the Lease next may be older, as a late answer."""
        if claim is not None and record.term and claim.term >= record.term and not self._is_ours(record, claim):
            record.newest = max(record.newest, claim.term)

    def _is_ours(self, record: _Record, claim: Claim) -> bool:
        return bool(record.term) and (claim.term, claim.replica) == (record.term, self.replica)

    def _tidy(self, node: Node, record: _Record) -> None:
        if not record.term and record.claim is None:
            self._records.pop(node, None)


def _is_older(claim: Claim, known: Claim) -> bool:
    """Whether this is the same session's Lease before its last renewal, which a watch tells late (cloudhub.horizon)."""
    at, newest = number(claim.version), number(known.version)
    return claim[1:] == known[1:] and at is not None and newest is not None and at < newest


def claim_of(lease: Mapping[str, JSON], now_ms: int) -> Claim:
    """What the body of a Lease says. A term that is none of ours counts as none. now_ms: milliseconds since 1970."""
    annotations = lookup(lease, "metadata.annotations") or {}
    text = str(annotations.get(TERM_ANNOTATION) or "")
    term = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
    return Claim(
        str(lookup(lease, "metadata.resourceVersion") or ""),
        term if term <= min(MAX_TERM, now_ms + MAX_AHEAD_MS) else 0,
        str(annotations.get(REPLICA_ANNOTATION) or ""),
    )
