"""The door of the embedded apiserver: identities and rights, in process and with real kubectl over TLS."""

import json
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from apimachinery.errors import BadRequest, Forbidden, Unauthorized
from apiserver.access import impersonations
from apiserver.messages import Request
from apiserver.users import User
from componentbase import pki
from tests.conftest import need_tool
from tests.harness.cluster import Cluster, cluster
from tests.test_apiserver_dev import Apiserver, running

PODS = "/api/v1/namespaces/d/pods"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path, "jane", "bob") as made:
        yield made


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/healthz", None),
        ("/version", None),
        ("/livez/ping", Forbidden),
        ("/versions", Unauthorized),
        ("/api/../version", Unauthorized),
        ("//api/v1/pods", Unauthorized),
        ("/api/v1/pods/%ff", Unauthorized),
    ],
)
async def test_without_credentials_only_health_and_version_are_shown(
    api: Cluster, path: str, error: type[Exception] | None
) -> None:
    if error is None:
        assert await api.ask(Request("GET", path))
    else:
        with pytest.raises(error):
            await api.ask(Request("GET", path))


async def test_a_user_may_what_is_bound_and_nothing_else(api: Cluster) -> None:
    told = str(await api.refused("GET", PODS, token="jane"))
    assert told == 'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "d"'
    await api.bind("view", "User", "jane", "d")
    assert (await api("GET", PODS, token="jane"))["items"] == []
    assert isinstance(await api.refused("GET", "/api/v1/namespaces/e/pods", token="jane"), Forbidden)
    assert isinstance(await api.refused("GET", "/api/v1/namespaces/d/secrets", token="jane"), Forbidden)
    assert isinstance(await api.refused("DELETE", f"{PODS}/p", token="jane"), Forbidden)


async def test_discovery_is_for_everybody_with_a_name(api: Cluster) -> None:
    assert (await api("GET", "/apis", token="bob"))["groups"]
    assert str(await api.refused("GET", "/metrics", token="bob")) == (
        'forbidden: User "bob" cannot get path "/metrics"'
    )


async def test_a_right_to_a_subresource_does_not_show_the_object(api: Cluster) -> None:
    rules = [{"verbs": ["get"], "apiGroups": [""], "resources": ["*/scale", "*/status"]}]
    await api("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": "r"}, "rules": rules})
    await api.bind("r", "User", "jane")
    await api("POST", "/api/v1/namespaces/d/secrets", {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    for subresource in ("scale", "status"):
        error = await api.refused("GET", f"/api/v1/namespaces/d/secrets/s/{subresource}", token="jane")
        assert error.code == 404


async def test_acting_as_somebody_needs_the_right_to_each_part(api: Cluster) -> None:
    jane = {"impersonate_user": "jane"}
    who = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    assert (await api("POST", who, {}, **jane))["status"]["userInfo"] == {
        "username": "jane",
        "groups": ["system:authenticated"],
    }
    assert str(await api.refused("POST", who, {}, token="bob", **jane)) == (
        'users "jane" is forbidden: User "bob" cannot impersonate resource "users" in API group "" at the cluster scope'
    )
    rules = [{"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["jane"]}]
    await api("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": "r"}, "rules": rules})
    await api.bind("r", "User", "bob")
    assert await api("POST", who, {}, token="bob", **jane)
    more = {"impersonate_group": "system:masters"}
    assert 'groups "system:masters" is forbidden' in str(
        await api.refused("POST", who, {}, token="bob", **jane, **more)
    )
    for extra in ({"impersonate_uid": "7"}, {"impersonate_extra_scopes": "x"}):
        assert isinstance(await api.refused("POST", who, {}, token="bob", **jane, **extra), Forbidden)
    assert isinstance(await api.refused("POST", who, {}, **more), BadRequest)


async def test_rights_are_those_of_whom_one_acts_as(api: Cluster) -> None:
    await api.bind("view", "Group", "readers")
    assert isinstance(await api.refused("GET", PODS, impersonate_user="jane"), Forbidden)
    assert await api("GET", PODS, impersonate_user="jane", impersonate_group="readers")


def test_a_service_account_brings_its_groups_without_asking() -> None:
    groups = ("system:serviceaccounts", "system:serviceaccounts:d")
    asked = list(impersonations(User("system:serviceaccount:d:robot", groups)))
    assert [(each.resource, each.namespace, each.name) for each in asked] == [("serviceaccounts", "d", "robot")]
    asked = list(impersonations(User("system:serviceaccount:d:robot", (*groups, "system:masters"))))
    assert len(asked) == 4


# ---- the process, with kubectl and certificates


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Apiserver, Path]]:
    directory = tmp_path_factory.mktemp("access")
    ca = pki.create_ca("clients", 1)
    (directory / "clients.crt").write_bytes(ca.cert_pem)
    (directory / "tokens.csv").write_text('jane-token,jane,u1,"dev,ops"\n')
    for name, signer, organization in (
        ("carol", ca, "carpenters"),
        ("mallory", pki.create_ca("clients", 1), "system:masters"),
    ):
        key, csr = pki.make_key_and_csr(name, organization)
        (directory / f"{name}.key").write_bytes(key)
        (directory / f"{name}.crt").write_bytes(pki.sign_client_csr(signer, csr, name, organization, 1))
    flags = ("--token-file", directory / "tokens.csv", "--client-ca-file", directory / "clients.crt")
    with running(directory, None, *map(str, flags)) as server:
        yield server, directory


