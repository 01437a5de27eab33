"""
What each node is interested in, what is decided upon that, and what its connection was told of the decisions.

Invariants
    the index (cloudhub.interests) has of a node what was decided when it was judged last
    who decides is told of a node's interests whenever they are others, and that there are none once they are forgotten
    a connection is told of decisions that are not as it was told before, and of no others

Pure state: no clock, no I/O. The shell is cloudhub/sessions.py.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from apimachinery.keys import Node, ObjectKey
from apimachinery.watchcache import WatchCache
from cloudhub.interests import Decision, Interests, affected, judged
from link.frames import Granted, Interest


class Access(Protocol):
    """Who decides upon interests."""

    def want(self, node: Node, interests: Sequence[Interest]) -> None:
        """
        These are the node's interests, all of them; none once nothing is kept of the node any more.

        Hub.decided is called, later and never from here, whenever a decision on one of them changes.
        """

    def decision(self, node: Node, interest: Interest) -> Decision:
        """How things stand, at once. Only of what was said by want()."""


class Standing:
    """One node's interests, and what was decided."""

    def __init__(self) -> None:
        self.number = 0
        """Of the Wanted that said so; 0 for the Hello."""
        self.interests: tuple[Interest, ...] = ()
        self.told: Granted | None = None
        """What the connection that lives was told last."""


class Standings:
    """Of the nodes that wait in the lobby, or have an outbox."""

    def __init__(self, cache: WatchCache, interests: Interests, access: Access) -> None:
        self._cache = cache
        self._interests = interests
        self._access = access
        self._standings: dict[Node, Standing] = {}

    def __contains__(self, node: Node) -> bool:
        return node in self._standings

    def __getitem__(self, node: Node) -> Standing:
        return self._standings[node]

    def greet(self, node: Node, interests: tuple[Interest, ...]) -> None:
        """A new connection of the node says so in its Hello."""
        standing = self._standings.setdefault(node, Standing())
        standing.number, standing.interests, standing.told = 0, interests, None
        self._access.want(node, interests)

    def change(self, node: Node, number: int, interests: tuple[Interest, ...]) -> None:
        """It has other interests than before; `number` is that of the Wanted that says so."""
        standing = self._standings[node]
        standing.number, standing.interests = number, interests
        self._access.want(node, interests)

    def is_pending(self, node: Node, interest: Interest) -> bool:
        """Whether a decision upon it may soon be there."""
        return self._access.decision(node, interest).is_pending

    def judge(self, node: Node, held: Iterable[ObjectKey]) -> tuple[list[ObjectKey], Granted]:
        """
        Have the node hold what it may of what it wants: which objects it may affect, and what it comes to.

        held: of everything that the node holds.
        """
        standing = self._standings[node]
        decisions = {interest: self._access.decision(node, interest) for interest in standing.interests}
        refused, resources, granted, kept = judged(standing.interests, decisions)
        changed = self._interests.set_scopes(node, granted, kept)
        return list(affected(changed, self._cache, held)), Granted(standing.number, refused, resources)

    def tell(self, node: Node, granted: Granted) -> bool:
        """Whether its connection is to be told this, which counts as told then."""
        standing = self._standings[node]
        if granted == standing.told:
            return False
        if not standing.number and not standing.interests:
            return False  # a Hello without interests asks nothing
        standing.told = granted
        return True

    def forget(self, node: Node) -> None:
        """Nothing else is kept of it for which its interests count. Harmless where they stand no more."""
        if self._standings.pop(node, None) is not None:
            self._interests.set_scopes(node, frozenset(), frozenset())
            self._access.want(node, ())
