"""Tokens and rights at a local API with TLS: verified here, decided in the cluster, and both kept for offline."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import ApiError, Forbidden, Unauthorized
from apimachinery.resources import CONFIG_MAPS, PODS, SERVICE_ACCOUNTS
from apiserver.messages import Request
from metamanager import access as module
from metamanager.access import Access
from metamanager.api import LinkState, LocalApi
from tests.harness.edgeapi import CONFIG, POD, POD_BODY, EdgeApi, edge_and_cloud, started

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
OPERATOR = "system:serviceaccount:default:operator"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Secured:
    """An edge whose API asks who it is."""

    def __init__(self, edge: EdgeApi) -> None:
        self.edge = edge
        self.access = Access(edge.store, edge.cloud, "edge-1")
        state = LinkState(True, None)
        edge.api = LocalApi(edge.store, lambda: state, host="0.0.0.0", link=edge.link, access=self.access)
        self.token = ""

    async def get(self, target: str, token: str | None = None) -> Any:
        return await self.edge.get(target, authorization=f"Bearer {self.token if token is None else token}")


async def token_of(edge: EdgeApi, bound_to: str = "", seconds: int = 3600) -> str:
    spec: dict[str, Any] = {"expirationSeconds": seconds}
    if bound_to:
        spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": bound_to}
    answer = await edge.cloud.cluster("POST", f"{ACCOUNTS}/operator/token", {"spec": spec})
    token: str = answer["status"]["token"]
    return token


async def allow(edge: EdgeApi, verbs: list[str], resource: str, *names: str) -> None:
    rule = {"apiGroups": [""], "resources": [resource], "verbs": verbs} | ({"resourceNames": names} if names else {})
    role: dict[str, Any] = {"metadata": {"name": f"operator-{resource.replace('/', '-')}"}, "rules": [rule]}
    await edge.cloud.ask("POST", f"{RBAC}/namespaces/default/roles", role)
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": "default"}
    body = {"metadata": role["metadata"], "roleRef": reference, "subjects": [subject]}
    await edge.cloud.ask("POST", f"{RBAC}/namespaces/default/rolebindings", body)


@contextlib.contextmanager
def cut(edge: EdgeApi) -> Iterator[None]:
    edge.cloud.go()
    yield
    edge.cloud.come_back()


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[Secured]:
    async with edge_and_cloud(tmp_path) as edge:
        await edge.cloud.ask("POST", ACCOUNTS, {"metadata": {"name": "operator"}})
        pod = POD_BODY | {"metadata": {"name": "op", "namespace": "default"}}
        pod |= {"spec": POD_BODY["spec"] | {"serviceAccountName": "operator"}}
        await edge.cloud.ask("POST", "/api/v1/namespaces/default/pods", pod)
        await edge.until_held(PODS, "op")
        made = Secured(edge)
        made.token = await token_of(edge, "op")
        yield made


async def test_what_is_asked_at_the_same_time_is_remembered_together(secured: Secured) -> None:
    """An operator begins with several lists at once; the first ones of an account's read what is remembered of it."""
    kinds = ("configmaps", "services", "endpoints")
    for kind in kinds:
        await allow(secured.edge, ["list", "watch"], kind)
    targets = [f"/api/v1/namespaces/default/{kind}" for kind in kinds]
    async with asyncio.TaskGroup() as tasks:
        answers = [tasks.create_task(secured.get(target), name=target) for target in targets]
    assert [answer.result().status for answer in answers] == [200, 200, 200]
    restarted = Secured(secured.edge)
    restarted.token = secured.token
    with cut(secured.edge):
        assert [(await restarted.get(target)).status for target in targets] == [200, 200, 200]


async def test_nobody_gets_in_without_credentials(secured: Secured) -> None:
    for target in ("/api/v1/pods", "/apis", "/openapi/v2"):
        answer = await secured.edge.get(target)
        assert (answer.status, answer.body["reason"]) == (401, "Unauthorized")
    for token in ("", "x", "a.b.c", f"{secured.token}x"):
        assert (await secured.get("/api/v1/pods", token)).status == 401
    assert (await secured.edge.get("/api/v1/pods", authorization="Basic eDp4")).status == 401
    assert (await secured.edge.get("/version")).status == 200
    assert (await secured.edge.get("/healthz")).status == 200


async def test_rights_are_the_clusters_and_so_are_the_words(secured: Secured) -> None:
    pods = "/api/v1/namespaces/default/pods"
    refused = await secured.get(pods)
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
    assert refused.body["message"].startswith(
        f'pods is forbidden: User "{OPERATOR}" cannot list resource "pods" in API group "" in the namespace "default"'
    )
    assert (await secured.get("/api/v1")).status == 200, "who is somebody may see what there is"
    await allow(secured.edge, ["get", "list", "watch"], "configmaps")
    assert (await secured.get(CONFIG)).status == 200
    assert secured.edge.link.interests.selections[0].user == OPERATOR
    assert secured.edge.link.interests.selections[0].resource == CONFIG_MAPS


async def test_a_right_to_one_name_is_a_right_to_that_name(secured: Secured) -> None:
    await allow(secured.edge, ["get", "list"], "pods", "web")
    assert (await secured.get(POD)).status == 200
    pods = "/api/v1/namespaces/default/pods"
    assert (await secured.get(f"{pods}?fieldSelector=metadata.name%3Dweb")).names == ["web"]
    for fields in ("", "?fieldSelector=metadata.name%3Dop", "?fieldSelector=metadata.name!%3Dop"):
        assert (await secured.get(f"{pods}{fields}")).status == 403
    other = await secured.get("/api/v1/namespaces/default/pods/op")
    assert (other.status, other.body["details"]["name"]) == (403, "op")


