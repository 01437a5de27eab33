"""OpenAPI documents: the cluster's own, remembered within a bound."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from metamanager import schemas as module
from tests.harness.edgeapi import EdgeApi, edge_and_cloud, started

V3 = "/openapi/v3/api/v1"


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[EdgeApi]:
    async with edge_and_cloud(tmp_path) as edge:
        yield edge


async def test_the_clusters_documents_are_passed_on_and_remembered(tmp_path: Path) -> None:
    async with edge_and_cloud(tmp_path) as edge:
        ours = await edge.cloud.ask("GET", V3)
        assert (await edge.get(V3)).body == ours
        edge.cloud.go()
        assert (await edge.get(V3)).body == ours
        await edge.store.close()
        async with started(tmp_path, edge.cloud) as again:
            assert (await again.get(V3)).body == ours
            assert (await again.get("/openapi/v2")).body["swagger"] == "2.0", "its own where it never had the cluster's"
            assert (await again.get("/openapi/v3/apis/nobody.example/v1")).status == 404


async def test_a_cluster_that_fails_leaves_what_was_remembered(edge: EdgeApi) -> None:
    ours = (await edge.get(V3)).body
    edge.cloud.answers_with = 500
    assert (await edge.get(V3)).body == ours
    edge.cloud.answers_with, edge.cloud.loses_answers = 0, True
    assert (await edge.get(V3)).body == ours
    assert (await edge.get("/openapi/nothing")).status == 404


async def test_what_has_no_room_makes_room_and_what_is_too_large_is_not_kept(
    edge: EdgeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    await edge.get(V3)
    (first,) = await edge.store.documents(module.PREFIX)
    size = len((await edge.store.documents(first))[first])
    monkeypatch.setattr(module, "MAX_BYTES", size + 10)
    await edge.get("/openapi/v3")
    assert list(await edge.store.documents(module.PREFIX)) == [f"{module.PREFIX}/openapi/v3 application/json"]
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    assert (await edge.get(V3)).status == 200
