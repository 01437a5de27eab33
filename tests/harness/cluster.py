"""The embedded apiserver within the test's process: storage, access control and API, without a socket."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from apimachinery.errors import ApiError
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON
from apiserver import bootstrap, escalation
from apiserver.access import guarding
from apiserver.admission import Admission
from apiserver.authentication import Authentication
from apiserver.authorizer import Authorizer
from apiserver.discovery import About
from apiserver.handlers import Api
from apiserver.messages import Request
from apiserver.reviews import Reviews
from apiserver.serviceaccounts import ISSUER, ServiceAccounts
from apiserver.storage import Storage
from apiserver.tokens import Signer
from apiserver.users import ADMIN, User, authenticated
from apiserver.writes import PlannedWrites, facts
from componentbase.pki import create_signing_key

ADMIN_TOKEN = "admin-token"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
SIGNING_KEY = create_signing_key()


class Cluster:
    """Requests in short: (method, path, body) to the decoded answer, as the admin or as whose token is given."""

    def __init__(self, storage: Storage, tokens: Mapping[str, User]) -> None:
        self.storage = storage
        self.accounts = ServiceAccounts(storage.view, Signer(SIGNING_KEY, ISSUER))
        self.authentication = Authentication({ADMIN_TOKEN: ADMIN, **tokens}, self.accounts, ISSUER)
        self.authorizer = Authorizer(storage)
        writes = PlannedWrites(
            storage,
            asked=Reviews(self.authorizer, self.authentication, self.accounts.issue),
            guard=lambda make, user: escalation.guarded(make, user, self.authorizer),
        )
        self._handler = guarding(Api(storage, writes, about=About("test", "0")), self.authentication, self.authorizer)

    async def __call__(
        self, method: str, target: str, body: JSON = None, *, token: str = ADMIN_TOKEN, **headers: str
    ) -> Any:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        media_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
        given |= {"authorization": f"Bearer {token}", "content-type": media_type}
        data = b"" if body is None else json.dumps(body).encode()
        return await self.ask(Request(method, target, given, data))

    async def ask(self, request: Request) -> Any:
        response = await self._handler(request)
        assert isinstance(response.body, bytes)
        return json.loads(response.body) if response.body.startswith(b"{") else response.body.decode()

    async def refused(self, method: str, target: str, body: JSON = None, **options: str) -> ApiError:
        try:
            answer = await self(method, target, body, **options)
        except ApiError as exc:
            return exc
        raise AssertionError(f"{method} {target} was answered: {answer}")

    async def bind(self, role: str, kind: str, name: str, namespace: str = "") -> None:
        """Bind a ClusterRole to one User or Group, everywhere or in a namespace."""
        place = f"{RBAC}/namespaces/{namespace}/rolebindings" if namespace else f"{RBAC}/clusterrolebindings"
        body = {
            "metadata": {"generateName": "b-"},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": kind, "name": name}],
        }
        await self("POST", place, body)


class ClusterObjects:
    """The requests that cloudhub.clustersigner makes, of a Cluster, as whose token it is."""

    def __init__(self, cluster: Cluster, token: str = ADMIN_TOKEN) -> None:
        self._cluster = cluster
        self._token = token

    async def get(self, key: ObjectKey) -> Mapping[str, JSON]:
        found: Mapping[str, JSON] = await self._cluster("GET", _path(key), token=self._token)
        return found

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, JSON]) -> Mapping[str, JSON]:
        made: Mapping[str, JSON] = await self._cluster("POST", resource.path(namespace), value, token=self._token)
        return made

    async def replace(self, key: ObjectKey, value: Mapping[str, JSON], subresource: str = "") -> Mapping[str, JSON]:
        made: Mapping[str, JSON] = await self._cluster("PUT", _path(key, subresource), value, token=self._token)
        return made


def _path(key: ObjectKey, subresource: str = "") -> str:
    return key.resource.path(key.namespace, key.name, subresource)


@contextlib.asynccontextmanager
async def cluster(directory: Path, *names: str, **users: User) -> AsyncIterator[Cluster]:
    """With the bootstrap roles, the namespaces d and e, and a token per name that is the name; more users by token."""
    async with Storage.open(f"sqlite:///{directory / 'a.db'}") as storage:
        made = Cluster(storage, {name: authenticated(name) for name in names} | users)
        await storage.commit(lambda view: bootstrap.plan(view, facts, Admission()))
        for name in ("d", "e"):
            await made("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        yield made
