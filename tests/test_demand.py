"""Watches that nodes asked for, against a server that speaks the real protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import ApiError, Forbidden, InternalError, NotFound, TooManyRequests
from apimachinery.events import Change
from apimachinery.keys import Resource
from apimachinery.resources import LEASES, PODS
from apimachinery.watchcache import WatchCache
from apiserver.messages import Request
from cloudhub import demand
from cloudhub.apiclient import ApiClient
from cloudhub.demand import Advanced, Demand, Watched
from cloudhub.horizon import Advance
from cloudhub.interests import GRANTED, UNKNOWN, Decision
from cloudhub.reflector import Reflector
from tests.harness.background import running
from tests.harness.tinyapi import TinyApi, kubeconfig, tiny_api
from tests.test_reflector import until

WIDGETS = Resource("example.com", "v1", "widgets", "Widget", True)
GADGETS = Resource("example.com", "v1", "gadgets", "Gadget", True)


class Shop:
    """A demand that runs, and all around it."""

    def __init__(self, api: TinyApi, client: ApiClient, **options: Any) -> None:
        self.api = api
        self.client = client
        self.cache = WatchCache()
        self.changes: list[Change] = []
        self.advances: dict[str, str] = {}
        self.changed_: list[str] = []
        self.wanted: list[tuple[str, str]] = []
        self.widened: list[Resource] = []
        watched = [Watched(PODS), Watched(LEASES, "kube-node-lease")]
        self.demand = Demand(
            client,
            self.cache,
            self,
            watched,
            advanced=self.advanced,
            changed=self.changed_.append,
            widen=self.widen,
            **options,
        )
        self.demand.wanted = lambda: self.wanted

    def changed(self, changes: list[Change]) -> None:
        self.changes += changes

    def advanced(self, resource: Resource, advance: Advance) -> None:
        self.advances[resource.collection] = advance.reached

    def widen(self, resource: Resource, advanced: Advanced) -> Reflector:
        self.widened.append(resource)
        return Reflector(self.client, resource, self.cache, self, advanced=advanced)

    def want(self, *wanted: tuple[str, str]) -> list[Decision]:
        """This and nothing else; how it stands."""
        self.wanted = list(wanted)
        return [self.demand.state(*each) for each in wanted]

    def state(self, resource: Resource) -> Decision:
        return self.demand.state(resource.collection)


@asynccontextmanager
async def shop(tmp_path: Path, **options: Any) -> AsyncIterator[Shop]:
    async with tiny_api() as api:
        (tmp_path / "kubeconfig").write_text(kubeconfig(api.url))
        async with ApiClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
            made = Shop(api, client, **options)
            async with running(made.demand.run(), "demand"):
                yield made


async def test_what_is_asked_for_is_found_listed_and_followed(tmp_path: Path) -> None:
    async with shop(tmp_path) as site:
        await site.api.define(WIDGETS)
        await site.api.put(WIDGETS, {"metadata": {"name": "w", "annotations": {"x": "y"}}}, "a")
        [before] = site.want(("widgets.example.com", ""))
        assert (before.code, before.is_pending, before.resource) == (UNKNOWN, True, None)
        assert site.demand.resource("widgets.example.com") is None
        await until(lambda: site.state(WIDGETS) == Decision(GRANTED, resource=WIDGETS))
        assert site.changed_ == ["widgets.example.com"]
        assert [change.object.key.name for change in site.changes] == ["w"]
        assert site.advances["widgets.example.com"]
        assert site.demand.resource("widgets.example.com") == WIDGETS
        await site.api.put(WIDGETS, {"metadata": {"name": "v"}}, "a")
        await until(lambda: len(site.changes) == 2)
        assert len(site.api.asked("GET", "/widgets")) == 1, "one list, whoever asks"
        assert [status.resource for status in site.demand.statuses()] == [WIDGETS]


async def test_what_is_watched_anyway_is_not_watched_twice(tmp_path: Path) -> None:
    async with shop(tmp_path) as site:
        [before] = site.want(("pods", "a"))
        assert before.is_pending
        site.cache.replace(PODS, (), "5")
        assert site.state(PODS) == Decision(GRANTED, resource=PODS)
        site.cache.replace(PODS, (), "")
        assert site.state(PODS).code == NotFound.code
        assert site.demand.resource("pods") == PODS
        await asyncio.sleep(0.03)
        assert site.demand.statuses() == []
        assert not site.api.requests


async def test_what_is_watched_in_part_is_watched_whole_once_more_of_it_is_wanted(tmp_path: Path) -> None:
    async with shop(tmp_path) as site:
        site.cache.replace(LEASES, (), "5")
        name = LEASES.collection
        assert site.want((name, "kube-node-lease"))[0].code == GRANTED
        assert not site.widened
        [before] = site.want((name, "shop"))
        assert before.is_pending
        await until(lambda: site.demand.state(name, "shop").code == GRANTED)
        assert site.widened == [LEASES]
        site.want()
        assert site.demand.state(name, "shop").code == GRANTED, "that stays"


async def test_there_is_no_such_thing_only_on_proof(tmp_path: Path) -> None:
    async with shop(tmp_path) as site:
        refusing: list[ApiError] = [NotFound("the server could not find the requested resource")]

        def starting(request: Request) -> ApiError | None:
            """An apiserver that has not read its definitions yet."""
            return refusing[0] if refusing and "example.com" in request.path else None

        site.api.answer = starting
        site.want(("widgets.example.com", ""))
        await until(lambda: "cannot look for it" in site.state(WIDGETS).reason)
        assert (site.state(WIDGETS).code, site.state(WIDGETS).is_pending) == (UNKNOWN, False)
        refusing.clear()
        site.demand.wake("widgets.example.com")
        await until(lambda: site.state(WIDGETS).code == NotFound.code)
        assert site.state(WIDGETS).reason == 'the cluster has no resource "widgets.example.com"'
        await site.api.define(WIDGETS)
        site.demand.wake("widgets.example.com")
        await until(lambda: site.state(WIDGETS).code == GRANTED)
        await site.api.put(WIDGETS, {"metadata": {"name": "w"}}, "a")
        await until(lambda: site.changes)
        await site.api.withdraw(WIDGETS)
        await until(lambda: site.state(WIDGETS).code == NotFound.code)
        assert site.advances["widgets.example.com"] == ""
        assert [change.type.value for change in site.changes] == ["ADDED", "DELETED"]


async def test_a_list_that_fails_is_told_and_ends_nothing(tmp_path: Path) -> None:
    async with shop(tmp_path) as site:
        await site.api.define(WIDGETS)
        failing = True
        site.api.answer = lambda request: Forbidden("no") if failing and request.path.endswith("/widgets") else None
        site.want(("widgets.example.com", ""))
        await until(lambda: site.state(WIDGETS).reason == "the hub cannot list it: no")
        assert not site.state(WIDGETS).is_pending, "nobody waits for it"
        failing = False
        await until(lambda: site.state(WIDGETS).code == GRANTED)
        failing = True
        site.api.answer = lambda request: InternalError("down") if request.path.endswith("/widgets") else None
        await site.api.break_watches()
        await until(lambda: site.demand.statuses()[0].problem == "down")
        assert site.state(WIDGETS).code == GRANTED, "what is known stays known"


async def test_what_nobody_wants_any_more_is_let_go_after_a_while(tmp_path: Path) -> None:
    async with shop(tmp_path, idle_s=0.05) as site:
        await site.api.define(WIDGETS)
        await site.api.put(WIDGETS, {"metadata": {"name": "w"}}, "a")
        site.want(("widgets.example.com", ""))
        await until(lambda: site.state(WIDGETS).code == GRANTED)
        site.want()
        await until(lambda: not site.demand.statuses())
        await until(lambda: not site.api.watchers)
        assert len(site.cache) == 0
        assert site.advances["widgets.example.com"] == ""
        site.want(("widgets.example.com", ""))
        await until(lambda: site.state(WIDGETS).code == GRANTED)


async def test_there_is_room_for_so_many_and_then_for_others(tmp_path: Path) -> None:
    async with shop(tmp_path, idle_s=0.05, most=1) as site:
        await site.api.define(WIDGETS)
        await site.api.define(GADGETS)
        site.want(("widgets.example.com", ""), ("gadgets.example.com", ""))
        await until(lambda: site.state(WIDGETS).code == GRANTED)
        await until(lambda: site.state(GADGETS).code == 429)
        assert "gadgets.example.com" in site.changed_
        site.want(("gadgets.example.com", ""))
        await until(lambda: site.state(GADGETS).code == GRANTED)


async def test_what_there_is_not_takes_nobodys_room_and_has_none_when_it_comes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demand, "MOST_ABSENT", 2)
    async with shop(tmp_path, most=1) as site:
        await site.api.define(WIDGETS)
        absent = [f"{name}.example.com" for name in ("gadgets", "none")]
        wanted = [(name, "") for name in absent]
        site.want(*wanted)
        await until(lambda: all(site.demand.state(name).code == NotFound.code for name in absent))
        site.want(*wanted, ("widgets.example.com", ""))
        await until(lambda: site.state(WIDGETS).code == GRANTED)
        assert site.demand.state("others.example.com").code == TooManyRequests.code
        await site.api.define(GADGETS)
        site.demand.wake("gadgets.example.com")
        await until(lambda: site.state(GADGETS).code == TooManyRequests.code)
        assert [status.resource for status in site.demand.statuses()] == [WIDGETS]
