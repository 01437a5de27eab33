"""The cluster's kinds: fetched when asked for, remembered, and read whatever is in the documents."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.keys import Resource
from metamanager.clusterkinds import definitions_of
from tests.harness.edgeapi import EdgeApi, edge_and_cloud, started
from tests.test_apiserver_crds import crd

DEFINE = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[EdgeApi]:
    async with edge_and_cloud(tmp_path) as edge:
        yield edge


def document(*versions: tuple[str, list[Any]], group: str = "example.com") -> bytes:
    listed = [{"version": name, "resources": resources} for name, resources in versions]
    return json.dumps({"items": [{"metadata": {"name": group}, "versions": listed}]}).encode()


def entry(**more: Any) -> dict[str, Any]:
    return {
        "resource": "lamps",
        "responseKind": {"group": "", "version": "", "kind": "Lamp"},
        "scope": "Namespaced",
        "verbs": ["get", "list", "watch"],
    } | more


def test_the_first_version_is_the_one_that_is_held_here() -> None:
    first, second = definitions_of([document(("v2", [entry()]), ("v1", [entry(shortNames=["la"])]))])
    assert (first.resource, first.is_view) == (Resource("example.com", "v2", "lamps", "Lamp", True), False)
    assert (second.resource.version, second.is_view, second.short_names) == ("v1", True, ("la",))
    assert first.is_custom


def test_subresources_are_kept_and_the_status_is_known() -> None:
    scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    below = [
        {"subresource": "status", "responseKind": {}, "verbs": ["get"]},
        {"subresource": "scale", "responseKind": scale, "verbs": ["get", "update"]},
    ]
    (found,) = definitions_of([document(("v1", [entry(subresources=below)]))])
    assert found.has_status
    (kept,) = found.subresources
    assert (kept.name, kept.kind, kept.verbs) == ("scale", "Scale", ("get", "update"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"items":5}',
        b'{"items":[5]}',
        document(("v1", [{"resource": "x"}])),
        document(("", [entry()])),
    ],
)
def test_a_document_with_holes_names_less(content: bytes) -> None:
    assert list(definitions_of([content])) == []


async def test_a_new_kind_is_found_when_it_is_asked_for(edge: EdgeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "example.com" not in str((await edge.get("/apis")).body)
    await edge.cloud.ask("POST", DEFINE, crd())
    assert "example.com" not in str((await edge.get("/apis")).body), "the answer of a moment ago does"
    monkeypatch.setattr("metamanager.api.DISCOVERY_AGE_S", 0.0)
    assert "example.com" in str((await edge.get("/apis")).body)
    calls = len(edge.cloud.calls)
    assert (await edge.get("/apis/example.com/v1/lamps")).status == 200
    assert len(edge.cloud.calls) == calls, "what is known is not asked again"


async def test_what_was_known_is_known_offline_after_a_restart(tmp_path: Path) -> None:
    async with edge_and_cloud(tmp_path) as edge:
        await edge.cloud.ask("POST", DEFINE, crd())
        before = (await edge.get("/apis/example.com/v1")).body
        edge.cloud.go()
        await edge.store.close()
        async with started(tmp_path, edge.cloud) as again:
            assert (await again.get("/apis/example.com/v1")).body == before
            assert (await again.get("/apis/example.com/v1/lamps")).status == 503
            assert (await again.get("/apis/nobody.example/v1/things")).status == 404


async def test_a_node_that_could_never_ask_does_not_say_that_there_is_none(edge: EdgeApi) -> None:
    edge.cloud.go()
    answer = await edge.get("/apis/example.com/v1/lamps")
    assert (answer.status, answer.body["reason"]) == (503, "ServiceUnavailable")
    assert 'does not know yet whether the cluster has "lamps"' in answer.body["message"]
    assert (await edge.get("/api/v1")).status == 200, "what every cluster has"


async def test_a_cluster_that_cannot_say_leaves_what_was_known(
    edge: EdgeApi, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("metamanager.api.DISCOVERY_AGE_S", 0.0)
    before = (await edge.get("/apis")).body
    edge.cloud.answers_with = 500
    assert (await edge.get("/apis")).body == before
    edge.cloud.loses_answers, edge.cloud.answers_with = True, 0
    assert (await edge.get("/apis")).body == before
    assert "no aggregated discovery" in caplog.text
