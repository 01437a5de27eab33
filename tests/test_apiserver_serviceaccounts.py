"""ServiceAccount tokens: given for what is there, and good for as long as it is."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import BadRequest, Conflict, Invalid, NotFound, Unauthorized
from apiserver.serviceaccounts import ISSUER
from tests.harness.cluster import Cluster, cluster

ACCOUNTS = "/api/v1/namespaces/d/serviceaccounts"
PODS = "/api/v1/namespaces/d/pods"
WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as made:
        await made("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
        yield made


async def token_for(api: Cluster, account: str = "robot", **spec: Any) -> str:
    answer = await api("POST", f"{ACCOUNTS}/{account}/token", {"spec": spec})
    return str(answer["status"]["token"])


def pod(name: str, account: str = "robot", node: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"serviceAccountName": account, "nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }


async def test_a_token_request_is_answered_with_what_was_granted(api: Cluster) -> None:
    answer = await api("POST", f"{ACCOUNTS}/robot/token", {"spec": {"expirationSeconds": 900}})
    assert answer["spec"] == {"audiences": [ISSUER], "expirationSeconds": 900}
    assert answer["status"]["expirationTimestamp"].endswith("Z")
    assert (answer["metadata"]["name"], answer["metadata"]["namespace"]) == ("robot", "d")
    told = await api("POST", WHO, {}, token=answer["status"]["token"])
    assert told["status"]["userInfo"]["username"] == "system:serviceaccount:d:robot"


async def test_a_token_dies_with_its_account(api: Cluster) -> None:
    token = await token_for(api)
    await api("DELETE", f"{ACCOUNTS}/robot")
    await api("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    assert isinstance(await api.refused("POST", WHO, {}, token=token), Unauthorized)


async def test_a_token_dies_with_its_pod(api: Cluster) -> None:
    await api("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
    made = await api("POST", PODS, pod("p", node="n"))
    ref = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
    token = await token_for(api, boundObjectRef=ref)
    info = (await api("POST", WHO, {}, token=token))["status"]["userInfo"]
    assert info["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    assert info["extra"]["authentication.kubernetes.io/node-name"] == ["n"]
    await api("DELETE", "/api/v1/nodes/n")
    assert await api("POST", WHO, {}, token=token)
    await api("DELETE", f"{PODS}/p")
    await api("POST", PODS, pod("p"))
    assert isinstance(await api.refused("POST", WHO, {}, token=token), Unauthorized)


@pytest.mark.parametrize(("kind", "place"), [("Secret", "/api/v1/namespaces/d/secrets"), ("Node", "/api/v1/nodes")])
async def test_a_token_dies_with_what_else_it_is_bound_to(api: Cluster, kind: str, place: str) -> None:
    await api("POST", place, {"metadata": {"name": "x"}})
    token = await token_for(api, boundObjectRef={"kind": kind, "apiVersion": "v1", "name": "x"})
    assert await api("POST", WHO, {}, token=token)
    await api("DELETE", f"{place}/x")
    assert isinstance(await api.refused("POST", WHO, {}, token=token), Unauthorized)


async def test_a_token_of_a_pod_that_is_leaving_is_good_no_more(api: Cluster) -> None:
    body = pod("p")
    body["metadata"]["finalizers"] = ["example.com/wait"]
    await api("POST", PODS, body)
    token = await token_for(api, boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "p"})
    await api("DELETE", f"{PODS}/p")
    assert isinstance(await api.refused("POST", WHO, {}, token=token), Unauthorized)


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ({"expirationSeconds": 599}, Invalid, "may not specify a duration less than 10 minutes"),
        ({"expirationSeconds": (1 << 32) + 1}, Invalid, "larger than 2\\^32 seconds"),
        ({"expirationSeconds": "1h"}, BadRequest, "must be an integer"),
        ({"audiences": "a"}, BadRequest, "must be a list of strings"),
        ({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}}, BadRequest, "cannot bind token"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "x"}}, NotFound, 'pods "x" not found'),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "other"}}, BadRequest, "different service"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u"}}, Conflict, "does not match"),
        ({"boundObjectRef": 7}, BadRequest, "cannot bind token"),
    ],
)
async def test_a_bad_request_is_refused(api: Cluster, spec: dict[str, Any], error: type[Exception], words: str) -> None:
    await api("POST", PODS, pod("p"))
    await api("POST", PODS, pod("other", "default"))
    with pytest.raises(error, match=words):
        await token_for(api, **spec)


async def test_a_request_for_nobodys_token_is_not_found(api: Cluster) -> None:
    assert isinstance(await api.refused("POST", f"{ACCOUNTS}/nobody/token", {}), NotFound)
    assert isinstance(await api.refused("POST", f"{PODS}/p/token", {}), NotFound)
    assert isinstance(await api.refused("POST", f"{ACCOUNTS}/robot/token", {"spec": []}), BadRequest)
    assert (await api.refused("GET", f"{ACCOUNTS}/robot/token")).code == 405


async def test_the_issuer_describes_itself(api: Cluster) -> None:
    described = api.accounts.document("/.well-known/openid-configuration")
    keys = api.accounts.document("/openid/v1/jwks")
    assert described is not None
    assert keys is not None
    assert isinstance(described.body, bytes)
    assert isinstance(keys.body, bytes)
    assert json.loads(described.body)["issuer"] == ISSUER
    assert json.loads(described.body)["jwks_uri"] == f"{ISSUER}/openid/v1/jwks"
    assert json.loads(keys.body) == api.accounts.signer.jwks
    assert dict(keys.headers)["content-type"] == "application/jwk-set+json"
    assert api.accounts.document("/openid/v3") is None
