"""
What stands for cloudhub/nodes.py: the shipped Fences, and requests to the simulated apiserver about Leases, which are
slow, refused, in conflict, or done and never answered. Nodes are there already; their readiness is no business of this.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from apimachinery.errors import ApiError, Conflict
from apimachinery.keys import Node
from cloudhub.backoff import write_delay_s
from cloudhub.fences import Claim, Fences, Permit, Standing
from tests.sim.surroundings import Surroundings

if TYPE_CHECKING:
    from tests.sim.hub import SimHub

RENEW_S = 5.0
ATTEMPTS = 4

Done = Callable[[ApiError | None], None]


class SimLeases:
    """Is a cloudhub.sessions.NodeWatcher."""

    def __init__(self, world: Surroundings, owner: "SimHub") -> None:
        self._world = world
        self._owner = owner
        self._generation = owner.generation
        self._clock = owner.clock
        self.fences = Fences(f"{owner.name}.{owner.generation}")
        self._asking: defaultdict[Node, list[Callable[[], None]]] = defaultdict(list)
        """One request about a Lease at a time: what is to be done after the one that is under way comes first."""
        self._place = 0
        self._incarnation = world.api.incarnation
        self._relist()

    @property
    def is_alive(self) -> bool:
        return self._owner.generation == self._generation

    # From the links

    def session_up(self, node: Node, term: int) -> None:
        self.fences.opened(node, term)
        self._keep(node, term, 0)

    def session_down(self, node: Node) -> None:
        self.fences.closed(node)

    def last_term(self, node: Node) -> int:
        return self.fences.last_term(node)

    def _keep(self, node: Node, term: int, failures: int) -> None:
        """Take the Lease, and renew it for as long as the session lasts."""

        def again(error: ApiError | None) -> None:
            delay_s = RENEW_S if error is None else write_delay_s(error, failures + 1, self._world.rng.random())
            assert delay_s is not None, "the simulated apiserver refuses no Lease for good"
            count = 0 if error is None else failures + 1
            self._clock.call_at(self._clock.time() + delay_s, lambda: self._keep(node, term, count))

        if self.is_alive and self.fences.term(node) == term:
            self._one_at_a_time(
                node, lambda: self._hold(node, lambda error: self._next(node, again, error), renew=True)
            )

    # From the watch

    def watch(self, *, fully: bool) -> None:
        """Take in what the watch has brought, some of it or all."""
        api = self._world.api
        if self._incarnation != api.incarnation:
            self._relist()
            return
        news = api.lease_log[self._place :]
        for node, claim in news if fully else news[: self._world.rng.randint(0, len(news))]:
            self._place += 1
            self.fences.noticed(node, claim)
            self._tell(node)

    def _relist(self) -> None:
        self._incarnation, self._place = self._world.api.incarnation, len(self._world.api.lease_log)
        for node, claim in self._world.api.leases.items():
            self.fences.noticed(node, claim)
            self._tell(node)

    # For the writer

    def confirm(self, node: Node, term: int, learned: int, done: Done) -> None:
        def ask() -> None:
            if self.fences.permit(node, term, learned) is not Permit.ASK:
                self._next(node, done, None)
            elif self.fences.standing(node) is Standing.HELD:
                self._look(node, lambda error: self._hold(node, after) if error is None else after(error))
            else:
                self._hold(node, after)

        def after(error: ApiError | None) -> None:
            self._next(node, done, error)

        self._one_at_a_time(node, ask)

    # What is done about it

    def _one_at_a_time(self, node: Node, ask: Callable[[], None]) -> None:
        waiting = self._asking[node]
        waiting.append(ask)
        if len(waiting) == 1:
            ask()

    def _next(self, node: Node, done: Done, error: ApiError | None) -> None:
        waiting = self._asking[node]
        del waiting[0]
        done(error)
        if waiting:
            waiting[0]()

    def _hold(self, node: Node, done: Done, *, renew: bool = False, attempts: int = ATTEMPTS) -> None:
        fences, api = self.fences, self._world.api
        standing = fences.standing(node)
        self._tell(node)
        if standing in (Standing.ABSENT, Standing.STALE, Standing.SUPERSEDED) or (
            standing is Standing.HELD and not renew
        ):
            done(None)
            return
        if not attempts:
            done(Conflict("somebody else writes the Lease all the time"))
            return
        began, base, term = fences.tick(), fences.claim(node), fences.term(node)

        def look_again(error: ApiError | None) -> None:
            if error is None:
                self._hold(node, done, renew=renew, attempts=attempts - 1)
            else:
                done(error)

        def answered(answer: Claim | ApiError) -> None:
            if not self.is_alive:
                return
            if isinstance(answer, Conflict):
                self._look(node, look_again)
            elif isinstance(answer, ApiError):
                done(answer)
            else:
                fences.answered(node, answer, began)
                self._tell(node)
                done(None)

        self._world.request(self._owner.name, lambda: api.put_lease(node, base, term, fences.replica), answered)

    def _look(self, node: Node, done: Done) -> None:
        began = self.fences.tick()

        def answered(answer: Claim | ApiError | None) -> None:
            if not self.is_alive:
                return
            if isinstance(answer, ApiError):
                done(answer)
                return
            self.fences.answered(node, answer, began)
            self._tell(node)
            done(None)

        self._world.request(self._owner.name, lambda: self._world.api.get_lease(node), answered)

    def _tell(self, node: Node) -> None:
        standing, fences = self.fences.standing(node), self.fences
        if standing in (Standing.STALE, Standing.SUPERSEDED):
            was_last = standing is Standing.SUPERSEDED
            self._owner.hub.overtaken(node, fences.term(node), fences.newest(node), was_last=was_last)
