"""
Decides upon what nodes are interested in: whether the one who asks may read it, which the apiserver knows; and then
whether there is such a resource and it can be pushed, which cloudhub/demand.py knows. In this order: nobody makes a hub
watch what he may not read.

A review (SubjectAccessReview) is made for each identity and selection, not for each node that shares them; its answer
counts for RECHECK_S, also for a node that connects meanwhile, and is asked for again as long as somebody needs it.
Where the apiserver does not answer, what was decided before stays.

Invariants
    an interest is granted only where its last review allowed it, and only while the hub has the resource
    a decision that changes is told of
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from apimachinery.errors import ApiError, BadRequest, Forbidden
from apimachinery.keys import Node, Resource
from apimachinery.watchcache import WatchCache
from cloudhub.backoff import read_delay_s
from cloudhub.demand import Demand
from cloudhub.identities import Identity, identity_of, refused
from cloudhub.interests import GRANTED, RECHECK_S, UNKNOWN, Decision
from cloudhub.placement import Placement
from link.frames import Interest

logger = logging.getLogger(__name__)

REFUSED_S = 30.0  # after a right was given, somebody sits there and waits
GATHER_S = 0.02  # 200 new interests of a node were judged, and told, 200 times
MOST_REVIEWS = 1 << 15  # some 30 MB; beyond that, and a node may ask for new names all the time, only what is needed
_PLURAL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035, as a definition's names.plural must be
REVIEWERS = 8  # at a time; a thousand nodes that come back to a hub that was restarted ask a few thousand times


class Reviewing(Protocol):
    """The request that this needs; cloudhub.apiclient.ApiClient has it."""

    async def may(
        self, user: str, groups: Sequence[str], verb: str, resource: Resource, namespace: str = "", name: str = ""
    ) -> bool: ...


class _Question(NamedTuple):
    """What is reviewed."""

    identity: Identity
    resource: Resource
    """As it is called by whoever asks: rights do not depend on versions."""
    namespace: str
    name: str

    @property
    def verbs(self) -> tuple[str, str]:
        return ("get" if self.name else "list", "watch")


class _Review:
    """Its answer, and who needs it."""

    def __init__(self) -> None:
        self.decision = Decision(UNKNOWN, "the apiserver was asked whether it may be read", is_pending=True)
        self.due_at = 0.0
        self.failures = 0
        self.is_under_way = False
        self.nodes: set[Node] = set()


class Access:
    """Is a cloudhub.standings.Access. run() must be going for anything to be decided."""

    def __init__(
        self,
        client: Reviewing,
        placement: Placement,
        cache: WatchCache,
        demand: Demand,
        *,
        decided: Callable[[Node], None],
        recheck_s: float = RECHECK_S,
    ) -> None:
        """decided: told of a node when a decision on one of its interests is another than before."""
        self._client = client
        self._placement = placement
        self._cache = cache
        self._demand = demand
        self._decided = decided
        demand.wanted = self._allowed
        self._recheck_s = recheck_s
        self._wanted: dict[Node, tuple[Interest, ...]] = {}
        self._reviews: dict[_Question, _Review] = {}
        self._needed: dict[Node, set[_Question]] = {}
        self._news: set[Node] = set()
        """Of whom something was decided that they were not told."""
        self._work = asyncio.Event()
        self.reviews = 0
        """Requests made; it only rises."""

    # For the hub

    def want(self, node: Node, interests: Sequence[Interest]) -> None:
        needed, still = self._needed.pop(node, set()), set()
        for interest in interests:
            with contextlib.suppress(Forbidden):
                still.add(self._question(node, interest))
        # What it goes on to want keeps its answer, also where that was to be asked for again by now.
        if needed & still:
            self._needed[node] = needed & still
        for question in needed - still:
            self._reviews[question].nodes.discard(node)
            self._let_go(question)
        if interests:
            self._wanted[node] = tuple(interests)
        else:
            self._wanted.pop(node, None)

    def decision(self, node: Node, interest: Interest) -> Decision:
        try:
            question = self._question(node, interest)
        except Forbidden as error:
            return Decision(error.code, str(error))
        resource, namespace, _, _ = interest
        if not _PLURAL.fullmatch(resource.plural):
            # With a dot it would be reviewed as one resource and watched as another.
            return Decision(BadRequest.code, f'"{resource.plural}" is no name of a resource')
        may = self._review(question, node).decision
        if may.code != GRANTED:
            return may
        found = self._demand.state(resource.collection, namespace)
        if namespace and found.resource is not None and not found.resource.namespaced:
            return Decision(BadRequest.code, f"{resource.collection} has no namespaces")
        return found

    def changed(self, collection: str) -> None:
        """Demand.state says something else of this collection."""
        for node, interests in list(self._wanted.items()):
            if any(interest.resource.collection == collection for interest in interests):
                self._decided(node)

    def _question(self, node: Node, interest: Interest) -> _Question:
        """Raises Forbidden where the node may not ask for this user."""
        resource, namespace, name, user = interest
        return _Question(identity_of(node, user, self._placement, self._cache), resource, namespace, name)

    def _review(self, question: _Question, node: Node) -> _Review:
        review = self._reviews.get(question)
        if review is None or (not review.nodes and not review.is_under_way and review.due_at <= self._now()):
            review = self._reviews[question] = _Review()
        if node not in review.nodes:
            review.nodes.add(node)
            self._needed.setdefault(node, set()).add(question)
            self._work.set()
        return review

    def _allowed(self) -> Iterable[tuple[str, str]]:
        """What is to be watched: collections and namespaces."""
        return (
            (question.resource.collection, question.namespace)
            for question, review in self._reviews.items()
            if review.nodes and review.decision.code == GRANTED
        )

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # The work

    async def run(self) -> None:
        """Until cancelled."""
        free = asyncio.Semaphore(REVIEWERS)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._demand.run(), name="demand")
            looked_at = self._now()
            while True:
                self._work.clear()
                if self._now() - looked_at >= min(REFUSED_S, self._recheck_s):
                    looked_at = self._now()
                    for question in list(self._reviews):
                        self._let_go(question)
                for question in self._due(self._now()):
                    await free.acquire()
                    review = self._reviews.get(question)
                    if review is None or not review.nodes:
                        free.release()  # whoever needed it does not any more
                        continue
                    review.is_under_way = True
                    task = tasks.create_task(self._ask(question), name="review")
                    task.add_done_callback(lambda _: free.release())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._next_due(self._now())):
                        await self._work.wait()

    def _due(self, now: float) -> Iterable[_Question]:
        return [
            question
            for question, review in self._reviews.items()
            if review.due_at <= now and review.nodes and not review.is_under_way
        ]

    def _next_due(self, now: float) -> float:
        waiting = (each.due_at for each in self._reviews.values() if each.nodes and not each.is_under_way)
        return max(now, min(waiting, default=now + self._recheck_s))

    def _let_go(self, question: _Question) -> None:
        """Forget an answer that nobody needs any more, once it would have to be asked again or there are too many."""
        review = self._reviews[question]
        is_over = review.due_at <= self._now() or len(self._reviews) > MOST_REVIEWS
        if is_over and not review.nodes and not review.is_under_way:
            del self._reviews[question]

    async def _ask(self, question: _Question) -> None:
        review = self._reviews[question]
        identity, resource, namespace, name = question
        before = review.decision
        try:
            decision = Decision(GRANTED)
            for verb in question.verbs:
                self.reviews += 1
                if not await self._client.may(identity.user, identity.groups, verb, resource, namespace, name):
                    decision = Decision(Forbidden.code, refused(identity, verb, resource, namespace, name))
                    break
        except ApiError as error:
            review.failures += 1
            delay_s = read_delay_s(error, review.failures, 0.5)
            decision = before
            if before.code == UNKNOWN:
                decision = Decision(UNKNOWN, f"the apiserver does not say whether it may be read: {error}")
        else:
            review.failures = 0
            delay_s = self._recheck_s if decision.code == GRANTED else min(REFUSED_S, self._recheck_s)
        review.is_under_way = False
        review.decision = decision
        review.due_at = self._now() + delay_s
        self._work.set()
        self._let_go(question)
        if decision == before:
            return
        if decision.code == Forbidden.code:
            logger.info(
                "an interest is refused",
                extra={"user": identity.user, "resource": resource.collection, "namespace": namespace},
            )
        if not self._news:
            asyncio.get_running_loop().call_later(GATHER_S, self._tell)
        self._news |= review.nodes

    def _tell(self) -> None:
        """Each node once, however many of its interests were decided meanwhile: it is judged as a whole."""
        news, self._news = self._news, set()
        for node in sorted(news):
            self._decided(node)