@pytest.fixture
def server(started: tuple[Apiserver, Path], kubectl: Path) -> Apiserver:
    started[0].kubectl = kubectl
    return started[0]


@pytest.fixture
def current(started: tuple[Apiserver, Path]) -> Apiserver:
    """With a kubectl that has the commands that came after Debian's."""
    started[0].kubectl = need_tool("kubectl-current")
    return started[0]


def kubeconfig_of(server: Apiserver, directory: Path, user: dict[str, str]) -> str:
    config = json.loads((server.data / "kubeconfig").read_text())
    config["users"][0]["user"] = user
    path = directory / "kubeconfig-other"
    path.write_text(json.dumps(config))
    return str(path)


def certificate(directory: Path, name: str) -> dict[str, str]:
    return {"client-certificate": str(directory / f"{name}.crt"), "client-key": str(directory / f"{name}.key")}


def test_a_certificate_of_the_client_ca_is_a_user_with_groups(
    server: Apiserver, started: tuple[Apiserver, Path], kubectl: Path
) -> None:
    directory = started[1]
    carol = kubeconfig_of(server, directory, certificate(directory, "carol"))
    done = server.run("get", "pods", KUBECONFIG=carol)
    assert 'User "carol" cannot list resource "pods" in API group "" in the namespace "default"' in done.stderr
    name = f"carpenters-{kubectl.name}"
    server("create", "clusterrolebinding", name, "--clusterrole=view", "--group=carpenters")
    assert server.run("get", "pods", KUBECONFIG=carol).returncode == 0
    assert server.run("auth", "can-i", "create", "pods", KUBECONFIG=carol).stdout.strip() == "no"
    server("delete", "clusterrolebinding", name)


def test_a_certificate_of_another_ca_does_not_get_in(started: tuple[Apiserver, Path]) -> None:
    server, directory = started
    context = ssl.create_default_context(cafile=server.data / "pki" / "ca.crt")
    context.load_cert_chain(directory / "mallory.crt", directory / "mallory.key")
    with pytest.raises((ssl.SSLError, ConnectionError)), server.connected("", context) as ask:
        ask("GET", "/api/v1/pods")


def test_a_users_token_and_groups_are_those_of_the_file(
    server: Apiserver, started: tuple[Apiserver, Path], kubectl: Path
) -> None:
    jane = kubeconfig_of(server, started[1], {"token": "jane-token"})
    assert 'User "jane" cannot list' in server.run("get", "nodes", KUBECONFIG=jane).stderr
    name = f"ops-{kubectl.name}"
    server("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", "--group=ops")
    assert server.run("auth", "can-i", "*", "*", KUBECONFIG=jane).stdout.strip() == "yes"
    server("delete", "clusterrolebinding", name)
    wrong = kubeconfig_of(server, started[1], {"token": "jane-tokens"})
    assert "You must be logged in" in server.run("get", "nodes", KUBECONFIG=wrong).stderr


def test_kubectl_asks_what_one_may(server: Apiserver, kubectl: Path) -> None:
    assert server("auth", "can-i", "delete", "nodes") == "yes"
    account = f"robot-{kubectl.name}"
    as_robot = f"--as=system:serviceaccount:default:{account}"
    assert server.run("auth", "can-i", "list", "pods", as_robot).stdout.strip() == "no"
    server("create", "serviceaccount", account)
    server("create", "rolebinding", account, "--clusterrole=edit", f"--serviceaccount=default:{account}")
    assert server("auth", "can-i", "list", "pods", as_robot) == "yes"
    assert server("auth", "can-i", "update", "deployments.apps", as_robot) == "yes"
    assert server.run("auth", "can-i", "list", "pods", as_robot, "-n", "kube-system").stdout.strip() == "no"
    assert server.run("auth", "can-i", "get", "/metrics", as_robot).stdout.strip() == "no"
    assert server("auth", "can-i", "get", "/version", as_robot) == "yes"
    listed = server("auth", "can-i", "--list", as_robot)
    assert "deployments.apps" in listed
    assert "/healthz" in listed
    server("create", "configmap", account, as_robot)
    assert "cannot create resource" in server.refused("create", "configmap", account, as_robot, "-n", "kube-system")
    assert "attempting to grant" not in server.refused("create", "role", "r", "--verb=get", "--resource=pods", as_robot)


def test_kubectl_says_who_one_is(current: Apiserver) -> None:
    server = current
    told = server("auth", "whoami", "-o", "json", "--as=jane", "--as-group=a", "--as-group=b", "--as-uid=7")
    assert json.loads(told)["status"]["userInfo"] == {
        "username": "jane",
        "uid": "7",
        "groups": ["a", "b", "system:authenticated"],
    }


def test_kubectl_creates_a_token_that_works_as_long_as_its_account(current: Apiserver, tmp_path: Path) -> None:
    server = current
    server("create", "serviceaccount", "brief")
    token = server("create", "token", "brief", "--duration=20m")
    brief = kubeconfig_of(server, tmp_path, {"token": token})
    assert "system:serviceaccount:default:brief" in server.run("get", "pods", KUBECONFIG=brief).stderr
    server("delete", "serviceaccount", "brief")
    assert "You must be logged in" in server.run("get", "pods", KUBECONFIG=brief).stderr
