"""
How far this hub has seen the apiserver, and whether that is as far as a node was told by another replica.

A node that changes to a replica whose watches lag would be told older states, and to delete what that replica does
not know yet. So every Push says up to which version of the apiserver it knew the resources it speaks of; the node
keeps that with what it commits and says it in its next Hello; and a hub that is behind waits until it is not.

Two numbers for each resource. *Reached*: everything up to there is known, by a list, an event or a bookmark. *Seen*:
the newest list or event, where something may have become known, be it that something is gone. A node is told what was
seen, and what was reached is compared with it: where nothing has happened, a replica whose last bookmark is older than
another's is not behind. A list counts as a whole, because what it lacks has no version of its own. A push speaks of the
resources of its deltas and of those that decide whether a node holds them: a ConfigMap may be gone because of what
happened to a pod.

The versions are compared as numbers, which Kubernetes says they are for one resource ("Resource versions are
comparable", KEP-5504; before that release it was so in fact). What is no number is left out: then nobody waits.

A reflector may hold back states of objects that change all the time (cloudhub.conflation). Then *seen* is the
newest that it was told, held back or not, and *reached* lags behind that: a node is told that something as new as this
may have become known, and whoever speaks with it next waits until all of that is.

Invariants
    both go back where the apiserver does, as after a restore from a backup

Pure state: no clock, no I/O. The shells are cloudhub/reflector.py and cloudhub/sessions.py.
"""

from collections.abc import Iterable
from typing import NamedTuple

from apimachinery.keys import Resource
from link.frames import MAX_HORIZON, MAX_VERSION, Position


class Advance(NamedTuple):
    """How far a reflector has come."""

    reached: str
    """Everything up to this version is known; "" where there is no such resource."""
    is_bookmark: bool = False
    """Whether that is all that is new."""
    ahead: str = ""
    """The version of what has become known, where that is beyond what was reached; "" otherwise."""


class Horizon:
    """All resources of one hub."""

    def __init__(self) -> None:
        self._reached: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def advance(self, resource: Resource, advance: Advance) -> None:
        name = resource.collection
        reached = number(advance.reached)
        if reached is None:
            self._reached.pop(name, None)
            self._seen.pop(name, None)
            return
        self._reached[name] = reached
        if not advance.is_bookmark:
            self._seen[name] = number(advance.ahead) or reached

    def news(self, collection: str, told: int | None) -> int | None:
        """
        What a node is to be told that was told this of the collection; None where that still holds.

        More may have been told by another replica, and as long as that was reached here, it holds. It does not where
        the apiserver has gone back.
        """
        seen = self._seen.get(collection)
        if seen is None or (told is not None and seen <= told <= max(seen, self._reached[collection])):
            return None
        return seen

    def behind(self, horizon: Iterable[Position]) -> frozenset[str]:
        """Of which collections less is known than the node was told by whoever spoke with it last."""
        return frozenset(
            name for name, version in horizon if (reached := self._reached.get(name)) is not None and reached < version
        )


class Told:
    """What one node was told of this, in one session or before it."""

    __slots__ = ("_owed", "_versions")

    def __init__(self, horizon: Iterable[Position], owed: frozenset[str]) -> None:
        """owed: what the node has heard of and this hub never will have; the next push is to take it back."""
        self._versions = dict(horizon)
        self._owed = owed

    def next(self, horizon: Horizon, collections: Iterable[str]) -> tuple[Position, ...]:
        """What a push that speaks of these collections is to say, now: nothing of what was said already."""
        news: list[Position] = []
        for name in {*collections, *self._owed} if self._owed else collections:
            if (seen := horizon.news(name, self._versions.get(name))) is not None:
                news.append(Position(name, seen))
        if not news and not self._owed:
            return ()
        news = sorted(news)[:MAX_HORIZON]
        self._versions.update(news)
        self._owed = frozenset()
        return tuple(news)


def number(version: str) -> int | None:
    """A resource version as a number; None for what is none, or none that others could read."""
    if not (version.isascii() and version.isdecimal()) or len(version) > len(str(MAX_VERSION)):
        return None
    found = int(version)
    return found if 0 < found <= MAX_VERSION else None
