"""The first roles: what people expect of them, and that a start mends them without taking anything away."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apiserver import bootstrap
from apiserver.admission import Admission
from apiserver.attributes import attributes_of
from apiserver.builtins import BUILT_IN, REVIEWS
from apiserver.users import User, authenticated
from apiserver.writes import facts
from tests.harness.cluster import RBAC, Cluster, cluster


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path) as made:
        for role in ("view", "edit", "admin"):
            await made.bind(role, "User", role, "d")
        yield made


NODE = authenticated("system:node:n", ("system:nodes",))


@pytest.mark.parametrize(
    ("method", "target", "who"),
    [
        ("GET", "/api/v1/namespaces/d/pods", "view edit admin"),
        ("GET", "/api/v1/namespaces/d/secrets/s", "edit admin"),
        ("POST", "/api/v1/namespaces/d/pods", "edit admin node"),
        ("PATCH", "/apis/apps/v1/namespaces/d/deployments/x", "edit admin"),
        ("POST", "/api/v1/namespaces/d/serviceaccounts/s/token", "edit admin"),
        ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/d/roles", "admin"),
        ("GET", "/api/v1/namespaces/e/pods", ""),
        ("GET", "/api/v1/nodes", ""),
        ("PATCH", "/api/v1/nodes/n/status", "node"),
        ("DELETE", "/api/v1/nodes/n", ""),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n", "node"),
        ("GET", "/apis/node.k8s.io/v1/runtimeclasses", "node"),
        ("POST", "/api/v1/namespaces", ""),
        ("GET", "/openapi/v3", "view edit admin node"),
        ("GET", "/version", "view edit admin node anonymous"),
        ("GET", "/openid/v1/jwks", ""),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "view edit admin node"),
    ],
)
async def test_the_first_roles_allow_what_their_names_say(api: Cluster, method: str, target: str, who: str) -> None:
    asked = attributes_of(method, target)
    users = {name: authenticated(name) for name in ("view", "edit", "admin")}
    users |= {"node": NODE, "anonymous": User("system:anonymous", ("system:unauthenticated",))}
    assert [name for name, user in users.items() if api.authorizer.allows(user, asked)[0]] == who.split()


def test_roles_name_what_is_served() -> None:
    served = {(each.resource.group, each.resource.plural) for each in (*BUILT_IN, *REVIEWS)}
    named = {
        (group, resource.partition("/")[0])
        for rules in bootstrap.ROLES.values()
        for rule in rules
        for group in rule.groups
        for resource in rule.resources
    }
    assert named - served == {("*", "*")}
    assert set(bootstrap.BINDINGS) <= set(bootstrap.ROLES)


async def test_a_labelled_role_adds_to_view_edit_and_admin(api: Cluster) -> None:
    lamps = attributes_of("GET", "/apis/example.com/v1/namespaces/d/lamps")
    rules = [{"verbs": ["list"], "apiGroups": ["example.com"], "resources": ["lamps"]}]
    labels = {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}
    await api("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "lamps", "labels": labels}, "rules": rules})
    assert [name for name in ("view", "edit", "admin") if api.authorizer.allows(authenticated(name), lamps)[0]] == [
        "edit",
        "admin",
    ]


async def start_again(api: Cluster) -> None:
    await api.storage.commit(lambda view: bootstrap.plan(view, facts, Admission()))


async def test_a_start_gives_lost_rules_back_and_keeps_added_ones(api: Cluster) -> None:
    revision = api.storage.revision
    await start_again(api)
    assert api.storage.revision == revision
    own = {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["lamps"]}
    await api("PATCH", f"{RBAC}/clusterroles/view", {"rules": [own]})
    await api("DELETE", f"{RBAC}/clusterroles/system:discovery")
    kept = {"metadata": {"annotations": {bootstrap.AUTOUPDATE: "false"}}, "rules": []}
    await api("PATCH", f"{RBAC}/clusterroles/edit", kept)
    await start_again(api)
    rules = (await api("GET", f"{RBAC}/clusterroles/view"))["rules"]
    assert rules[0] == own
    assert api.authorizer.allows(authenticated("view"), attributes_of("GET", "/api/v1/namespaces/d/pods"))[0]
    assert await api("GET", f"{RBAC}/clusterroles/system:discovery")
    assert (await api("GET", f"{RBAC}/clusterroles/edit"))["rules"] == []
