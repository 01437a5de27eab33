"""Calls made for nodes, against a server that speaks the real protocol; a hub with sessions in front of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from apimachinery.errors import Conflict, InternalError
from apimachinery.keys import Resource
from apimachinery.objects import from_json
from apimachinery.watchcache import WatchCache
from apiserver.messages import Request, Response, json_response
from cloudhub.apiclient import ApiClient
from cloudhub.calls import Calls
from cloudhub.placement import Placement
from cloudhub.projection import project
from link.frames import MAX_CALL_BYTES, MAX_CALLS, Answer, AnswerHead, Call, CallHead, Cancel, Taken
from tests.harness.background import running
from tests.harness.hubsite import Site, Wire
from tests.harness.tinyapi import TinyApi, kubeconfig, tiny_api
from tests.test_reflector import until

WIDGETS = Resource("example.com", "v1", "widgets", "Widget", True)
PATH = "/apis/example.com/v1/namespaces/a/widgets"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class Desk:
    """One node's link, at a hub that makes calls."""

    def __init__(self, api: TinyApi, calls: Calls) -> None:
        self.api = api
        self.calls = calls
        self.site = Site()
        self.site.hub.calls = calls
        self.wire: Wire = self.site.streaming("n1")
        self.answers: dict[int, tuple[AnswerHead, bytes]] = {}
        self.whole: set[int] = set()
        self._numbers = 0
        self._taken = 0

    def call(self, method: str, target: str, body: object = None, **head: str) -> int:
        """Say a call; its number."""
        number = self.number()
        content = b"" if body is None else json.dumps(body).encode()
        told = CallHead(method, target, **{"content_type": "application/json" if content else "", **head})
        self.wire.say(Call(number, told, content, True))
        return number

    def number(self) -> int:
        """The next call's."""
        self._numbers += 1
        return self._numbers

    def collect(self) -> None:
        """Take what has come of answers."""
        for frame in self.wire.take():
            if isinstance(frame, Answer):
                head, body = self.answers.get(frame.number, (frame.head, b""))
                assert head is not None
                self.answers[frame.number] = (head, body + frame.body)
                self.whole |= {frame.number} if frame.last else set()
                self._taken += 1
                self.wire.say(Taken(self._taken))

    async def answered(self, number: int) -> tuple[AnswerHead, Any]:
        def is_whole() -> bool:
            self.collect()
            return number in self.whole

        await until(is_whole)
        head, body = self.answers[number]
        return head, json.loads(body) if body else None

    async def ask(self, method: str, target: str, body: object = None, **head: str) -> tuple[AnswerHead, Any]:
        return await self.answered(self.call(method, target, body, **head))


def reviewed(request: Request, *, allowed: bool = True) -> Response | None:
    """Who asks may."""
    if request.path != REVIEWS:
        return None
    return json_response(201, {"kind": "SubjectAccessReview", "status": {"allowed": allowed}})


@asynccontextmanager
async def desk(tmp_path: Path, **options: Any) -> AsyncIterator[Desk]:
    async with tiny_api() as api:
        await api.define(WIDGETS)
        api.answer = reviewed
        (tmp_path / "kubeconfig").write_text(kubeconfig(api.url, {"token": "hub"}))
        async with ApiClient.from_kubeconfig(tmp_path / "kubeconfig") as client:
            held = {WIDGETS.collection: WIDGETS}
            calls = Calls(client, Placement(), WatchCache(), held.get, **options)
            async with running(calls.run(), "calls"):
                yield Desk(api, calls)


