"""Writes through the link: the apiserver's own answer, versions translated, one's own write seen."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from metamanager import passing as module
from metamanager.cloud import MARK
from tests.harness.edgeapi import CONFIG, POD, EdgeApi, edge_and_cloud

ONE = f"{CONFIG}/one"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[EdgeApi]:
    async with edge_and_cloud(tmp_path) as edge:
        yield edge


@pytest.fixture
async def one(edge: EdgeApi) -> dict[str, Any]:
    """A ConfigMap, made at the edge, in a namespace that the node reads."""
    await edge.get(CONFIG)
    made = await edge.ask("POST", CONFIG, {"metadata": {"name": "one"}, "data": {"a": "1"}})
    assert made.status == 201, made.body
    body: dict[str, Any] = made.body
    return body


async def test_a_client_reads_its_own_write_and_sees_it_in_its_watch(edge: EdgeApi, one: dict[str, Any]) -> None:
    version = one["metadata"]["resourceVersion"]
    read = await edge.get(ONE)
    assert read.body == one
    async with edge.watch(f"{CONFIG}?resourceVersion={version}") as event:
        changed = await edge.ask("PATCH", ONE, {"data": {"a": "2"}})
        seen = await event()
        assert (seen["type"], seen["object"]) == ("MODIFIED", changed.body)
        assert changed.version > int(version)
        gone = await edge.ask("DELETE", ONE)
        assert (gone.status, gone.body["status"]) == (200, "Success")
        assert (await event())["type"] == "DELETED"
    assert (await edge.get(ONE)).status == 404


async def test_a_write_from_the_present_version_is_taken_and_from_an_older_one_is_not(
    edge: EdgeApi, one: dict[str, Any]
) -> None:
    second = await edge.ask("PUT", ONE, one | {"data": {"a": "2"}})
    assert (second.status, second.body["data"]) == (200, {"a": "2"})
    late = await edge.ask("PUT", ONE, one | {"data": {"a": "3"}})
    assert (late.status, late.body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in late.body["message"]
    version = one["metadata"]["resourceVersion"]
    for body in ({"metadata": {"resourceVersion": version}}, {"preconditions": {"resourceVersion": version}}):
        method = "DELETE" if "preconditions" in body else "PATCH"
        assert (await edge.ask(method, ONE, body)).status == 409
    test = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
    assert (await edge.ask("PATCH", ONE, test, "application/json-patch+json")).status == 409


async def test_a_change_that_the_node_has_not_heard_of_is_a_conflict_too(edge: EdgeApi, one: dict[str, Any]) -> None:
    edge.cloud.holds_back = True
    await edge.cloud.ask("PATCH", ONE, {"data": {"b": "1"}}, "application/merge-patch+json")
    late = await edge.ask("PUT", ONE, one | {"data": {"a": "2"}})
    assert (late.status, late.body["reason"]) == (409, "Conflict")
    present = str((await edge.get(ONE)).version)
    assert present == one["metadata"]["resourceVersion"]
    patch = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": present},
        {"op": "add", "path": "/data/c", "value": "1"},
    ]
    assert (await edge.ask("PATCH", ONE, patch, "application/json-patch+json")).status >= 400
    edge.cloud.holds_back = False
    edge.cloud.come_back()
    await edge.until(lambda: _has(edge, "b"))
    patch[0]["value"] = str((await edge.get(ONE)).version)
    done = await edge.ask("PATCH", ONE, patch, "application/json-patch+json")
    assert (done.status, done.body["data"]) == (200, {"a": "1", "b": "1", "c": "1"})


async def _has(edge: EdgeApi, name: str) -> bool:
    return name in (await edge.get(ONE)).body["data"]


async def test_what_is_not_held_keeps_the_clusters_version_marked(edge: EdgeApi) -> None:
    made = await edge.ask("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"generateName": "s-"}})
    assert made.version > MARK
    path = f"/api/v1/namespaces/default/secrets/{made.body['metadata']['name']}"
    changed = await edge.ask("PUT", path, made.body | {"data": {"a": "eA=="}})
    assert changed.status == 200
    assert changed.version > made.version
    assert (await edge.ask("PUT", path, made.body)).status == 409


async def test_an_answer_whose_object_does_not_come_is_given_all_the_same(
    edge: EdgeApi, one: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OWN_WRITE_S", 0.05)
    edge.cloud.holds_back = True
    changed = await edge.ask("PATCH", ONE, {"data": {"a": "2"}})
    assert (changed.status, changed.version > MARK) == (200, True)
    assert (await edge.ask("PATCH", ONE, {"metadata": changed.body["metadata"]})).status == 200


async def test_taking_the_last_finalizer_away_waits_for_the_object_to_go(
    edge: EdgeApi, one: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await edge.ask("PATCH", ONE, {"metadata": {"finalizers": ["a/b"]}})
    leaving = await edge.ask("DELETE", ONE)
    assert leaving.body["metadata"]["deletionTimestamp"]
    assert (await edge.get(ONE)).body == leaving.body
    monkeypatch.setattr(module, "OWN_WRITE_S", 30.0)
    async with asyncio.timeout(10):
        gone = await edge.ask("PATCH", ONE, {"metadata": {"finalizers": None}})
    assert (gone.status, gone.version > MARK) == (200, True)
    assert (await edge.get(ONE)).status == 404


async def test_dry_runs_warnings_and_refusals_are_the_apiservers_own(edge: EdgeApi, one: dict[str, Any]) -> None:
    dry = await edge.ask("PATCH", f"{ONE}?dryRun=All", {"data": {"a": "2"}})
    assert (dry.status, dry.body["data"]) == (200, {"a": "2"})
    assert dry.body["metadata"] == one["metadata"], "kubectl diff shows what differs"
    assert (await edge.get(ONE)).body["data"] == {"a": "1"}
    again = await edge.ask("POST", CONFIG, {"metadata": {"name": "one"}})
    assert (again.status, again.body["reason"]) == (409, "AlreadyExists")
    invalid = await edge.ask("POST", CONFIG, {"metadata": {"name": "No"}})
    assert (invalid.status, invalid.body["reason"]) == (422, "Invalid")
    twice = b'{"metadata":{"name":"two"},"data":{"a":"1"},"data":{"a":"2"}}'
    told = await edge.ask("POST", f"{CONFIG}?fieldValidation=Warn", twice)
    assert (told.status, told.headers["warning"]) == (201, '299 - "duplicate field \\"data\\""')
    assert (await edge.ask("POST", f"{CONFIG}?fieldValidation=Strict", twice)).status == 400
    assert (await edge.ask("POST", CONFIG, b"no json", "text/plain")).status == 415
    assert (await edge.ask("POST", CONFIG, b"{", "application/json")).status == 400
    assert (await edge.ask("POST", "/api/v1/configmaps", {})).status == 400


async def test_reviews_and_what_is_below_an_object_are_asked_of_the_cluster(edge: EdgeApi) -> None:
    review = {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert (await edge.ask("POST", path, review)).body["status"]["allowed"] is True
    assert (await edge.get(f"{POD}/log")).status == 404, "as the embedded apiserver has it"
    assert edge.cloud.calls[-1].target == f"{POD}/log"
    assert (await edge.get(f"{POD}/log?follow=true")).status == 400
    edge.cloud.go()
    for answer in (await edge.ask("POST", path, review), await edge.get(f"{POD}/log")):
        assert (answer.status, "retry-after" in answer.headers) == (503, False)


async def test_callers_are_named_to_the_apiserver(edge: EdgeApi) -> None:
    await edge.ask("POST", CONFIG, {"metadata": {"name": "x"}}, user_agent="kubectl/v1.34")
    assert edge.cloud.calls[-1].agent == "kubectl/v1.34"


async def test_many_writes_at_once_each_see_their_own(edge: EdgeApi, one: dict[str, Any]) -> None:
    async def write(number: int) -> None:
        made = await edge.ask("POST", CONFIG, {"metadata": {"name": f"n{number}"}})
        assert made.status == 201
        assert (await edge.get(f"{CONFIG}/n{number}")).version == made.version

    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(write(number))


async def test_a_page_in_a_browser_on_this_machine_changes_nothing(edge: EdgeApi) -> None:
    """It could send a POST without a content type, which the apiserver reads as JSON, in the node's name."""
    body = {"metadata": {"name": "one"}}
    refused = await edge.ask("POST", CONFIG, body, origin="https://page.example", host="127.0.0.1:10550")
    assert (refused.status, "web page" in refused.body["message"]) == (403, True)
    assert edge.cloud.calls == []
    assert (await edge.ask("POST", CONFIG, body, host="127.0.0.1:10550")).status == 201
