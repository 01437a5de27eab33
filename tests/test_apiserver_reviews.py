"""Reviews: the answers are what then happens."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import BadRequest, Forbidden, MethodNotAllowed
from apiserver.serviceaccounts import ISSUER
from tests.harness.cluster import Cluster, cluster

AUTHORIZATION = "/apis/authorization.k8s.io/v1"
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
READ = {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "d"}}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path, "jane", "bob") as made:
        yield made


async def test_what_may_i(api: Cluster) -> None:
    async def ask(spec: dict[str, Any]) -> Any:
        answer = await api("POST", f"{AUTHORIZATION}/selfsubjectaccessreviews", {"spec": spec}, token="jane")
        return answer["status"]

    assert await ask(READ) == {"allowed": False}
    await api.bind("view", "User", "jane", "d")
    assert await ask(READ) == {"allowed": True}
    assert await ask({"nonResourceAttributes": {"verb": "get", "path": "/version"}}) == {"allowed": True}
    assert await ask({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}) == {"allowed": False}


async def test_what_may_another(api: Cluster) -> None:
    await api.bind("view", "Group", "readers", "d")
    place = f"{AUTHORIZATION}/subjectaccessreviews"
    answer = await api("POST", place, {"spec": READ | {"user": "x", "groups": ["readers"]}})
    assert answer["status"] == {"allowed": True}
    answer = await api("POST", place, {"spec": READ | {"user": "x", "groups": ["others"]}})
    assert answer["status"] == {"allowed": False}
    assert isinstance(await api.refused("POST", place, {"spec": READ | {"user": "x"}}, token="jane"), Forbidden)
    for spec in (READ, READ | {"user": 7}, READ | {"user": "x", "groups": "y"}, {"user": "x"}):
        assert isinstance(await api.refused("POST", place, {"spec": spec}), BadRequest)


async def test_a_local_review_is_about_its_namespace(api: Cluster) -> None:
    await api.bind("admin", "User", "jane", "d")
    place = f"{AUTHORIZATION}/namespaces/d/localsubjectaccessreviews"
    answer = await api("POST", place, {"spec": READ | {"user": "jane"}}, token="jane")
    assert answer["status"] == {"allowed": True}
    other = {"resourceAttributes": READ["resourceAttributes"] | {"namespace": "e"}, "user": "jane"}
    assert "must match namespace" in str(await api.refused("POST", place, {"spec": other}))


async def test_all_that_i_may(api: Cluster) -> None:
    place = f"{AUTHORIZATION}/selfsubjectrulesreviews"
    await api.bind("view", "User", "jane", "d")
    status = (await api("POST", place, {"spec": {"namespace": "d"}}, token="jane"))["status"]
    assert not status["incomplete"]
    assert any("pods" in rule["resources"] for rule in status["resourceRules"])
    assert any("/healthz" in rule["nonResourceURLs"] for rule in status["nonResourceRules"])
    status = (await api("POST", place, {"spec": {"namespace": "e"}}, token="jane"))["status"]
    assert not any("pods" in rule["resources"] for rule in status["resourceRules"])
    assert isinstance(await api.refused("POST", place, {"spec": {}}), BadRequest)


async def test_who_am_i(api: Cluster) -> None:
    answer = await api("POST", f"{AUTHENTICATION}/selfsubjectreviews", {}, token="jane")
    assert answer["status"]["userInfo"] == {"username": "jane", "groups": ["system:authenticated"]}
    assert answer["kind"] == "SelfSubjectReview"


async def test_whose_token_is_this(api: Cluster) -> None:
    place = f"{AUTHENTICATION}/tokenreviews"
    account = "/api/v1/namespaces/d/serviceaccounts"
    await api("POST", account, {"metadata": {"name": "robot"}})
    asked = {"spec": {"audiences": ["vault"]}}
    token = (await api("POST", f"{account}/robot/token", asked))["status"]["token"]
    status = (await api("POST", place, {"spec": {"token": token, "audiences": ["vault", "other"]}}))["status"]
    assert status["authenticated"] is True
    assert status["audiences"] == ["vault"]
    assert status["user"]["username"] == "system:serviceaccount:d:robot"
    status = (await api("POST", place, {"spec": {"token": token}}))["status"]
    assert "authenticated" not in status
    assert f'is for "vault", not for "{ISSUER}"' in status["error"]
    status = (await api("POST", place, {"spec": {"token": "jane"}}))["status"]
    assert (status["user"]["username"], status["audiences"]) == ("jane", [ISSUER])
    assert isinstance(await api.refused("POST", place, {"spec": {}}), BadRequest)
    assert isinstance(await api.refused("POST", place, {"spec": {"token": token}}, token="jane"), Forbidden)


async def test_reviews_are_created_and_nothing_else(api: Cluster) -> None:
    revision = api.storage.revision
    await api("POST", f"{AUTHORIZATION}/selfsubjectaccessreviews", {"spec": READ})
    assert api.storage.revision == revision
    assert isinstance(await api.refused("GET", f"{AUTHORIZATION}/selfsubjectaccessreviews"), MethodNotAllowed)
    told = str(await api.refused("POST", f"{AUTHORIZATION}/selfsubjectaccessreviews", {"spec": "x"}))
    assert "spec must be an object" in told
