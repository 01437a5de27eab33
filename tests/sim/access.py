"""
Who may read what, as one replica comes to know it: reviews that take time and fail, lists that are made on demand.

It stands for cloudhub/access.py and cloudhub/demand.py, and keeps their rules: nothing is granted that was not allowed
and listed; what was decided stays where the apiserver does not answer; what nobody wants any more is forgotten.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from apimachinery.errors import ApiError
from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.resources import CONFIG_MAPS, SECRETS
from cloudhub.interests import GRANTED, UNKNOWN, Decision
from link.frames import Interest
from tests.sim.surroundings import Surroundings

if TYPE_CHECKING:
    from tests.sim.hub import SimHub

GADGETS = Resource("example.com", "v1", "gadgets", "Gadget", True)
"""No rule places them."""
STEADY_KEY = ObjectKey(GADGETS, "default", "steady")
STEADY = Interest(GADGETS, "default", "steady")
"""One object that is never deleted; the first node is always interested in it, and always may be."""
POOL = (
    Interest(GADGETS),
    Interest(GADGETS, "default", "g0"),
    Interest(CONFIG_MAPS, "default"),
    Interest(SECRETS, "default", "s0"),
)
"""What nodes are interested in now and then."""

_PENDING = Decision(UNKNOWN, "soon", is_pending=True)
_TROUBLE = Decision(UNKNOWN, "the apiserver does not answer")
_REFUSED = Decision(403, "no")


class SimAccess:
    """Is a cloudhub.standings.Access of one process of one replica."""

    def __init__(self, world: Surroundings, owner: "SimHub") -> None:
        self._world = world
        self._owner = owner
        self._generation = owner.generation
        self._wanted: dict[Node, tuple[Interest, ...]] = {}
        self._decisions: dict[tuple[Node, Interest], Decision] = {}
        self._asking: set[tuple[Node, Interest]] = set()
        self._starting: set[Resource] = set()

    @property
    def _is_alive(self) -> bool:
        return self._owner.generation == self._generation

    def want(self, node: Node, interests: Sequence[Interest]) -> None:
        self._wanted[node] = tuple(interests)

    def decision(self, node: Node, interest: Interest) -> Decision:
        assert interest in self._wanted[node], "the hub asks for what it said is wanted"
        known = self._decisions.get((node, interest))
        if known is None:
            self._ask(node, interest)
            return _PENDING
        if known.code != GRANTED:
            return known
        return known if self._is_followed(interest.resource) else _PENDING

    def _is_followed(self, resource: Resource) -> bool:
        if self._owner.follows(resource):
            return True
        if resource not in self._starting:
            self._starting.add(resource)
            self._world.clock.call_later(self._world.rng.choice([0.0, 0.1, 3.0]), lambda: self._start(resource))
        return False

    def _start(self, resource: Resource) -> None:
        if self._is_alive:
            self._starting.discard(resource)
            self._owner.follow(resource)
            for node, interests in list(self._wanted.items()):
                if any(interest.resource == resource for interest in interests):
                    self._owner.hub.decided(node)

    def recheck(self) -> None:
        """Ask again, and let go of what nobody wants."""
        for node, interests in self._wanted.items():
            for interest in interests:
                self._ask(node, interest)
        wanted = {interest.resource for interests in self._wanted.values() for interest in interests}
        if GADGETS not in wanted and self._owner.follows(GADGETS):
            self._owner.let_go(GADGETS)

    def _ask(self, node: Node, interest: Interest) -> None:
        if (node, interest) not in self._asking:
            self._asking.add((node, interest))
            self._world.request(
                self._owner.name,
                lambda: self._world.is_allowed(node, interest),
                lambda answer: self._answered(node, interest, answer),
            )

    def _answered(self, node: Node, interest: Interest, answer: bool | ApiError) -> None:
        self._asking.discard((node, interest))
        if not self._is_alive:
            return
        before = self._decisions.get((node, interest))
        if isinstance(answer, ApiError):
            decision = _TROUBLE if before is None else before
            if interest in self._wanted.get(node, ()):
                self._world.clock.call_later(0.5, lambda: self._ask(node, interest) if self._is_alive else None)
        else:
            decision = Decision(GRANTED, resource=interest.resource) if answer else _REFUSED
        self._decisions[node, interest] = decision
        if decision != before and interest in self._wanted.get(node, ()):
            self._owner.hub.decided(node)


class NoCalls:
    """Is a cloudhub.session.CallSink that nobody calls: calls have no state to converge."""

    def has_room(self, session: object) -> bool:
        return True

    def begin(self, session: object, call: object) -> None:
        raise AssertionError("nobody calls")

    def refuse(self, session: object, number: int) -> None:
        raise AssertionError("nobody calls")

    def cancel(self, session: object, number: int) -> None: ...

    def session_closed(self, session: object) -> None: ...