async def test_a_call_is_made_as_who_asks_and_with_nothing_else_of_his(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        widget = {"metadata": {"name": "w"}, "spec": {"size": 1}}
        head, body = await it.ask(
            "POST", f"{PATH}?fieldManager=x", widget, accept="application/json", agent="kubectl/1"
        )
        assert (head.status, head.content_type) == (201, "application/json")
        assert head.revision == project(from_json(WIDGETS, body)).version.revision
        [made] = it.api.asked("POST")
        assert made.query == {"fieldManager": "x"}
        told = {name: made.headers.get(name) for name in ("impersonate-user", "impersonate-group", "user-agent")}
        assert told == {
            "impersonate-user": "system:node:n1",
            "impersonate-group": "system:nodes",
            "user-agent": "kubectl/1",
        }
        assert made.headers["authorization"] == "Bearer hub"
        assert it.calls.answers == {201: 1}


async def test_what_the_apiserver_says_comes_back_as_it_is(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        headers = [
            ("warning", '299 - "one"'),
            ("retry-after", "7"),
            ("content-type", "text/plain"),
            ("warning", '299 - "two"'),
        ]
        it.api.answer = lambda request: Response(418, headers, b'"tea"')
        head, body = await it.ask("GET", "/version")
        assert head == AnswerHead(418, "text/plain", 7.0, ("one", "two"), "")
        assert body == "tea"


async def test_a_base_becomes_the_version_that_the_object_has(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        live = await it.api.put(WIDGETS, {"metadata": {"name": "w"}, "spec": {"size": 1}}, "a")
        base = project(from_json(WIDGETS, live)).version.revision
        widget = {"metadata": {"name": "w", "namespace": "a", "uid": live["metadata"]["uid"]}, "spec": {"size": 2}}
        head, body = await it.ask("PUT", f"{PATH}/w", widget, base=base)
        assert head.status == 200
        [put] = it.api.asked("PUT")
        assert put.body["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]
        head, body = await it.ask("PUT", f"{PATH}/w", widget, base=base)
        assert (head.status, body["reason"]) == (409, Conflict.reason)
        assert len(it.api.asked("PUT")) == 1
        head, body = await it.ask("PUT", f"{PATH}/gone", widget, base=base)
        assert head.status == 404
        head, body = await it.ask("PUT", "/api/v1/namespaces/a/pods/p", widget, base=base)
        assert (head.status, head.retry_after_s) == (503, 1.0), "the node holds it, so the hub will soon know it, too"
        head, body = await it.ask("POST", PATH, widget, base=base)
        assert head.status == 400


async def test_who_may_not_change_an_object_does_not_learn_whether_there_is_one(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        await it.api.put(WIDGETS, {"metadata": {"name": "there"}, "spec": {"size": 1}}, "a")
        it.api.answer = lambda request: reviewed(request, allowed=False)
        answers = [
            (head.status, body["message"].replace(name, "NAME"))
            for name in ("there", "gone")
            for head, body in [await it.ask("PATCH", f"{PATH}/{name}/status", {}, base="guess")]
        ]
        told = (
            'widgets.example.com "NAME" is forbidden: User "system:node:n1" cannot patch resource "widgets/status" '
            'in API group "example.com" in the namespace "a"'
        )
        assert answers == [(403, told)] * 2
        assert {entry.path for entry in it.api.requests} == {REVIEWS}
        asked = it.api.requests[0].body["spec"]["resourceAttributes"]
        assert (asked["verb"], asked["name"], asked["subresource"]) == ("patch", "there", "status")


async def test_what_changed_between_the_reading_and_the_write_is_the_apiservers_conflict(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        live = await it.api.put(WIDGETS, {"metadata": {"name": "w"}, "spec": {"size": 1}}, "a")
        base = project(from_json(WIDGETS, live)).version.revision
        racing: list[int] = []

        def race(request: Request) -> Response | None:
            if request.method == "PUT" and not racing:
                racing.append(1)
                it.api.objects[next(iter(k for k in it.api.objects if k.name == "w"))]["metadata"][
                    "resourceVersion"
                ] = "999"
            return reviewed(request)

        it.api.answer = race
        head, body = await it.ask("PUT", f"{PATH}/w", {"metadata": {"name": "w"}}, base=base)
        assert (head.status, body["reason"]) == (409, "Conflict")


async def test_what_is_not_passed_on_costs_no_request(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        for target, user, status in (
            (f"{PATH}?watch=true", "", 400),
            ("/version", "system:serviceaccount:a:op", 403),
            ("/version", "kubernetes-admin", 403),
        ):
            head, body = await it.ask("GET", target, user=user)
            assert (head.status, body["kind"]) == (status, "Status")
        assert not it.api.requests


async def test_an_apiserver_that_is_away_or_slow_is_told_of(tmp_path: Path) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    async with desk(tmp_path, call_s=0.1) as it:
        it.api.answer = lambda request: Response(200, [], never())
        head, body = await it.ask("GET", "/version")
        assert (head.status, body["reason"]) == (504, "Timeout")
    async with desk(tmp_path) as it:
        it.api.answer = lambda request: InternalError("boom")
        assert (await it.ask("GET", "/version"))[0].status == 500
        it.calls._client._http.base_url = "http://127.0.0.1:1"  # type: ignore[attr-defined]
        head, body = await it.ask("GET", "/version")
        assert (head.status, body["reason"]) == (503, "ServiceUnavailable")


async def test_an_answer_over_the_limit_is_refused_before_it_is_kept(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        sizes = iter((MAX_CALL_BYTES - 2, MAX_CALL_BYTES + 1))
        it.api.answer = lambda request: Response(200, [], b'"' + b"x" * next(sizes) + b'"')
        head, body = await it.ask("GET", "/version")
        assert (head.status, len(body)) == (200, MAX_CALL_BYTES - 2)
        head, body = await it.ask("GET", "/version")
        assert (head.status, body["reason"]) == (413, "RequestEntityTooLarge")
        assert it.calls._bytes == 0


async def test_all_nodes_share_a_bounded_memory(tmp_path: Path) -> None:
    async with desk(tmp_path, max_bytes=1000) as it:
        sizes = iter((1100, 600))
        it.api.answer = lambda request: Response(200, [], b'"' + b"x" * next(sizes) + b'"')
        assert (await it.ask("GET", "/version"))[0].status == 413
        begun = it.number()
        it.wire.say(Call(begun, CallHead("POST", PATH), b"x" * 1100, False))
        head, body = await it.ask("GET", "/version")
        assert (head.status, head.retry_after_s, body["reason"]) == (429, 1.0, "TooManyRequests")
        it.wire.say(Cancel(begun))
        assert (await it.ask("GET", "/version"))[0].status == 200


async def test_a_node_that_takes_no_answers_fills_its_own_share_and_nobody_elses(tmp_path: Path) -> None:
    large = 400_000  # more than the link has under way, so that most of it stays with the hub
    async with desk(tmp_path, max_bytes=2_000_000, node_bytes=1_000_000) as it:
        it.api.answer = lambda request: Response(200, [], b'"' + b"x" * large + b'"')
        for number in range(1, 4):
            it.call("GET", "/version")
            await until(lambda number=number: sum(it.calls.answers.values()) == number)  # type: ignore[misc]
        assert it.calls.answers == {200: 2, 429: 1}
        other = it.site.streaming("n2")
        other.say(Call(1, CallHead("GET", "/version"), b"", True))
        await until(lambda: it.calls.answers == {200: 3, 429: 1})
        assert (await it.answered(2))[0].status == 200
        assert (await it.answered(3))[0].status == 429
        assert (await it.ask("GET", "/version"))[0].status == 200


async def test_so_many_are_made_at_once_and_the_others_wait(tmp_path: Path) -> None:
    async with desk(tmp_path, at_once=2) as it:
        going, most, gate = 0, 0, asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            nonlocal going, most
            going += 1
            most = max(most, going)
            await gate.wait()
            going -= 1
            yield b"1"

        it.api.answer = lambda request: Response(200, [], slowly())
        numbers = [it.call("GET", "/version") for _ in range(MAX_CALLS)]
        await until(lambda: going == 2)
        gate.set()
        for number in numbers:
            assert (await it.answered(number))[0].status == 200
        assert most == 2


async def test_who_cancels_or_leaves_is_not_waited_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:

        async def never() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.sleep(30)

        it.api.answer = lambda request: Response(200, [], never())
        number = it.call("GET", "/version")
        it.call("GET", "/version")
        await until(lambda: len(it.api.requests) == 2)
        it.wire.say(Cancel(number))
        await until(lambda: len(next(iter(it.calls._under_way.values()))) == 1)
        it.wire.pump.connection_lost("cut")
        await until(lambda: not it.calls._under_way)
        assert it.calls._bytes == 0
