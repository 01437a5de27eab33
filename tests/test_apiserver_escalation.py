"""Nobody grants more than they have, by whatever way of writing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import Forbidden, Invalid, NotFound
from apimachinery.keys import ObjectKey
from apimachinery.resources import CONFIG_MAPS
from apiserver.escalation import guarded
from apiserver.plans import Plan, Put
from apiserver.users import authenticated
from tests.harness.cluster import RBAC, Cluster, cluster

ROLES = f"{RBAC}/namespaces/d/roles"
BINDINGS = f"{RBAC}/namespaces/d/rolebindings"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path, "jane") as made:
        await made.bind("admin", "User", "jane", "d")
        yield made


def role(verb: str, resource: str, name: str = "r") -> dict[str, Any]:
    return {"metadata": {"name": name}, "rules": [{"verbs": [verb], "apiGroups": [""], "resources": [resource]}]}


def binding(kind: str, named: str, name: str = "b") -> dict[str, Any]:
    subjects = [{"kind": "User", "name": "jane"}]
    return {"metadata": {"name": name}, "roleRef": {"kind": kind, "name": named}, "subjects": subjects}


async def test_a_role_holds_what_its_writer_has(api: Cluster) -> None:
    await api("POST", ROLES, role("get", "pods"), token="jane")
    told = str(await api.refused("POST", ROLES, role("get", "nodes", "s"), token="jane"))
    assert told == (
        'roles.rbac.authorization.k8s.io "s" is forbidden: user "jane" (groups=["system:authenticated"]) is attempting '
        'to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}'
    )
    for method, body in (("PUT", role("*", "pods")), ("PATCH", {"rules": role("*", "pods")["rules"]})):
        assert isinstance(await api.refused(method, f"{ROLES}/r", body, token="jane"), Forbidden)
    assert (await api("GET", f"{ROLES}/r"))["rules"] == role("get", "pods")["rules"]


async def test_a_role_that_somebody_else_made_greater_may_still_be_labelled(api: Cluster) -> None:
    await api("POST", ROLES, role("get", "nodes"))
    await api("PATCH", f"{ROLES}/r", {"metadata": {"labels": {"x": "y"}}}, token="jane")
    everything = {"rules": role("*", "*")["rules"]}
    assert isinstance(await api.refused("PATCH", f"{ROLES}/r", everything, token="jane"), Forbidden)


async def test_a_binding_gives_a_role_that_its_writer_has(api: Cluster) -> None:
    await api("POST", BINDINGS, binding("ClusterRole", "view"), token="jane")
    told = await api.refused("POST", BINDINGS, binding("ClusterRole", "cluster-admin", "c"), token="jane")
    assert isinstance(told, Forbidden)
    assert isinstance(await api.refused("POST", BINDINGS, binding("Role", "nobody's", "c"), token="jane"), NotFound)


async def test_escalate_and_bind_lift_this(api: Cluster) -> None:
    rules = [{"verbs": ["escalate", "bind"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"]}]
    await api("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "lift"}, "rules": rules})
    await api.bind("lift", "User", "jane", "d")
    await api("POST", ROLES, role("*", "nodes"), token="jane")
    await api("POST", BINDINGS, binding("ClusterRole", "cluster-admin"), token="jane")


async def test_aggregation_needs_every_right(api: Cluster) -> None:
    rules = [{"verbs": ["create"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"]}]
    await api("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "lift"}, "rules": rules})
    await api.bind("lift", "User", "jane")
    body = {"metadata": {"name": "a"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}}
    assert isinstance(await api.refused("POST", f"{RBAC}/clusterroles", body, token="jane"), Forbidden)
    await api("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "a"}, "rules": []}, token="jane")


async def test_a_patch_that_makes_an_object_needs_the_right_to_create(api: Cluster) -> None:
    """Server-side apply does; the request itself says no more than that it is a patch."""
    rules = [{"verbs": ["patch"], "apiGroups": [""], "resources": ["configmaps"]}]
    await api("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "patcher"}, "rules": rules})
    await api.bind("patcher", "User", "bob", "d")
    key = ObjectKey(CONFIG_MAPS, "d", "c")
    body: dict[str, Any] = {"metadata": {"name": "c", "namespace": "d", "uid": "u"}}
    made = guarded(lambda _: Plan(201, (Put(key, body),)), authenticated("bob"), api.authorizer)
    with pytest.raises(Forbidden, match='configmaps "c" is forbidden: User "bob" cannot create'):
        await api.storage.commit(made)
    await api("POST", "/api/v1/namespaces/d/configmaps", {"metadata": {"name": "c"}})
    await api.storage.commit(made)


async def test_what_a_binding_binds_is_for_ever(api: Cluster) -> None:
    await api("POST", BINDINGS, binding("ClusterRole", "view"))
    error = await api.refused("PATCH", f"{BINDINGS}/b", {"roleRef": {"name": "edit"}})
    assert isinstance(error, Invalid)
    assert "cannot change roleRef" in str(error)