async def test_what_was_never_decided_of_one_name_is_not_known_whatever_was_of_all(secured: Secured) -> None:
    for name in ("a", "b"):
        await secured.edge.cloud.ask("POST", CONFIG, {"metadata": {"name": name}})
    await allow(secured.edge, ["get"], "configmaps", "b")
    assert (await secured.get(f"{CONFIG}/a")).status == 403
    with cut(secured.edge):
        assert (await secured.get(f"{CONFIG}/a")).status == 403
        assert (await secured.get(f"{CONFIG}/b")).status == 503


async def test_tokens_and_decisions_count_offline_also_after_a_restart(tmp_path: Path, secured: Secured) -> None:
    await allow(secured.edge, ["get", "list"], "pods")
    assert (await secured.get("/api/v1/namespaces/default/pods")).names == ["op", "web"]
    cloud, token = secured.edge.cloud, secured.token
    cloud.go()
    await secured.edge.store.close()
    async with started(tmp_path, cloud) as edge:
        again = Secured(edge)
        again.token = token
        assert (await again.get("/api/v1/namespaces/default/pods")).names == ["op", "web"]
        assert (await again.get("/api/v1/namespaces/default/pods", "a.b.c")).status == 401
        never = await again.get("/api/v1/namespaces/default/secrets")
        assert (never.status, "not connected to the cloud" in never.body["message"]) == (503, True)


async def test_a_decision_is_asked_for_again_after_a_while(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    pods = "/api/v1/namespaces/default/pods"
    assert (await secured.get(pods)).status == 403
    await allow(secured.edge, ["list"], "pods")
    assert (await secured.get(pods)).status == 403, "decided a moment ago"
    monkeypatch.setattr(module, "DECIDED_S", 0.0)
    assert (await secured.get(pods)).status == 200
    with cut(secured.edge):
        assert (await secured.get(pods)).status == 200, "the last decision stands while nobody can be asked"


async def test_a_token_of_a_pod_that_is_not_here_is_nobodys(secured: Secured) -> None:
    elsewhere = POD_BODY | {
        "metadata": {"name": "far", "namespace": "default"},
        "spec": POD_BODY["spec"] | {"serviceAccountName": "operator", "nodeName": "other"},
    }
    await secured.edge.cloud.ask("POST", "/api/v1/namespaces/default/pods", elsewhere)
    assert (await secured.get("/api", await token_of(secured.edge, "far"))).status == 401
    assert (await secured.get("/api", await token_of(secured.edge))).status == 200, "not bound to a pod"
    assert (await secured.get("/api")).status == 200


@pytest.mark.parametrize("claims", [rb'{"sub": "system:serviceaccount:default:\ud800"}', b"[" * 11000])
async def test_what_a_token_says_that_nobody_signed_goes_no_further(secured: Secured, claims: bytes) -> None:
    middle = base64.urlsafe_b64encode(claims).decode().rstrip("=")
    assert (await secured.get("/api", f"e30.{middle}.e30")).status == 401
    assert secured.edge.cloud.calls == [], "not even the cluster's keys are asked for"


async def test_a_token_dies_with_its_account(secured: Secured) -> None:
    await secured.edge.until_held(SERVICE_ACCOUNTS, "operator")
    unbound = await token_of(secured.edge)

    async def status_is(status: int, token: str) -> bool:
        found: int = (await secured.get("/api", token)).status
        return found == status

    assert await status_is(200, secured.token)
    assert await status_is(200, unbound)
    await secured.edge.cloud.ask("DELETE", f"{ACCOUNTS}/operator")
    await secured.edge.until(lambda: status_is(401, secured.token))
    await secured.edge.cloud.ask("POST", ACCOUNTS, {"metadata": {"name": "operator"}})
    await secured.edge.until(lambda: status_is(401, unbound))
    assert await status_is(401, secured.token), "another account of that name does not revive it"


async def test_a_node_that_never_had_the_keys_says_so(secured: Secured) -> None:
    secured.edge.cloud.go()
    answer = await secured.get("/api/v1/pods")
    assert (answer.status, "does not have the cluster's keys" in answer.body["message"]) == (503, True)


async def test_writes_offline_need_a_right_that_was_shown_online(secured: Secured) -> None:
    async def report(name: str, phase: str) -> Any:
        media_type = "application/strategic-merge-patch+json"
        target = f"/api/v1/namespaces/default/pods/{name}/status"
        return await secured.edge.ask(
            "PATCH", target, {"status": {"phase": phase}}, media_type, authorization=f"Bearer {secured.token}"
        )

    assert (await report("web", "Running")).status == 200
    with cut(secured.edge):
        assert (await report("web", "Succeeded")).status == 200
        assert (await report("op", "Running")).status == 503
        (kept,) = await secured.edge.store.local_writes()
        assert kept.user == OPERATOR


async def test_the_nodes_own_certificate_is_the_node_and_anothers_is_nobody(secured: Secured) -> None:
    mine = Request("GET", "/api/v1/pods", peer_certificate_cn="system:node:edge-1")
    assert (await secured.access.identified(mine)).user is None
    with pytest.raises(Forbidden, match="is not this node"):
        await secured.access.identified(Request("GET", "/", peer_certificate_cn="system:node:other"))
    with pytest.raises(Unauthorized):
        await secured.access.identified(Request("GET", "/"))
    assert issubclass(Unauthorized, ApiError)
