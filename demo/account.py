"""
The hub's own account: `cloudcore rbac | kubectl apply -f -` and `kubectl create token`, without kubectl.

The demo's cloudcore has the rights that are printed for anybody's, and no others: what is missing there, is here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apimachinery.errors import AlreadyExists, ApiError
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON
from apimachinery.resources import NAMESPACES, SERVICE_ACCOUNTS
from cloudhub import rbac
from cloudhub.apiclient import ApiClient
from cloudhub.vault import NAMESPACE
from componentbase.errors import CommandError
from componentbase.files import write_atomic
from demo import apply

TOKEN_S = 365 * 86_400
"""Longer than a demo runs; each start asks for another."""

TOKEN_REQUEST: Mapping[str, JSON] = {
    "apiVersion": "authentication.k8s.io/v1",
    "kind": "TokenRequest",
    "spec": {"expirationSeconds": TOKEN_S},
}

_RBAC = ("rbac.authorization.k8s.io", "v1")
KINDS: Mapping[str, Resource] = {
    "Namespace": NAMESPACES,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "ClusterRole": Resource(*_RBAC, "clusterroles", "ClusterRole", False),
    "ClusterRoleBinding": Resource(*_RBAC, "clusterrolebindings", "ClusterRoleBinding", False),
    "Role": Resource(*_RBAC, "roles", "Role", True),
    "RoleBinding": Resource(*_RBAC, "rolebindings", "RoleBinding", True),
}
"""What `cloudcore rbac` prints."""


async def make(client: ApiClient, admin: Path, target: Path) -> None:
    """
    Make the account and its rights, or bring them up to date, and write a kubeconfig with a token of it.

    admin: a kubeconfig of the same cluster, in JSON. Raises CommandError.
    """
    try:
        for value in apply.parse(rbac.text(rbac.Wanted())):
            await _apply(client, value)
        token = await _token(client)
    except ApiError as exc:
        raise CommandError(f"cloudcore's account cannot be made: {exc}") from exc
    _write(admin, target, token)


def as_user(config: Mapping[str, Any], name: str, token: str) -> dict[str, Any]:
    """A kubeconfig for the same cluster, for who has this token."""
    [cluster] = config["clusters"]
    context = {"name": name, "context": {"cluster": cluster["name"], "user": name}}
    users = [{"name": name, "user": {"token": token}}]
    return {**config, "users": users, "contexts": [context], "current-context": name}


def _write(admin: Path, target: Path, token: str) -> None:
    config: dict[str, Any] = json.loads(admin.read_text())  # as the embedded apiserver writes it
    write_atomic(target, json.dumps(as_user(config, rbac.ACCOUNT, token), indent=2).encode())


async def _apply(client: ApiClient, value: dict[str, JSON]) -> None:
    resource, metadata = KINDS[value["kind"]], value["metadata"]
    namespace = metadata.get("namespace", "")
    try:
        await client.create(resource, namespace, value)
    except AlreadyExists:
        await client.patch(ObjectKey(resource, namespace, metadata["name"]), value)


async def _token(client: ApiClient) -> str:
    key = ObjectKey(SERVICE_ACCOUNTS, NAMESPACE, rbac.ACCOUNT)
    answer = await client.create_below(key, "token", TOKEN_REQUEST)
    return str(answer["status"]["token"])
