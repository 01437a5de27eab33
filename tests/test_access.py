"""Decisions upon interests, with reviews by a server that speaks the real protocol."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import InternalError
from apimachinery.events import Change, EventType
from apimachinery.keys import Node, Resource
from apimachinery.objects import from_json
from apimachinery.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS
from apimachinery.watchcache import WatchCache
from apiserver.messages import Request, Response, json_response
from cloudhub import access as module
from cloudhub.access import Access
from cloudhub.apiclient import ApiClient
from cloudhub.demand import Demand, Watched
from cloudhub.interests import GRANTED, UNKNOWN, Decision
from cloudhub.placement import Placement
from link.frames import Interest
from tests.harness.background import running
from tests.harness.tinyapi import TinyApi, kubeconfig, tiny_api
from tests.test_reflector import until

WIDGETS = Resource("example.com", "v1", "widgets", "Widget", True)
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
N1, N2 = Node("n1"), Node("n2")
OPERATOR = "system:serviceaccount:a:op"


class Desk:
    """An access that runs, and an apiserver that allows what the test says."""

    def __init__(self, api: TinyApi, client: ApiClient, **options: Any) -> None:
        self.api = api
        self.cache = WatchCache()
        self.placement = Placement()
        self.told: list[Node] = []
        self.forbidden: set[tuple[str, str]] = set()
        """(user, verb)."""
        self.is_down = False
        self.demand = Demand(
            client,
            self.cache,
            self,
            [Watched(PODS), Watched(SECRETS), Watched(NODES)],
            advanced=lambda *_: None,
            changed=lambda collection: self.access.changed(collection),
        )
        account = from_json(SERVICE_ACCOUNTS, {"metadata": {"name": "op", "namespace": "a"}})
        self.cache.replace(SERVICE_ACCOUNTS, [account], "5")
        for resource in (PODS, SECRETS, NODES):
            self.cache.replace(resource, (), "5")
        self.access = Access(client, self.placement, self.cache, self.demand, decided=self.told.append, **options)
        api.answer = self.review

    def changed(self, changes: list[Change]) -> None: ...

    def review(self, request: Request) -> Response | InternalError | None:
        if request.path != REVIEWS:
            return None
        if self.is_down:
            return InternalError("down")

        spec = json.loads(request.body)["spec"]
        allowed = (spec["user"], spec["resourceAttributes"]["verb"]) not in self.forbidden
        return json_response(201, {"kind": "SubjectAccessReview", "status": {"allowed": allowed}})

    def asked(self) -> list[dict[str, Any]]:
        return [entry.body["spec"] for entry in self.api.requests if entry.path == REVIEWS]

    def want(self, node: Node, *interests: Interest) -> list[Decision]:
        self.access.want(node, interests)
        return [self.access.decision(node, interest) for interest in interests]


@asynccontextmanager
async def desk(tmp_path: Path, **options: Any) -> AsyncIterator[Desk]:
    async with tiny_api() as api:
        (tmp_path / "kubeconfig").write_text(kubeconfig(api.url))
        async with ApiClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
            made = Desk(api, client, **options)
            async with running(made.access.run(), "access"):
                yield made


async def test_the_apiserver_decides_and_is_asked_once_for_all_nodes_of_one_user(tmp_path: Path) -> None:
    async with desk(tmp_path) as site:
        for node in (N1, N2):
            spec = {"nodeName": node, "serviceAccountName": "op"}
            pod = from_json(PODS, {"metadata": {"name": node, "namespace": "a"}, "spec": spec})
            site.placement.observe(Change(1, EventType.ADDED, pod, None))
        interest = Interest(SECRETS, "a", user=OPERATOR)
        [first] = site.want(N1, interest)
        assert (first.code, first.is_pending) == (UNKNOWN, True)
        site.want(N2, interest)
        await until(lambda: sorted(site.told) == [N1, N2])
        assert site.access.decision(N1, interest) == Decision(GRANTED, resource=SECRETS)
        list_, watch = site.asked()
        assert list_ == {
            "user": OPERATOR,
            "groups": ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"],
            "resourceAttributes": {
                "verb": "list",
                "group": "",
                "version": "v1",
                "resource": "secrets",
                "namespace": "a",
            },
        }
        assert watch["resourceAttributes"]["verb"] == "watch"
        assert site.access.reviews == 2


async def test_a_name_is_got_and_watched(tmp_path: Path) -> None:
    async with desk(tmp_path) as site:
        interest = Interest(SECRETS, "a", "s")
        site.forbidden.add(("system:node:n1", "watch"))
        site.want(N1, interest)
        await until(lambda: site.told)
        assert [spec["resourceAttributes"]["verb"] for spec in site.asked()] == ["get", "watch"]
        assert site.access.decision(N1, interest) == Decision(
            403,
            'secrets "s" is forbidden: User "system:node:n1" cannot watch resource "secrets" in API group "" '
            'in the namespace "a"',
        )


async def test_nobody_makes_the_hub_watch_what_he_may_not_read(tmp_path: Path) -> None:
    async with desk(tmp_path) as site:
        await site.api.define(WIDGETS)
        site.forbidden.add(("system:node:n1", "list"))
        site.want(N1, Interest(WIDGETS))
        await until(lambda: site.told)
        assert site.access.decision(N1, Interest(WIDGETS)).code == 403
        await asyncio.sleep(0.03)
        assert not site.api.asked("GET", "/widgets")
        site.want(N2, Interest(WIDGETS))
        await until(lambda: site.access.decision(N2, Interest(WIDGETS)).code == GRANTED)
        await until(lambda: site.told[-1] == N2)


async def test_a_node_with_many_new_interests_is_judged_a_few_times_and_not_for_each(tmp_path: Path) -> None:
    async with desk(tmp_path) as site:
        interests = [Interest(SECRETS, f"ns-{number}") for number in range(60)]
        site.want(N1, *interests)
        await until(lambda: all(site.access.decision(N1, each).code == GRANTED for each in interests))
        await until(lambda: site.told)
        assert len(site.told) < 30


async def test_a_right_that_is_taken_back_ends_the_interest_and_one_that_is_given_begins_it(tmp_path: Path) -> None:
    async with desk(tmp_path, recheck_s=0.05) as site:
        interest = Interest(SECRETS)
        site.want(N1, interest)
        await until(lambda: site.told == [N1])
        site.forbidden.add(("system:node:n1", "watch"))
        await until(lambda: site.told == [N1] * 2)
        assert site.access.decision(N1, interest).code == 403
        site.forbidden.clear()
        await until(lambda: site.told == [N1] * 3)
        assert site.access.decision(N1, interest).code == GRANTED
        await asyncio.sleep(0.05)
        assert site.told == [N1] * 3, "told of changes and of nothing else"


async def test_what_was_decided_stays_while_the_apiserver_does_not_answer(tmp_path: Path) -> None:
    async with desk(tmp_path, recheck_s=0.05) as site:
        known, new = Interest(SECRETS), Interest(PODS)
        site.want(N1, known)
        await until(lambda: site.told)
        site.is_down = True
        site.want(N2, new)
        await until(lambda: "does not say whether" in site.access.decision(N2, new).reason)
        assert (site.access.decision(N2, new).code, site.access.decision(N2, new).is_pending) == (UNKNOWN, False)
        asked = len(site.asked())
        await until(lambda: len(site.asked()) > asked + 2)
        assert site.access.decision(N1, known).code == GRANTED
        site.is_down = False
        await until(lambda: site.access.decision(N2, new).code == GRANTED)


async def test_who_goes_on_wanting_keeps_an_answer_that_was_to_be_asked_for_again(tmp_path: Path) -> None:
    async with desk(tmp_path, recheck_s=0.05) as site:
        known, new = Interest(SECRETS), Interest(PODS)
        site.want(N1, known)
        await until(lambda: site.told)
        site.is_down = True
        time.sleep(0.06)  # noqa: ASYNC251  the loop has no turn in which it could ask
        kept, asked = site.want(N1, known, new)
        assert (kept.code, asked.is_pending) == (GRANTED, True)
        await until(lambda: "does not say whether" in site.access.decision(N1, new).reason)
        assert site.access.decision(N1, known).code == GRANTED
        assert len(site.access._reviews) == 2
        site.want(N1, new)
        await until(lambda: len(site.access._reviews) == 1)


async def test_what_nobody_wants_any_more_is_not_asked_for_and_not_believed_for_ever(tmp_path: Path) -> None:
    async with desk(tmp_path, recheck_s=0.05) as site:
        interest = Interest(SECRETS)
        site.want(N1, interest)
        await until(lambda: site.told)
        site.want(N1)
        await until(lambda: not site.access._reviews)
        asked = len(site.asked())
        await asyncio.sleep(0.05)
        assert len(site.asked()) == asked
        [again] = site.want(N1, interest)
        assert again.is_pending


async def test_a_node_that_asks_for_new_names_all_the_time_fills_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as site:
        for number in range(200):
            site.want(N1, *(Interest(SECRETS, "a", f"{number}-{place}") for place in range(20)))
            assert len(site.access._reviews) <= 20 + module.REVIEWERS
        monkeypatch.setattr(module, "MOST_REVIEWS", 50)
        for number in range(200, 210):
            names = [Interest(SECRETS, "a", f"{number}-{place}") for place in range(20)]
            site.want(N1, *names)
            while {site.access.decision(N1, name).code for name in names} != {GRANTED}:
                await asyncio.sleep(0.005)
        assert len(site.access._reviews) <= 70, "answers that count still, but are too many"


async def test_who_comes_back_soon_is_not_reviewed_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as site:
        interest = Interest(SECRETS)
        site.want(N1, interest)
        await until(lambda: site.told)
        site.want(N1)
        [again] = site.want(N1, interest)
        assert again.code == GRANTED
        assert len(site.asked()) == 2


async def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with desk(tmp_path) as site:
        [stranger] = site.want(N1, Interest(SECRETS, user=OPERATOR))
        assert stranger.code == 403
        interest = Interest(NODES, "a")
        site.want(N1, interest)
        await until(lambda: site.told)
        assert site.access.decision(N1, interest) == Decision(400, "nodes has no namespaces")
        for plural in ("widgets.example.com", "pods/log", "", "../x"):
            [odd] = site.want(N1, Interest(Resource("", "v1", plural, "Widget", True)))
            assert odd.code == 400, "a right to everything of one group is none to another's"
