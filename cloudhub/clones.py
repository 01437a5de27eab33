"""
A certificate that is used from two places: whose it is, where from, how often that showed.

A node has one connection at a time, and begins the next when the last one has ended. So it never hears that the one
it has was superseded, unless somebody else connected in its name: a copy of its disk, or a thief of its key. Who
hears it waits for a minute, and says so in its next Hello (link.frames.Hello.superseded). That is proof and no guess:
no broken line, no change of address or of replica, no clock and no disk that was rolled back makes an honest node
hear it. It needs nothing of the replica that the other one is connected to, because the Lease tells who is superseded
(cloudhub.fences).

What it cannot see: two that are never connected at the same time; a copy that takes the place of one which has been
switched off; and where both sides lie. A node can lie about itself only.

Invariants
    what is kept is bounded: MOST nodes, ADDRESSES of each

Pure state: no clock, no I/O.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import EventType, KubeEvent, new_event
from apimachinery.resources import NODES

MOST = 1024  # nodes; of more those go that showed it least lately, 300 B each
ADDRESSES = 4
QUIET_S = 60.0  # between two Events of one node; a pair that takes turns comes about as often
CLONED = "CertificateUsedTwice"


class Clone(NamedTuple):
    """A node whose certificate is used from two places."""

    node: Node
    times: int
    """How often it showed at this hub process."""
    since: str
    last: str
    """RFC 3339 in UTC."""
    addresses: tuple[str, ...]
    """Where connections of it came from, the newest last; without ports."""

    def __str__(self) -> str:
        return (
            f"the certificate of node {self.node} is used from two places ({', '.join(self.addresses)}): "
            "another machine connected in its name while it was connected"
        )


class Clones:
    """Those that showed themselves at one hub process since it started."""

    def __init__(self) -> None:
        self._found: OrderedDict[Node, Clone] = OrderedDict()
        self._event_at: dict[Node, float] = {}

    def shown(self, node: Node, remotes: Iterable[str], at: str) -> Clone:
        """A node said that it was superseded. remotes: HOST:PORT, of the connection that it found here and its own."""
        was = self._found.pop(node, None) or Clone(node, 0, at, at, ())
        hosts = [remote.rpartition(":")[0] or remote for remote in remotes]
        addresses = tuple(dict.fromkeys([*(each for each in was.addresses if each not in hosts), *hosts]))
        now = self._found[node] = Clone(node, was.times + 1, was.since, at, addresses[-ADDRESSES:])
        if len(self._found) > MOST:
            gone, _ = self._found.popitem(last=False)
            self._event_at.pop(gone, None)
        return now

    def event(self, clone: Clone, now_s: float) -> KubeEvent | None:
        """What to say on the Node, now and then. now_s: on a clock that only moves forward."""
        if now_s < self._event_at.get(clone.node, -QUIET_S) + QUIET_S:
            return None
        self._event_at[clone.node] = now_s
        unique = hashlib.sha256(f"{clone.node} {CLONED}".encode()).hexdigest()[:16]
        about = ObjectKey(NODES, "", clone.node)
        return new_event(about, clone.node, EventType.WARNING, CLONED, str(clone), at=clone.last, unique=unique)

    def all(self) -> list[Clone]:
        """In the order of their names."""
        return sorted(self._found.values())
